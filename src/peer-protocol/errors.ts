/** Why a link ends, or was never there. `code` is for programs, the message for people. */

import { VolaryError } from '../model/errors.ts';

export type PeerErrorCode =
  | 'bad-magic' //    a frame does not start as it must
  | 'bad-checksum' // a frame is not what was sent
  | 'bad-message' //  a frame breaks a rule of the protocol
  | 'too-big' //      a length beyond what either side may claim
  | 'version' //      a version of the protocol that is not spoken here
  | 'overrun' //      more than was granted, or than this side wants to keep for a peer that takes nothing
  | 'unreachable' //  no connection came about
  | 'silent' //       the handshake took too long
  | 'closed' //       the peer closed the connection
  | 'lost' //         the connection failed
  | 'ended'; //       this side closed it

/**
 * Invariant: whatever bytes a peer sends, nothing but a PeerError comes of it, and only its own link ends.
 */
export class PeerError extends VolaryError {
  readonly code: PeerErrorCode;
  constructor(code: PeerErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}
