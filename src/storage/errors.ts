/** From the errno of a system call to the VolumeError that tells the user of a Volume about it. */

import { constants } from 'node:os';
import { getSystemErrorName } from 'node:util';
import { VolumeError, type VolumeErrorCode } from '../model/errors.ts';

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
