/** What can be told of a raw file without keeping it open. */

import { constants, type Stats } from 'node:fs';
import { access, stat } from 'node:fs/promises';
import { getSystemErrorName } from 'node:util';
import { negativeErrnoOf } from './errors.ts';

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
