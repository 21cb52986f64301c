/**
 * Frames made by hand: these encoders share nothing with the code under test but the numbers of the protocol, and put on the wire
 * what they are told, also when it is a lie.
 */

import { Buffer } from 'node:buffer';
import { encodeFrame, type Message } from '../../../src/peer-protocol/codec.ts';
import { Kind } from '../../../src/peer-protocol/constants.ts';
import { Decoder } from '../../../src/peer-protocol/decoder.ts';
import { PeerError } from '../../../src/peer-protocol/errors.ts';
import { Header, type Phase } from '../../../src/peer-protocol/header.ts';
import type { Hello, PrimaryMessage, SecondaryMessage } from '../../../src/peer-protocol/messages.ts';
import type { SeededRandom } from '../../support/random.ts';

export const SOURCE = 'rv-00112233445566aa';
export const TARGET = 'rv-00112233445566bb';
export const THIRD = 'rv-00112233445566cc';

/** CRC32C, bit by bit (RFC 3720, appendix B.4). */
export function crc(bytes: Uint8Array): number {
  let sum = 0xffff_ffff;
  for (const byte of bytes) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum & 1) === 1 ? (sum >>> 1) ^ 0x82f6_3b78 : sum >>> 1;
  }
  return ~sum >>> 0;
}

export interface FrameFields {
  readonly kind: number;
  readonly magic?: number;
  readonly version?: number;
  readonly flags?: number;
  readonly number?: bigint | number;
  readonly confirmed?: bigint | number;
  readonly offset?: bigint | number;
  readonly length?: bigint | number;
  readonly value?: number;
  readonly reserved?: bigint;
  readonly payload?: Buffer;
  readonly payloadBytes?: number;
  readonly payloadSum?: number;
  readonly sum?: number;
}

export function frame(fields: FrameFields): Buffer {
  const payload = fields.payload ?? Buffer.alloc(0);
  const header = Buffer.alloc(64);
  header.writeUInt32BE(fields.magic ?? 0x564c_5250, 0);
  header[4] = fields.version ?? 1;
  header[5] = fields.kind;
  header.writeUInt16BE(fields.flags ?? 0, 6);
  header.writeBigUInt64BE(BigInt(fields.number ?? 0), 8);
  header.writeBigUInt64BE(BigInt(fields.confirmed ?? 0), 16);
  header.writeBigUInt64BE(BigInt(fields.offset ?? 0), 24);
  header.writeBigUInt64BE(BigInt(fields.length ?? 0), 32);
  header.writeUInt32BE(fields.value ?? 0, 40);
  header.writeBigUInt64BE(fields.reserved ?? 0n, 44);
  header.writeUInt32BE(fields.payloadBytes ?? payload.length, 52);
  header.writeUInt32BE(fields.payloadSum ?? (payload.length === 0 ? 0 : crc(payload)), 56);
  header.writeUInt32BE(fields.sum ?? crc(header.subarray(0, 60)), 60);
  return Buffer.concat([header, payload]);
}

export function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.of(bytes.length >> 8, bytes.length & 0xff), bytes]);
}

export function ranges(
  ...list: readonly (readonly [offset: bigint | number, length: bigint | number])[]
): Buffer {
  const bytes = Buffer.alloc(16 * list.length);
  for (const [i, [offset, length]] of list.entries()) {
    bytes.writeBigUInt64BE(BigInt(offset), 16 * i);
    bytes.writeBigUInt64BE(BigInt(length), 16 * i + 8);
  }
  return bytes;
}

interface HelloParts {
  readonly versions?: readonly [number, number];
  readonly authentication?: number;
  readonly names?: readonly string[];
  readonly behind?: Buffer;
}

export function helloFrame({
  versions = [1, 1],
  authentication = 0,
  names,
  behind,
}: HelloParts = {}): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(versions[0], 0);
  head.writeUInt16BE(versions[1], 2);
  head.writeUInt16BE(authentication, 4);
  const strings = (names ?? ['cluster', 'key', SOURCE, TARGET, '']).map(text);
  const payload = Buffer.concat([head, ...strings, behind ?? Buffer.alloc(0)]);
  return frame({ kind: Kind.hello, number: 7, length: 1 << 20, payload });
}

export const HELLO: Hello = {
  kind: 'hello',
  clusterId: 'cluster',
  accessKey: 'key',
  source: SOURCE,
  target: TARGET,
  epoch: 7,
  sizeBytes: 1 << 20,
};

/** One of each, with numbers that need all their bytes. */
export const HANDSHAKE: readonly Message[] = [
  { kind: 'welcome', operationsMax: 1000, bytesMax: 2 ** 25, hasLostCache: true, version: 1 },
  { kind: 'difference', cause: 'unsettled', ranges: [{ offset: 0, length: 4096 }] },
  {
    kind: 'difference',
    cause: 'alone',
    ranges: [
      { offset: 2 ** 40, length: 2 ** 33 },
      { offset: 2 ** 53 - 4097, length: 4096 },
    ],
  },
  { kind: 'refusal', code: 'busy', epoch: 2 ** 52 + 1, text: 'noch beschäftigt' },
  { kind: 'ready' },
];

const isEqual = true;
export const OPERATIONS: readonly PrimaryMessage[] = [
  {
    kind: 'write',
    seq: 1,
    confirmed: 0,
    offset: 2 ** 41 + 512,
    length: 5,
    fua: true,
    payload: Buffer.from('data!'),
  },
  { kind: 'zero', seq: 2, confirmed: 1, offset: 4096, length: 2 ** 40, fua: true, noHole: true },
  { kind: 'zero', seq: 3, confirmed: 1, offset: 4096, length: 512, fua: false, noHole: false },
  { kind: 'trim', seq: 4, confirmed: 2, offset: 0, length: 1, fua: false },
  { kind: 'flush', seq: 2 ** 52 + 5, confirmed: 2 ** 52 + 4 },
  { kind: 'members', seq: 6, confirmed: 3, differing: [SOURCE, THIRD], isEqual },
  { kind: 'members', seq: 7, confirmed: 3, differing: [], isEqual: false },
  { kind: 'lacks', seq: 8, confirmed: 4, member: THIRD, ranges: [{ offset: 1, length: 2 }] },
  { kind: 'lacks', seq: 9, confirmed: 4, member: THIRD, ranges: [] },
  { kind: 'lacks', seq: 10, confirmed: 4, member: THIRD, ranges: undefined },
  { kind: 'heartbeat', token: 2 ** 53 - 1, confirmed: 9 },
];

/** Acks of more than one operation are made by a link, of those that its owner sends. */
export const ANSWERS: readonly SecondaryMessage[] = [
  { kind: 'ack', seq: 2 ** 34, result: 'done' },
  { kind: 'ack', seq: 1, result: 'no-space' },
  { kind: 'ack', seq: 2, result: 'io' },
  { kind: 'ack', seq: 3, result: 'failed' },
  { kind: 'ack', seq: 4, result: 'invalid' },
  { kind: 'heartbeat-ack', token: 77, received: 2 ** 34 },
  { kind: 'receiving' },
  { kind: 'fenced', epoch: 12 },
];

/** The same as they look on the wire, and an ack of several. */
export const ON_WIRE: readonly Message[] = [
  ...ANSWERS.map((message) => (message.kind === 'ack' ? { ...message, count: 1 } : message)),
  { kind: 'ack', seq: 2 ** 34 + 3, count: 3, result: 'done' },
];

export const STREAMS: readonly { readonly phase: Phase; readonly messages: readonly Message[] }[] = [
  { phase: 'hello', messages: [{ ...HELLO, versions: { from: 1, to: 1 } }] },
  { phase: 'answer', messages: HANDSHAKE },
  { phase: 'from-primary', messages: OPERATIONS },
  { phase: 'from-secondary', messages: ON_WIRE },
];

/** What the code under test makes of a message. */
export function encoded(message: Message): Buffer {
  const header = new Header();
  const payload = encodeFrame(message, 1, 'confirmed' in message ? message.confirmed : 0, header);
  return Buffer.concat([header.bytes, payload]);
}

export interface Decoded {
  readonly messages: readonly Message[];
  /** What it ended with, when it was refused. */
  readonly error: PeerError | undefined;
  /** Payload lengths for which memory was to be taken. */
  readonly admitted: readonly number[];
}

/** Feeds the chunks; anything but a PeerError is thrown on. */
export function decode(phase: Phase, chunks: Iterable<Buffer>): Decoded {
  const messages: Message[] = [];
  const admitted: number[] = [];
  const decoder = new Decoder(phase, {
    admit: (_kind, bytes) => admitted.push(bytes),
    take: (message) => messages.push(message),
  });
  try {
    for (const chunk of chunks) decoder.feed(chunk, 0, chunk.length);
  } catch (error) {
    if (!(error instanceof PeerError)) throw error;
    return { messages, error, admitted };
  }
  return { messages, error: undefined, admitted };
}

export function* randomPieces(bytes: Buffer, random: SeededRandom, most: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; ) {
    const end = at + 1 + random.below(most);
    yield bytes.subarray(at, end);
    at = end;
  }
}

export function randomBytes(random: SeededRandom, count: number): Buffer {
  return Buffer.from(Array.from({ length: count }, () => random.below(256)));
}
