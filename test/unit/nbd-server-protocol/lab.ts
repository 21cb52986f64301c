/**
 * Drives the machines of nbd-server-protocol in memory. Role: what the tests of this folder share; it knows how a
 * driver must behave, and nothing about what the machines should answer.
 */

import type { ClientHandshake, ClientStep } from '../../../src/nbd-server-protocol/client-handshake.ts';
import { Option, OptionReply, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import type { ServerHandshake, ServerStep } from '../../../src/nbd-server-protocol/server-handshake.ts';
import type { ExportInfo } from '../../../src/nbd-server-protocol/session.ts';

export const DISK: ExportInfo = {
  name: 'disk',
  description: 'a disk',
  sizeBytes: 0x1_2345_6000,
  transmissionFlags: TransmissionFlag.hasFlags | TransmissionFlag.sendFlush | TransmissionFlag.sendFua,
  blockSizes: { minimum: 1, preferred: 4096, maximumPayload: 33_554_432 },
  metaContexts: ['base:allocation', 'x-volary:one', 'x-volary:two'],
};
export const OTHER: ExportInfo = {
  name: 'other',
  sizeBytes: 512,
  transmissionFlags: TransmissionFlag.hasFlags | TransmissionFlag.readOnly,
  blockSizes: { minimum: 512, preferred: 512, maximumPayload: 65_536 },
  metaContexts: ['base:allocation'],
};
export const EXPORTS: readonly ExportInfo[] = [DISK, OTHER];

/** Bytes from hex digits; spaces and line ends are for the reader. */
export function hex(...digits: string[]): Buffer {
  return Buffer.from(digits.join('').replace(/\s/g, ''), 'hex');
}

export function toHex(text: string): string {
  return Buffer.from(text, 'utf8').toString('hex');
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** An option as a client sends it, built here by hand. */
export function option(number: number, data: Buffer = Buffer.alloc(0), claimed = data.length): Buffer {
  return Buffer.concat([Buffer.from('IHAVEOPT'), u32(number), u32(claimed), data]);
}

/** An option reply as a server sends it. */
export function reply(optionNumber: number, type: number, data: Buffer = Buffer.alloc(0)): Buffer {
  return Buffer.concat([hex('0003e889045565a9'), u32(optionNumber), u32(type), u32(data.length), data]);
}

export const FIXED_NEWSTYLE = u32(3);
export const GREETING = hex('4e42444d41474943 49484156454f5054 0003');

/** Data of GO and INFO, of LIST and SET_META_CONTEXT. */
export function infoData(name: string, infos: readonly number[] = []): Buffer {
  const count = Buffer.alloc(2);
  count.writeUInt16BE(infos.length);
  const items = Buffer.concat(infos.map((info) => u32(info).subarray(2)));
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), count, items]);
}

export function metaData(name: string, queries: readonly string[] = []): Buffer {
  const items = queries.map((query) => Buffer.concat([u32(Buffer.byteLength(query)), Buffer.from(query)]));
  return Buffer.concat([u32(Buffer.byteLength(name)), Buffer.from(name), u32(queries.length), ...items]);
}

export interface ServerTranscript {
  readonly sent: Buffer;
  /** 'list', or 'find NAME', in order. */
  readonly asked: readonly string[];
  readonly last: ServerStep;
}

/** Feeds the chunks, answering every question at once from EXPORTS, until the machine is over or input ends. */
export function driveServer(machine: ServerHandshake, chunks: Iterable<Buffer>): ServerTranscript {
  const sent: Buffer[] = [];
  const asked: string[] = [];
  let last = { kind: 'need-bytes' } as ServerStep;
  for (const chunk of chunks) {
    if (last.kind === 'ready') {
      // What comes after the handshake goes past the machine.
      last = { ...last, rest: Buffer.concat([last.rest, chunk]) };
      continue;
    }
    machine.feed(chunk);
    last = pumpServer(machine, sent, asked);
  }
  return { sent: Buffer.concat(sent), asked, last };
}

function pumpServer(machine: ServerHandshake, sent: Buffer[], asked: string[]): ServerStep {
  for (;;) {
    const step = machine.next();
    if (step.kind === 'send') {
      sent.push(Buffer.from(step.bytes));
    } else if (step.kind === 'list') {
      asked.push('list');
      machine.provideList(EXPORTS);
    } else if (step.kind === 'find') {
      asked.push(`find ${step.name}`);
      machine.provideExport(findExport(step.name));
    } else {
      return step;
    }
  }
}

export function findExport(name: string): ExportInfo | undefined {
  return name === '' ? DISK : EXPORTS.find((one) => one.name === name);
}

export interface ClientTranscript {
  readonly sent: Buffer;
  readonly last: ClientStep;
}

export function driveClient(machine: ClientHandshake, chunks: Iterable<Buffer>): ClientTranscript {
  const sent: Buffer[] = [];
  let last = { kind: 'need-bytes' } as ClientStep;
  for (const chunk of chunks) {
    if (last.kind === 'ready') {
      last = { ...last, rest: Buffer.concat([last.rest, chunk]) };
      continue;
    }
    machine.feed(chunk);
    for (last = machine.next(); last.kind === 'send'; last = machine.next())
      sent.push(Buffer.from(last.bytes));
  }
  return { sent: Buffer.concat(sent), last };
}

/** Cuts at the given places, which need be neither sorted nor inside. Chunks share one reused buffer's fate. */
export function cut(wire: Buffer, places: readonly number[]): Buffer[] {
  const sorted = [0, ...places.filter((at) => at > 0 && at < wire.length).sort((a, b) => a - b), wire.length];
  return sorted.slice(1).map((end, i) => Buffer.from(wire.subarray(sorted[i]!, end)));
}

/** Whole, cut at every single place, and byte by byte. */
export function* everyCut(wire: Buffer): Generator<Buffer[]> {
  yield [Buffer.from(wire)];
  for (let at = 1; at < wire.length; at++) yield cut(wire, [at]);
  yield Array.from(wire, (byte) => Buffer.of(byte));
}

/** Chunks as a socket hands them out: in one buffer that is overwritten each time. */
export function* throughOneBuffer(chunks: Iterable<Buffer>): Generator<Buffer> {
  const shared = Buffer.alloc(1 << 20);
  for (const chunk of chunks) {
    shared.fill(0xee);
    chunk.copy(shared);
    yield shared.subarray(0, chunk.length);
  }
}

const REPLY_NAMES = new Map<number, string>(
  Object.entries(OptionReply).map(([name, value]) => [value, name]),
);
const OPTION_NAMES = new Map<number, string>(Object.entries(Option).map(([name, value]) => [value, name]));

export interface ParsedReply {
  readonly option: string;
  readonly type: string;
  readonly data: Buffer;
}

/** The option replies in what a server sent. */
export function parseReplies(wire: Buffer): ParsedReply[] {
  const replies: ParsedReply[] = [];
  for (let at = 0; at < wire.length; ) {
    const length = wire.readUInt32BE(at + 16);
    replies.push({
      option: OPTION_NAMES.get(wire.readUInt32BE(at + 8)) ?? 'unknown',
      type: REPLY_NAMES.get(wire.readUInt32BE(at + 12)) ?? 'unknown',
      data: wire.subarray(at + 20, at + 20 + length),
    });
    at += 20 + length;
  }
  return replies;
}

/** The options in what a client sent after its flags. */
export function parseOptions(wire: Buffer): string[] {
  const options: string[] = [];
  for (let at = 4; at < wire.length; at += 16 + wire.readUInt32BE(at + 12)) {
    options.push(OPTION_NAMES.get(wire.readUInt32BE(at + 8)) ?? 'unknown');
  }
  return options;
}
