/** The contract, run for every Volume there is. */

import { tmpdir } from 'node:os';
import type { Volume } from '../../src/model/volume.ts';
import { EpochDoor } from '../../src/storage-system/epoch-door.ts';
import { DelayVolume, seededDelays } from '../support/volumes/delay-volume.ts';
import { FaultVolume } from '../support/volumes/fault-volume.ts';
import { LogVolume } from '../support/volumes/log-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import { sparseFile } from './sparse-file-subject.ts';
import { type Subject, volumeContract } from './volume-contract.ts';

const doorsBefore = new WeakMap<Volume, FaultVolume>();

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
/** A door to a file that is in memory, or on a disk. */
async function epochDoor(parent: string, contents: Buffer, readOnly: boolean): Promise<Subject> {
  const inner = await sparseFile(parent, contents, false);
  const { sizeBytes, blockSizes, capabilities } = inner.volume;
  const file = { volume: inner.volume, open: async () => inner.volume };
  const volume = new EpochDoor({ file, sizeBytes, blockSizes, capabilities, readOnly });
  const dispose = async () => {
    await volume.close();
    await inner.dispose();
  };
  return { volume, dispose };
}

volumeContract('EpochDoor', { make: (contents) => epochDoor('/dev/shm', contents, false) });
volumeContract('EpochDoor on disk', { make: (contents) => epochDoor(tmpdir(), contents, false) });
volumeContract('EpochDoor, for looking', {
  readOnly: true,
  make: (contents) => epochDoor('/dev/shm', contents, true),
});
volumeContract('EpochDoor before a FaultVolume', {
  make: async (contents) => {
    const inner = new FaultVolume(new MemoryVolume(contents));
    const { sizeBytes, blockSizes, capabilities } = inner;
    const file = { volume: inner, open: async () => inner };
    const volume = new EpochDoor({ file, sizeBytes, blockSizes, capabilities });
    doorsBefore.set(volume, inner);
    return { volume, dispose: () => volume.close() };
  },
  failNextFlush: (volume) => doorsBefore.get(volume)?.inject({ operation: 'flush', code: 'io' }),
});
volumeContract('FaultVolume', {
  make: wrapped((inner) => new FaultVolume(inner)),
  failNextFlush: (volume) => (volume as FaultVolume).inject({ operation: 'flush', code: 'io' }),
});
