/**
 * Sparse files with a known layout, and what the file system says about a file's layout. The questions are asked
 * through Python's os.lseek, not through the code under test.
 */

import { open } from 'node:fs/promises';
import { runOk } from './tools.ts';

export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly data: boolean;
}

const LIST_RUNS = `
import json, os, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
size = os.fstat(fd).st_size
runs, at = [], 0
while at < size:
    try:
        data = os.lseek(fd, at, os.SEEK_DATA)
    except OSError:
        data = size
    if data > at:
        runs.append({"offset": at, "length": data - at, "data": False})
    if data < size:
        at = os.lseek(fd, data, os.SEEK_HOLE)
        runs.append({"offset": data, "length": at - data, "data": True})
    else:
        at = size
print(json.dumps(runs))
`;

/** The runs of data and holes of a file, in order, as SEEK_DATA and SEEK_HOLE tell them. */
export async function layoutOf(path: string): Promise<Run[]> {
  const { stdout } = await runOk('/usr/bin/python3', ['-c', LIST_RUNS, path]);
  return JSON.parse(stdout) as Run[];
}

/** Bytes that differ at every place and from any other seed's, but are the same each time. */
export function pattern(length: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  let state = (seed * 2654435761) >>> 0 || 1;
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state >>>= 0;
    state ^= state >>> 17;
    state ^= state << 5;
    state >>>= 0;
    words[i] = state;
  }
  return Buffer.from(words.buffer, 0, length);
}

/** Makes a sparse file of `sizeBytes` with patterned data in the given places and holes elsewhere. */
export async function makeSparse(
  path: string,
  sizeBytes: number,
  data: readonly { readonly offset: number; readonly length: number }[],
): Promise<void> {
  const file = await open(path, 'w');
  try {
    await file.truncate(sizeBytes);
    for (const { offset, length } of data) await file.write(pattern(length, offset + 1), 0, length, offset);
    await file.sync(); // delayed allocation must not show as something else later
  } finally {
    await file.close();
  }
}

/** Fails, naming the first difference, unless both files have the same bytes. */
export async function sameContent(a: string, b: string): Promise<void> {
  await runOk('cmp', [a, b]);
}
