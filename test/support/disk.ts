/** Folders on real file systems of a known kind, and files that are not in the page cache. */

import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { requireTool, runOk } from './tools.ts';

const TMPFS_MAGIC = 0x01021994;

export interface Folder {
  readonly path: string;
  remove(): Promise<void>;
}

/** A new folder on a disk: what is tested there is how a volume waits for one. */
export function diskFolder(): Folder {
  if (statfsSync(tmpdir()).type === TMPFS_MAGIC) {
    throw new Error(`${tmpdir()} is in memory: set TMPDIR to a folder on a disk for this test`);
  }
  return folderIn(tmpdir());
}

/** A new folder in memory. */
export function memoryFolder(): Folder {
  return folderIn('/dev/shm');
}

function folderIn(parent: string): Folder {
  const path = mkdtempSync(join(parent, 'volary-test-'));
  return { path, remove: async () => rmSync(path, { recursive: true }) };
}

export interface Mount extends Folder {
  /** Mounts it again with these options, such as `ro`. */
  remount(options: string): Promise<void>;
}

/** A file system of its own in memory, with the options of `mount -t tmpfs`. Needs root, as all mounts do. */
export function mountTmpfs(options: string): Promise<Mount> {
  return mountIn(folderIn(tmpdir()), 'tmpfs', options);
}

/** A file system that knows no fallocate at all: no holes, no zeroing, no allocating. */
export function mountRamfs(): Promise<Mount> {
  return mountIn(folderIn(tmpdir()), 'ramfs', 'mode=0700');
}

/** A file system over a disk that refuses RWF_NOWAIT; what containers have when they mount no volume. */
export function mountOverlay(): Promise<Mount> {
  const folder = diskFolder();
  const [lower, upper, work] = ['lower', 'upper', 'work'].map((name) => join(folder.path, name));
  for (const path of [lower, upper, work]) mkdirSync(path as string);
  return mountIn(folder, 'overlay', `lowerdir=${lower},upperdir=${upper},workdir=${work}`);
}

async function mountIn(folder: Folder, type: string, options: string): Promise<Mount> {
  const mount = requireTool('mount', 'mount');
  const umount = requireTool('umount', 'mount');
  const path = join(folder.path, 'mounted');
  mkdirSync(path);
  await runOk(mount, ['-t', type, '-o', options, type, path]);
  return {
    path,
    remount: async (changed) => {
      await runOk(mount, ['-o', `remount,${changed}`, path]);
    },
    remove: async () => {
      await runOk(umount, [path]);
      await folder.remove();
    },
  };
}

/** Writes the file back and takes it out of the page cache (dd's nocache is POSIX_FADV_DONTNEED). */
export async function dropFromPageCache(path: string): Promise<void> {
  await runOk(requireTool('sync', 'coreutils'), [path]);
  await runOk(requireTool('dd', 'coreutils'), [`if=${path}`, 'iflag=nocache', 'count=0']);
}
