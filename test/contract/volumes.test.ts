/** The contract, run for every Volume there is. */

import { tmpdir } from 'node:os';
import type { Volume } from '../../src/model/volume.ts';
import { DelayVolume, seededDelays } from '../support/volumes/delay-volume.ts';
import { FaultVolume } from '../support/volumes/fault-volume.ts';
import { LogVolume } from '../support/volumes/log-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import { sparseFile } from './sparse-file-subject.ts';
import { type Subject, volumeContract } from './volume-contract.ts';

function wrapped(wrap: (inner: Volume) => Volume): (contents: Buffer) => Promise<Subject> {
  return async (contents) => {
    const volume = wrap(new MemoryVolume(contents));
    return { volume, dispose: () => volume.close() };
  };
}

volumeContract('SparseFile in memory', { make: (contents) => sparseFile('/dev/shm', contents, false) });
volumeContract('SparseFile on disk', { make: (contents) => sparseFile(tmpdir(), contents, false) });
volumeContract('SparseFile, read-only, in memory', {
  readOnly: true,
  make: (contents) => sparseFile('/dev/shm', contents, true),
});
volumeContract('SparseFile, read-only, on disk', {
  readOnly: true,
  make: (contents) => sparseFile(tmpdir(), contents, true),
});
volumeContract('MemoryVolume', { make: wrapped((inner) => inner) });
volumeContract('LogVolume', { make: wrapped((inner) => new LogVolume(inner)) });
volumeContract('DelayVolume', { make: wrapped((inner) => new DelayVolume(inner, seededDelays(1, 2))) });
volumeContract('DelayVolume before a SparseFile', {
  make: async (contents) => {
    const inner = await sparseFile(tmpdir(), contents, false);
    const volume = new DelayVolume(inner.volume, seededDelays(2, 2));
    const dispose = async () => {
      await volume.close();
      await inner.dispose();
    };
    return { volume, dispose };
  },
});
volumeContract('FaultVolume', {
  make: wrapped((inner) => new FaultVolume(inner)),
  failNextFlush: (volume) => (volume as FaultVolume).inject({ operation: 'flush', code: 'io' }),
});
