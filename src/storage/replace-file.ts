/**
 * Small files that are replaced as a whole: identities, and what a gateway has to know when nobody can be asked.
 *
 * Invariants
 * 1. Under its name the file is always whole: the old bytes or the new ones, after kill -9 and power loss, too.
 *    The new bytes are durable under the second name `….new` before they get the first one.
 * 2. When replaceFile has returned, the new bytes are what is there after a power loss. When it has thrown, either
 *    may be.
 * 3. A `….new` that a crash has left is nothing: it is written over by the next, and never read.
 */

import { constants, type Stats } from 'node:fs';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { assert, UsageError } from '../model/errors.ts';
import { storeErrorOf } from './errors.ts';
import { syncFolder } from './folder-space.ts';

export const NEW_SUFFIX = '.new';

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_TRUNC, O_WRONLY } = constants;

const underWay = new Set<string>();

/** One at a time for one path: the second name is shared. Throws StoreError; the old bytes are then still there. */
export async function replaceFile(path: string, bytes: Uint8Array): Promise<void> {
  const target = resolve(path);
  assert(!underWay.has(target), `${target} is replaced twice at a time`);
  underWay.add(target);
  try {
    await replace(target, bytes);
  } catch (error) {
    throw storeErrorOf(error, `write ${path}`);
  } finally {
    underWay.delete(target);
  }
}

async function replace(target: string, bytes: Uint8Array): Promise<void> {
  const source = `${target}${NEW_SUFFIX}`;
  try {
    const file = await open(source, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600);
    try {
      await file.writeFile(bytes);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(source, target);
  } catch (error) {
    await rm(source, { force: true }); // a full disk wants its space back
    throw error;
  }
  await syncFolder(dirname(target));
}

/** All of the file, or undefined when there is none. Throws UsageError for more than `bytesMax`, or StoreError. */
export async function readWholeFile(path: string, bytesMax: number): Promise<Buffer | undefined> {
  let file: FileHandle | undefined;
  try {
    file = await open(path, O_RDONLY | O_NONBLOCK); // no waiting for a pipe's writer
    return await readAll(file, path, bytesMax);
  } catch (error) {
    if (file === undefined && (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storeErrorOf(error, `read ${path}`);
  } finally {
    await file?.close();
  }
}

async function readAll(file: FileHandle, path: string, bytesMax: number): Promise<Buffer> {
  const stats: Stats = await file.stat();
  if (!stats.isFile()) {
    throw new UsageError('not-a-file', `${path} is no regular file: take it away`);
  }
  if (stats.size > bytesMax) {
    const text = `${path} has ${stats.size} bytes and never had more than ${bytesMax}: put it back from a backup`;
    throw new UsageError('corrupt-metadata', text);
  }
  const bytes = Buffer.alloc(stats.size);
  let length = 0;
  while (length < bytes.length) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length, length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return bytes.subarray(0, length);
}
