/** The layout, byte by byte, and one hash over all kinds: an accidental change of the format fails here. A change on purpose changes both, and the version. */

import { createHash } from 'node:crypto';
import { crc32c } from '@node-rs/crc32';
import { expect, test } from 'vitest';
import type { Message } from '../../../src/peer-protocol/codec.ts';
import * as constants from '../../../src/peer-protocol/constants.ts';
import {
  crc,
  encoded,
  frame,
  HELLO,
  helloFrame,
  ON_WIRE,
  OPERATIONS,
  ranges,
  STREAMS,
  THIRD,
  text,
} from './lab.ts';

const { Flag, Kind } = constants;

function hex(message: Message): string {
  return encoded(message).toString('hex');
}

test('the checksum is CRC32C, also in pieces', () => {
  const digits = Buffer.from('123456789');
  expect(crc32c(digits)).toBe(0xe306_9283); // the check value of the catalogue of CRCs
  expect(crc32c(digits.subarray(4), crc32c(digits.subarray(0, 4)))).toBe(0xe306_9283);
  expect(crc(digits)).toBe(0xe306_9283);
  expect(crc32c(Buffer.alloc(32))).toBe(0x8a91_36aa); // RFC 3720, appendix B.4
});

test('golden bytes: an ack, every byte of it', () => {
  const expected = [
    '564c5250', // magic
    '01', //      version
    '20', //      kind
    '0000', //    flags
    '0000000000000102', // seq
    '0000000000000000',
    '0000000000000000',
    '0000000000000003', // it, and two before it
    '00000002', // io
    '0000000000000000',
    '00000000', // no payload
    '00000000',
  ].join('');
  const sum = crc(Buffer.from(expected, 'hex')).toString(16).padStart(8, '0');
  expect(hex({ kind: 'ack', seq: 0x102, count: 3, result: 'io' })).toBe(`${expected}${sum}`);
  expect(sum).toBe('94ed355c');
});

test('golden bytes: a write with FUA', () => {
  const expected = [
    '564c5250',
    '01',
    '10',
    '0001', // FUA
    '0000000000000005',
    '0000000000000004',
    '0010000000000200', // 2^52 + 512
    '0000000000000003',
    '00000000',
    '0000000000000000',
    '00000003',
    crc(Buffer.from('abc')).toString(16),
  ].join('');
  const sum = crc(Buffer.from(expected, 'hex')).toString(16).padStart(8, '0');
  const payload = Buffer.from('abc');
  const offset = 2 ** 52 + 512;
  expect(hex({ kind: 'write', seq: 5, confirmed: 4, offset, length: 3, fua: true, payload })).toBe(
    `${expected}${sum}${payload.toString('hex')}`,
  );
  expect(crc(payload).toString(16)).toBe('364b3fb7');
});

test('hello has its place for authentication, and the versions that are spoken', () => {
  expect(hex({ ...HELLO, versions: { from: 1, to: 1 } })).toBe(helloFrame().toString('hex'));
  expect(helloFrame().subarray(64, 72).toString('hex')).toBe('0001000100000000');
  expect(helloFrame().subarray(-2).toString('hex')).toBe('0000'); // the empty proof
});

test('every other kind is as its row says', () => {
  const { fua, noHole, equal, everything, alone, lostCache } = Flag;
  const cases: readonly (readonly [Message | undefined, Buffer])[] = [
    [
      { kind: 'welcome', operationsMax: 3, bytesMax: 2 ** 25, hasLostCache: true, version: 1 },
      frame({ kind: Kind.welcome, flags: lostCache, number: 3, length: 2 ** 25, value: 1 }),
    ],
    [
      { kind: 'refusal', code: 'version', epoch: 5, text: 'nö' },
      frame({ kind: Kind.refusal, number: 5, value: 7, payload: text('nö') }),
    ],
    [
      { kind: 'difference', cause: 'alone', ranges: [{ offset: 2 ** 40, length: 9 }] },
      frame({ kind: Kind.difference, flags: alone, payload: ranges([2n ** 40n, 9]) }),
    ],
    [{ kind: 'ready' }, frame({ kind: Kind.ready })],
    [
      OPERATIONS[1],
      frame({
        kind: Kind.zero,
        flags: fua | noHole,
        number: 2,
        confirmed: 1,
        offset: 4096,
        length: 2n ** 40n,
      }),
    ],
    [OPERATIONS[3], frame({ kind: Kind.trim, number: 4, confirmed: 2, offset: 0, length: 1 })],
    [OPERATIONS[4], frame({ kind: Kind.flush, number: 2n ** 52n + 5n, confirmed: 2n ** 52n + 4n })],
    [
      { kind: 'members', seq: 6, confirmed: 3, differing: [THIRD], isEqual: true },
      frame({
        kind: Kind.members,
        flags: equal,
        number: 6,
        confirmed: 3,
        payload: Buffer.concat([Buffer.of(0, 1), text(THIRD)]),
      }),
    ],
    [
      OPERATIONS[7],
      frame({
        kind: Kind.lacks,
        number: 8,
        confirmed: 4,
        payload: Buffer.concat([text(THIRD), ranges([1, 2])]),
      }),
    ],
    [
      OPERATIONS[9],
      frame({ kind: Kind.lacks, flags: everything, number: 10, confirmed: 4, payload: text(THIRD) }),
    ],
    [OPERATIONS[10], frame({ kind: Kind.heartbeat, number: 2n ** 53n - 1n, confirmed: 9 })],
    [ON_WIRE[5], frame({ kind: Kind.heartbeatAck, number: 77, confirmed: 2n ** 34n })],
    [ON_WIRE[6], frame({ kind: Kind.receiving })],
    [ON_WIRE[7], frame({ kind: Kind.fenced, number: 12 })],
  ];
  for (const [message, expected] of cases) {
    expect(message && hex(message), message?.kind).toBe(expected.toString('hex'));
  }
});

test('the wire format is the one of version 1', () => {
  const hash = createHash('sha256');
  const { MAGIC, HEADER_BYTES, HANDSHAKE_VERSION } = constants;
  hash.update(JSON.stringify([MAGIC, HEADER_BYTES, HANDSHAKE_VERSION, Kind, Flag]));
  for (const { messages } of STREAMS) for (const message of messages) hash.update(encoded(message));
  expect(hash.digest('hex')).toBe('dccc7a1037de1d1036dc3126e5174b031d9b8ab8b7369d1374f5470b8701689d');
});
