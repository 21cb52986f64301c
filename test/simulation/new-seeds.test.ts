import { expect, test } from 'vitest';
import { failuresOf, PORTION, replay, replayedSeed } from './seeds.ts';

const SEEDS = 1_000_000_000;
const first = Date.now() % SEEDS;

for (const portion of [0, 1, 2, 3, 4]) {
  test(`a cluster keeps its promises in runs that nobody has seen before (${portion + 1})`, () => {
    const seed = replayedSeed();
    const start = first + portion * PORTION;
    console.log(`simulation: seeds ${start} to ${start + PORTION - 1}`);
    expect(seed === undefined ? failuresOf(start, PORTION) : replay(seed)).toEqual([]);
  });
}
