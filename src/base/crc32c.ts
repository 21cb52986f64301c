/**
 * CRC32C (Castagnoli) of a few bytes: for a header a call into a native library costs more than the sum itself. What is longer is
 * for the library. RFC 3720, appendix B.4, has values to check it by.
 */

const POLYNOMIAL = 0x82f6_3b78; // bits reversed

/** Four tables: a word of four bytes at once. */
const tables = new Int32Array(4 * 256);
for (let byte = 0; byte < 256; byte++) {
  let sum = byte;
  for (let bit = 0; bit < 8; bit++) sum = (sum & 1) === 1 ? (sum >>> 1) ^ POLYNOMIAL : sum >>> 1;
  tables[byte] = sum;
}
for (let at = 256; at < tables.length; at++) {
  const before = tables[at - 256] as number;
  tables[at] = (before >>> 8) ^ (tables[before & 0xff] as number);
}

/** Of bytes[start, start + length); `length` is a multiple of 4. */
export function crc32cOfWords(bytes: Uint8Array, start: number, length: number): number {
  let sum = -1;
  for (let at = start; at < start + length; at += 4) {
    sum ^=
      (bytes[at] as number) |
      ((bytes[at + 1] as number) << 8) |
      ((bytes[at + 2] as number) << 16) |
      ((bytes[at + 3] as number) << 24);
    sum =
      (tables[768 + (sum & 0xff)] as number) ^
      (tables[512 + ((sum >>> 8) & 0xff)] as number) ^
      (tables[256 + ((sum >>> 16) & 0xff)] as number) ^
      (tables[sum >>> 24] as number);
  }
  return ~sum >>> 0;
}
