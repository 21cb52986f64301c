/**
 * Every number of the NBD protocol that this package knows, under the names of the protocol document
 * (doc/proto.md of NetworkBlockDevice/nbd, with its extension-ext-header and extension-resize branches),
 * less the NBD_ prefix. README.md of this folder says which are served, and since when they exist.
 */

export const INIT_PASSWD = 0x4e42444d41474943n; // "NBDMAGIC"
export const OLDSTYLE_MAGIC = 0x00420281861253n; // in place of IHAVEOPT: not spoken here
export const IHAVEOPT = 0x49484156454f5054n; // "IHAVEOPT"
export const OPTION_REPLY_MAGIC = 0x0003e889045565a9n;
export const REQUEST_MAGIC = 0x25609513;
export const EXTENDED_REQUEST_MAGIC = 0x21e41c71;
export const SIMPLE_REPLY_MAGIC = 0x67446698;
export const STRUCTURED_REPLY_MAGIC = 0x668e33ef;
export const EXTENDED_REPLY_MAGIC = 0x6e8a278c;

export const HandshakeFlag = { fixedNewstyle: 1 << 0, noZeroes: 1 << 1 } as const;
export const ClientFlag = { fixedNewstyle: 1 << 0, noZeroes: 1 << 1 } as const;

export const TransmissionFlag = {
  hasFlags: 1 << 0,
  readOnly: 1 << 1,
  sendFlush: 1 << 2,
  sendFua: 1 << 3,
  rotational: 1 << 4,
  sendTrim: 1 << 5,
  sendWriteZeroes: 1 << 6,
  sendDf: 1 << 7,
  canMultiConn: 1 << 8,
  sendResize: 1 << 9,
  sendCache: 1 << 10,
  sendFastZero: 1 << 11,
  blockStatusPayload: 1 << 12,
} as const;

export const Option = {
  exportName: 1,
  abort: 2,
  list: 3,
  peekExport: 4,
  starttls: 5,
  info: 6,
  go: 7,
  structuredReply: 8,
  listMetaContext: 9,
  setMetaContext: 10,
  extendedHeaders: 11,
} as const;

const ERROR_BIT = 0x8000_0000;
export const OptionReply = {
  ack: 1,
  server: 2,
  info: 3,
  metaContext: 4,
  errUnsup: ERROR_BIT + 1,
  errPolicy: ERROR_BIT + 2,
  errInvalid: ERROR_BIT + 3,
  errPlatform: ERROR_BIT + 4,
  errTlsReqd: ERROR_BIT + 5,
  errUnknown: ERROR_BIT + 6,
  errShutdown: ERROR_BIT + 7,
  errBlockSizeReqd: ERROR_BIT + 8,
  errTooBig: ERROR_BIT + 9,
  errExtHeaderReqd: ERROR_BIT + 10,
} as const;

export const Info = { export: 0, name: 1, description: 2, blockSize: 3 } as const;

export const Command = {
  read: 0,
  write: 1,
  disconnect: 2,
  flush: 3,
  trim: 4,
  cache: 5,
  writeZeroes: 6,
  blockStatus: 7,
  resize: 8,
} as const;

export const CommandFlag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  df: 1 << 2,
  reqOne: 1 << 3,
  fastZero: 1 << 4,
  payloadLen: 1 << 5,
} as const;

export const ReplyFlag = { done: 1 << 0 } as const;

const ERROR_CHUNK_BIT = 0x8000;
export const ReplyType = {
  none: 0,
  offsetData: 1,
  offsetHole: 2,
  blockStatus: 5,
  blockStatusExt: 6,
  error: ERROR_CHUNK_BIT + 1,
  errorOffset: ERROR_CHUNK_BIT + 2,
} as const;

/** The error values that may cross the wire ("Error values"). */
export const Errno = {
  none: 0,
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
  ESHUTDOWN: 108,
} as const;
export type Errno = (typeof Errno)[keyof typeof Errno];

/** An option reply with this bit set refuses the option, also when its type is not known. */
export function isErrorReply(type: number): boolean {
  return type >= ERROR_BIT;
}

/** A chunk with this bit set is an error chunk, also when its type is not known. */
export function isErrorChunk(type: number): boolean {
  return (type & ERROR_CHUNK_BIT) !== 0;
}

/** base:allocation status bits. */
export const State = { hole: 1 << 0, zero: 1 << 1 } as const;
export const BASE_ALLOCATION = 'base:allocation';

/** How requests and replies look after the handshake. */
export type HeaderStyle = 'simple' | 'structured' | 'extended';

export const Limit = {
  /** Strings MUST be no longer than this ("Conventions"). */
  stringBytes: 4096,
  /** Our bound on the data of one option: no option of the protocol needs more than a few strings. */
  optionBytes: 64 * 1024,
  /** Bytes received and not yet understood during the handshake: an option, and one chunk of a socket. */
  handshakeBytes: 512 * 1024,
  /** How many options one client may send: room for listing and asking after many exports, but not for ever. */
  options: 64 * 1024,
  /** How much a server may say in answer to one option: room for a LIST of some 100,000 names. */
  optionRepliesBytes: 8 * 1024 * 1024,
  /** How many contexts one SET_META_CONTEXT may select. */
  metaContexts: 16,
  /** Payloads up to this SHOULD NOT be called an attack ("Size constraints"). */
  payloadBytes: 32 * 1024 * 1024,
  /** Most descriptors in one block status chunk (the document says at most 2^20; ours keeps replies small). */
  statusDescriptors: 4096,
} as const;

/** The name of an error value, for messages: 'EIO'; a number outside the list is shown as 'errno 7'. */
export function errnoName(value: number): string {
  for (const [name, number] of Object.entries(Errno)) if (number === value) return name;
  return `errno ${value}`;
}
