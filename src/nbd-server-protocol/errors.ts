/**
 * What goes wrong between two sides of the protocol. `code` is for programs, the message for people.
 * Invariant: whatever bytes a peer sends, nothing but a ProtocolError comes of it; any other exception out of
 * this package is a mistake of the program that uses it.
 */

export type ProtocolErrorCode =
  | 'bad-magic' //      a message does not start as it must: the connection cannot be kept in step
  | 'bad-message' //    a message breaks a rule that the protocol document makes mandatory
  | 'too-big' //        a length beyond what either side may claim
  | 'unsupported' //    right by the document, but not spoken by this side
  | 'refused' //        the server refused an option that the client cannot do without
  | 'unknown-export' // the server has no such export
  | 'tls-required' //   the server wants TLS first
  | 'shutdown' //       the server is being shut down
  | 'closed'; //        the connection ended in the middle

/** The peer broke the protocol, or refused what we need. */
export class ProtocolError extends Error {
  readonly code: ProtocolErrorCode;
  constructor(code: ProtocolErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ProtocolError';
    this.code = code;
  }
}

/** A mistake in the program that uses this package. */
export function requireThat(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`nbd-server-protocol: ${message}`);
}
