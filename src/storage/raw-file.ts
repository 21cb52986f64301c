/** What can be told of a raw file without keeping it open. */

import { constants, type Stats } from 'node:fs';
import { access, open, stat } from 'node:fs/promises';
import { getSystemErrorName } from 'node:util';
import { dontNeedAsync } from '../base/syscalls.ts';
import { VolumeError } from '../model/errors.ts';
import { negativeErrnoOf, volumeErrorOf } from './errors.ts';

const SECTOR_BYTES = 512; // in which stat counts, whatever the device has

export type RawFileLook =
  | { readonly kind: 'missing' }
  /** Not a regular file, or not to be read and written by this process. */
  | { readonly kind: 'unusable'; readonly reason: string }
  | {
      readonly kind: 'usable';
      readonly sizeBytes: number;
      /** What it takes in the file system; 0: nothing has ever been written to it. */
      readonly allocatedBytes: number;
    };

/** Never fails: what cannot even be looked at is unusable. */
export async function lookAtRawFile(path: string): Promise<RawFileLook> {
  try {
    const stats: Stats = await stat(path);
    if (!stats.isFile()) return { kind: 'unusable', reason: 'there is something else in place of its file' };
    await access(path, constants.R_OK | constants.W_OK);
    return { kind: 'usable', sizeBytes: stats.size, allocatedBytes: stats.blocks * SECTOR_BYTES };
  } catch (error) {
    const errno = negativeErrnoOf(error as NodeJS.ErrnoException);
    const name = getSystemErrorName(errno);
    if (name === 'ENOENT') return { kind: 'missing' };
    return { kind: 'unusable', reason: `its file cannot be used (${name})` };
  }
}

/**
 * Has the file read from its disk from now on: after a failed fdatasync memory may hold, as clean, what never got there, for as long
 * as nobody else needs the room. @throws VolumeError when the disk still fails
 */
export async function rereadFromDisk(path: string): Promise<void> {
  const attempt = 'bring its file to the disk';
  try {
    const file = await open(path, 'r+');
    try {
      await file.datasync();
      const result = await dontNeedAsync(file.fd);
      if (result < 0) throw volumeErrorOf(result, attempt);
    } finally {
      await file.close();
    }
  } catch (error) {
    if (error instanceof VolumeError) throw error;
    throw volumeErrorOf(negativeErrnoOf(error as NodeJS.ErrnoException), attempt);
  }
}
