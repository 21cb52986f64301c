import { expect, test } from 'vitest';
import { get16, get32, put16, put32 } from '../../../src/nbd-server-protocol/big-endian.ts';

test('numbers are as Buffer has them', () => {
  const bytes = Buffer.alloc(16, 0xa5);
  for (const value of [0, 1, 0x7f, 0x80, 0xff, 0x100, 0x7fff, 0x8000, 0xffff]) {
    expect(put16(bytes, 3, value)).toBe(5);
    expect([bytes.readUInt16BE(3), get16(bytes, 3)]).toEqual([value, value]);
  }
  for (const value of [0, 0xff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xdead_beef, 0xffff_ffff]) {
    expect(put32(bytes, 7, value)).toBe(11);
    expect([bytes.readUInt32BE(7), get32(bytes, 7)]).toEqual([value, value]);
  }
  expect([bytes[2], bytes[5], bytes[6], bytes[11]]).toEqual([0xa5, 0xa5, 0xa5, 0xa5]);
});
