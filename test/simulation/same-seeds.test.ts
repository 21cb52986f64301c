import { expect, test } from 'vitest';
import { failuresOf, replay, replayedSeed } from './seeds.ts';
import { run } from './world.ts';

const RUNS = 250;

test(`a cluster keeps its promises in ${RUNS} runs that are always the same`, () => {
  const seed = replayedSeed();
  expect(seed === undefined ? failuresOf(1, RUNS) : replay(seed)).toEqual([]);
});

test('a seed brings the same run again', () => {
  const [first, second] = [1, 2].map(() => run({ seed: 7, isTracing: true }));
  expect(first?.trace.length).toBeGreaterThan(1000);
  expect(second?.trace).toEqual(first?.trace);
});
