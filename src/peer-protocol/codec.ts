/**
 * Messages to headers and payloads, and back. What is sent has been made by this process: a mistake in it is an assertion. What is
 * received is a peer's: a mistake in it is a PeerError.
 */

import { crc32c } from '@node-rs/crc32';
import { assert } from '../model/errors.ts';
import { Flag, HANDSHAKE_VERSION, Kind, Limit } from './constants.ts';
import { PeerError } from './errors.ts';
import type { Header } from './header.ts';
import type {
  Ack,
  AckResult,
  Difference,
  Hello,
  PrimaryMessage,
  Range,
  Ready,
  Refusal,
  RefusalCode,
  SecondaryMessage,
  Welcome,
} from './messages.ts';
import {
  helloPayload,
  lacksPayload,
  membersPayload,
  PayloadReader,
  rangesPayload,
  readHello,
  readMembers,
  textPayload,
  type Versions,
} from './payloads.ts';

/** Positions are the codes on the wire. */
const REFUSALS: readonly RefusalCode[] = [
  'stale-epoch',
  'unknown',
  'policy',
  'failed',
  'size',
  'busy',
  'version',
];
const RESULTS: readonly AckResult[] = ['done', 'no-space', 'io', 'failed', 'invalid'];

/** `count` operations, the last of which is `seq`, have ended alike. */
export type AckRun = Ack & { readonly count: number };

/** Hello, welcome and acks with what only the wire knows of them. */
export type Message =
  | (Hello & { readonly versions: Versions })
  | (Welcome & { readonly version: number })
  | Refusal
  | Difference
  | Ready
  | PrimaryMessage
  | Exclude<SecondaryMessage, Ack>
  | AckRun;

const NOTHING = Buffer.alloc(0);

// --- to the wire -------------------------------------------------------------------------------------------

/** Makes the header's bytes, and returns the payload that goes behind them. `confirmed` stands in for the one of the message. */
export function encodeFrame(message: Message, version: number, confirmed: number, header: Header): Buffer {
  const payload = encodeMessage(message, version, confirmed, header);
  header.payloadBytes = payload.length;
  header.payloadSum = payload.length === 0 ? 0 : crc32c(payload);
  header.encode();
  return payload;
}

function encodeMessage(message: Message, version: number, confirmed: number, header: Header): Buffer {
  switch (message.kind) {
    case 'write':
      assert(message.payload.length === message.length, 'a write has the data of its range');
      assert(message.length <= Limit.payloadBytes, 'a write is not larger than what may be sent');
      putRange(header, version, Kind.write, message, confirmed);
      header.flags = message.fua ? Flag.fua : 0;
      return message.payload;
    case 'zero':
      putRange(header, version, Kind.zero, message, confirmed);
      header.flags = (message.fua ? Flag.fua : 0) | (message.noHole ? Flag.noHole : 0);
      return NOTHING;
    case 'trim':
      putRange(header, version, Kind.trim, message, confirmed);
      header.flags = message.fua ? Flag.fua : 0;
      return NOTHING;
    case 'flush':
      putNumber(header, version, Kind.flush, message.seq);
      header.confirmed = confirmed;
      return NOTHING;
    case 'members':
      putNumber(header, version, Kind.members, message.seq);
      header.confirmed = confirmed;
      header.flags = message.isEqual ? Flag.equal : 0;
      return membersPayload(message.differing);
    case 'lacks':
      putNumber(header, version, Kind.lacks, message.seq);
      header.confirmed = confirmed;
      header.flags = message.ranges === undefined ? Flag.everything : 0;
      return lacksPayload(message.member, message.ranges);
    case 'heartbeat':
      putNumber(header, version, Kind.heartbeat, message.token);
      header.confirmed = confirmed;
      return NOTHING;
    case 'ack':
      assert(message.count >= 1 && message.count <= message.seq, 'an ack is of operations');
      putNumber(header, version, Kind.ack, message.seq);
      header.length = message.count;
      header.value = RESULTS.indexOf(message.result);
      return NOTHING;
    case 'heartbeat-ack':
      putNumber(header, version, Kind.heartbeatAck, message.token);
      header.confirmed = message.received;
      return NOTHING;
    case 'receiving':
      header.clear(version, Kind.receiving);
      return NOTHING;
    case 'fenced':
      putNumber(header, version, Kind.fenced, message.epoch);
      return NOTHING;
    default:
      return encodeHandshake(message, header);
  }
}

function encodeHandshake(
  message: Extract<Message, { kind: 'hello' | 'welcome' | 'refusal' | 'difference' | 'ready' }>,
  header: Header,
): Buffer {
  switch (message.kind) {
    case 'hello':
      putNumber(header, HANDSHAKE_VERSION, Kind.hello, message.epoch);
      header.length = message.sizeBytes;
      return helloPayload(message, message.versions);
    case 'welcome':
      putNumber(header, HANDSHAKE_VERSION, Kind.welcome, message.operationsMax);
      header.length = message.bytesMax;
      header.value = message.version;
      header.flags = message.hasLostCache ? Flag.lostCache : 0;
      return NOTHING;
    case 'refusal':
      putNumber(header, HANDSHAKE_VERSION, Kind.refusal, message.epoch);
      header.value = 1 + REFUSALS.indexOf(message.code);
      return textPayload(message.text);
    case 'difference':
      assert(message.ranges.length > 0, 'a difference has ranges');
      header.clear(HANDSHAKE_VERSION, Kind.difference);
      header.flags = message.cause === 'alone' ? Flag.alone : 0;
      return rangesPayload(message.ranges);
    case 'ready':
      header.clear(HANDSHAKE_VERSION, Kind.ready);
      return NOTHING;
  }
}

function putNumber(header: Header, version: number, kind: number, number: number): void {
  assert(Number.isSafeInteger(number) && number >= 0, 'what is counted is a number');
  header.clear(version, kind);
  header.number = number;
}

function putRange(
  header: Header,
  version: number,
  kind: number,
  { seq, offset, length }: Range & { readonly seq: number },
  confirmed: number,
): void {
  assert(length > 0 && offset >= 0 && Number.isSafeInteger(offset + length), 'a range is one');
  putNumber(header, version, kind, seq);
  header.confirmed = confirmed;
  header.offset = offset;
  header.length = length;
}

// --- from the wire -----------------------------------------------------------------------------------------

/**
 * `header` has been decoded, and its checksums are right.
 * @throws PeerError
 */
export function decodeMessage(header: Header, payload: Buffer): Message {
  const { number: seq, confirmed, offset, length } = header;
  const hasFua = header.hasFlag(Flag.fua);
  switch (header.kind) {
    case Kind.write:
      return { kind: 'write', seq, confirmed, offset, length, fua: hasFua, payload };
    case Kind.zero: {
      const noHole = header.hasFlag(Flag.noHole);
      return { kind: 'zero', seq, confirmed, offset, length, fua: hasFua, noHole };
    }
    case Kind.trim:
      return { kind: 'trim', seq, confirmed, offset, length, fua: hasFua };
    case Kind.flush:
      return { kind: 'flush', seq, confirmed };
    case Kind.members: {
      const isEqual = header.hasFlag(Flag.equal);
      return { kind: 'members', seq, confirmed, differing: readMembers(payload), isEqual };
    }
    case Kind.lacks:
      return decodeLacks(header, payload);
    case Kind.heartbeat:
      return { kind: 'heartbeat', token: seq, confirmed };
    case Kind.ack:
      if (length < 1 || length > seq) throw new PeerError('bad-message', `an ack of ${length} operations`);
      return { kind: 'ack', seq, count: length, result: oneOf(RESULTS, header.value) };
    case Kind.heartbeatAck:
      return { kind: 'heartbeat-ack', token: seq, received: confirmed };
    case Kind.receiving:
      return { kind: 'receiving' };
    case Kind.fenced:
      return { kind: 'fenced', epoch: seq };
    default:
      return decodeHandshake(header, payload);
  }
}

function decodeHandshake(header: Header, payload: Buffer): Message {
  const { number, length } = header;
  switch (header.kind) {
    case Kind.hello:
      return { kind: 'hello', epoch: number, sizeBytes: length, ...readHello(payload) };
    case Kind.welcome:
      return decodeWelcome(header);
    case Kind.refusal: {
      const reader = new PayloadReader(payload);
      const text = reader.string();
      reader.end();
      return { kind: 'refusal', code: oneOf(REFUSALS, header.value - 1), epoch: number, text };
    }
    case Kind.difference: {
      const cause = header.hasFlag(Flag.alone) ? 'alone' : 'unsettled';
      return { kind: 'difference', cause, ranges: new PayloadReader(payload).ranges() };
    }
    case Kind.ready:
      return { kind: 'ready' };
    default:
      throw new Error(`assertion failed: kind ${header.kind} has a row and no meaning`);
  }
}

function decodeWelcome(header: Header): Message {
  const { number: operationsMax, length: bytesMax, value: version } = header;
  if (operationsMax < 1 || operationsMax > Limit.windowOperationsMax) {
    throw new PeerError('bad-message', `a window of ${operationsMax} operations`);
  }
  if (bytesMax < Limit.windowBytesMin || bytesMax > Limit.windowBytesMax) {
    throw new PeerError('bad-message', `a window of ${bytesMax} bytes`);
  }
  return { kind: 'welcome', operationsMax, bytesMax, hasLostCache: header.hasFlag(Flag.lostCache), version };
}

function decodeLacks(header: Header, payload: Buffer): Message {
  const reader = new PayloadReader(payload);
  const member = reader.member();
  const isEverything = header.hasFlag(Flag.everything);
  const ranges = isEverything ? undefined : reader.ranges();
  reader.end();
  return { kind: 'lacks', seq: header.number, confirmed: header.confirmed, member, ranges };
}

function oneOf<Name extends string>(names: readonly Name[], position: number): Name {
  const name = names[position];
  if (name === undefined) throw new PeerError('bad-message', `a code of ${position} that has no meaning`);
  return name;
}
