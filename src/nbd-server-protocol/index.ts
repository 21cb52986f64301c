/**
 * The public surface of the package: the NBD protocol as values and state machines, for servers and clients,
 * without sockets. README.md tells how to drive the machines.
 */

export { ClientHandshake, type ClientStep } from './client-handshake.ts';
export * from './constants.ts';
export { ProtocolError, type ProtocolErrorCode } from './errors.ts';
export { blockSizesProblem } from './option-codec.ts';
export { PendingRequest, type PendingRequestOptions } from './pending-request.ts';
export { CARRY_BYTES, ReceiveArea } from './receive-area.ts';
export { REPLY_WHOLE_BYTES, ReplyDecoder, type ReplySink } from './reply-decoder.ts';
export { ReplyEncoder, type StatusDescriptor } from './reply-encoder.ts';
export { type Request, RequestDecoder, type RequestSink, type RequestTag } from './request-decoder.ts';
export { RequestEncoder, type RequestHeader } from './request-encoder.ts';
export { type CloseCode, type ExportRefusal, ServerHandshake, type ServerStep } from './server-handshake.ts';
export {
  type ClientGoal,
  type ClientSession,
  type ConnectGoal,
  DEFAULT_BLOCK_SIZES,
  type ExportBlockSizes,
  type ExportEntry,
  type ExportInfo,
  type NegotiatedSession,
  type SelectedContext,
} from './session.ts';
export { isProtocolString } from './strings.ts';
