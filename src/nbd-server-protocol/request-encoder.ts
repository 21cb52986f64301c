/**
 * The client's sending side of the transmission phase: writes request headers into a caller's buffer. One encoder
 * per connection, since the style was agreed on in the handshake. The counterpart of request-decoder.ts, whose
 * header shows the layout. Every method returns the position behind what it wrote.
 */

import type { Buffer } from 'node:buffer';
import { put16, put32 } from './big-endian.ts';
import {
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  type HeaderStyle,
  REQUEST_MAGIC,
} from './constants.ts';
import { requireThat } from './errors.ts';

const TWO_32 = 0x1_0000_0000;

/** A request to be sent. RESIZE has the new size as its `offset`. */
export interface RequestHeader {
  readonly command: number;
  /** CommandFlag bits, without payloadLen: the encoder sets that where it belongs. */
  readonly flags: number;
  /** Any safe integer that no request in flight has. */
  readonly cookie: number;
  readonly offset: number;
  /** Bytes that the request is about; below 2^32 unless headers are extended. */
  readonly length: number;
}

export class RequestEncoder {
  /** Room that `header` needs. */
  readonly headerBytes: number;
  readonly #extended: boolean;

  constructor(style: HeaderStyle) {
    this.#extended = style === 'extended';
    this.headerBytes = this.#extended ? 32 : 28;
  }

  /** A request; the `length` bytes of a WRITE follow it. */
  header(buffer: Buffer, at: number, request: RequestHeader): number {
    const payload = this.#extended && request.command === Command.write;
    return this.#put(buffer, at, request, payload ? CommandFlag.payloadLen : 0, request.length);
  }

  /** Room that `blockStatusOf` needs. */
  blockStatusOfBytes(contexts: number): number {
    return this.headerBytes + 8 + 4 * contexts;
  }

  /**
   * BLOCK_STATUS about some of the selected contexts only. Needs extended headers and the transmission flag
   * blockStatusPayload.
   */
  blockStatusOf(buffer: Buffer, at: number, request: RequestHeader, contextIds: readonly number[]): number {
    requireThat(this.#extended, 'a block status payload without extended headers');
    const payloadBytes = 8 + 4 * contextIds.length;
    let position = this.#put(buffer, at, request, CommandFlag.payloadLen, payloadBytes);
    position = put64(buffer, position, request.length);
    for (const id of contextIds) position = put32(buffer, position, id);
    return position;
  }

  #put(buffer: Buffer, at: number, request: RequestHeader, extraFlags: number, length: number): number {
    put32(buffer, at, this.#extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
    put16(buffer, at + 4, request.flags | extraFlags);
    put16(buffer, at + 6, request.command);
    put64(buffer, at + 8, request.cookie);
    put64(buffer, at + 16, request.offset);
    if (this.#extended) return put64(buffer, at + 24, length);
    return buffer.writeUInt32BE(length, at + 24); // with its check: what has no room there is our mistake
  }
}

function put64(buffer: Buffer, at: number, value: number): number {
  put32(buffer, at, Math.floor(value / TWO_32));
  return put32(buffer, at + 4, value % TWO_32);
}
