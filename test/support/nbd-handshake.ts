/**
 * The handshake as a raw client sees it: options and their replies, each reply checked against the layout that
 * the protocol document gives it ("Option reply types"); what breaks the layout is a Violation.
 */
import type { Buffer } from 'node:buffer';
import {
  type HeaderStyle,
  Info,
  Option,
  OptionReply,
  TransmissionFlag,
} from '../../src/nbd-server-protocol/constants.ts';
import {
  type Address,
  infoData,
  metaData,
  type OptionLies,
  type OptionReplyMessage,
  optionRequest,
  readGreeting,
  readOptionReply,
  u32,
  Violation,
  Wire,
} from './wire.ts';

const ERROR_BIT = 0x8000_0000;
const STRING_BYTES_MAX = 4096;

/** What a server answered to one option. */
export interface OptionAnswer {
  /** The last reply's type: NBD_REP_ACK or an error. */
  readonly final: number;
  /** The last reply's text, for errors. */
  readonly text: string;
  /** Everything before the last reply. */
  readonly items: readonly OptionReplyMessage[];
}

export interface BlockSizeInfo {
  readonly minimum: number;
  readonly preferred: number;
  readonly maximumPayload: number;
}

/** The information replies of NBD_OPT_INFO or NBD_OPT_GO. */
export interface ExportInfo {
  sizeBytes?: bigint;
  flags?: number;
  name?: string;
  description?: string;
  blockSize?: BlockSizeInfo;
  /** Information types in the order in which they came. */
  types: number[];
}

/** The name of an option reply type: 'ACK', 'ERR_UNSUP', … */
export function optionReplyName(type: number): string {
  for (const [key, number] of Object.entries(OptionReply))
    if (number === type) return key.replace(/[A-Z]/g, (capital) => `_${capital}`).toUpperCase();
  return `reply ${type}`;
}

/** A string of the document's "Conventions": UTF-8, no NUL, at most 4096 bytes. */
export function checkedString(bytes: Buffer, what: string): string {
  if (bytes.length > STRING_BYTES_MAX) throw new Violation(`${what} has ${bytes.length} bytes`);
  if (bytes.includes(0)) throw new Violation(`${what} has a NUL`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new Violation(`${what} is not UTF-8`, { cause });
  }
}

/** Reads replies to `code` up to the last one. */
export async function readOptionAnswer(wire: Wire, code: number): Promise<OptionAnswer> {
  const items: OptionReplyMessage[] = [];
  for (;;) {
    const reply = await readOptionReply(wire);
    if (reply.option !== code >>> 0) throw new Violation(`a reply to option ${reply.option}, not to ${code}`);
    if (reply.type === OptionReply.ack) {
      if (reply.data.length > 0) throw new Violation('NBD_REP_ACK with data');
      return { final: reply.type, text: '', items };
    }
    if (reply.type >= ERROR_BIT)
      return { final: reply.type, text: checkedString(reply.data, 'an option error'), items };
    items.push(reply);
  }
}

export function decodeInfos(items: readonly OptionReplyMessage[]): ExportInfo {
  const info: ExportInfo = { types: [] };
  for (const { type, data } of items) {
    if (type !== OptionReply.info) throw new Violation(`reply type ${type} among information replies`);
    if (data.length < 2) throw new Violation(`NBD_REP_INFO of ${data.length} bytes`);
    const kind = data.readUInt16BE(0);
    if (info.types.includes(kind)) throw new Violation(`information type ${kind} came twice`);
    info.types.push(kind);
    if (kind === Info.export) decodeExport(info, data);
    else if (kind === Info.name) info.name = checkedString(data.subarray(2), 'the canonical name');
    else if (kind === Info.description) info.description = checkedString(data.subarray(2), 'the description');
    else if (kind === Info.blockSize) info.blockSize = decodeBlockSize(data);
    else throw new Violation(`information type ${kind} is unknown`);
  }
  return info;
}

function decodeExport(info: ExportInfo, data: Buffer): void {
  if (data.length !== 12) throw new Violation(`NBD_INFO_EXPORT of ${data.length} bytes`);
  info.sizeBytes = data.readBigUInt64BE(2);
  info.flags = checkedFlags(data.readUInt16BE(10));
}

/** Rules between transmission flags ("Transmission flags"). */
export function checkedFlags(flags: number): number {
  const has = (flag: number): boolean => (flags & flag) !== 0;
  if (!has(TransmissionFlag.hasFlags)) throw new Violation('NBD_FLAG_HAS_FLAGS is not set');
  if (has(TransmissionFlag.sendFastZero) && !has(TransmissionFlag.sendWriteZeroes))
    throw new Violation('SEND_FAST_ZERO without SEND_WRITE_ZEROES');
  if (flags >= TransmissionFlag.blockStatusPayload << 1) throw new Violation('an unknown transmission flag');
  return flags;
}

function decodeBlockSize(data: Buffer): BlockSizeInfo {
  if (data.length !== 14) throw new Violation(`NBD_INFO_BLOCK_SIZE of ${data.length} bytes`);
  const [minimum, preferred, maximumPayload] = [2, 6, 10].map((at) => data.readUInt32BE(at)) as [
    number,
    number,
    number,
  ];
  const powerOf2 = (value: number): boolean => value > 0 && (value & (value - 1)) === 0;
  if (!powerOf2(minimum) || minimum > 65_536) throw new Violation(`minimum block size ${minimum}`);
  if (!powerOf2(preferred) || preferred < Math.max(minimum, 512))
    throw new Violation(`preferred block size ${preferred}`);
  if (maximumPayload < preferred || maximumPayload < 1 << 20)
    throw new Violation(`maximum payload ${maximumPayload}`);
  return { minimum, preferred, maximumPayload };
}

/** The contexts that NBD_OPT_LIST_META_CONTEXT or NBD_OPT_SET_META_CONTEXT returned: id and name, in order. */
export function decodeContexts(items: readonly OptionReplyMessage[]): { id: number; name: string }[] {
  return items.map(({ type, data }) => {
    if (type !== OptionReply.metaContext) throw new Violation(`reply type ${type} among contexts`);
    if (data.length < 4) throw new Violation(`NBD_REP_META_CONTEXT of ${data.length} bytes`);
    const name = checkedString(data.subarray(4), 'a context name');
    if (!/^[^:\s]+:/u.test(name)) throw new Violation(`context "${name}" has no namespace`);
    return { id: data.readUInt32BE(0), name };
  });
}

/** The exports that NBD_OPT_LIST returned. */
export function decodeList(items: readonly OptionReplyMessage[]): { name: string; description: string }[] {
  return items.map(({ type, data }) => {
    if (type !== OptionReply.server) throw new Violation(`reply type ${type} among exports`);
    const length = data.length < 4 ? -1 : data.readUInt32BE(0);
    if (length < 0 || length > data.length - 4) throw new Violation('NBD_REP_SERVER: name beyond the reply');
    return {
      name: checkedString(data.subarray(4, 4 + length), 'an export name'),
      description: checkedString(data.subarray(4 + length), 'an export description'),
    };
  });
}

export class Handshake {
  readonly wire: Wire;
  readonly serverFlags: number;

  private constructor(wire: Wire, serverFlags: number) {
    this.wire = wire;
    this.serverFlags = serverFlags;
  }

  /** Connects, reads the greeting and sends the client flags (FIXED_NEWSTYLE and NO_ZEROES unless told otherwise). */
  static async open(address: Address, clientFlags = 3): Promise<Handshake> {
    const wire = await Wire.connect(address);
    const serverFlags = await readGreeting(wire);
    wire.send(u32(clientFlags));
    return new Handshake(wire, serverFlags);
  }

  async option(code: number, data?: Uint8Array, lies?: OptionLies): Promise<OptionAnswer> {
    this.wire.send(optionRequest(code, data, lies));
    return await readOptionAnswer(this.wire, code);
  }

  /** INFO or GO; the infos are empty when the answer is an error. */
  async choose(
    code: number,
    name: string,
    infos: readonly number[] = [],
  ): Promise<OptionAnswer & { info: ExportInfo }> {
    const answer = await this.option(code, infoData(name, infos));
    const info = decodeInfos(answer.items);
    if (answer.final === OptionReply.ack && info.sizeBytes === undefined)
      throw new Violation('success without NBD_INFO_EXPORT');
    return { ...answer, info };
  }

  /** Asks for the header style; false when the server does not know it. */
  async style(style: HeaderStyle): Promise<boolean> {
    if (style === 'simple') return true;
    const code = style === 'extended' ? Option.extendedHeaders : Option.structuredReply;
    const { final } = await this.option(code);
    if (final !== OptionReply.ack && final !== OptionReply.errUnsup)
      throw new Violation(`${optionReplyName(final)} to a well-formed request for ${style} headers`);
    return final === OptionReply.ack;
  }

  async setContexts(name: string, queries: readonly string[]): Promise<{ id: number; name: string }[]> {
    const answer = await this.option(Option.setMetaContext, metaData(name, queries));
    if (answer.final !== OptionReply.ack) return [];
    const contexts = decodeContexts(answer.items);
    if (new Set(contexts.map(({ id }) => id)).size !== contexts.length)
      throw new Violation('two contexts with one id');
    return contexts;
  }
}
