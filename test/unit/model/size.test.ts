import fc from 'fast-check';
import { expect, test } from 'vitest';
import { parseSize } from '../../../src/model/size.ts';

test.each([
  ['1', 1],
  ['4096', 4096],
  ['1KiB', 1024],
  ['512MiB', 512 * 2 ** 20],
  ['10GiB', 10 * 2 ** 30],
  ['4TiB', 4 * 2 ** 40],
  ['7PiB', 7 * 2 ** 50],
  ['3gib', 3 * 2 ** 30],
  ['9007199254740991', Number.MAX_SAFE_INTEGER],
])('%s is %d bytes', (text, sizeBytes) => {
  expect(parseSize(text)).toBe(sizeBytes);
});

test.each([
  '',
  ' ',
  '3x',
  'GiB',
  '1.5GiB',
  '1e9',
  '-1',
  '+1',
  '0x10',
  '1 GiB',
  '1GiB ',
  '１GiB',
  'Infinity',
  '0',
  '0GiB',
  '8PiB',
  '9007199254740992',
  '1EiB',
  '99999999999999999999999',
])('"%s" is refused as no size', (text) => {
  expect(() => parseSize(text)).toThrow(expect.objectContaining({ code: 'bad-size' }));
});

test.each(['10G', '10GB', '10k', '10M'])(
  '%s, which means different things to different people, is refused with a hint',
  (text) => {
    expect(() => parseSize(text)).toThrow(/KiB, MiB, GiB/);
  },
);

test('what is written as bytes is read as exactly these bytes', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER }), (sizeBytes) => {
      expect(parseSize(String(sizeBytes))).toBe(sizeBytes);
    }),
  );
});
