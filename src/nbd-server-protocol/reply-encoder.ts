/**
 * The server's sending side of the transmission phase: writes reply headers into a caller's buffer. One encoder
 * per connection, since the style was agreed on in the handshake. Every method takes the position to write at
 * and returns the position behind what it wrote; the caller has made room (`ackBytes`, `errorBytes`, …).
 *
 * Layouts, big-endian:
 *   simple       magic 4, error 4, cookie 8                                                   (16 bytes)
 *   structured   magic 4, flags 2, type 2, cookie 8, payload length 4                         (20 bytes)
 *   extended     magic 4, flags 2, type 2, cookie 8, offset of the request 8, payload length 8 (32 bytes)
 */

import { put16, put32 } from './big-endian.ts';
import {
  EXTENDED_REPLY_MAGIC,
  type HeaderStyle,
  Limit,
  ReplyFlag,
  ReplyType,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';
import type { RequestTag } from './request-decoder.ts';

const HEADER_BYTES: Record<HeaderStyle, number> = { simple: 16, structured: 20, extended: 32 };
const TWO_32 = 0x1_0000_0000;

/** One descriptor of a block status chunk: `length` bytes with these state bits. */
export interface StatusDescriptor {
  readonly length: number;
  readonly state: number;
}

function putOffset(buffer: Buffer, at: number, offset: number): number {
  put32(buffer, at, Math.floor(offset / TWO_32));
  return put32(buffer, at + 4, offset % TWO_32);
}

export class ReplyEncoder {
  readonly style: HeaderStyle;
  /** Room that `ack` needs. */
  readonly ackBytes: number;
  /** Room that `dataHeader` needs. */
  readonly dataHeaderBytes: number;
  /** Room that `hole` needs. */
  readonly holeBytes: number;

  constructor(style: HeaderStyle) {
    this.style = style;
    this.ackBytes = HEADER_BYTES[style];
    this.dataHeaderBytes = HEADER_BYTES[style] + (style === 'simple' ? 0 : 8);
    this.holeBytes = HEADER_BYTES[style] + 12;
  }

  /** Success without data. */
  ack(buffer: Buffer, at: number, tag: RequestTag): number {
    if (this.style === 'simple') return this.#simple(buffer, at, tag, 0);
    return this.#chunk(buffer, at, tag, ReplyType.none, true, 0);
  }

  /** What comes before `length` bytes of read data; `last` says that no other chunk of the reply follows. */
  dataHeader(
    buffer: Buffer,
    at: number,
    tag: RequestTag,
    offset: number,
    length: number,
    last: boolean,
  ): number {
    if (this.style === 'simple') return this.#simple(buffer, at, tag, 0);
    return putOffset(buffer, this.#chunk(buffer, at, tag, ReplyType.offsetData, last, 8 + length), offset);
  }

  /** A hole of `length` (below 2^32) bytes in read data. Not for simple replies. */
  hole(buffer: Buffer, at: number, tag: RequestTag, offset: number, length: number, last: boolean): number {
    const position = putOffset(buffer, this.#chunk(buffer, at, tag, ReplyType.offsetHole, last, 12), offset);
    return put32(buffer, position, length);
  }

  /** Room that `error` needs for this text. */
  errorBytes(text: string): number {
    return this.ackBytes + 14 + Math.min(Buffer.byteLength(text), Limit.stringBytes);
  }

  /** Failure; the end of the reply. `offset` (bytes) is where it failed, when that is known. */
  error(buffer: Buffer, at: number, tag: RequestTag, errno: number, text: string, offset?: number): number {
    if (this.style === 'simple') return this.#simple(buffer, at, tag, errno);
    const room = Math.min(Buffer.byteLength(text), Limit.stringBytes);
    const type = offset === undefined ? ReplyType.error : ReplyType.errorOffset;
    const fixed = offset === undefined ? 6 : 14;
    // A text cut to its bound may end before it, at the last whole character: write it first, then its length.
    const textAt = at + this.ackBytes + 6;
    const written = buffer.write(text, textAt, room, 'utf8');
    this.#chunk(buffer, at, tag, type, true, fixed + written);
    put32(buffer, at + this.ackBytes, errno);
    put16(buffer, at + this.ackBytes + 4, written);
    return offset === undefined ? textAt + written : putOffset(buffer, textAt + written, offset);
  }

  /** Room that `blockStatus` needs for this many descriptors. */
  blockStatusBytes(count: number): number {
    return this.ackBytes + (this.style === 'extended' ? 8 + 16 * count : 4 + 8 * count);
  }

  /** The descriptors of one metadata context. Not for simple replies. */
  blockStatus(
    buffer: Buffer,
    at: number,
    tag: RequestTag,
    contextId: number,
    descriptors: readonly StatusDescriptor[],
    last: boolean,
  ): number {
    const payload = this.blockStatusBytes(descriptors.length) - this.ackBytes;
    const wide = this.style === 'extended';
    const type = wide ? ReplyType.blockStatusExt : ReplyType.blockStatus;
    let position = this.#chunk(buffer, at, tag, type, last, payload);
    position = put32(buffer, position, contextId);
    if (wide) position = put32(buffer, position, descriptors.length);
    for (const { length, state } of descriptors) {
      if (wide) {
        position = putOffset(buffer, putOffset(buffer, position, length), state);
      } else {
        position = put32(buffer, put32(buffer, position, length), state);
      }
    }
    return position;
  }

  #simple(buffer: Buffer, at: number, tag: RequestTag, errno: number): number {
    put32(buffer, at, SIMPLE_REPLY_MAGIC);
    put32(buffer, at + 4, errno);
    put32(buffer, at + 8, tag.cookieHigh);
    return put32(buffer, at + 12, tag.cookieLow);
  }

  #chunk(
    buffer: Buffer,
    at: number,
    tag: RequestTag,
    type: number,
    last: boolean,
    payloadBytes: number,
  ): number {
    const extended = this.style === 'extended';
    put32(buffer, at, extended ? EXTENDED_REPLY_MAGIC : STRUCTURED_REPLY_MAGIC);
    put16(buffer, at + 4, last ? ReplyFlag.done : 0);
    put16(buffer, at + 6, type);
    put32(buffer, at + 8, tag.cookieHigh);
    put32(buffer, at + 12, tag.cookieLow);
    if (!extended) return put32(buffer, at + 16, payloadBytes);
    put32(buffer, at + 16, tag.offsetHigh);
    put32(buffer, at + 20, tag.offsetLow);
    put32(buffer, at + 24, 0);
    return put32(buffer, at + 28, payloadBytes);
  }
}
