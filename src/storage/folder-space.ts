/** Folders and the files in them, as a storage system needs them beside its volumes: made and removed durably. */

import { closeSync, constants, fsync, openSync, statfsSync } from 'node:fs';
import { mkdir, readdir, unlink } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { promisify } from 'node:util';
import { folderErrorOf, storeErrorOf } from './errors.ts';

const FOLDER_MODE = 0o700;

const fsyncOnPool = promisify(fsync);

export interface FolderSpace {
  readonly totalBytes: number;
  /** What this process may still fill: without what is reserved for the superuser. */
  readonly freeBytes: number;
}

/** Of the file system that the folder is on. Throws StoreError. */
export function folderSpace(path: string): FolderSpace {
  try {
    const { bsize, blocks, bavail } = statfsSync(path);
    return { totalBytes: bsize * blocks, freeBytes: bsize * bavail };
  } catch (error) {
    throw storeErrorOf(error, `find the free space of ${path}`);
  }
}

/** Makes the folder, and those above it, when missing, for this user alone and durably. Throws UsageError. */
export async function prepareFolder(path: string): Promise<void> {
  try {
    const first = await mkdir(path, { recursive: true, mode: FOLDER_MODE });
    if (first === undefined) return;
    const top = dirname(resolve(first));
    for (let folder = dirname(resolve(path)); ; folder = dirname(folder)) {
      await syncFolder(folder);
      if (folder === top) return;
    }
  } catch (error) {
    throw folderErrorOf(error, path);
  }
}

/** Removes the file durably; one that is not there is removed already. Throws StoreError. */
export async function removeFile(path: string): Promise<void> {
  try {
    await unlink(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw storeErrorOf(error, `remove ${path}`);
  }
  try {
    await syncFolder(dirname(path)); // also when it was not there: an earlier removal may not be durable yet
  } catch (error) {
    throw storeErrorOf(error, `remove ${path}`);
  }
}

/** The names of the regular files in the folder, sorted. Throws StoreError. */
export async function listFiles(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries
      .filter((entry) => entry.isFile())
      .map(({ name }) => name)
      .sort();
  } catch (error) {
    throw storeErrorOf(error, `list the files of ${folder}`);
  }
}

/** Makes durable which files a folder has. */
export async function syncFolder(path: string): Promise<void> {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    await fsyncOnPool(fd);
  } finally {
    closeSync(fd);
  }
}
