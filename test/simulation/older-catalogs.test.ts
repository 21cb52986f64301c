/** Runs in which, besides all else, an older catalog is put back now and then. */

import { expect, test } from 'vitest';
import { run } from './world.ts';

test('a cluster keeps its promises when the catalog is put back, too', () => {
  const seeds = Array.from({ length: 25 }, (_, index) => 6001 + index);
  const results = seeds.map((seed) => run({ seed, hasOlderCatalogs: true }));
  expect(
    results.flatMap(({ seed, violation }) => (violation === undefined ? [] : [`${seed}: ${violation}`])),
  ).toEqual([]);
  const putBack = results.reduce((sum, { statistics }) => sum + (statistics.faults.olderCatalog ?? 0), 0);
  expect(putBack).toBeGreaterThan(10);
});

test.each([
  [2254, 'the same catalog was put back twice, and a pair was not duplex any more for the record'],
  [3212, 'a primary had made its own the epoch that a person began, and took nothing of it'],
])('what a run has found once is mended (%i): %s', (seed) => {
  expect(run({ seed, hasOlderCatalogs: true }).violation).toBeUndefined();
});
