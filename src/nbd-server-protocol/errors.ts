/**
 * What goes wrong between two sides of the protocol. `code` is for programs, the message for people.
 */

export type ProtocolErrorCode =
  | 'bad-magic' //   a message does not start as it must: the connection cannot be kept in step
  | 'bad-message' // a message breaks a rule that the protocol document makes mandatory
  | 'too-big' //     a length beyond what either side may claim
  | 'refused' //     the server refused an option that the client cannot do without
  | 'unknown-export' // the server has no such export
  | 'shutdown'; //   the server is being shut down

/** The peer broke the protocol, or refused what we need. */
export class ProtocolError extends Error {
  readonly code: ProtocolErrorCode;
  constructor(code: ProtocolErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = 'ProtocolError';
    this.code = code;
  }
}
