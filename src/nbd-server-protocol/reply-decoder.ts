/**
 * The client's receiving side of the transmission phase: a state machine over the bytes of one connection. It
 * works in place, as request-decoder.ts does: `feed` returns how far it came, and the caller presents the rest
 * again, in front of what comes next. Nothing is stored here.
 *
 *   state    input                            -> state
 *   header   a header and a short payload     -> header   sink.hole, sink.error, sink.done
 *   header   the start of a data chunk        -> data     sink.data for each piece
 *   header   the start of a status chunk      -> status   sink.status for each piece
 *   data     the last byte                    -> header   sink.done when the chunk says so
 *   status   the last descriptor              -> header   sink.done when the chunk says so
 *   any      a breach of the protocol         -> (throws ProtocolError; the connection must be closed)
 *
 * Layouts: headers in reply-encoder.ts; payloads, big-endian ("Structured reply types"):
 *   OFFSET_DATA       offset 8, data
 *   OFFSET_HOLE       offset 8, length 4
 *   BLOCK_STATUS      context id 4, then (length 4, status 4) x n
 *   BLOCK_STATUS_EXT  context id 4, n 4, then (length 8, status 8) x n
 *   ERROR             error 4, text length 2, text
 *   ERROR_OFFSET      error 4, text length 2, text, offset 8
 */

import type { Buffer } from 'node:buffer';
import { get16, get32 } from './big-endian.ts';
import {
  Command,
  Errno,
  EXTENDED_REPLY_MAGIC,
  type HeaderStyle,
  isErrorChunk,
  Limit,
  ReplyFlag,
  ReplyType,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from './constants.ts';
import { ProtocolError } from './errors.ts';
import { decodeErrorText } from './option-codec.ts';
import type { PendingRequest } from './pending-request.ts';
import type { StatusDescriptor } from './reply-encoder.ts';

const TWO_32 = 0x1_0000_0000;
const SIMPLE_BYTES = 16;
const STRUCTURED_BYTES = 20;
const EXTENDED_BYTES = 32;
/** An error chunk: a text of 4,096 bytes, and whatever a later protocol version may add behind it. */
const ERROR_PAYLOAD_MAX = Limit.stringBytes + 1024;
/** "Servers SHOULD NOT send more than 2^20 extents in a single reply chunk". */
const DESCRIPTORS_MAX = 2 ** 20;

/** The caller must be able to present this many bytes at once. */
export const REPLY_WHOLE_BYTES = EXTENDED_BYTES + ERROR_PAYLOAD_MAX;

export interface ReplySink<R extends PendingRequest> {
  /** The request with this cookie; undefined: there is none in flight. */
  find(cookie: number): R | undefined;
  /**
   * `length` bytes at buffer[start] are the export's bytes at `offset`. Returns how many it has taken (0: not
   * now); what is left is presented again.
   */
  data(request: R, offset: number, buffer: Buffer, start: number, length: number): number;
  /** `length` bytes at `offset` are zeroes. */
  hole(request: R, offset: number, length: number): void;
  /** The next extents of one context, in order; a long chunk comes in several pieces. */
  status(request: R, contextId: number, extents: readonly StatusDescriptor[]): void;
  /** May come more than once; `offset` is where, when the server says so. Unknown values come as EINVAL. */
  error(request: R, errno: Errno, text: string, offset: number | undefined): void;
  /** The reply is complete, with success unless `request.failed`; its cookie is free. */
  done(request: R): void;
}

interface Chunk<R> {
  readonly request: R;
  readonly last: boolean;
  readonly type: number;
  /** Position behind the header. */
  readonly at: number;
  readonly length: number;
}

type State<R> =
  | { readonly kind: 'header' }
  | { readonly kind: 'data'; readonly request: R; readonly last: boolean; offset: number; left: number }
  | {
      readonly kind: 'status';
      readonly request: R;
      readonly last: boolean;
      readonly contextId: number;
      left: number;
    };

const HEADER = { kind: 'header' } as const;
const KNOWN_ERRNOS: readonly number[] = Object.values(Errno);

export class ReplyDecoder<R extends PendingRequest = PendingRequest> {
  readonly #style: HeaderStyle;
  #state: State<R> = HEADER;

  constructor(style: HeaderStyle) {
    this.#style = style;
  }

  /** True between two messages. */
  get atBoundary(): boolean {
    return this.#state.kind === 'header';
  }

  /**
   * Decodes buffer[start, end). Returns the position up to which everything has been taken.
   * @throws ProtocolError
   */
  feed(buffer: Buffer, start: number, end: number, sink: ReplySink<R>): number {
    let position = start;
    for (;;) {
      const before = this.#state;
      const from = position;
      if (before.kind === 'header') position = this.#takeMessage(buffer, position, end, sink);
      else if (before.kind === 'data') position = this.#takeData(before, buffer, position, end, sink);
      else position = this.#takeStatus(before, buffer, position, end, sink);
      if (position === from) return position;
    }
  }

  /** A header and, unless it is long, its payload. Returns `at` when they are not all there. */
  #takeMessage(buffer: Buffer, at: number, end: number, sink: ReplySink<R>): number {
    if (end - at < 4) return at;
    const magic = get32(buffer, at);
    if (magic === SIMPLE_REPLY_MAGIC && this.#style !== 'extended') {
      return end - at < SIMPLE_BYTES ? at : this.#takeSimple(buffer, at, sink);
    }
    const extended = this.#style === 'extended';
    const expected = extended ? EXTENDED_REPLY_MAGIC : STRUCTURED_REPLY_MAGIC;
    if (magic !== expected || this.#style === 'simple') {
      throw new ProtocolError(
        'bad-magic',
        `reply magic 0x${magic.toString(16)} is not one that was agreed on`,
      );
    }
    const headerBytes = extended ? EXTENDED_BYTES : STRUCTURED_BYTES;
    if (end - at < headerBytes) return at;
    const request = this.#find(buffer, at + 8, sink);
    const length = extended ? get64(buffer, at + 24) : get32(buffer, at + 16);
    if (extended && get64(buffer, at + 16) !== request.offset) {
      throw new ProtocolError('bad-message', 'the offset in a reply is not the one of its request');
    }
    const chunk: Chunk<R> = {
      request,
      last: (get16(buffer, at + 4) & ReplyFlag.done) !== 0,
      type: get16(buffer, at + 6),
      at: at + headerBytes,
      length,
    };
    const wholeBytes = this.#checkLength(chunk);
    if (end - chunk.at < wholeBytes) return at;
    this.#takeChunk(chunk, buffer, sink);
    return chunk.at + wholeBytes;
  }

  #takeSimple(buffer: Buffer, at: number, sink: ReplySink<R>): number {
    const error = get32(buffer, at + 4);
    const request = this.#find(buffer, at + 8, sink);
    if (this.#style === 'structured' && request.command === Command.read) {
      throw new ProtocolError(
        'bad-message',
        'a simple reply to a read, after structured replies were agreed on',
      );
    }
    if (error !== 0) {
      request.takeError(undefined);
      sink.error(request, knownErrno(error), '', undefined);
    } else if (request.command === Command.read && request.length > 0) {
      request.takeContent(request.offset, request.length);
      this.#state = { kind: 'data', request, last: true, offset: request.offset, left: request.length };
      return at + SIMPLE_BYTES;
    }
    this.#done(request, sink);
    return at + SIMPLE_BYTES;
  }

  /**
   * How much of the chunk's payload must be there before it can be taken: all, but of data and status only their
   * fixed fields. Throws when the length is impossible, so that nobody waits for bytes without end.
   */
  #checkLength({ type, length }: Chunk<R>): number {
    const wide = this.#style === 'extended';
    let possible: boolean;
    let wholeBytes = length;
    if (type === ReplyType.none) {
      possible = length === 0;
    } else if (type === ReplyType.offsetData) {
      possible = length >= 9;
      wholeBytes = 8;
    } else if (type === ReplyType.offsetHole) {
      possible = length === 12;
    } else if (type === (wide ? ReplyType.blockStatusExt : ReplyType.blockStatus)) {
      wholeBytes = wide ? 8 : 4;
      const count = (length - wholeBytes) / (wide ? 16 : 8);
      possible = Number.isInteger(count) && count > 0 && count <= DESCRIPTORS_MAX;
    } else if (isErrorChunk(type)) {
      possible = length >= (type === ReplyType.errorOffset ? 14 : 6) && length <= ERROR_PAYLOAD_MAX;
    } else {
      throw new ProtocolError('bad-message', `reply type ${type} is not one that was agreed on`);
    }
    if (!possible) throw new ProtocolError('bad-message', `a chunk of type ${type} with ${length} bytes`);
    return wholeBytes;
  }

  #takeChunk(chunk: Chunk<R>, buffer: Buffer, sink: ReplySink<R>): void {
    const { request, last, type, at, length } = chunk;
    switch (type) {
      case ReplyType.none:
        if (!last) throw new ProtocolError('bad-message', 'NBD_REPLY_TYPE_NONE that does not end its reply');
        break;
      case ReplyType.offsetData: {
        const offset = get64(buffer, at);
        request.takeContent(offset, length - 8);
        this.#state = { kind: 'data', request, last, offset, left: length - 8 };
        return;
      }
      case ReplyType.offsetHole: {
        const offset = get64(buffer, at);
        const holeBytes = get32(buffer, at + 8);
        request.takeContent(offset, holeBytes);
        sink.hole(request, offset, holeBytes);
        break;
      }
      case ReplyType.blockStatus:
      case ReplyType.blockStatusExt:
        this.#beginStatus(chunk, buffer);
        return;
      default:
        this.#takeError(chunk, buffer, sink);
    }
    if (last) this.#done(request, sink);
  }

  #beginStatus({ request, last, type, at, length }: Chunk<R>, buffer: Buffer): void {
    const contextId = get32(buffer, at);
    const left = type === ReplyType.blockStatusExt ? (length - 8) / 16 : (length - 4) / 8;
    if (type === ReplyType.blockStatusExt && get32(buffer, at + 4) !== left) {
      throw new ProtocolError(
        'bad-message',
        'the descriptor count of a status chunk does not fit its length',
      );
    }
    request.beginStatus(contextId, left);
    this.#state = { kind: 'status', request, last, contextId, left };
  }

  #takeError({ request, type, at, length }: Chunk<R>, buffer: Buffer, sink: ReplySink<R>): void {
    const error = get32(buffer, at);
    const textBytes = get16(buffer, at + 4);
    const known = type === ReplyType.error || type === ReplyType.errorOffset;
    const hasOffset = type === ReplyType.errorOffset;
    if (textBytes > Math.min(Limit.stringBytes, length - (hasOffset ? 14 : 6))) {
      throw new ProtocolError('bad-message', `an error text of ${textBytes} bytes in a chunk of ${length}`);
    }
    if (known && error === 0) throw new ProtocolError('bad-message', 'an error chunk without an error');
    const text = decodeErrorText(buffer.subarray(at + 6, at + 6 + textBytes));
    const ranged = request.command !== Command.flush && request.command !== Command.resize;
    const offset = hasOffset && ranged ? get64(buffer, at + 6 + textBytes) : undefined;
    request.takeError(offset);
    sink.error(request, knownErrno(error), text, offset);
  }

  #takeData(
    state: Extract<State<R>, { kind: 'data' }>,
    buffer: Buffer,
    at: number,
    end: number,
    sink: ReplySink<R>,
  ): number {
    const here = Math.min(state.left, end - at);
    if (here === 0) return at;
    const taken = sink.data(state.request, state.offset, buffer, at, here);
    state.offset += taken;
    state.left -= taken;
    if (state.left === 0) this.#endOfChunk(state.request, state.last, sink);
    return at + taken;
  }

  #takeStatus(
    state: Extract<State<R>, { kind: 'status' }>,
    buffer: Buffer,
    at: number,
    end: number,
    sink: ReplySink<R>,
  ): number {
    const wide = this.#style === 'extended';
    const descriptorBytes = wide ? 16 : 8;
    const count = Math.min(state.left, Math.floor((end - at) / descriptorBytes));
    if (count === 0) return at;
    const extents: StatusDescriptor[] = [];
    for (let i = 0; i < count; i++) {
      const from = at + i * descriptorBytes;
      const length = wide ? get64(buffer, from) : get32(buffer, from);
      const status = wide ? get64(buffer, from + 8) : get32(buffer, from + 4);
      state.left--;
      state.request.takeExtent(length, state.left === 0);
      extents.push({ length, state: status });
    }
    sink.status(state.request, state.contextId, extents);
    if (state.left === 0) this.#endOfChunk(state.request, state.last, sink);
    return at + count * descriptorBytes;
  }

  #endOfChunk(request: R, last: boolean, sink: ReplySink<R>): void {
    this.#state = HEADER;
    if (last) this.#done(request, sink);
  }

  #done(request: R, sink: ReplySink<R>): void {
    request.finish();
    sink.done(request);
  }

  #find(buffer: Buffer, at: number, sink: ReplySink<R>): R {
    const request = sink.find(get64(buffer, at));
    if (!request) throw new ProtocolError('bad-message', 'a reply to a request that was not sent');
    return request;
  }
}

/** "The client SHOULD treat an unexpected error value as if it had been NBD_EINVAL". */
function knownErrno(value: number): Errno {
  return value !== 0 && KNOWN_ERRNOS.includes(value) ? (value as Errno) : Errno.EINVAL;
}

/** An unsigned number of 64 bits. Nothing that we send is over 2^53 - 1, so nothing that comes back may be. */
function get64(buffer: Buffer, at: number): number {
  const value = get32(buffer, at) * TWO_32 + get32(buffer, at + 4);
  if (value > Number.MAX_SAFE_INTEGER) throw new ProtocolError('too-big', 'a number of 2^53 or more');
  return value;
}
