/** Random numbers that can be had again: every test that uses them prints the seed it ran with. */

export interface SeededRandom {
  readonly seed: number;
  /** In [0, 1). */
  next(): number;
  /** A whole number in [0, below). */
  below(below: number): number;
}

export function seededRandom(seed: number): SeededRandom {
  let state = seed >>> 0;
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  return { seed, next, below: (below) => Math.floor(next() * below) };
}

/** A generator seeded by VOLARY_TEST_SEED, or by the clock; the seed is printed. */
export function testRandom(what: string): SeededRandom {
  const seed = Number(process.env.VOLARY_TEST_SEED ?? Date.now() % 1_000_000_000);
  console.log(`${what}: VOLARY_TEST_SEED=${seed}`);
  return seededRandom(seed);
}
