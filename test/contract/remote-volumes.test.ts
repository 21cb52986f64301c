/** The contract, for a RemoteVolume in front of an NBD server, with every header style. */

import { tmpdir } from 'node:os';
import type { Capabilities, Volume } from '../../src/model/volume.ts';
import { DelayVolume, seededDelays } from '../support/volumes/delay-volume.ts';
import { FaultVolume } from '../support/volumes/fault-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import { remoteVolumeOf } from './remote-volume-subject.ts';
import { sparseFile } from './sparse-file-subject.ts';
import { volumeContract } from './volume-contract.ts';

for (const headerStyle of ['simple', 'structured', 'extended'] as const) {
  volumeContract(`RemoteVolume of a SparseFile, ${headerStyle} headers`, {
    make: async (contents) => {
      const file = await sparseFile(tmpdir(), contents, false);
      const remote = await remoteVolumeOf(file.volume, { headerStyle });
      const dispose = async () => {
        await remote.dispose();
        await file.dispose();
      };
      return { volume: remote.volume, dispose };
    },
  });
  const faults = new WeakMap<Volume, FaultVolume>();
  volumeContract(`RemoteVolume of a FaultVolume, ${headerStyle} headers`, {
    make: async (contents) => {
      const inner = new FaultVolume(new MemoryVolume(contents));
      const subject = await remoteVolumeOf(inner, { headerStyle });
      faults.set(subject.volume, inner);
      return subject;
    },
    failNextFlush: (volume) => faults.get(volume)?.inject({ operation: 'flush', code: 'io' }),
  });
}

class FixedSizeVolume extends DelayVolume {
  override get capabilities(): Capabilities {
    return { ...super.capabilities, resize: false };
  }
}

volumeContract('RemoteVolume of a DelayVolume, with four connections', {
  make: (contents) =>
    remoteVolumeOf(new FixedSizeVolume(new MemoryVolume(contents), seededDelays(3, 2)), { connections: 4 }),
});
volumeContract('RemoteVolume of a read-only SparseFile', {
  readOnly: true,
  make: async (contents) => {
    const file = await sparseFile(tmpdir(), contents, true);
    const remote = await remoteVolumeOf(file.volume);
    const dispose = async () => {
      await remote.dispose();
      await file.dispose();
    };
    return { volume: remote.volume, dispose };
  },
});
volumeContract('RemoteVolume of a RemoteVolume', {
  make: async (contents) => {
    const near = await remoteVolumeOf(new MemoryVolume(contents));
    const far = await remoteVolumeOf(near.volume, { headerStyle: 'structured' });
    const dispose = async () => {
      await far.dispose();
      await near.dispose();
    };
    return { volume: far.volume, dispose };
  },
});
