/**
 * The header in front of every message, and what may be in it. All numbers are big-endian and unsigned; those of 8 bytes are at most 2^53 - 1.
 *
 *   offset  bytes
 *        0      4  magic 0x564c5250, "VLRP"
 *        4      1  version: the one agreed on; 1 in hello, welcome, refusal, difference and ready
 *        5      1  kind
 *        6      2  flags
 *        8      8  number         which one, or how many: see the table of kinds
 *       16      8  confirmed      up to which operation; of a secondary: received
 *       24      8  offset         of a range, in bytes
 *       32      8  length         of a range, in bytes; or another size
 *       40      4  value          a code
 *       44      8  reserved
 *       52      4  length of the payload, which follows the header
 *       56      4  CRC32C of the payload; 0 when there is none
 *       60      4  CRC32C of the 60 bytes before
 *
 *   flags: 1 FUA, 2 NO_HOLE, 4 EQUAL, 8 EVERYTHING, 16 ALONE, 32 LOST_CACHE
 *
 *   kind              flags       number         confirmed  offset  length      value    payload
 *    1 hello                      epoch                             sizeBytes            see payloads.ts
 *    2 welcome        LOST_CACHE  operationsMax                     bytesMax    version
 *    3 refusal                    epoch                                         code     text
 *    4 difference     ALONE                                                              ranges
 *    5 ready
 *   16 write          FUA         seq            yes        yes     yes                  the data
 *   17 zero           FUA NO_HOLE seq            yes        yes     yes
 *   18 trim           FUA         seq            yes        yes     yes
 *   19 flush                      seq            yes
 *   20 members        EQUAL       seq            yes                                     count 2, strings
 *   21 lacks          EVERYTHING  seq            yes                                     member, ranges
 *   22 heartbeat                  token          yes
 *   32 ack                        seq                              how many     result
 *   33 heartbeat-ack              token          received
 *   34 fenced                     epoch
 *   35 receiving
 *
 * Invariants
 *  1. A flag or field that is not in its row is 0: anything else is refused, so that it can get a meaning later.
 *  2. The header has a checksum of its own, so that its length of the payload can be relied on before the payload is there.
 */

import { crc32cOfWords } from '../base/crc32c.ts';
import { get16, get32, put16, put32 } from '../nbd-server-protocol/big-endian.ts';
import {
  Flag,
  HEADER_BYTES,
  Kind,
  Limit,
  MAGIC,
  RANGE_BYTES,
  RANGES_BYTES_MAX,
  STRING_BYTES_MAX,
} from './constants.ts';
import { PeerError } from './errors.ts';

const TWO_32 = 0x1_0000_0000;
const HIGH_MAX = 0x1f_ffff; // of 2^53 - 1
const CHECKED_BYTES = 60;

const NUMBER = 1;
const CONFIRMED = 2;
const OFFSET = 4;
const LENGTH = 8;
const VALUE = 16;
const RANGE = OFFSET | LENGTH;
const NUMBERED = NUMBER | CONFIRMED;

/** When a kind may come: as the first, in answer to it, from a primary, from a secondary. */
export type Phase = 'hello' | 'answer' | 'from-primary' | 'from-secondary';

interface Row {
  readonly phase: Phase;
  readonly flags: number;
  readonly fields: number;
  readonly payloadMin: number;
  readonly payloadMax: number;
}

function row(phase: Phase, fields: number, flags = 0, payloadMin = 0, payloadMax = payloadMin): Row {
  return { phase, flags, fields, payloadMin, payloadMax };
}

const { fua, noHole, equal, everything, alone, lostCache } = Flag;
const ROWS: readonly (Row | undefined)[] = Object.assign([] as (Row | undefined)[], {
  [Kind.hello]: row('hello', NUMBER | LENGTH, 0, 16, 8 + 5 * STRING_BYTES_MAX),
  [Kind.welcome]: row('answer', NUMBER | LENGTH | VALUE, lostCache),
  [Kind.refusal]: row('answer', NUMBER | VALUE, 0, 2, STRING_BYTES_MAX),
  [Kind.difference]: row('answer', 0, alone, RANGE_BYTES, RANGES_BYTES_MAX),
  [Kind.ready]: row('answer', 0),
  [Kind.write]: row('from-primary', NUMBERED | RANGE, fua, 1, Limit.payloadBytes),
  [Kind.zero]: row('from-primary', NUMBERED | RANGE, fua | noHole),
  [Kind.trim]: row('from-primary', NUMBERED | RANGE, fua),
  [Kind.flush]: row('from-primary', NUMBERED),
  [Kind.members]: row('from-primary', NUMBERED, equal, 2, 2 + Limit.members * STRING_BYTES_MAX),
  [Kind.lacks]: row('from-primary', NUMBERED, everything, 2, STRING_BYTES_MAX + RANGES_BYTES_MAX),
  [Kind.heartbeat]: row('from-primary', NUMBERED),
  [Kind.ack]: row('from-secondary', NUMBER | LENGTH | VALUE),
  [Kind.heartbeatAck]: row('from-secondary', NUMBERED),
  [Kind.fenced]: row('from-secondary', NUMBER),
  [Kind.receiving]: row('from-secondary', 0),
});

/** The fields of one header. One object serves many, one after the other. */
export class Header {
  version = 0;
  kind = 0;
  flags = 0;
  number = 0;
  confirmed = 0;
  offset = 0;
  length = 0;
  value = 0;
  payloadBytes = 0;
  payloadSum = 0;
  /** As bytes, while they are checked. */
  readonly bytes = Buffer.alloc(HEADER_BYTES);

  clear(version: number, kind: number): void {
    this.version = version;
    this.kind = kind;
    this.flags = 0;
    this.number = 0;
    this.confirmed = 0;
    this.offset = 0;
    this.length = 0;
    this.value = 0;
    this.payloadBytes = 0;
    this.payloadSum = 0;
  }

  hasFlag(flag: number): boolean {
    return (this.flags & flag) !== 0;
  }

  /** Makes `bytes` of the fields. */
  encode(): void {
    const { bytes } = this;
    put32(bytes, 0, MAGIC);
    bytes[4] = this.version;
    bytes[5] = this.kind;
    put16(bytes, 6, this.flags);
    put53(bytes, 8, this.number);
    put53(bytes, 16, this.confirmed);
    put53(bytes, 24, this.offset);
    put53(bytes, 32, this.length);
    put32(bytes, 40, this.value);
    put32(bytes, 52, this.payloadBytes);
    put32(bytes, 56, this.payloadSum);
    put32(bytes, 60, crc32cOfWords(bytes, 0, CHECKED_BYTES));
  }

  /**
   * Takes the fields from `bytes`, and refuses what cannot be in `phase`.
   * @throws PeerError
   */
  decode(version: number, phase: Phase): void {
    const { bytes } = this;
    const magic = get32(bytes, 0);
    if (magic !== MAGIC) throw new PeerError('bad-magic', `a frame starts with 0x${magic.toString(16)}`);
    if (get32(bytes, 60) !== crc32cOfWords(bytes, 0, CHECKED_BYTES)) {
      throw new PeerError('bad-checksum', 'the header of a frame has a wrong checksum');
    }
    this.version = bytes[4] as number;
    this.kind = bytes[5] as number;
    this.flags = get16(bytes, 6);
    this.number = get53(bytes, 8);
    this.confirmed = get53(bytes, 16);
    this.offset = get53(bytes, 24);
    this.length = get53(bytes, 32);
    this.value = get32(bytes, 40);
    this.payloadBytes = get32(bytes, 52);
    this.payloadSum = get32(bytes, 56);
    if (this.version !== version) {
      throw new PeerError('version', `a frame of version ${this.version}, where ${version} was agreed on`);
    }
    if (get32(bytes, 44) !== 0 || get32(bytes, 48) !== 0) throw this.#wrong('reserved bytes');
    this.#check(phase);
  }

  #check(phase: Phase): void {
    const allowed = ROWS[this.kind];
    if (allowed === undefined || allowed.phase !== phase) {
      throw new PeerError('bad-message', `a message of kind ${this.kind} cannot come now (${phase})`);
    }
    const { fields, flags, payloadMin, payloadMax } = allowed;
    if ((this.flags & ~flags) !== 0) throw this.#wrong(`flags 0x${this.flags.toString(16)}`);
    if ((fields & NUMBER) === 0 && this.number !== 0) throw this.#wrong('a number');
    if ((fields & CONFIRMED) === 0 && this.confirmed !== 0) throw this.#wrong('a confirmed');
    if ((fields & OFFSET) === 0 && this.offset !== 0) throw this.#wrong('an offset');
    if ((fields & LENGTH) === 0 && this.length !== 0) throw this.#wrong('a length');
    if ((fields & VALUE) === 0 && this.value !== 0) throw this.#wrong('a value');
    if ((fields & RANGE) === RANGE) checkRange(this.offset, this.length);
    if (this.payloadBytes > payloadMax) {
      throw new PeerError('too-big', `${this.payloadBytes} bytes behind a message of kind ${this.kind}`);
    }
    if (this.payloadBytes < payloadMin) throw this.#wrong(`a payload of ${this.payloadBytes} bytes`);
    if (this.payloadBytes === 0 && this.payloadSum !== 0) throw this.#wrong('the checksum of nothing');
    if (this.kind === Kind.write && this.length !== this.payloadBytes) {
      throw this.#wrong(`${this.payloadBytes} bytes for a range of ${this.length}`);
    }
  }

  #wrong(what: string): PeerError {
    return new PeerError('bad-message', `a message of kind ${this.kind} with ${what}`);
  }
}

/** @throws PeerError */
export function checkRange(offset: number, length: number): void {
  if (length === 0 || !Number.isSafeInteger(offset + length)) {
    throw new PeerError('bad-message', `a range of ${length} bytes at ${offset}`);
  }
}

export function put53(target: Buffer, at: number, value: number): void {
  put32(target, at, Math.floor(value / TWO_32)); // that it is one is checked where messages are made
  put32(target, at + 4, value >>> 0);
}

/** @throws PeerError */
export function get53(source: Buffer, at: number): number {
  const high = get32(source, at);
  if (high > HIGH_MAX) throw new PeerError('too-big', 'a number of 2^53 or more');
  return high * TWO_32 + get32(source, at + 4);
}
