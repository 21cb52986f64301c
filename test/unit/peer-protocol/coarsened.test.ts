import { expect, test } from 'vitest';
import type { Range } from '../../../src/peer-protocol/messages.ts';
import { coarsened } from '../../../src/peer-protocol/payloads.ts';
import { testRandom } from '../../support/random.ts';

function blocksOf(ranges: readonly Range[]): Set<number> {
  const blocks = new Set<number>();
  for (const { offset, length } of ranges) for (let at = offset; at < offset + length; at++) blocks.add(at);
  return blocks;
}

test('ranges that fit are told as they are, in order, and joined where they touch or overlap', () => {
  const ranges = [
    { offset: 20, length: 5 },
    { offset: 0, length: 10 },
    { offset: 5, length: 2 },
    { offset: 10, length: 1 },
  ];
  const joined = [
    { offset: 0, length: 11 },
    { offset: 20, length: 5 },
  ];
  expect(coarsened(ranges, 2)).toEqual(joined);
  expect(coarsened([], 1)).toEqual([]);
});

test('where there are too many, the smallest gaps are closed', () => {
  const ranges = [0, 10, 12, 30, 33, 90].map((offset) => ({ offset, length: 1 }));
  expect(coarsened(ranges, 4)).toEqual([
    { offset: 0, length: 1 },
    { offset: 10, length: 3 },
    { offset: 30, length: 4 },
    { offset: 90, length: 1 },
  ]);
  expect(coarsened(ranges, 1)).toEqual([{ offset: 0, length: 91 }]);
});

test('random ranges: never more than asked for, all of them covered, none touching the next, exact when they fit', () => {
  const random = testRandom('coarsened');
  for (let round = 0; round < 500; round++) {
    const ranges = Array.from({ length: random.below(40) }, () => ({
      offset: random.below(300),
      length: 1 + random.below(12),
    }));
    const most = 1 + random.below(40);
    const told = coarsened(ranges, most);
    expect(told.length).toBeLessThanOrEqual(most);
    for (let i = 1; i < told.length; i++) {
      const [before, here] = [told[i - 1] as Range, told[i] as Range];
      expect(before.offset + before.length).toBeLessThan(here.offset);
    }
    const [were, are] = [blocksOf(ranges), blocksOf(told)];
    expect([...were].filter((at) => !are.has(at))).toEqual([]);
    if (most >= ranges.length) expect(are).toEqual(were);
  }
});
