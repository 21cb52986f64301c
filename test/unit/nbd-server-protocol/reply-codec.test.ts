/** Replies, server to client: golden bytes both ways, every split, back pressure, encode and decode as inverses. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Command, CommandFlag, Errno, type HeaderStyle } from '../../../src/nbd-server-protocol/constants.ts';
import type { PendingRequestOptions } from '../../../src/nbd-server-protocol/pending-request.ts';
import { ReplyEncoder } from '../../../src/nbd-server-protocol/reply-encoder.ts';
import type { RequestTag } from '../../../src/nbd-server-protocol/request-decoder.ts';
import { testRandom } from '../../support/random.ts';
import { cut, everyCut, hex, toHex } from './lab.ts';
import { decodeReplies, pending, ReplyCollector, type ReplyEvent } from './wire-lab.ts';

const COOKIE = 0x1f_2345_6789_abcd;
const C = '001f23456789abcd';
const START = 0x1_0000_2000;
const AT = '0000000100002000';

function tagOf({ cookie, offset }: PendingRequestOptions): RequestTag {
  return {
    cookieHigh: Math.floor(cookie / 2 ** 32),
    cookieLow: cookie % 2 ** 32,
    offsetHigh: Math.floor(offset / 2 ** 32),
    offsetLow: offset % 2 ** 32,
  };
}

/** Runs an encoder method on a big enough buffer, away from its start, and returns what it wrote. */
function written(room: number, put: (buffer: Buffer, at: number) => number): Buffer {
  const buffer = Buffer.alloc(7 + room, 0xcc);
  const end = put(buffer, 7);
  expect(end).toBeLessThanOrEqual(buffer.length);
  expect(buffer.subarray(end).every((byte) => byte === 0xcc)).toBe(true);
  return Buffer.from(buffer.subarray(7, end));
}

const read = pending(COOKIE, { offset: START, length: 8 });
const write = pending(COOKIE, { command: Command.write, offset: START, length: 8 });
const status = pending(COOKIE, {
  command: Command.blockStatus,
  offset: START,
  length: 0x9000,
  contextIds: [7],
});
const tag = tagOf(read);
const DESCRIPTORS = [
  { length: 0x1000, state: 0 },
  { length: 0x8000, state: 3 },
];
const DONE: ReplyEvent = { kind: 'done', cookie: COOKIE, failed: false };
const FAILED: ReplyEvent = { kind: 'done', cookie: COOKIE, failed: true };

interface Golden {
  readonly request: PendingRequestOptions;
  readonly encode: (encoder: ReplyEncoder) => Buffer;
  /** undefined: this style has no such reply. */
  readonly wire: Record<HeaderStyle, string | undefined>;
  readonly events: readonly ReplyEvent[];
  /** With simple replies, where a text and an offset get lost. */
  readonly simpleEvents?: readonly ReplyEvent[];
}

const GOLDEN: Record<string, Golden> = {
  ack: {
    request: write,
    encode: (encoder) => written(encoder.ackBytes, (buffer, at) => encoder.ack(buffer, at, tag)),
    wire: {
      simple: `67446698 00000000 ${C}`,
      structured: `668e33ef 0001 0000 ${C} 00000000`,
      extended: `6e8a278c 0001 0000 ${C} ${AT} 0000000000000000`,
    },
    events: [DONE],
  },
  data: {
    request: read,
    encode: (encoder) => {
      const head = written(encoder.dataHeaderBytes, (buffer, at) =>
        encoder.dataHeader(buffer, at, tag, START, 8, true),
      );
      return Buffer.concat([head, Buffer.from('01234567')]);
    },
    wire: {
      simple: `67446698 00000000 ${C} 3031323334353637`,
      structured: `668e33ef 0001 0001 ${C} 00000010 ${AT} 3031323334353637`,
      extended: `6e8a278c 0001 0001 ${C} ${AT} 0000000000000010 ${AT} 3031323334353637`,
    },
    events: [{ kind: 'data', cookie: COOKIE, offset: START, bytes: '3031323334353637' }, DONE],
  },
  hole: {
    request: read,
    encode: (encoder) =>
      written(encoder.holeBytes, (buffer, at) => encoder.hole(buffer, at, tag, START, 8, true)),
    wire: {
      simple: undefined,
      structured: `668e33ef 0001 0002 ${C} 0000000c ${AT} 00000008`,
      extended: `6e8a278c 0001 0002 ${C} ${AT} 000000000000000c ${AT} 00000008`,
    },
    events: [{ kind: 'hole', cookie: COOKIE, offset: START, length: 8 }, DONE],
  },
  error: {
    request: write,
    encode: (encoder) =>
      written(encoder.errorBytes('disk full'), (buffer, at) =>
        encoder.error(buffer, at, tag, Errno.ENOSPC, 'disk full'),
      ),
    wire: {
      simple: `67446698 0000001c ${C}`,
      structured: `668e33ef 0001 8001 ${C} 0000000f 0000001c 0009 ${toHex('disk full')}`,
      extended: `6e8a278c 0001 8001 ${C} ${AT} 000000000000000f 0000001c 0009 ${toHex('disk full')}`,
    },
    events: [
      { kind: 'error', cookie: COOKIE, errno: Errno.ENOSPC, text: 'disk full', offset: undefined },
      FAILED,
    ],
    simpleEvents: [
      { kind: 'error', cookie: COOKIE, errno: Errno.ENOSPC, text: '', offset: undefined },
      FAILED,
    ],
  },
  'error with an offset': {
    request: read,
    encode: (encoder) =>
      written(encoder.errorBytes('bad'), (buffer, at) =>
        encoder.error(buffer, at, tag, Errno.EIO, 'bad', START + 4),
      ),
    wire: {
      simple: `67446698 00000005 ${C}`,
      structured: `668e33ef 0001 8002 ${C} 00000011 00000005 0003 ${toHex('bad')} 0000000100002004`,
      extended: `6e8a278c 0001 8002 ${C} ${AT} 0000000000000011 00000005 0003 ${toHex('bad')} 0000000100002004`,
    },
    events: [{ kind: 'error', cookie: COOKIE, errno: Errno.EIO, text: 'bad', offset: START + 4 }, FAILED],
    simpleEvents: [{ kind: 'error', cookie: COOKIE, errno: Errno.EIO, text: '', offset: undefined }, FAILED],
  },
  'block status': {
    request: status,
    encode: (encoder) =>
      written(encoder.blockStatusBytes(2), (buffer, at) =>
        encoder.blockStatus(buffer, at, tag, 7, DESCRIPTORS, true),
      ),
    wire: {
      simple: undefined,
      structured: `668e33ef 0001 0005 ${C} 00000014 00000007 00001000 00000000 00008000 00000003`,
      extended: [
        `6e8a278c 0001 0006 ${C} ${AT} 0000000000000028 00000007 00000002`,
        '0000000000001000 0000000000000000 0000000000008000 0000000000000003',
      ].join(''),
    },
    events: [{ kind: 'status', cookie: COOKIE, contextId: 7, extents: DESCRIPTORS }, DONE],
  },
};

const STYLES: readonly HeaderStyle[] = ['simple', 'structured', 'extended'];
describe.each(Object.keys(GOLDEN))('%s', (name) => {
  const golden = GOLDEN[name]!;
  test.each(STYLES.filter((style) => golden.wire[style] !== undefined))(
    'golden bytes both ways, %s',
    (style) => {
      const wire = hex(golden.wire[style]!);
      expect(golden.encode(new ReplyEncoder(style))).toEqual(wire);
      const events = (style === 'simple' && golden.simpleEvents) || golden.events;
      expect(decodeReplies(style, [golden.request], [wire])).toEqual({
        events,
        left: Buffer.alloc(0),
        atBoundary: true,
      });
    },
  );
});

test('an error text that is too long is cut between characters', () => {
  const encoder = new ReplyEncoder('structured');
  const text = `x${'é'.repeat(3000)}`;
  const wire = written(encoder.errorBytes(text), (buffer, at) =>
    encoder.error(buffer, at, tag, Errno.EIO, text, START),
  );
  const [event] = decodeReplies('structured', [read], [wire]).events;
  expect(event).toMatchObject({ kind: 'error', text: `x${'é'.repeat(2047)}`, offset: START });
});

/** Interleaved replies to several requests, with content out of order and errors between. */
function script(style: HeaderStyle): { requests: PendingRequestOptions[]; wire: Buffer } {
  const encoder = new ReplyEncoder(style);
  const first = pending(1, { offset: 0, length: 40 });
  const second = pending(2, { command: Command.write });
  const third = pending(3, { offset: 512, length: 16 });
  const fourth = pending(4, { command: Command.blockStatus, length: 0x9000, contextIds: [7, 8] });
  const data = (request: PendingRequestOptions, offset: number, length: number, last: boolean) =>
    Buffer.concat([
      written(64, (buffer, at) => encoder.dataHeader(buffer, at, tagOf(request), offset, length, last)),
      Buffer.alloc(length, offset + 1),
    ]);
  const error = (request: PendingRequestOptions, offset?: number) =>
    written(128, (buffer, at) => encoder.error(buffer, at, tagOf(request), Errno.EIO, 'it broke', offset));
  const ack = (request: PendingRequestOptions) =>
    written(64, (buffer, at) => encoder.ack(buffer, at, tagOf(request)));
  if (style === 'simple') {
    const requests = [first, second, third];
    return { requests, wire: Buffer.concat([ack(second), data(first, 0, 40, true), error(third)]) };
  }
  const hole = (offset: number, length: number, last: boolean) =>
    written(64, (buffer, at) => encoder.hole(buffer, at, tagOf(first), offset, length, last));
  const descriptors = (id: number, last: boolean) =>
    written(128, (buffer, at) => encoder.blockStatus(buffer, at, tagOf(fourth), id, DESCRIPTORS, last));
  const parts = [
    data(first, 20, 12, false),
    descriptors(8, false),
    data(third, 512, 7, false),
    hole(32, 8, false),
    ack(second),
    error(third, 520),
    data(first, 0, 10, false),
    descriptors(7, true),
    data(first, 10, 10, true),
  ];
  return { requests: [first, second, third, fourth], wire: Buffer.concat(parts) };
}

describe.each(STYLES)('every split of the wire, %s', (style) => {
  const { requests, wire } = script(style);
  const whole = decodeReplies(style, requests, [wire]);

  test('gives the same events', () => {
    expect(whole.events.filter(({ kind }) => kind === 'done').length).toBe(requests.length);
    expect(whole).toMatchObject({ left: Buffer.alloc(0), atBoundary: true });
    for (const chunks of everyCut(wire)) expect(decodeReplies(style, requests, chunks)).toEqual(whole);
  });

  test('also at random places, into a sink that takes as little as it likes', () => {
    fc.assert(
      fc.property(
        fc.array(fc.nat(wire.length), { maxLength: 60 }),
        fc.infiniteStream(fc.nat(5)),
        (places, takes) => {
          const sink = new ReplyCollector(requests, (length) => Math.min(length, takes.next().value ?? 0));
          const again = Array.from({ length: 200 }, () => Buffer.alloc(0));
          expect(decodeReplies(style, requests, [...cut(wire, places), ...again], sink)).toEqual(whole);
        },
      ),
      { seed: testRandom(`reply splits ${style}`).seed, numRuns: 100 },
    );
  });
});

describe('encode, then decode', () => {
  /** Pieces of a read: lengths, which are holes, and an order to send them in. */
  const pieces = fc.array(
    fc.record({ length: fc.integer({ min: 1, max: 50 }), hole: fc.boolean(), rank: fc.nat() }),
    {
      minLength: 1,
      maxLength: 12,
    },
  );
  test.each(['structured', 'extended'] as const)(
    'a read in any pieces in any order is whole again, %s',
    (style) => {
      const encoder = new ReplyEncoder(style);
      fc.assert(
        fc.property(pieces, fc.nat(2 ** 40), (list, offset) => {
          let at = offset;
          const placed = list.map((piece) => {
            at += piece.length;
            return { ...piece, offset: at - piece.length };
          });
          const request = pending(5, { offset, length: at - offset });
          const sorted = placed.toSorted((a, b) => a.rank - b.rank);
          const wire = sorted.map((piece, i) => {
            const last = i === sorted.length - 1;
            if (piece.hole) {
              return written(64, (buffer, from) =>
                encoder.hole(buffer, from, tagOf(request), piece.offset, piece.length, last),
              );
            }
            const head = written(64, (buffer, from) =>
              encoder.dataHeader(buffer, from, tagOf(request), piece.offset, piece.length, last),
            );
            return Buffer.concat([head, Buffer.alloc(piece.length, piece.rank)]);
          });
          const { events } = decodeReplies(style, [request], wire);
          const image = Buffer.alloc(request.length, 0xaa);
          for (const event of events) {
            if (event.kind === 'data') image.write(event.bytes, event.offset - offset, 'hex');
            if (event.kind === 'hole')
              image.fill(0, event.offset - offset, event.offset - offset + event.length);
          }
          expect(image).toEqual(
            Buffer.concat(placed.map(({ hole, rank, length }) => Buffer.alloc(length, hole ? 0 : rank))),
          );
          expect(events.at(-1)).toEqual({ kind: 'done', cookie: 5, failed: false });
        }),
        { seed: testRandom(`read round trip ${style}`).seed, numRuns: 300 },
      );
    },
  );

  test.each(['structured', 'extended'] as const)('extents, %s', (style) => {
    const encoder = new ReplyEncoder(style);
    const lengths = fc.integer({ min: 1, max: style === 'extended' ? 2 ** 40 : 2 ** 26 });
    const extents = fc.array(fc.record({ length: lengths, state: fc.nat(3) }), {
      minLength: 1,
      maxLength: 20,
    });
    fc.assert(
      fc.property(extents, fc.boolean(), (list, one) => {
        const sent = one ? list.slice(0, 1) : list;
        const length = sent.reduce((sum, extent) => sum + extent.length, 0);
        const flags = one ? CommandFlag.reqOne : 0;
        const request = pending(5, { command: Command.blockStatus, flags, length, contextIds: [9] });
        const wire = written(encoder.blockStatusBytes(sent.length), (buffer, at) =>
          encoder.blockStatus(buffer, at, tagOf(request), 9, sent, true),
        );
        expect(decodeReplies(style, [request], [wire]).events).toEqual([
          { kind: 'status', cookie: 5, contextId: 9, extents: sent },
          { kind: 'done', cookie: 5, failed: false },
        ]);
      }),
      { seed: testRandom(`status round trip ${style}`).seed, numRuns: 300 },
    );
  });
});
