/** The contract, for concatenations of different volumes: files, and exports of NBD servers. */

import { tmpdir } from 'node:os';
import { Concatenation } from '../../src/gateway/concatenation.ts';
import type { Volume } from '../../src/model/volume.ts';
import { FaultVolume } from '../support/volumes/fault-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import { remoteVolumeOf } from './remote-volume-subject.ts';
import { sparseFile } from './sparse-file-subject.ts';
import { type Subject, volumeContract } from './volume-contract.ts';

type Make = (contents: Buffer) => Promise<Subject>;

/** Cuts the contents at the borders, puts each piece at `gap` bytes into a volume of its own, and these together. */
async function concatenationOf(
  contents: Buffer,
  pieces: readonly (readonly [border: number, make: Make])[],
  gap = 0,
): Promise<Subject & { readonly parts: readonly Volume[] }> {
  const subjects: Subject[] = [];
  const segments = [];
  let offset = 0;
  for (const [border, make] of pieces) {
    const end = Math.min(border, contents.length);
    const bytes = Buffer.concat([Buffer.alloc(gap, 0xee), contents.subarray(offset, end)]);
    const subject = await make(bytes);
    subjects.push(subject);
    segments.push({ offset, length: end - offset, volume: subject.volume, volumeOffset: gap });
    offset = end;
  }
  const volume = new Concatenation(segments);
  const dispose = async (): Promise<void> => {
    await volume.close();
    for (const subject of subjects) await subject.dispose();
  };
  return { volume, dispose, parts: subjects.map((subject) => subject.volume) };
}

const END = Number.POSITIVE_INFINITY;
const file: Make = (contents) => sparseFile(tmpdir(), contents, false);
const readOnlyFile: Make = (contents) => sparseFile(tmpdir(), contents, true);
const remote: Make = async (contents) => {
  const inner = await file(contents);
  const outer = await remoteVolumeOf(inner.volume);
  const dispose = async (): Promise<void> => {
    await outer.dispose();
    await inner.dispose();
  };
  return { volume: outer.volume, dispose };
};

volumeContract('a Concatenation of one SparseFile', {
  make: (contents) => concatenationOf(contents, [[END, file]]),
});
volumeContract('a Concatenation of a SparseFile and RemoteVolumes', {
  make: (contents) =>
    concatenationOf(contents, [
      [4096, remote],
      [20_480, file],
      [24_576, remote],
      [END, remote],
    ]),
});
volumeContract('a Concatenation of ranges inside volumes', {
  make: (contents) =>
    concatenationOf(
      contents,
      [
        [8192, remote],
        [END, file],
      ],
      4096,
    ),
});
volumeContract('a Concatenation of read-only SparseFiles', {
  readOnly: true,
  make: (contents) =>
    concatenationOf(contents, [
      [12_288, readOnlyFile],
      [END, readOnlyFile],
    ]),
});

const faults = new WeakMap<Volume, FaultVolume>();
const faulty: Make = async (contents) => {
  const volume = new FaultVolume(new MemoryVolume(contents));
  return { volume, dispose: () => volume.close() };
};
const remoteFaulty: Make = async (contents) => {
  const inner = new FaultVolume(new MemoryVolume(contents));
  const subject = await remoteVolumeOf(inner);
  faults.set(subject.volume, inner);
  return subject;
};
volumeContract('a Concatenation whose last volume fails a flush', {
  make: async (contents) => {
    const subject = await concatenationOf(contents, [
      [32_768, faulty],
      [END, remoteFaulty],
    ]);
    const inner = faults.get(subject.parts[1] as Volume);
    if (inner !== undefined) faults.set(subject.volume, inner);
    return subject;
  },
  failNextFlush: (volume) => faults.get(volume)?.inject({ operation: 'flush', code: 'io' }),
});
