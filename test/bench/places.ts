/**
 * Where the servers' files lie, and the files themselves. Everything made here is gone when the process ends,
 * also when it is interrupted: a forgotten GiB of /dev/shm is a GiB of memory.
 */

import { mkdtempSync, rmSync } from 'node:fs';
import { open, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runOk } from '../support/tools.ts';

export const placeNames = ['shm', 'disk'] as const;
export type PlaceName = (typeof placeNames)[number];

const parents: Readonly<Record<PlaceName, string>> = { shm: '/dev/shm', disk: tmpdir() };

const folders = new Set<string>();
process.on('exit', () => {
  for (const folder of folders) rmSync(folder, { recursive: true, force: true });
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => process.exit(1));
}

export interface Folder {
  readonly path: string;
  file(name: string): string;
  remove(): void;
}

export function newFolder(place: PlaceName): Folder {
  const path = mkdtempSync(join(parents[place], 'volary-bench-'));
  folders.add(path);
  return {
    path,
    file: (name) => join(path, name),
    remove: () => {
      rmSync(path, { recursive: true, force: true });
      folders.delete(path);
    },
  };
}

const pieceBytes = 4 * 2 ** 20;

/** A piece of bytes that compress badly, the same in every call: all files made from it are equal. */
function piece(): Buffer {
  const words = new Uint32Array(pieceBytes / 4);
  let state = 0x9e3779b9;
  for (let index = 0; index < words.length; index += 1) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[index] = state;
  }
  return Buffer.from(words.buffer);
}

/** A file without holes, on the disk when this resolves, and (as far as memory goes) in the page cache. */
export async function makeFullFile(path: string, sizeBytes: number): Promise<void> {
  const bytes = piece();
  const file = await open(path, 'w');
  try {
    for (let offset = 0; offset < sizeBytes; offset += bytes.length) {
      await file.write(bytes, 0, Math.min(bytes.length, sizeBytes - offset), offset);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

/** A file that is one hole. */
export async function makeSparseFile(path: string, sizeBytes: number): Promise<void> {
  await writeFile(path, '');
  await truncate(path, sizeBytes);
}

export async function allocatedBytes(path: string): Promise<number> {
  return (await stat(path)).blocks * 512;
}

/** Writes back what is dirty, so that no job pays for the one before it. */
export async function settle(path: string): Promise<void> {
  const file = await open(path, 'r');
  try {
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Drops the whole file from the page cache (clean pages only: settle first). */
export async function dropFromPageCache(path: string): Promise<void> {
  await runOk('dd', [`if=${path}`, 'iflag=nocache', 'count=0', 'status=none']);
}
