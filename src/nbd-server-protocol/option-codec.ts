/**
 * Option haggling, bytes <-> values, for both sides. Role: layouts only; which message may come when is the
 * handshake machines' business.
 *
 *   greeting      S  0 INIT_PASSWD u64   8 IHAVEOPT u64   16 handshake flags u16
 *   client flags  C  0 flags u32
 *   option        C  0 IHAVEOPT u64   8 option u32   12 length u32   16 data
 *   option reply  S  0 OPTION_REPLY_MAGIC u64   8 option u32   12 type u32   16 length u32   20 data
 *   GO, INFO      C  0 name length u32   4 name   n count u16   n+2 info types u16 x count
 *   *_META_CONTEXT C 0 name length u32   4 name   n count u32   n+4 (length u32, query) x count
 *   SERVER        S  0 name length u32   4 name   n description
 *   INFO          S  0 type u16   2 by type: EXPORT size u64, flags u16; NAME, DESCRIPTION text;
 *                    BLOCK_SIZE minimum u32, preferred u32, maximum payload u32
 *   META_CONTEXT  S  0 id u32   4 name
 *   EXPORT_NAME   S  0 size u64   8 flags u16   10 zeroes 124 (unless NO_ZEROES)
 *
 * Decoders throw ProtocolError and nothing else.
 */

import { Buffer } from 'node:buffer';
import { HandshakeFlag, IHAVEOPT, INIT_PASSWD, Info, Limit, OPTION_REPLY_MAGIC } from './constants.ts';
import { ProtocolError } from './errors.ts';
import type { ExportBlockSizes, ExportEntry, SelectedContext } from './session.ts';
import { decodeString, encodeString, encodeText } from './strings.ts';

export const GREETING_BYTES = 18;
export const CLIENT_FLAGS_BYTES = 4;
export const OPTION_HEADER_BYTES = 16;
export const OPTION_REPLY_HEADER_BYTES = 20;
export const EXPORT_NAME_REPLY_BYTES = 10;
export const EXPORT_NAME_ZEROES = 124;

export function encodeGreeting(): Buffer {
  const bytes = Buffer.alloc(GREETING_BYTES);
  bytes.writeBigUInt64BE(INIT_PASSWD, 0);
  bytes.writeBigUInt64BE(IHAVEOPT, 8);
  bytes.writeUInt16BE(HandshakeFlag.fixedNewstyle | HandshakeFlag.noZeroes, 16);
  return bytes;
}

export function encodeOption(option: number, data?: Buffer): Buffer {
  const bytes = Buffer.alloc(OPTION_HEADER_BYTES + (data?.length ?? 0));
  bytes.writeBigUInt64BE(IHAVEOPT, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(data?.length ?? 0, 12);
  data?.copy(bytes, OPTION_HEADER_BYTES);
  return bytes;
}

export function encodeOptionReply(option: number, type: number, data?: Buffer): Buffer {
  const bytes = Buffer.alloc(OPTION_REPLY_HEADER_BYTES + (data?.length ?? 0));
  bytes.writeBigUInt64BE(OPTION_REPLY_MAGIC, 0);
  bytes.writeUInt32BE(option, 8);
  bytes.writeUInt32BE(type, 12);
  bytes.writeUInt32BE(data?.length ?? 0, 16);
  data?.copy(bytes, OPTION_REPLY_HEADER_BYTES);
  return bytes;
}

/** Reads fields from the front of a message, never past its end. */
class Fields {
  #rest: Buffer;
  constructor(bytes: Buffer) {
    this.#rest = bytes;
  }

  get remaining(): number {
    return this.#rest.length;
  }

  take(count: number, what: string): Buffer {
    if (count > this.#rest.length) {
      throw new ProtocolError(
        'bad-message',
        `${what} would need ${count} bytes, ${this.#rest.length} are left`,
      );
    }
    const bytes = this.#rest.subarray(0, count);
    this.#rest = this.#rest.subarray(count);
    return bytes;
  }

  u16(what: string): number {
    return this.take(2, what).readUInt16BE(0);
  }

  u32(what: string): number {
    return this.take(4, what).readUInt32BE(0);
  }

  size(what: string): number {
    const value = this.take(8, what).readBigUInt64BE(0);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
      throw new ProtocolError('unsupported', `${what} ${value} is over 2^53 - 1 bytes`);
    }
    return Number(value);
  }

  string(what: string): string {
    return decodeString(this.take(this.u32(`the length of ${what}`), what), what);
  }

  end(what: string): void {
    if (this.#rest.length !== 0) {
      throw new ProtocolError('bad-message', `${this.#rest.length} bytes too many at the end of ${what}`);
    }
  }
}

/** Data of GO and INFO. */
export interface InfoRequest {
  readonly name: string;
  /** Info types in the order asked, known or not. */
  readonly infos: readonly number[];
}

export function encodeInfoRequest({ name, infos }: InfoRequest): Buffer {
  const nameBytes = encodeString(name);
  const bytes = Buffer.alloc(4 + nameBytes.length + 2 + 2 * infos.length);
  let at = bytes.writeUInt32BE(nameBytes.length, 0);
  at += nameBytes.copy(bytes, at);
  at = bytes.writeUInt16BE(infos.length, at);
  for (const info of infos) at = bytes.writeUInt16BE(info, at);
  return bytes;
}

export function decodeInfoRequest(data: Buffer): InfoRequest {
  const fields = new Fields(data);
  const name = fields.string('the export name');
  const count = fields.u16('the number of information requests');
  const infos: number[] = [];
  for (let i = 0; i < count; i++) infos.push(fields.u16('an information request'));
  fields.end('the option data');
  return { name, infos };
}

/** Data of LIST_META_CONTEXT and SET_META_CONTEXT. */
export interface MetaRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

export function encodeMetaRequest({ name, queries }: MetaRequest): Buffer {
  const parts = [lengthAndString(name), u32(queries.length), ...queries.map(lengthAndString)];
  return Buffer.concat(parts);
}

export function decodeMetaRequest(data: Buffer): MetaRequest {
  const fields = new Fields(data);
  const name = fields.string('the export name');
  const count = fields.u32('the number of queries');
  const queries: string[] = [];
  for (let i = 0; i < count; i++) queries.push(fields.string('a query'));
  fields.end('the option data');
  return { name, queries };
}

export function encodeServerEntry({ name, description }: ExportEntry): Buffer {
  const head = lengthAndString(name);
  return description ? Buffer.concat([head, encodeText(description)]) : head;
}

export function decodeServerEntry(data: Buffer): ExportEntry {
  const fields = new Fields(data);
  const name = fields.string('the export name');
  if (fields.remaining === 0) return { name };
  return { name, description: decodeString(fields.take(fields.remaining, 'text'), 'the description') };
}

export type InfoReply =
  | { readonly type: 'export'; readonly sizeBytes: number; readonly transmissionFlags: number }
  | { readonly type: 'name'; readonly name: string }
  | { readonly type: 'description'; readonly description: string }
  | { readonly type: 'block-size'; readonly blockSizes: ExportBlockSizes }
  | { readonly type: 'unknown'; readonly value: number };

export function encodeInfoExport(sizeBytes: number, transmissionFlags: number): Buffer {
  return Buffer.concat([u16(Info.export), encodeSizeAndFlags(sizeBytes, transmissionFlags)]);
}

export function encodeInfoName(name: string): Buffer {
  return Buffer.concat([u16(Info.name), encodeString(name)]);
}

export function encodeInfoDescription(description: string): Buffer {
  return Buffer.concat([u16(Info.description), encodeText(description)]);
}

export function encodeInfoBlockSize(sizes: ExportBlockSizes): Buffer {
  return Buffer.concat([
    u16(Info.blockSize),
    u32(sizes.minimum),
    u32(sizes.preferred),
    u32(sizes.maximumPayload),
  ]);
}

export function decodeInfoReply(data: Buffer): InfoReply {
  const fields = new Fields(data);
  const value = fields.u16('the information type');
  switch (value) {
    case Info.export: {
      const reply = decodeSizeAndFlags(fields.take(EXPORT_NAME_REPLY_BYTES, 'NBD_INFO_EXPORT'));
      fields.end('NBD_INFO_EXPORT');
      return { type: 'export', ...reply };
    }
    case Info.name:
      return { type: 'name', name: decodeString(fields.take(fields.remaining, 'text'), 'the export name') };
    case Info.description: {
      const description = decodeString(fields.take(fields.remaining, 'text'), 'the description');
      return { type: 'description', description };
    }
    case Info.blockSize: {
      const minimum = fields.u32('the minimum block size');
      const preferred = fields.u32('the preferred block size');
      const maximumPayload = fields.u32('the maximum payload size');
      fields.end('NBD_INFO_BLOCK_SIZE');
      const blockSizes = { minimum, preferred, maximumPayload };
      const problem = blockSizesProblem(blockSizes);
      if (problem !== undefined) throw new ProtocolError('bad-message', problem);
      return { type: 'block-size', blockSizes };
    }
    default:
      return { type: 'unknown', value };
  }
}

/** Why these sizes break "Size constraints", if they do. */
export function blockSizesProblem(sizes: ExportBlockSizes): string | undefined {
  const { minimum, preferred, maximumPayload } = sizes;
  if (!isPowerOfTwo(minimum) || minimum > 65_536) return `minimum block size ${minimum} is not allowed`;
  if (!isPowerOfTwo(preferred) || preferred < Math.max(minimum, 512)) {
    return `preferred block size ${preferred} is not allowed with minimum ${minimum}`;
  }
  if (maximumPayload < preferred)
    return `maximum payload ${maximumPayload} is below the preferred block size`;
  return undefined;
}

export function encodeMetaContext({ id, name }: SelectedContext): Buffer {
  return Buffer.concat([u32(id), encodeString(name)]);
}

export function decodeMetaContext(data: Buffer): SelectedContext {
  const fields = new Fields(data);
  const id = fields.u32('the context id');
  return { id, name: decodeString(fields.take(fields.remaining, 'text'), 'the context name') };
}

/** Size and transmission flags: the answer to EXPORT_NAME, and the body of NBD_INFO_EXPORT. */
export function encodeSizeAndFlags(sizeBytes: number, transmissionFlags: number, zeroes = 0): Buffer {
  const bytes = Buffer.alloc(EXPORT_NAME_REPLY_BYTES + zeroes);
  bytes.writeBigUInt64BE(BigInt(sizeBytes), 0);
  bytes.writeUInt16BE(transmissionFlags, 8);
  return bytes;
}

export function decodeSizeAndFlags(bytes: Buffer): { sizeBytes: number; transmissionFlags: number } {
  const fields = new Fields(bytes);
  return { sizeBytes: fields.size('the export size'), transmissionFlags: fields.u16('transmission flags') };
}

/** The text of an error reply; a peer's text that breaks the string rules is shown as well as it can be. */
export function decodeErrorText(data: Buffer): string {
  return encodeText(data.toString('utf8'), Limit.stringBytes).toString('utf8');
}

function isPowerOfTwo(value: number): boolean {
  return value > 0 && (value & (value - 1)) === 0;
}

function lengthAndString(text: string): Buffer {
  const bytes = encodeString(text);
  return Buffer.concat([u32(bytes.length), bytes]);
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value, 0);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value, 0);
  return bytes;
}
