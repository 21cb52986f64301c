import { describe, expect, test } from 'vitest';
import { Kind } from '../../../src/peer-protocol/constants.ts';
import type { PeerErrorCode } from '../../../src/peer-protocol/errors.ts';
import type { Phase } from '../../../src/peer-protocol/header.ts';
import { testRandom } from '../../support/random.ts';
import {
  decode,
  encoded,
  type FrameFields,
  frame,
  helloFrame,
  randomBytes,
  randomPieces,
  ranges,
  SOURCE,
  STREAMS,
  TARGET,
  THIRD,
  text,
} from './lab.ts';

const PAYLOAD_MAX = 32 * 1024 * 1024;
const write = { kind: Kind.write, number: 1, offset: 0, length: 3, payload: Buffer.from('abc') };
const oneString = (...parts: Buffer[]): Buffer => Buffer.concat(parts);

const LIES: readonly (readonly [what: string, phase: Phase, fields: FrameFields, code: PeerErrorCode])[] = [
  ['a wrong magic', 'from-primary', { ...write, magic: 0x564c_5251 }, 'bad-magic'],
  ['a wrong checksum of the header', 'from-primary', { ...write, sum: 1 }, 'bad-checksum'],
  ['a wrong checksum of the payload', 'from-primary', { ...write, payloadSum: 1 }, 'bad-checksum'],
  ['another version', 'from-primary', { ...write, version: 2 }, 'version'],
  ['an unknown kind', 'from-primary', { kind: 99 }, 'bad-message'],
  ['a kind kept for authentication', 'answer', { kind: 8 }, 'bad-message'],
  ['a kind of the other direction', 'from-primary', { kind: Kind.ack, number: 1 }, 'bad-message'],
  ['a kind of the handshake', 'from-primary', { kind: Kind.ready }, 'bad-message'],
  ['an unknown flag', 'from-primary', { ...write, flags: 0x8000 }, 'bad-message'],
  ['a flag of another kind', 'from-primary', { ...write, flags: 2 }, 'bad-message'],
  ['reserved bytes', 'from-primary', { ...write, reserved: 1n }, 'bad-message'],
  ['a confirmed that has no meaning', 'from-secondary', { kind: Kind.fenced, confirmed: 1 }, 'bad-message'],
  [
    'an offset that has no meaning',
    'from-primary',
    { kind: Kind.flush, number: 1, offset: 1 },
    'bad-message',
  ],
  ['a length that has no meaning', 'from-primary', { kind: Kind.flush, number: 1, length: 1 }, 'bad-message'],
  ['a number that has no meaning', 'answer', { kind: Kind.ready, number: 1 }, 'bad-message'],
  ['a value that has no meaning', 'from-primary', { kind: Kind.flush, value: 1 }, 'bad-message'],
  ['a checksum of nothing', 'from-primary', { kind: Kind.flush, payloadSum: 1 }, 'bad-message'],
  ['a number of 2^53', 'from-primary', { kind: Kind.flush, number: 2n ** 53n }, 'too-big'],
  ['a number of 2^64 - 1', 'from-primary', { kind: Kind.flush, number: 2n ** 64n - 1n }, 'too-big'],
  [
    'a range that ends behind 2^53',
    'from-primary',
    { kind: Kind.trim, offset: 2n ** 53n - 1n, length: 1 },
    'bad-message',
  ],
  ['a range of nothing', 'from-primary', { kind: Kind.trim, number: 1, length: 0 }, 'bad-message'],
  ['a write of nothing', 'from-primary', { kind: Kind.write, number: 1, length: 0 }, 'bad-message'],
  ['a write with more data than its range', 'from-primary', { ...write, length: 2 }, 'bad-message'],
  ['a write with less data than its range', 'from-primary', { ...write, length: 4 }, 'bad-message'],
  [
    'a payload where there is none',
    'from-secondary',
    { kind: Kind.ack, payload: Buffer.alloc(1) },
    'too-big',
  ],
  ['a difference of nothing', 'answer', { kind: Kind.difference }, 'bad-message'],
  ['half a range', 'answer', { kind: Kind.difference, payload: Buffer.alloc(24, 1) }, 'bad-message'],
  [
    'ranges in odd bytes',
    'answer',
    { kind: Kind.difference, payload: oneString(ranges([0, 1]), Buffer.of(1)) },
    'bad-message',
  ],
  [
    'a range of nothing in a list',
    'answer',
    { kind: Kind.difference, payload: ranges([0, 1], [5, 0]) },
    'bad-message',
  ],
  [
    'a range of 2^53 in a list',
    'answer',
    { kind: Kind.difference, payload: ranges([2n ** 53n, 1]) },
    'too-big',
  ],
  ['4,097 ranges', 'answer', { kind: Kind.difference, payloadBytes: 4097 * 16 }, 'too-big'],
  [
    '4,097 ranges that a member lacks',
    'from-primary',
    { kind: Kind.lacks, number: 1, payload: oneString(text(THIRD), Buffer.alloc(4097 * 16, 1)) },
    'too-big',
  ],
  [
    'a name that is no id',
    'from-primary',
    { kind: Kind.lacks, number: 1, payload: text('../../etc') },
    'bad-message',
  ],
  [
    'everything, and ranges',
    'from-primary',
    { kind: Kind.lacks, number: 1, flags: 8, payload: oneString(text(THIRD), ranges([0, 1])) },
    'bad-message',
  ],
  [
    'a string that is longer than its message',
    'from-primary',
    { kind: Kind.lacks, number: 1, payload: Buffer.of(0, 9, 65) },
    'bad-message',
  ],
  [
    'a string over the limit',
    'answer',
    { kind: Kind.refusal, value: 1, payload: Buffer.of(4, 1, 65) },
    'too-big',
  ],
  [
    'a string that is no UTF-8',
    'answer',
    { kind: Kind.refusal, value: 1, payload: Buffer.of(0, 1, 0xff) },
    'bad-message',
  ],
  [
    'a text with something behind it',
    'answer',
    { kind: Kind.refusal, value: 1, payload: oneString(text('a'), Buffer.of(1)) },
    'bad-message',
  ],
  ['a refusal without a code', 'answer', { kind: Kind.refusal, payload: text('') }, 'bad-message'],
  ['an unknown refusal', 'answer', { kind: Kind.refusal, value: 8, payload: text('') }, 'bad-message'],
  ['an unknown result', 'from-secondary', { kind: Kind.ack, number: 1, length: 1, value: 5 }, 'bad-message'],
  ['an ack of no operation', 'from-secondary', { kind: Kind.ack, number: 1 }, 'bad-message'],
  [
    'an ack of more than there were',
    'from-secondary',
    { kind: Kind.ack, number: 2, length: 3 },
    'bad-message',
  ],
  ['17 members', 'from-primary', { kind: Kind.members, number: 1, payload: Buffer.of(0, 17) }, 'too-big'],
  [
    'fewer members than counted',
    'from-primary',
    { kind: Kind.members, number: 1, payload: oneString(Buffer.of(0, 2), text(THIRD)) },
    'bad-message',
  ],
  [
    'more members than counted',
    'from-primary',
    { kind: Kind.members, number: 1, payload: oneString(Buffer.of(0, 0), text(THIRD)) },
    'bad-message',
  ],
  [
    'a window of no operations',
    'answer',
    { kind: Kind.welcome, number: 0, length: PAYLOAD_MAX, value: 1 },
    'bad-message',
  ],
  [
    'a window of very many operations',
    'answer',
    { kind: Kind.welcome, number: 65_537, length: PAYLOAD_MAX, value: 1 },
    'bad-message',
  ],
  [
    'a window that holds no large write',
    'answer',
    { kind: Kind.welcome, number: 1, length: PAYLOAD_MAX - 1, value: 1 },
    'bad-message',
  ],
  [
    'a window of very many bytes',
    'answer',
    { kind: Kind.welcome, number: 1, length: 2 ** 30 + 1, value: 1 },
    'bad-message',
  ],
];

test.each(LIES)('%s is refused', (_what, phase, fields, code) => {
  expect(decode(phase, [frame(fields)])).toMatchObject({ messages: [], error: { code } });
});

describe('hello', () => {
  const HELLOS: readonly (readonly [string, Buffer, PeerErrorCode])[] = [
    ['authentication that is not spoken yet', helloFrame({ authentication: 1 }), 'version'],
    ['a proof of nothing', helloFrame({ names: ['c', 'k', SOURCE, TARGET, 'proof'] }), 'version'],
    ['no versions', helloFrame({ versions: [2, 1] }), 'bad-message'],
    ['a source that is no id', helloFrame({ names: ['c', 'k', '/etc/passwd', TARGET, ''] }), 'bad-message'],
    ['a target that is no id', helloFrame({ names: ['c', 'k', SOURCE, `${TARGET}0`, ''] }), 'bad-message'],
    ['strings that are missing', helloFrame({ names: ['c', 'k', SOURCE, TARGET] }), 'bad-message'],
    ['something behind it', helloFrame({ behind: Buffer.of(1) }), 'bad-message'],
  ];
  test.each(HELLOS)('with %s is refused', (_what, bytes, code) => {
    expect(decode('hello', [bytes])).toMatchObject({ messages: [], error: { code } });
  });

  test('of a later version, which says more, is understood', () => {
    const { messages, error } = decode('hello', [
      helloFrame({ versions: [1, 2], behind: Buffer.from('more') }),
    ]);
    expect(error).toBeUndefined();
    expect(messages).toMatchObject([{ kind: 'hello', versions: { from: 1, to: 2 }, source: SOURCE }]);
  });
});

test('a length over the limit is refused before memory is taken for it, one at the limit is not', () => {
  const claim = (bytes: number): Buffer =>
    frame({ kind: Kind.write, number: 1, length: bytes, payloadBytes: bytes, payloadSum: 1 });
  expect(decode('from-primary', [claim(PAYLOAD_MAX + 1)])).toMatchObject({
    admitted: [],
    error: { code: 'too-big' },
  });
  expect(decode('from-primary', [claim(2 ** 32 - 1)])).toMatchObject({
    admitted: [],
    error: { code: 'too-big' },
  });
  expect(decode('from-primary', [claim(PAYLOAD_MAX)])).toEqual({
    messages: [],
    admitted: [PAYLOAD_MAX],
    error: undefined,
  });
});

describe.each(STREAMS)('$phase', ({ phase, messages }) => {
  test('a flip of any bit is an error, never a message', () => {
    for (const message of messages) {
      const bytes = encoded(message);
      for (let bit = 0; bit < bytes.length * 8; bit++) {
        const flipped = Buffer.from(bytes);
        flipped[bit >> 3] = (flipped[bit >> 3] as number) ^ (1 << (bit & 7));
        const { messages: taken, error } = decode(phase, [flipped]);
        expect(taken, `${message.kind}, bit ${bit}`).toEqual([]);
        expect(['bad-magic', 'bad-checksum'], `${message.kind}, bit ${bit}`).toContain(error?.code);
      }
    }
  });

  test('damage anywhere leaves a part of what was sent, in order, and an error', () => {
    const random = testRandom(`damage of ${phase}`);
    const stream = Buffer.concat(messages.map(encoded));
    for (let round = 0; round < 500; round++) {
      const damaged = Buffer.from(stream);
      const at = random.below(stream.length);
      damaged.set(randomBytes(random, 1 + random.below(12)), Math.min(at, stream.length - 12));
      const { messages: taken, error } = decode(phase, randomPieces(damaged, random, 500));
      expect(taken).toEqual(messages.slice(0, taken.length));
      expect(error !== undefined || damaged.equals(stream)).toBe(true);
    }
  });

  test('random bytes are refused', () => {
    const random = testRandom(`random bytes as ${phase}`);
    for (let round = 0; round < 500; round++) {
      const { messages: taken, error } = decode(phase, [randomBytes(random, 64 + random.below(200))]);
      expect(taken).toEqual([]);
      expect(error?.code).toBe('bad-magic');
    }
  });

  test('random headers and payloads with right checksums are refused, or mean exactly what they say', () => {
    const random = testRandom(`random fields as ${phase}`);
    const kinds = Object.values(Kind);
    const mostly = (value: () => number | bigint): number | bigint => (random.below(3) === 0 ? value() : 0);
    const any = (): bigint => BigInt(random.below(2 ** 31)) << BigInt(random.below(34));
    const seen = { refused: 0, meant: 0 };
    for (let round = 0; round < 3000; round++) {
      const own = messages[random.below(messages.length)];
      const payload =
        own !== undefined && random.below(2) === 0 ? encoded(own).subarray(64) : Buffer.alloc(0);
      const bytes = frame({
        kind: kinds[random.below(kinds.length)] as number,
        flags: Number(mostly(() => 1 << random.below(8))),
        number: mostly(any),
        confirmed: mostly(any),
        offset: mostly(any),
        length: random.below(2) === 0 ? payload.length : mostly(any),
        value: Number(mostly(() => random.below(9))),
        payload,
      });
      const { messages: taken, error } = decode(phase, [bytes]);
      if (error !== undefined) seen.refused += 1;
      for (const message of taken) {
        seen.meant += 1;
        expect(encoded(message).toString('hex')).toBe(bytes.toString('hex'));
      }
      expect(taken.length).toBe(error === undefined ? 1 : 0);
    }
    expect(seen.refused).toBeGreaterThan(0);
  });
});
