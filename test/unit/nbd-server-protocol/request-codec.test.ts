/** Requests, client to server: golden bytes both ways, every split, back pressure, encode and decode as inverses. */

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Command, CommandFlag, type HeaderStyle } from '../../../src/nbd-server-protocol/constants.ts';
import { RequestDecoder } from '../../../src/nbd-server-protocol/request-decoder.ts';
import { RequestEncoder, type RequestHeader } from '../../../src/nbd-server-protocol/request-encoder.ts';
import { testRandom } from '../../support/random.ts';
import { cut, everyCut, hex } from './lab.ts';
import { decodeRequests, RequestCollector } from './wire-lab.ts';

const STYLES: readonly HeaderStyle[] = ['simple', 'structured', 'extended'];
const COOKIE = 0x1f_2345_6789_abcd; // needs both halves

function encode(style: HeaderStyle, request: RequestHeader, payload = Buffer.alloc(0)): Buffer {
  const encoder = new RequestEncoder(style);
  const bytes = Buffer.alloc(3 + encoder.headerBytes, 0xcc);
  expect(encoder.header(bytes, 3, request)).toBe(bytes.length);
  return Buffer.concat([bytes.subarray(3), payload]);
}

const request = (command: number, flags = 0, offset = 0x1_0000_2000, length = 512): RequestHeader => ({
  command,
  flags,
  cookie: COOKIE,
  offset,
  length,
});

type CommandName = keyof typeof Command;
interface Golden {
  readonly request: RequestHeader;
  readonly compact: string;
  readonly extended: string;
}
const { fua, df, reqOne, noHole, fastZero, payloadLen } = CommandFlag;
const C = '001f23456789abcd';
const AT = '0000000100002000';
const GOLDEN: Record<CommandName, Golden> = {
  read: {
    request: request(Command.read, df),
    compact: `25609513 0004 0000 ${C} ${AT} 00000200`,
    extended: `21e41c71 0004 0000 ${C} ${AT} 0000000000000200`,
  },
  write: {
    request: request(Command.write, fua, 0x1_0000_2000, 4),
    compact: `25609513 0001 0001 ${C} ${AT} 00000004 61626364`,
    extended: `21e41c71 0021 0001 ${C} ${AT} 0000000000000004 61626364`,
  },
  disconnect: {
    request: request(Command.disconnect, 0, 0, 0),
    compact: `25609513 0000 0002 ${C} 0000000000000000 00000000`,
    extended: `21e41c71 0000 0002 ${C} 0000000000000000 0000000000000000`,
  },
  flush: {
    request: request(Command.flush, 0, 0, 0),
    compact: `25609513 0000 0003 ${C} 0000000000000000 00000000`,
    extended: `21e41c71 0000 0003 ${C} 0000000000000000 0000000000000000`,
  },
  trim: {
    request: request(Command.trim, fua, 0x1_0000_2000, 0xffff_f000),
    compact: `25609513 0001 0004 ${C} ${AT} fffff000`,
    extended: `21e41c71 0001 0004 ${C} ${AT} 00000000fffff000`,
  },
  cache: {
    request: request(Command.cache),
    compact: `25609513 0000 0005 ${C} ${AT} 00000200`,
    extended: `21e41c71 0000 0005 ${C} ${AT} 0000000000000200`,
  },
  writeZeroes: {
    request: request(Command.writeZeroes, noHole | fastZero),
    compact: `25609513 0012 0006 ${C} ${AT} 00000200`,
    extended: `21e41c71 0012 0006 ${C} ${AT} 0000000000000200`,
  },
  blockStatus: {
    request: request(Command.blockStatus, reqOne),
    compact: `25609513 0008 0007 ${C} ${AT} 00000200`,
    extended: `21e41c71 0008 0007 ${C} ${AT} 0000000000000200`,
  },
  resize: {
    request: request(Command.resize, 0, 0x1f_ffff_ffff_ffff, 0),
    compact: `25609513 0000 0008 ${C} 001fffffffffffff 00000000`,
    extended: `21e41c71 0000 0008 ${C} 001fffffffffffff 0000000000000000`,
  },
};
const PAYLOAD = Buffer.from('abcd');

describe.each(Object.keys(GOLDEN) as CommandName[])('%s', (name) => {
  const golden = GOLDEN[name];
  const payload = name === 'write' ? PAYLOAD : Buffer.alloc(0);

  test.each(STYLES)('golden bytes both ways, %s', (style) => {
    const wire = hex(style === 'extended' ? golden.extended : golden.compact);
    expect(encode(style, golden.request, payload)).toEqual(wire);
    const flags = golden.request.flags | (style === 'extended' && name === 'write' ? payloadLen : 0);
    expect(decodeRequests(style, [wire])).toEqual({
      requests: [{ ...golden.request, flags, payload: payload.toString('hex') }],
      left: Buffer.alloc(0),
      atBoundary: true,
    });
  });
});

test('golden bytes of BLOCK_STATUS about some contexts', () => {
  const encoder = new RequestEncoder('extended');
  const bytes = Buffer.alloc(encoder.blockStatusOfBytes(2));
  const header = request(Command.blockStatus, reqOne, 0x1_0000_2000, 0x5_0000_0000);
  expect(encoder.blockStatusOf(bytes, 0, header, [1, 3])).toBe(bytes.length);
  const payload = '0000000500000000 00000001 00000003';
  expect(bytes).toEqual(hex(`21e41c71 0028 0007 ${C} ${AT} 0000000000000010`, payload));
  const { requests } = decodeRequests('extended', [bytes]);
  expect(requests).toEqual([
    { ...header, flags: reqOne | payloadLen, length: 16, payload: payload.replace(/ /g, '') },
  ]);
  const compact = new RequestEncoder('structured');
  expect(() => compact.blockStatusOf(bytes, 0, header, [1])).toThrow(/without extended headers/);
});

test('what a compact header cannot hold is a mistake of the caller', () => {
  const header = request(Command.trim, 0, 0, 2 ** 32);
  expect(() => encode('structured', header)).toThrow(RangeError);
  expect(encode('extended', header).readBigUInt64BE(24)).toBe(2n ** 32n);
});

test('a magic of the other style, or none, ends the connection', () => {
  for (const wire of [hex(GOLDEN.read.extended), Buffer.alloc(28)]) {
    expect(() => decodeRequests('structured', [wire])).toThrow(/magic/);
  }
  expect(() => decodeRequests('extended', [hex(GOLDEN.read.compact), Buffer.alloc(4)])).toThrow(/magic/);
});

/** One of each command, with a payload where one belongs, one where none does, and an unknown command. */
function script(style: HeaderStyle): Buffer {
  const all = Object.values(GOLDEN).map((one) => hex(style === 'extended' ? one.extended : one.compact));
  const odd = encode(style, { ...request(99), flags: 0x8000 });
  if (style !== 'extended') return Buffer.concat([...all, odd]);
  const unexpected = encode(style, request(Command.trim, payloadLen, 0, 4), PAYLOAD);
  return Buffer.concat([...all, unexpected, odd]);
}

describe.each(STYLES)('every split of the wire, %s', (style) => {
  const wire = script(style);
  const whole = decodeRequests(style, [wire]);

  test('gives the same requests', () => {
    expect(whole.requests.length).toBe(style === 'extended' ? 11 : 10);
    expect(whole.left.length).toBe(0);
    for (const chunks of everyCut(wire)) expect(decodeRequests(style, chunks)).toEqual(whole);
  });

  test('also at random places, into a sink that takes as little as it likes', () => {
    const places = fc.array(fc.nat(wire.length), { maxLength: 60 });
    fc.assert(
      fc.property(
        places,
        fc.infiniteStream(fc.nat(3)),
        fc.infiniteStream(fc.boolean()),
        (at, takes, accepts) => {
          const take = (length: number) => Math.min(length, takes.next().value ?? 0);
          const sink = new RequestCollector(take, () => accepts.next().value ?? true);
          // A sink that says "not now" is asked again whenever there is something new, even nothing.
          const again = Array.from({ length: 200 }, () => Buffer.alloc(0));
          expect(decodeRequests(style, [...cut(wire, at), ...again], sink)).toEqual(whole);
        },
      ),
      { seed: testRandom(`request splits ${style}`).seed, numRuns: 100 },
    );
  });
});

test('nothing is stored: a payload of any claimed length passes through', () => {
  const header = encode('extended', request(Command.write, 0, 0, Number.MAX_SAFE_INTEGER));
  let seen = 0;
  const decoder = new RequestDecoder('extended');
  const sink = {
    request: () => true,
    payload: (_buffer: Buffer, _start: number, length: number, remaining: number) => {
      seen += length;
      expect(seen + remaining).toBe(Number.MAX_SAFE_INTEGER);
      return length;
    },
  };
  expect(decoder.feed(header, 0, header.length, sink)).toBe(32);
  const piece = Buffer.alloc(65_536);
  for (let i = 0; i < 100; i++) expect(decoder.feed(piece, 0, piece.length, sink)).toBe(piece.length);
  expect(decoder.atBoundary).toBe(false);
});

describe('encode, then decode', () => {
  const u16 = fc.nat(0xffff);
  const safe = fc.maxSafeNat();
  test.each(STYLES)('is identity, %s', (style) => {
    const payloads = fc.uint8Array({ maxLength: 100 });
    const flagsOf = style === 'extended' ? u16.map((flags) => flags & ~payloadLen) : u16;
    const lengths = style === 'extended' ? safe : fc.nat(0xffff_ffff);
    const any = fc.record({ command: u16, flags: flagsOf, cookie: safe, offset: safe, length: lengths });
    fc.assert(
      fc.property(fc.array(fc.tuple(any, payloads), { maxLength: 5 }), (list) => {
        const sent = list.map(([header, data]) => {
          const write = header.command === Command.write;
          const payload = write ? Buffer.from(data) : Buffer.alloc(0);
          return { header: write ? { ...header, length: payload.length } : header, payload };
        });
        const wire = Buffer.concat(sent.map(({ header, payload }) => encode(style, header, payload)));
        const { requests } = decodeRequests(style, [wire]);
        const expected = sent.map(({ header, payload }) => {
          const extra = style === 'extended' && header.command === Command.write ? payloadLen : 0;
          return { ...header, flags: header.flags | extra, payload: payload.toString('hex') };
        });
        expect(requests).toEqual(expected);
      }),
      { seed: testRandom(`request round trip ${style}`).seed, numRuns: 300 },
    );
  });
});
