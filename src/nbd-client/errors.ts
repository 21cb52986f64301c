/** The one map from what an NBD server says to a VolumeError. */

import { VolumeError, type VolumeErrorCode } from '../model/errors.ts';
import { Errno, errnoName } from '../nbd-server-protocol/constants.ts';
import { ProtocolError, type ProtocolErrorCode } from '../nbd-server-protocol/errors.ts';

/** Without ESHUTDOWN: a server that says so is leaving, and its connection counts as lost (link.ts). */
const CODE_OF_ERRNO: Record<Errno, VolumeErrorCode> = {
  [Errno.none]: 'io',
  [Errno.EPERM]: 'read-only',
  [Errno.EIO]: 'io',
  [Errno.ENOMEM]: 'io',
  [Errno.EINVAL]: 'invalid',
  [Errno.ENOSPC]: 'no-space',
  [Errno.EOVERFLOW]: 'too-big',
  [Errno.ENOTSUP]: 'not-supported',
  [Errno.ESHUTDOWN]: 'shutdown',
};

const CODE_OF_PROTOCOL_ERROR: Record<ProtocolErrorCode, VolumeErrorCode> = {
  'bad-magic': 'io',
  'bad-message': 'io',
  'too-big': 'io',
  closed: 'io',
  shutdown: 'shutdown',
  unsupported: 'not-supported',
  'tls-required': 'not-supported',
  refused: 'invalid',
  'unknown-export': 'invalid',
};

/** A server does not give the export, or not any more. */
export interface RemoteRefusal {
  readonly code:
    | 'unknown' //   it has no such export
    | 'refused' //   it has, perhaps, and does not give it
    | 'shutdown'; // it is leaving, or the export is leaving it
  readonly message: string;
}

const REFUSAL_OF_PROTOCOL_ERROR: Partial<Record<ProtocolErrorCode, RemoteRefusal['code']>> = {
  'unknown-export': 'unknown',
  refused: 'refused',
  shutdown: 'shutdown',
};

/** What a connection was lost with, or not got, as a refusal; undefined: it is none. */
export function refusalOf(error: Error): RemoteRefusal | undefined {
  const origin = error instanceof VolumeError ? error.cause : error;
  if (!(origin instanceof ProtocolError)) return undefined;
  const code = REFUSAL_OF_PROTOCOL_ERROR[origin.code];
  return code === undefined ? undefined : { code, message: error.message };
}

/** A request was answered with an error. */
export function errorOfReply(errno: Errno, text: string, offset: number | undefined): VolumeError {
  const message = text === '' ? `the server answered ${errnoName(errno)}` : `the server says: ${text}`;
  return new VolumeError(CODE_OF_ERRNO[errno], message, offset === undefined ? {} : { offset });
}

/** The handshake came to nothing; `server` is how the server is called in messages. */
export function errorOfHandshake(server: string, error: ProtocolError): VolumeError {
  const code = CODE_OF_PROTOCOL_ERROR[error.code];
  return new VolumeError(code, `${server}: ${error.message}`, { cause: error });
}
