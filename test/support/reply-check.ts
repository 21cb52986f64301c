/**
 * Puts the chunks of one reply together and checks each against the protocol document on the way. A raw client
 * that only looked at what it asked about would miss most of what a server can do wrong.
 */
import { Buffer } from 'node:buffer';
import {
  BASE_ALLOCATION,
  Command,
  CommandFlag,
  Errno,
  ReplyFlag,
  ReplyType,
  State,
} from '../../src/nbd-server-protocol/constants.ts';
import { checkedString } from './nbd-handshake.ts';
import type { Answer, StatusExtent, Terms } from './nbd-session.ts';
import { type Chunk, type RequestFields, Violation } from './wire.ts';

const ERROR_TYPE_BIT = 0x8000;
const STATUS_DESCRIPTORS_MAX = 1 << 20;
const OFFSET_ERROR_COMMANDS: readonly number[] = [
  Command.read,
  Command.write,
  Command.trim,
  Command.cache,
  Command.writeZeroes,
  Command.blockStatus,
];

interface Piece {
  readonly offset: bigint;
  readonly length: bigint;
  /** undefined: a hole. */
  readonly data: Buffer | undefined;
}

export class AnswerBuilder {
  readonly #terms: Terms;
  readonly #request: RequestFields & { readonly cookie: bigint };
  readonly #offset: bigint;
  readonly #length: bigint;
  readonly #pieces: Piece[] = [];
  readonly #statuses = new Map<number, StatusExtent[]>();
  #error = 0;
  #plainErrors = 0;
  #text = '';
  #errorOffset: bigint | undefined;
  #simple = false;

  constructor(terms: Terms, request: RequestFields & { readonly cookie: bigint }, effectLength: bigint) {
    this.#terms = terms;
    this.#request = request;
    this.#offset = BigInt.asUintN(64, BigInt(request.offset ?? 0));
    this.#length = effectLength;
  }

  /** How many bytes follow a simple reply without error. */
  get simpleDataLength(): number {
    return this.#request.type === Command.read ? Number(this.#length) : 0;
  }

  add(chunk: Chunk): void {
    this.#checkStyle(chunk);
    if (chunk.style === 'simple') {
      this.#addSimple(chunk);
      return;
    }
    if ((chunk.flags & ~ReplyFlag.done) !== 0) throw new Violation(`unknown reply flags ${chunk.flags}`);
    if (chunk.offset !== undefined && chunk.offset !== this.#offset)
      throw new Violation(`a reply with offset ${chunk.offset}, not the request's ${this.#offset}`);
    this.#addByType(chunk);
  }

  finish(): Answer {
    if (this.#error === 0) this.#checkSuccess();
    return {
      cookie: this.#request.cookie,
      error: this.#error,
      text: this.#text,
      errorOffset: this.#errorOffset,
      data: this.#assemble(),
      dataChunks: this.#pieces.filter(({ data }) => data !== undefined).length,
      holeChunks: this.#pieces.filter(({ data }) => data === undefined).length,
      statuses: this.#statuses,
      simple: this.#simple,
    };
  }

  #addByType(chunk: Chunk): void {
    if ((chunk.type & ERROR_TYPE_BIT) !== 0) this.#addError(chunk);
    else if (chunk.type === ReplyType.none) checkNone(chunk);
    else if (chunk.type === ReplyType.offsetData) this.#addData(chunk);
    else if (chunk.type === ReplyType.offsetHole) this.#addHole(chunk);
    else if (chunk.type === ReplyType.blockStatus || chunk.type === ReplyType.blockStatusExt)
      this.#addStatus(chunk);
    else throw new Violation(`unknown chunk type ${chunk.type}`);
  }

  #checkStyle(chunk: Chunk): void {
    const { style } = this.#terms;
    if (chunk.style === style) return;
    if (style === 'structured' && chunk.style === 'simple' && this.#request.type !== Command.read) return;
    throw new Violation(`a ${chunk.style} reply in a session with ${style} headers`);
  }

  #addSimple(chunk: Chunk): void {
    this.#simple = true;
    this.#error = checkedErrno(chunk.error, true);
    if (chunk.payload.length > 0) this.#addPiece({ offset: this.#offset, ...whole(chunk.payload) });
  }

  #addData(chunk: Chunk): void {
    if (chunk.payload.length < 9) throw new Violation(`a data chunk of ${chunk.payload.length} bytes`);
    if (chunk.payload.length - 8 > this.#terms.chunkBytesMax)
      throw new Violation(`a data chunk of ${chunk.payload.length} bytes exceeds the maximum payload`);
    this.#addPiece({ offset: chunk.payload.readBigUInt64BE(0), ...whole(chunk.payload.subarray(8)) });
  }

  #addHole(chunk: Chunk): void {
    if (chunk.payload.length !== 12) throw new Violation(`a hole chunk of ${chunk.payload.length} bytes`);
    const length = BigInt(chunk.payload.readUInt32BE(8));
    this.#addPiece({ offset: chunk.payload.readBigUInt64BE(0), length, data: undefined });
  }

  #addPiece(piece: Piece): void {
    if (this.#request.type !== Command.read) throw new Violation('content in a reply to another than READ');
    if (piece.length === 0n) throw new Violation('an empty content chunk');
    const end = piece.offset + piece.length;
    if (piece.offset < this.#offset || end > this.#offset + this.#length)
      throw new Violation('content outside the request');
    for (const other of this.#pieces)
      if (piece.offset < other.offset + other.length && other.offset < end)
        throw new Violation('content chunks overlap');
    if (this.#errorOffset !== undefined && this.#errorOffset >= piece.offset && this.#errorOffset < end)
      throw new Violation('content after an error at an offset in it');
    this.#pieces.push(piece);
    if (((this.#request.flags ?? 0) & CommandFlag.df) !== 0 && this.#pieces.length > 1)
      throw new Violation('more than one content chunk with DF');
  }

  #addError(chunk: Chunk): void {
    const { payload, type } = chunk;
    const tail = type === ReplyType.errorOffset ? 8 : 0;
    if (type !== ReplyType.error && type !== ReplyType.errorOffset)
      throw new Violation(`unknown error chunk type ${type}`);
    if (payload.length < 6 + tail) throw new Violation(`an error chunk of ${payload.length} bytes`);
    const textLength = payload.readUInt16BE(4);
    if (textLength !== payload.length - 6 - tail) throw new Violation('length of an error text');
    const error = checkedErrno(payload.readUInt32BE(0), false);
    if (this.#error === 0) this.#error = error;
    this.#text = checkedString(payload.subarray(6, 6 + textLength), 'an error text');
    if (type === ReplyType.error) this.#plainErrors += 1;
    else this.#addErrorOffset(payload.readBigUInt64BE(6 + textLength));
    if (this.#plainErrors > 1) throw new Violation('more than one error chunk without offset');
  }

  #addErrorOffset(offset: bigint): void {
    if (!OFFSET_ERROR_COMMANDS.includes(this.#request.type))
      throw new Violation('an error offset in a reply to a command without one');
    // The end wraps for requests beyond 2^64; what is left of such a range is checked from below only.
    const end = this.#offset + this.#length;
    if (offset < this.#offset || (offset >= end && this.#length > 0n))
      throw new Violation(`error offset ${offset} outside the request`);
    this.#errorOffset = offset;
  }

  #addStatus({ type, payload }: Chunk): void {
    if (this.#request.type !== Command.blockStatus) throw new Violation('a status chunk nobody asked for');
    const wide = this.#terms.style === 'extended';
    if (wide !== (type === ReplyType.blockStatusExt)) throw new Violation(`status chunk type ${type}`);
    const [head, step] = wide ? [8, 16] : [4, 8];
    const count = (payload.length - head) / step;
    if (!Number.isInteger(count) || count < 1)
      throw new Violation(`a status chunk of ${payload.length} bytes`);
    if (count > STATUS_DESCRIPTORS_MAX) throw new Violation(`${count} status descriptors`);
    if (wide && payload.readUInt32BE(4) !== count) throw new Violation('descriptor count');
    const id = payload.readUInt32BE(0);
    if (!this.#terms.contexts.has(id)) throw new Violation(`status of context ${id}, which is not selected`);
    if (this.#statuses.has(id)) throw new Violation(`two status chunks of context ${id}`);
    const extents: StatusExtent[] = [];
    for (let at = head; at < payload.length; at += step) {
      const length = wide ? payload.readBigUInt64BE(at) : BigInt(payload.readUInt32BE(at));
      const flags = wide ? payload.readBigUInt64BE(at + 8) : BigInt(payload.readUInt32BE(at + 4));
      if (wide && flags > 0xffff_ffffn) throw new Violation('a status of more than 32 bits');
      extents.push({ length, flags: Number(flags) });
    }
    this.#checkExtents(extents, this.#terms.contexts.get(id)!);
    this.#statuses.set(id, extents);
  }

  #checkExtents(extents: readonly StatusExtent[], context: string): void {
    let sum = 0n;
    for (const { length, flags } of extents) {
      if (length === 0n) throw new Violation('an extent of length 0');
      if (sum >= this.#length) throw new Violation('an extent that starts behind the request');
      if (context === BASE_ALLOCATION && (flags & ~(State.hole | State.zero)) !== 0)
        throw new Violation(`reserved status bits: ${flags}`);
      sum += length;
    }
    if (this.#offset + sum > this.#terms.sizeBytes) throw new Violation('extents go beyond the export');
    if (((this.#request.flags ?? 0) & CommandFlag.reqOne) === 0) return;
    if (extents.length !== 1) throw new Violation(`${extents.length} extents with REQ_ONE`);
    if (sum > this.#length) throw new Violation('an extent longer than the request with REQ_ONE');
  }

  #checkSuccess(): void {
    if (this.#request.type === Command.read) {
      const sum = this.#pieces.reduce((bytes, { length }) => bytes + length, 0n);
      if (sum !== this.#length) throw new Violation(`success with ${sum} of ${this.#length} bytes`);
    }
    const filtered = ((this.#request.flags ?? 0) & CommandFlag.payloadLen) !== 0;
    if (this.#request.type === Command.blockStatus && !filtered)
      if (this.#statuses.size !== this.#terms.contexts.size || this.#simple)
        throw new Violation(`success with ${this.#statuses.size} of ${this.#terms.contexts.size} contexts`);
  }

  #assemble(): Buffer {
    const end = Math.max(
      0,
      ...this.#pieces.map(({ offset, length }) => Number(offset + length - this.#offset)),
    );
    // A read of gigabytes of holes is checked by its chunks; nobody needs its zeroes.
    if (end > 1 << 27) return Buffer.alloc(0);
    if (this.#pieces.length === 1 && this.#pieces[0]!.data !== undefined) return this.#pieces[0]!.data;
    const data = Buffer.alloc(end);
    for (const piece of this.#pieces) piece.data?.copy(data, Number(piece.offset - this.#offset));
    return data;
  }
}

function whole(data: Buffer): { length: bigint; data: Buffer } {
  return { length: BigInt(data.length), data };
}

function checkNone(chunk: Chunk): void {
  if (chunk.payload.length !== 0) throw new Violation('NBD_REPLY_TYPE_NONE with a payload');
  if ((chunk.flags & ReplyFlag.done) === 0) throw new Violation('NBD_REPLY_TYPE_NONE without DONE');
}

function checkedErrno(error: number, zeroAllowed: boolean): number {
  if (error === 0 && zeroAllowed) return error;
  if (error === 0 || !(Object.values(Errno) as number[]).includes(error))
    throw new Violation(`error value ${error}`);
  return error;
}
