/** From the errno of a system call to the error that tells the user of a Volume, or of a data folder, about it. */

import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import {
  StoreError,
  UsageError,
  type UsageErrorCode,
  VolaryError,
  VolumeError,
  type VolumeErrorCode,
} from '../model/errors.ts';

const { EACCES, EDQUOT, EFBIG, ENOSPC, EPERM, EROFS } = constants.errno;

const codes = new Map<number, VolumeErrorCode>([
  [ENOSPC, 'no-space'],
  [EDQUOT, 'no-space'],
  [EFBIG, 'no-space'],
  [EROFS, 'read-only'],
  [EPERM, 'read-only'],
  [EACCES, 'read-only'],
]);

/** `negativeErrno` as base/syscalls.ts returns it; `attempt` completes "cannot …". */
export function volumeErrorOf(negativeErrno: number, attempt: string, offset?: number): VolumeError {
  const code = codes.get(-negativeErrno) ?? 'io';
  const options = offset === undefined ? {} : { offset };
  return new VolumeError(code, `cannot ${attempt}: ${getSystemErrorName(negativeErrno)}`, options);
}

/** The negative errno of an error that node:fs gave. */
export function negativeErrnoOf(error: NodeJS.ErrnoException): number {
  if (error.errno === undefined) throw error; // not the kernel's answer: our own mistake
  return error.errno;
}

/** Whatever went wrong with a kept file; `attempt` completes "cannot …". */
export function storeErrorOf(cause: unknown, attempt: string): VolaryError {
  if (cause instanceof VolaryError) return cause;
  const errno = negativeErrnoOf(cause as NodeJS.ErrnoException);
  const name = getSystemErrorName(errno);
  if (codes.get(-errno) === 'no-space') {
    return new StoreError('no-space', `cannot ${attempt} (${name}): free some space`, { cause });
  }
  return new StoreError('io', `cannot ${attempt} (${name}): look into the disk first`, { cause });
}

/** The same for what base/syscalls.ts returned; 0 is a disk that takes nothing and says nothing. */
export function storeErrorOfErrno(negativeErrno: number, attempt: string): StoreError {
  const name = negativeErrno === 0 ? 'nothing written' : getSystemErrorName(negativeErrno);
  if (codes.get(-negativeErrno) === 'no-space') {
    return new StoreError('no-space', `cannot ${attempt} (${name}): free some space`);
  }
  return new StoreError('io', `cannot ${attempt} (${name}): look into the disk first`);
}

const explanations: Record<string, [UsageErrorCode, (path: string) => string]> = {
  ENOENT: ['not-found', (path) => `${path} leads through a link to nowhere: correct the path`],
  ENOTDIR: ['not-found', (path) => `${path} leads through something that is no folder: correct the path`],
  ELOOP: ['not-found', (path) => `${path} leads through a symbolic link: give the folder itself`],
  ENAMETOOLONG: ['not-found', (path) => `${path} is too long for a path: give a shorter one`],
  EEXIST: ['wrong-data-folder', (path) => `${path} is no folder: give another path`],
  EISDIR: ['not-a-file', (path) => `${path} is a folder where a file belongs: take it away`],
  EACCES: ['permission-denied', (path) => `no permission to use ${path}: change its mode, or its owner`],
  EPERM: ['permission-denied', (path) => `${path} may not be changed: take its immutable attribute away`],
  EROFS: ['read-only-filesystem', (path) => `${path} is on a read-only file system: use another disk`],
  ENOSPC: ['no-space', (path) => `there is no space left for ${path}: free some, or use another disk`],
  EDQUOT: ['no-space', (path) => `the quota leaves no space for ${path}: free some, or raise it`],
};

/** A data folder, or a file in it, cannot be opened or made. */
export function folderErrorOf(cause: unknown, path: string): VolaryError {
  if (cause instanceof StoreError && cause.cause !== undefined) return folderErrorOf(cause.cause, path);
  if (cause instanceof VolaryError) return cause;
  const { code, message } = cause as NodeJS.ErrnoException;
  if (code === undefined) throw cause; // not the kernel's answer: our own mistake
  const [usage, sentence] = explanations[code] ?? ['io', () => `${path}: ${message}: look into that first`];
  return new UsageError(usage, sentence(path), { cause });
}
