import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { DataExtents } from '../../../src/storage/data-extents.ts';

test('nothing is known at first, and only what was added', () => {
  const data = new DataExtents();
  expect(data.covers(0, 1)).toBe(false);
  data.add(10, 20);
  expect(data.covers(10, 20)).toBe(true);
  expect(data.covers(9, 20)).toBe(false);
  expect(data.covers(10, 21)).toBe(false);
});

test('positions up to 2^53 - 1', () => {
  const data = new DataExtents();
  data.add(2 ** 53 - 4096, 2 ** 53 - 1);
  expect(data.covers(2 ** 53 - 2, 2 ** 53 - 1)).toBe(true);
  data.forget(0, 2 ** 53 - 2);
  expect(data.covers(2 ** 53 - 2, 2 ** 53 - 1)).toBe(true);
  expect(data.covers(2 ** 53 - 3, 2 ** 53 - 1)).toBe(false);
});

test('it agrees with a set of positions, whatever is added and forgotten', () => {
  const range = fc
    .tuple(fc.nat(60), fc.integer({ min: 1, max: 20 }))
    .map(([a, length]) => [a, a + length] as const);
  const step = fc.record({ what: fc.constantFrom('add', 'forget', 'ask'), range });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (sequence) => {
      const data = new DataExtents();
      const model = new Set<number>();
      for (const {
        what,
        range: [start, end],
      } of sequence) {
        const positions = Array.from({ length: end - start }, (_, index) => start + index);
        if (what === 'add') {
          data.add(start, end);
          for (const position of positions) model.add(position);
        } else if (what === 'forget') {
          data.forget(start, end);
          for (const position of positions) model.delete(position);
        } else {
          expect(data.covers(start, end)).toBe(positions.every((position) => model.has(position)));
        }
      }
    }),
    { numRuns: 500 },
  );
});

test('a file in very many pieces makes it start over, and never say too much', () => {
  const data = new DataExtents();
  for (let index = 0; index < 10_000; index += 1) data.add(index * 10, index * 10 + 5);
  expect(data.covers(99_990, 99_995)).toBe(true);
  for (let index = 0; index < 10_000; index += 1)
    expect(data.covers(index * 10 + 4, index * 10 + 6)).toBe(false);
});

test('each forget is a new generation, so that an older answer is not taken', () => {
  const data = new DataExtents();
  const { generation } = data;
  data.add(0, 10);
  expect(data.generation).toBe(generation);
  data.forget(0, 10);
  expect(data.generation).not.toBe(generation);
});
