/**
 * A valid session, as the messages that a client would send, and what mutation makes of it.
 *
 * Two kinds, so that the bytes which a session may change are known without asking the code under test:
 *  - 'handshake': options are mutated; the requests behind them only read;
 *  - 'transmission': the handshake is right, requests are mutated. Whatever in the stream looks like a request that
 *    changes something, at whatever place, is taken for one: `changedRanges`.
 */
import { Buffer } from 'node:buffer';
import {
  BASE_ALLOCATION,
  Command,
  CommandFlag,
  EXTENDED_REQUEST_MAGIC,
  type HeaderStyle,
  Option,
  REQUEST_MAGIC,
} from '../../../src/nbd-server-protocol/constants.ts';
import { infoData, metaData, optionRequest, requestMessage, u32, u64 } from '../../support/wire.ts';
import type { Dice } from './dice.ts';

export interface FuzzSession {
  readonly kind: 'handshake' | 'transmission';
  readonly style: HeaderStyle;
  readonly messages: readonly Buffer[];
}

export interface ByteRange {
  readonly offset: number;
  readonly length: number;
}

const styles = ['simple', 'structured', 'extended'] as const;
const CONTEXT_ID = 1;

export function makeSession(dice: Dice, sizeBytes: number, exportName: string): FuzzSession {
  const kind = dice.chance(3) ? 'handshake' : 'transmission';
  const style = dice.oneOf(styles);
  const handshake = handshakeMessages(dice, style, exportName);
  const requests = Array.from({ length: 2 + dice.below(14) }, () =>
    oneRequest(dice, style, sizeBytes, kind === 'handshake'),
  );
  const mutated =
    kind === 'handshake'
      ? [...mutate(dice, handshake), ...requests]
      : [...handshake, ...withoutResize(style, mutate(dice, requests))];
  return { kind, style, messages: mutated };
}

function handshakeMessages(dice: Dice, style: HeaderStyle, exportName: string): Buffer[] {
  const messages = [u32(dice.oneOf([1, 3]))];
  if (dice.chance(3)) messages.push(optionRequest(Option.list));
  if (style === 'structured') messages.push(optionRequest(Option.structuredReply));
  if (style === 'extended') messages.push(optionRequest(Option.extendedHeaders));
  if (style !== 'simple' && dice.chance(2)) {
    const queries = dice.oneOf([[], [BASE_ALLOCATION], ['base:'], [BASE_ALLOCATION, 'x-fuzz:a']]);
    if (dice.chance(2)) messages.push(optionRequest(Option.listMetaContext, metaData(exportName, queries)));
    messages.push(optionRequest(Option.setMetaContext, metaData(exportName, queries)));
  }
  if (dice.chance(3)) messages.push(optionRequest(Option.info, infoData(exportName, [0, 1, 2, 3])));
  const byName = style === 'simple' && dice.chance(2);
  messages.push(
    byName
      ? optionRequest(Option.exportName, Buffer.from(exportName))
      : optionRequest(Option.go, infoData(exportName, [3])),
  );
  return messages;
}

function oneRequest(dice: Dice, style: HeaderStyle, sizeBytes: number, readOnly: boolean): Buffer {
  const type = dice.oneOf(
    readOnly
      ? [Command.read, Command.cache, Command.blockStatus]
      : [
          Command.read,
          Command.write,
          Command.write,
          Command.flush,
          Command.trim,
          Command.cache,
          Command.writeZeroes,
          Command.blockStatus,
        ],
  );
  const length = 1 + dice.below(dice.oneOf([16, 512, 4096, 70_000]));
  const offset = dice.below(sizeBytes - length);
  const cookie = BigInt(dice.below(2 ** 32));
  const extended = style === 'extended';
  if (type === Command.flush) return requestMessage(style, { type, cookie });
  if (type === Command.write) {
    const flags = extended ? CommandFlag.payloadLen : 0;
    return requestMessage(style, { type, cookie, offset, flags, payload: dice.bytes(length) });
  }
  if (type === Command.blockStatus && extended && dice.chance(2)) {
    const payload = Buffer.concat([u64(length), u32(CONTEXT_ID)]);
    return requestMessage(style, { type, cookie, offset, flags: CommandFlag.payloadLen, payload });
  }
  return requestMessage(style, { type, cookie, offset, length });
}

// ── mutation ───────────────────────────────────────────────────────────────────────────────────────────────

type Mutation = (dice: Dice, messages: Buffer[]) => void;

/** Values that lengths, counts and offsets like to be wrong with. */
const oddNumbers = [
  0n,
  1n,
  0x7fn,
  0xffffn,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  (1n << 63n) - 1n,
  1n << 63n,
  (1n << 64n) - 1n,
];

const mutations: readonly Mutation[] = [
  function flipBits(dice, messages) {
    const message = dice.oneOf(messages);
    for (let count = 1 + dice.below(6); count > 0 && message.length > 0; count -= 1) {
      // Headers are where it hurts: half of the flips go there.
      const at = dice.below(dice.chance(2) ? Math.min(message.length, 40) : message.length);
      message[at] = message[at]! ^ (1 << dice.below(8));
    }
  },
  function lieAboutNumber(dice, messages) {
    const message = dice.oneOf(messages);
    const width = dice.oneOf([2, 4, 8]);
    if (message.length < width) return;
    const at = dice.below(Math.min(message.length - width + 1, 40));
    u64(dice.oneOf(oddNumbers))
      .subarray(8 - width)
      .copy(message, at);
  },
  function truncate(dice, messages) {
    const at = dice.below(messages.length);
    messages[at] = messages[at]!.subarray(0, dice.below(messages[at]!.length + 1));
  },
  function duplicate(dice, messages) {
    const at = dice.below(messages.length);
    messages.splice(dice.below(messages.length + 1), 0, Buffer.from(messages[at]!));
  },
  function swap(dice, messages) {
    const [a, b] = [dice.below(messages.length), dice.below(messages.length)];
    [messages[a], messages[b]] = [messages[b]!, messages[a]!];
  },
  function remove(dice, messages) {
    if (messages.length > 1) messages.splice(dice.below(messages.length), 1);
  },
  function insertNoise(dice, messages) {
    messages.splice(dice.below(messages.length + 1), 0, dice.bytes(1 + dice.below(200)));
  },
  function append(dice, messages) {
    const at = dice.below(messages.length);
    messages[at] = Buffer.concat([messages[at]!, dice.bytes(1 + dice.below(40))]);
  },
];

function mutate(dice: Dice, messages: readonly Buffer[]): Buffer[] {
  const mutated = messages.map((message) => Buffer.from(message));
  for (let count = 1 + dice.below(4); count > 0; count -= 1) dice.oneOf(mutations)(dice, mutated);
  return mutated;
}

// ── what a session may change ──────────────────────────────────────────────────────────────────────────────

interface Header {
  readonly at: number;
  readonly type: number;
  readonly offset: bigint;
  readonly length: bigint;
}

/** Everything in a stream that could be taken for a request, at every byte. */
function* headersIn(style: HeaderStyle, stream: Buffer): Generator<Header> {
  const extended = style === 'extended';
  const magic = u32(extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
  const bytes = extended ? 32 : 28;
  for (let at = stream.indexOf(magic); at >= 0; at = stream.indexOf(magic, at + 1)) {
    if (at + bytes > stream.length) return;
    yield {
      at,
      type: stream.readUInt16BE(at + 6),
      offset: stream.readBigUInt64BE(at + 16),
      length: extended ? stream.readBigUInt64BE(at + 24) : BigInt(stream.readUInt32BE(at + 24)),
    };
  }
}

/** A resize that mutation has made would be valid, and would take bytes away: it becomes an unknown command. */
function withoutResize(style: HeaderStyle, messages: readonly Buffer[]): Buffer[] {
  const stream = Buffer.concat(messages);
  for (const { at, type } of headersIn(style, stream))
    if (type === Command.resize) stream.writeUInt16BE(0xff, at + 6);
  return [stream];
}

/** Bytes that the requests in the stream may change, if the server takes them: never less than that. */
export function changedRanges(session: FuzzSession, sizeBytes: number): ByteRange[] {
  const ranges: ByteRange[] = [];
  const changing: readonly number[] = [Command.write, Command.trim, Command.writeZeroes];
  for (const { type, offset, length } of headersIn(session.style, Buffer.concat(session.messages)))
    if (changing.includes(type) && offset + length <= BigInt(sizeBytes))
      ranges.push({ offset: Number(offset), length: Number(length) });
  return ranges;
}
