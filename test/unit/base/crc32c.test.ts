import { crc32c } from '@node-rs/crc32';
import { expect, test } from 'vitest';
import { crc32cOfWords } from '../../../src/base/crc32c.ts';
import { seededRandom } from '../../support/random.ts';

test('the sum of a header is the one of the library', () => {
  const random = seededRandom(7);
  for (let i = 0; i < 500; i++) {
    const bytes = Buffer.from(Array.from({ length: 80 }, () => random.below(256)));
    const [start, length] = [random.below(16), 4 * random.below(17)];
    expect(crc32cOfWords(bytes, start, length)).toBe(crc32c(bytes.subarray(start, start + length)));
  }
  expect(crc32cOfWords(Buffer.alloc(32), 0, 32)).toBe(0x8a91_36aa); // RFC 3720, appendix B.4
});
