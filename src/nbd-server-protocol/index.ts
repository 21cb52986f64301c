/**
 * The public surface of the package: the NBD protocol as values and state machines, for servers and clients,
 * without sockets. README.md tells how to drive the machines.
 */

export * from './constants.ts';
export { ProtocolError, type ProtocolErrorCode } from './errors.ts';
export { blockSizesProblem } from './option-codec.ts';
export { ReplyEncoder, type StatusDescriptor } from './reply-encoder.ts';
export { type Request, RequestDecoder, type RequestSink, type RequestTag } from './request-decoder.ts';
export { type CloseCode, ServerHandshake, type ServerStep } from './server-handshake.ts';
export type {
  ExportBlockSizes,
  ExportEntry,
  ExportInfo,
  NegotiatedSession,
  SelectedContext,
} from './session.ts';
export { isProtocolString } from './strings.ts';
