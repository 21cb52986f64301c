/**
 * The server's receiving side of the transmission phase: a state machine over the bytes of one connection.
 *
 * It works in place. `feed` is given a contiguous region of received bytes, reads as many whole headers and as
 * much payload as the sink takes, and returns how far it came; the caller presents what is left again, in front
 * of what comes next. So nothing is stored here, however a peer cuts its bytes or whatever length it claims.
 *
 *   state      input                         -> state
 *   header     a whole header, no payload    -> header    sink.request
 *   header     a whole header with payload   -> payload   sink.request, then sink.payload for each piece
 *   payload    the last byte of the payload  -> header
 *   any        a wrong magic                 -> (throws ProtocolError; the connection must be closed)
 *
 * Layout of a request, big-endian ("Request message"; extended form: extension-ext-header):
 *   offset  bytes  compact                    extended
 *        0      4  magic 0x25609513           magic 0x21e41c71
 *        4      2  command flags              command flags
 *        6      2  command                    command
 *        8      8  cookie                     cookie
 *       16      8  offset                     offset
 *       24      4  length (8 when extended)   length: of the payload with PAYLOAD_LEN, else the effect length
 */

import { get16, get32 } from './big-endian.ts';
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  type HeaderStyle,
  REQUEST_MAGIC,
} from './constants.ts';
import { ProtocolError } from './errors.ts';

const COMPACT_BYTES = 28;
const EXTENDED_BYTES = 32;
const TWO_32 = 0x1_0000_0000;

/** What a reply repeats from its request: the cookie, and (extended headers) the offset, as 32-bit halves. */
export interface RequestTag {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
}

/**
 * One request. `offset` and `length` are numbers: above 2^53 they lose precision, which no bounds check minds.
 * `length` is the length field as sent; `payloadLength` says how many bytes follow the header.
 */
export interface Request extends RequestTag {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly payloadLength: number;
}

export interface RequestSink {
  /**
   * A header has arrived. The object is reused for the next one: copy what must last. Return false to stop
   * before this request (no capacity); it is then presented again by a later `feed`.
   */
  request(request: Request): boolean;
  /**
   * `length` bytes of the payload of the last request are at `buffer[start]`; `remaining` bytes of it are still
   * to come behind them. Returns how many it has taken (0: not now); what is left is presented again.
   */
  payload(buffer: Buffer, start: number, length: number, remaining: number): number;
}

export class RequestDecoder implements Request {
  cookieHigh = 0;
  cookieLow = 0;
  offsetHigh = 0;
  offsetLow = 0;
  command = 0;
  flags = 0;
  offset = 0;
  length = 0;
  payloadLength = 0;

  readonly #extended: boolean;
  readonly #headerBytes: number;
  /** Bytes of the current payload that the sink has not taken yet. */
  #payloadLeft = 0;

  constructor(style: HeaderStyle) {
    this.#extended = style === 'extended';
    this.#headerBytes = this.#extended ? EXTENDED_BYTES : COMPACT_BYTES;
  }

  /** True between two messages: nothing of a payload is awaited. */
  get atBoundary(): boolean {
    return this.#payloadLeft === 0;
  }

  /**
   * Decodes buffer[start, end). Returns the position up to which everything has been taken.
   * @throws ProtocolError 'bad-magic'
   */
  feed(buffer: Buffer, start: number, end: number, sink: RequestSink): number {
    let position = start;
    for (;;) {
      if (this.#payloadLeft > 0) {
        const here = Math.min(this.#payloadLeft, end - position);
        if (here === 0) return position;
        const taken = sink.payload(buffer, position, here, this.#payloadLeft - here);
        position += taken;
        this.#payloadLeft -= taken;
        if (this.#payloadLeft > 0) return position;
      }
      if (end - position < this.#headerBytes) return position;
      this.#readHeader(buffer, position);
      if (!sink.request(this)) return position;
      position += this.#headerBytes;
      this.#payloadLeft = this.payloadLength;
    }
  }

  #readHeader(buffer: Buffer, at: number): void {
    const magic = get32(buffer, at);
    if (magic !== (this.#extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC)) {
      throw new ProtocolError('bad-magic', `request magic 0x${magic.toString(16)} is not one`);
    }
    this.flags = get16(buffer, at + 4);
    this.command = get16(buffer, at + 6);
    this.cookieHigh = get32(buffer, at + 8);
    this.cookieLow = get32(buffer, at + 12);
    this.offsetHigh = get32(buffer, at + 16);
    this.offsetLow = get32(buffer, at + 20);
    this.offset = this.offsetHigh * TWO_32 + this.offsetLow;
    const word = get32(buffer, at + 24);
    if (this.#extended) {
      this.length = word * TWO_32 + get32(buffer, at + 28);
      this.payloadLength = (this.flags & CommandFlag.payloadLen) !== 0 ? this.length : 0;
    } else {
      this.length = word;
      this.payloadLength = this.command === Command.write ? word : 0;
    }
  }
}

/** True when the last message in buffer[start, end) is a DISC, if messages end where the buffer does. */
export function endsWithDisconnect(buffer: Buffer, start: number, end: number, style: HeaderStyle): boolean {
  const extended = style === 'extended';
  const at = end - (extended ? EXTENDED_BYTES : COMPACT_BYTES);
  if (at < start) return false;
  const magic = extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC;
  return get32(buffer, at) === magic && get16(buffer, at + 6) === Command.disconnect;
}
