/** Sets of bits in arrays of 32-bit words: bit b is in word b / 32, its lowest bit first. */

export const WORD_BITS = 32;

/** As a mask, the bits of word `at` that are in [from, to). */
export function maskOf(from: number, to: number, at: number): number {
  const low = Math.max(from - at * WORD_BITS, 0);
  const high = Math.min(to - at * WORD_BITS, WORD_BITS);
  const below = high === WORD_BITS ? -1 : (1 << high) - 1;
  return below & (-1 << low);
}

export function countBits(word: number): number {
  let count = word - ((word >>> 1) & 0x55555555);
  count = (count & 0x33333333) + ((count >>> 2) & 0x33333333);
  return Math.imul((count + (count >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** How many of [from, to) were not set before. */
export function setBits(words: Uint32Array, from: number, to: number): number {
  let added = 0;
  for (let at = from >>> 5; at * WORD_BITS < to; at++) {
    const before = words[at] as number;
    const more = maskOf(from, to, at) & ~before;
    words[at] = before | more;
    added += countBits(more);
  }
  return added;
}

/** How many of [from, to) were set before. */
export function clearBits(words: Uint32Array, from: number, to: number): number {
  let removed = 0;
  for (let at = from >>> 5; at * WORD_BITS < to; at++) {
    const before = words[at] as number;
    const less = maskOf(from, to, at) & before;
    words[at] = before & ~less;
    removed += countBits(less);
  }
  return removed;
}

/** The first bit of [from, to) that is set, or with `flip` -1 that is not set; or `to`. */
export function findBit(words: Uint32Array, from: number, to: number, flip: 0 | -1): number {
  for (let at = from >>> 5; at * WORD_BITS < to; at++) {
    const found = ((words[at] as number) ^ flip) & maskOf(from, to, at);
    if (found !== 0) return at * WORD_BITS + 31 - Math.clz32(found & -found);
  }
  return to;
}
