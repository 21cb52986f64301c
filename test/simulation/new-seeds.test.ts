import { expect, test } from 'vitest';
import { failuresOf, replay, replayedSeed } from './seeds.ts';

const RUNS = 250;
const SEEDS = 1_000_000_000;

test(`a cluster keeps its promises in ${RUNS} runs that nobody has seen before`, () => {
  const seed = replayedSeed();
  if (seed !== undefined) {
    expect(replay(seed)).toEqual([]);
    return;
  }
  const first = Date.now() % SEEDS;
  console.log(`simulation: seeds ${first} to ${first + RUNS - 1}`);
  expect(failuresOf(first, RUNS)).toEqual([]);
});
