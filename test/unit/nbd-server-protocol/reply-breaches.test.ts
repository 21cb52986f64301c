/** What a client takes from a server and what it does not ("Structured reply types", "Request types"). */

import { describe, expect, test } from 'vitest';
import { Command, CommandFlag, Errno, type HeaderStyle } from '../../../src/nbd-server-protocol/constants.ts';
import { ProtocolError } from '../../../src/nbd-server-protocol/errors.ts';
import {
  PendingRequest,
  type PendingRequestOptions,
} from '../../../src/nbd-server-protocol/pending-request.ts';
import { hex, toHex } from './lab.ts';
import { decodeReplies, pending } from './wire-lab.ts';

/** The request of most of these: a read of 16 bytes at 0x1000, cookie 1. */
const READ = pending(1, { offset: 0x1000, length: 16 });
const TRIM = pending(1, { command: Command.trim, offset: 0x1000, length: 16 });
const FLUSH = pending(1, { command: Command.flush, offset: 0, length: 0 });
const STATUS = pending(1, { command: Command.blockStatus, offset: 0x1000, length: 16, contextIds: [7] });
const DF = { ...READ, flags: CommandFlag.df };
const ONE = { ...STATUS, flags: CommandFlag.reqOne };

/** A structured chunk for cookie 1. */
function chunk(flags: number, type: string, payload: string): string {
  const length = payload.replace(/\s/g, '').length / 2;
  return `668e33ef 000${flags} ${type} 0000000000000001 ${length.toString(16).padStart(8, '0')} ${payload}`;
}
function extended(type: string, payload: string, offset = '0000000000001000'): string {
  const length = payload.replace(/\s/g, '').length / 2;
  return `6e8a278c 0001 ${type} 0000000000000001 ${offset} ${length.toString(16).padStart(16, '0')} ${payload}`;
}
const ZEROES = (count: number) => '00'.repeat(count);
const at = (offset: number) => offset.toString(16).padStart(16, '0');
const data = (flags: number, offset: number, count: number) =>
  chunk(flags, '0001', `${at(offset)} ${ZEROES(count)}`);
const hole = (flags: number, offset: number, count: number) =>
  chunk(flags, '0002', `${at(offset)} ${count.toString(16).padStart(8, '0')}`);
const NONE = chunk(1, '0000', '');
const error = (flags: number, offset: number) => chunk(flags, '8002', `00000005 0000 ${at(offset)}`);

type Breach = readonly [
  what: string,
  style: HeaderStyle,
  request: PendingRequestOptions,
  code: string,
  wire: string[],
];
const BREACHES: readonly Breach[] = [
  ['no magic', 'simple', READ, 'bad-magic', [ZEROES(16)]],
  ['a structured reply that was not agreed on', 'simple', TRIM, 'bad-magic', [NONE]],
  ['a simple reply with extended headers', 'extended', TRIM, 'bad-magic', [`67446698 00000000 ${at(1)}`]],
  ['a simple reply to a structured read', 'structured', READ, 'bad-message', [`67446698 00000016 ${at(1)}`]],
  [
    'a simple success for a block status',
    'structured',
    STATUS,
    'bad-message',
    [`67446698 00000000 ${at(1)}`],
  ],
  ['another cookie', 'simple', TRIM, 'bad-message', [`67446698 00000000 ${at(2)}`]],
  ['a cookie over 2^53', 'simple', TRIM, 'too-big', ['67446698 00000000 ff00000000000001']],
  [
    'another offset in an extended header',
    'extended',
    TRIM,
    'bad-message',
    [extended('0000', '', at(0x1001))],
  ],
  ['NONE that does not end', 'structured', TRIM, 'bad-message', [chunk(0, '0000', '')]],
  ['NONE with a payload', 'structured', TRIM, 'bad-message', [chunk(1, '0000', '00')]],
  ['an unknown type', 'structured', TRIM, 'bad-message', [chunk(1, '0003', '')]],
  [
    'a wide status without extended headers',
    'structured',
    STATUS,
    'bad-message',
    [chunk(1, '0006', ZEROES(24))],
  ],
  [
    'a narrow status with extended headers',
    'extended',
    STATUS,
    'bad-message',
    [extended('0005', ZEROES(12))],
  ],
  ['data for a trim', 'structured', TRIM, 'bad-message', [data(1, 0x1000, 16)]],
  ['data of no bytes', 'structured', READ, 'bad-message', [data(1, 0x1000, 0)]],
  ['data before the request', 'structured', READ, 'bad-message', [data(1, 0xfff, 4)]],
  ['data beyond the request', 'structured', READ, 'bad-message', [data(1, 0x1001, 16)]],
  ['a hole of no bytes', 'structured', READ, 'bad-message', [hole(1, 0x1000, 0)]],
  [
    'a hole of the wrong length',
    'structured',
    READ,
    'bad-message',
    [chunk(1, '0002', `${at(0x1000)} 0000001000`)],
  ],
  ['a hole beyond the request', 'structured', READ, 'bad-message', [hole(1, 0x1000, 17)]],
  ['data over data', 'structured', READ, 'bad-message', [data(0, 0x1000, 8), data(0, 0x1007, 4)]],
  ['data over a later run', 'structured', READ, 'bad-message', [data(0, 0x1008, 4), data(0, 0x1004, 5)]],
  ['a hole over data', 'structured', READ, 'bad-message', [data(0, 0x1004, 4), hole(0, 0x1000, 16)]],
  ['data after its error', 'structured', READ, 'bad-message', [error(0, 0x1003), data(0, 0x1000, 4)]],
  ['success without any data', 'structured', READ, 'bad-message', [NONE]],
  ['success with a gap', 'structured', READ, 'bad-message', [data(0, 0x1000, 8), data(1, 0x1009, 7)]],
  ['two chunks for DF', 'structured', DF, 'bad-message', [data(0, 0x1000, 8), hole(1, 0x1008, 8)]],
  ['an error of zero', 'structured', TRIM, 'bad-message', [chunk(1, '8001', '00000000 0000')]],
  ['an error too short', 'structured', TRIM, 'bad-message', [chunk(1, '8001', '00000005 00')]],
  [
    'an error offset too short',
    'structured',
    READ,
    'bad-message',
    [chunk(1, '8002', `00000005 0000 ${ZEROES(7)}`)],
  ],
  ['an error offset outside', 'structured', READ, 'bad-message', [error(1, 0x1010)]],
  ['a text longer than its chunk', 'structured', TRIM, 'bad-message', [chunk(1, '8001', '00000005 0002 61')]],
  [
    'a text of 4,097 bytes',
    'structured',
    TRIM,
    'bad-message',
    [chunk(1, '8001', `00000005 1001 ${ZEROES(4097)}`)],
  ],
  [
    'an error chunk without end',
    'structured',
    TRIM,
    'bad-message',
    ['668e33ef 0001 8001 0000000000000001 ffffffff'],
  ],
  [
    'a status for a trim',
    'structured',
    TRIM,
    'bad-message',
    [chunk(1, '0005', '00000007 00000010 00000000')],
  ],
  ['a status without extents', 'structured', STATUS, 'bad-message', [chunk(1, '0005', '00000007')]],
  [
    'a status of half an extent',
    'structured',
    STATUS,
    'bad-message',
    [chunk(1, '0005', '00000007 00000010 0000')],
  ],
  [
    'a context not asked for',
    'structured',
    STATUS,
    'bad-message',
    [chunk(1, '0005', '00000008 00000010 00000000')],
  ],
  [
    'a context twice',
    'structured',
    STATUS,
    'bad-message',
    [chunk(0, '0005', '00000007 00000010 00000000'), chunk(1, '0005', '00000007 00000010 00000000')],
  ],
  [
    'more extents than 2^20',
    'structured',
    STATUS,
    'bad-message',
    ['668e33ef 0001 0005 0000000000000001 0080000c'],
  ],
  ['success without the context', 'structured', STATUS, 'bad-message', [NONE]],
  [
    'an extent of no bytes',
    'structured',
    STATUS,
    'bad-message',
    [chunk(1, '0005', '00000007 00000000 00000000')],
  ],
  [
    'an extent behind the end of the request',
    'structured',
    STATUS,
    'bad-message',
    [chunk(1, '0005', '00000007 00000010 00000000 00000001 00000003')],
  ],
  [
    'two extents for REQ_ONE',
    'structured',
    ONE,
    'bad-message',
    [chunk(1, '0005', '00000007 00000008 00000000 00000008 00000003')],
  ],
  [
    'an extent over REQ_ONE',
    'structured',
    ONE,
    'bad-message',
    [chunk(1, '0005', '00000007 00000011 00000000')],
  ],
  [
    'a wide status with a wrong count',
    'extended',
    STATUS,
    'bad-message',
    [extended('0006', `00000007 00000002 ${at(16)} ${at(0)}`)],
  ],
  [
    'an extent over 2^53',
    'extended',
    STATUS,
    'too-big',
    [extended('0006', `00000007 00000001 ${'ff'.repeat(8)} ${at(0)}`)],
  ],
];

test.each(BREACHES)('%s (%s) is a breach', (_what, style, request, code, wire) => {
  let thrown: unknown;
  try {
    decodeReplies(style, [request], [hex(...wire)]);
  } catch (cause) {
    thrown = cause;
  }
  expect(thrown).toBeInstanceOf(ProtocolError);
  expect(thrown).toMatchObject({ code });
});

describe('what is allowed though it is odd', () => {
  const kinds = (request: PendingRequestOptions, ...wire: string[]) => {
    const { events, atBoundary } = decodeReplies('structured', [request], [hex(...wire)]);
    expect(atBoundary).toBe(true);
    return events.map((event) =>
      event.kind === 'done' ? `done ${event.failed ? 'failed' : 'well'}` : event.kind,
    );
  };

  test('the last extent may go beyond the request', () => {
    expect(kinds(STATUS, chunk(1, '0005', '00000007 00000008 00000000 00001000 00000003'))).toEqual([
      'status',
      'done well',
    ]);
  });

  test('fewer extents than asked for', () => {
    expect(kinds(STATUS, chunk(1, '0005', '00000007 00000001 00000000'))).toEqual(['status', 'done well']);
  });

  test('data after an error elsewhere, several errors, an error in content already sent', () => {
    const wire = [data(0, 0x1000, 4), error(0, 0x1002), error(0, 0x1008), data(0, 0x1009, 2), NONE];
    expect(kinds(READ, ...wire)).toEqual(['data', 'error', 'error', 'data', 'done failed']);
  });

  test('unknown reply flags', () => {
    expect(kinds(TRIM, '668e33ef 8001 0000 0000000000000001 00000000')).toEqual(['done well']);
  });

  test('unknown error chunks with more fields, and an offset that a flush has no use for', () => {
    expect(kinds(TRIM, chunk(1, '9234', `00000005 0002 ${toHex('hm')} ${ZEROES(30)}`))).toEqual([
      'error',
      'done failed',
    ]);
    expect(kinds(FLUSH, chunk(1, '8002', `00000005 0000 ${at(99)}`))).toEqual(['error', 'done failed']);
  });

  test('a simple error to anything but a read', () => {
    expect(kinds(STATUS, `67446698 00000016 ${at(1)}`)).toEqual(['error', 'done failed']);
  });

  test('unknown error values count as EINVAL, texts that break the rules are shown as far as they go', () => {
    const { events } = decodeReplies('structured', [TRIM], [hex(chunk(1, '8001', '0000007b 0003 61ff00'))]);
    expect(events[0]).toMatchObject({ kind: 'error', errno: Errno.EINVAL, text: 'a\ufffd\ufffd' });
  });

  test('reads and trims of no bytes', () => {
    expect(kinds({ ...READ, length: 0 }, NONE)).toEqual(['done well']);
    expect(
      decodeReplies('simple', [{ ...READ, length: 0 }], [hex(`67446698 00000000 ${at(1)}`)]).events.length,
    ).toBe(1);
  });
});

describe('what a server can make a request remember is bounded', () => {
  test('content in too many pieces', () => {
    const request = new PendingRequest(pending(1, { offset: 0, length: 1 << 20 }));
    const scatter = () => {
      for (let offset = 0; offset < 1 << 20; offset += 2) request.takeContent(offset, 1);
    };
    expect(scatter).toThrow(/too many pieces/);
  });

  test('error offsets', () => {
    const request = new PendingRequest(pending(1, { offset: 0, length: 1 << 20 }));
    const complain = () => {
      for (let offset = 0; offset < 1 << 20; offset++) request.takeError(offset);
    };
    expect(complain).toThrow(/too many error chunks/);
  });
});
