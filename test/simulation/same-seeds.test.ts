import { expect, test } from 'vitest';
import { failuresOf, PORTION, replay, replayedSeed } from './seeds.ts';
import { run } from './world.ts';

for (const first of [1, 51, 101, 151, 201]) {
  test(`a cluster keeps its promises in runs that are always the same (${first})`, () => {
    const seed = replayedSeed();
    expect(seed === undefined ? failuresOf(first, PORTION) : replay(seed)).toEqual([]);
  });
}

test('a seed brings the same run again', () => {
  const [first, second] = [1, 2].map(() => run({ seed: 7, isTracing: true }));
  expect(first?.trace.length).toBeGreaterThan(1000);
  expect(second?.trace).toEqual(first?.trace);
});
