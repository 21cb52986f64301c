/** The one map from a failure of a Volume to an NBD error value ("Error values" of the protocol document). */

import { VolumeError, type VolumeErrorCode } from '../model/errors.ts';
import { Errno } from '../nbd-server-protocol/constants.ts';

const ERRNO: Record<VolumeErrorCode, Errno> = {
  io: Errno.EIO,
  'no-space': Errno.ENOSPC,
  'read-only': Errno.EPERM,
  invalid: Errno.EINVAL,
  'not-supported': Errno.ENOTSUP,
  'too-big': Errno.EOVERFLOW,
  failed: Errno.EIO,
  shutdown: Errno.ESHUTDOWN,
};

/** Why a request failed, as it is told to the client. */
export interface Refusal {
  readonly errno: Errno;
  readonly text: string;
  /** Bytes from the start of the export, where the failure has a place. */
  readonly offset?: number;
}

/** Anything that is no VolumeError is our own mistake and is thrown on. */
export function refusalOf(error: unknown): Refusal {
  if (!(error instanceof VolumeError)) throw error;
  const refusal = { errno: ERRNO[error.code], text: error.message };
  return error.offset === undefined ? refusal : { ...refusal, offset: error.offset };
}
