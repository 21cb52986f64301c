/** The numbers of the protocol between storage systems, and the limits that each side holds the other to. header.ts has the layout. */

import { assert } from '../model/errors.ts';
import { DIFFERENCE_RANGES_MAX } from './messages.ts';

export const MAGIC = 0x564c5250; // "VLRP"

/** Versions that are spoken here. Frames of the handshake are of HANDSHAKE_VERSION for ever, so that any two can refuse one another. */
export const VERSION_MIN = 1;
export const VERSION_MAX = 1;
export const HANDSHAKE_VERSION = 1;

/** 8 to 15 are kept for authentication (challenge, proof), between hello and its answer. */
export const Kind = {
  hello: 1,
  welcome: 2,
  refusal: 3,
  difference: 4,
  ready: 5,
  write: 16,
  zero: 17,
  trim: 18,
  flush: 19,
  members: 20,
  lacks: 21,
  heartbeat: 22,
  ack: 32,
  heartbeatAck: 33,
  fenced: 34,
  receiving: 35,
} as const;

export const Flag = {
  fua: 1 << 0,
  noHole: 1 << 1,
  equal: 1 << 2,
  everything: 1 << 3,
  alone: 1 << 4,
  lostCache: 1 << 5,
} as const;

export const HEADER_BYTES = 64;
export const RANGE_BYTES = 16;

export const Limit = {
  /** Of one write. */
  payloadBytes: 32 * 1024 * 1024,
  stringBytes: 1024,
  /** Members named in one message. */
  members: 16,
  /** `difference` messages in the answer to one hello. */
  differences: 64,
  /** What a side grants; the other refuses what is outside. The least holds the largest write. */
  windowBytesMin: 32 * 1024 * 1024,
  windowBytesMax: 1024 * 1024 * 1024,
  windowOperationsMax: 65_536,
  /** Operations that wait at a primary for the window: hosts have a bounded number under way, and so has the copier. */
  waitingOperations: 262_144,
  /** Heartbeats, and their answers, that a peer may leave untaken. */
  untakenHeartbeats: 1024,
  /** Connections of one server that have not said hello; and of them, from one address: so that no other is kept out. */
  handshakes: 1024,
  handshakesOfOne: 512,
} as const;

/** What a secondary grants when it has no reason to grant something else. */
export const DEFAULT_WINDOW = { operationsMax: 1024, bytesMax: 64 * 1024 * 1024 } as const;

/** What all links of a storage system may hold of what they have received: as many full windows as a machine with little memory can bear. */
export const RECEIVED_BYTES_MAX = 512 * 1024 * 1024;

export const RANGES_BYTES_MAX = DIFFERENCE_RANGES_MAX * RANGE_BYTES;
/** A string is its length in 2 bytes, then UTF-8. */
export const STRING_BYTES_MAX = 2 + Limit.stringBytes;

/** How long a peer may take to say hello, and to close its side after this one has ended its own. */
export const HELLO_TIMEOUT_MS = 5000;
export const LINGER_MS = 2000;
/** Within a message that takes its time to come, a secondary says at least so often that it is coming. */
export const RECEIVING_MS = 100;
/**
 * So much may wait for the kernel before more operations are held back: what is sent meanwhile, heartbeats above all, is not to queue behind
 * the whole window. What the kernel itself holds keeps the link busy.
 */
export const AHEAD_BYTES = 1024 * 1024;

assert(Limit.windowBytesMin >= Limit.payloadBytes, 'the least window holds the largest write');
assert(Limit.windowBytesMin >= RANGES_BYTES_MAX + STRING_BYTES_MAX, 'the least window holds any operation');
assert(
  DEFAULT_WINDOW.bytesMax >= Limit.windowBytesMin && DEFAULT_WINDOW.bytesMax <= Limit.windowBytesMax,
  'the default window is one that is accepted',
);
assert(
  DEFAULT_WINDOW.operationsMax <= Limit.windowOperationsMax,
  'the default window is one that is accepted',
);
assert(Limit.stringBytes < 2 ** 16, 'the length of a string fits its field');
assert(Limit.members * STRING_BYTES_MAX + 2 < 2 ** 16, 'a list of members is small');
assert(VERSION_MIN <= VERSION_MAX && VERSION_MAX < 2 ** 8, 'a version fits its field');
