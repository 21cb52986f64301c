import fc from 'fast-check';
import { expect, test } from 'vitest';
import { coarsened, type Range, unionOf } from '../../../src/base/range.ts';

const ranges = fc.array(fc.record({ offset: fc.nat({ max: 100 }), length: fc.nat({ max: 12 }) }), {
  maxLength: 20,
});

function bytesOf(list: readonly Range[]): number[] {
  const bytes = new Set(list.flatMap(({ offset, length }) => Array.from({ length }, (_, n) => offset + n)));
  return [...bytes].sort((a, b) => a - b);
}

function areApart(list: readonly Range[]): boolean {
  return list.every(({ offset, length }, n) => length > 0 && offset + length < (list[n + 1]?.offset ?? 1e9));
}

test('a union has the same bytes, in ranges that are ascending and apart', () => {
  fc.assert(
    fc.property(ranges, (list) => {
      const union = unionOf(list);
      expect(bytesOf(union)).toEqual(bytesOf(list));
      expect(areApart(union)).toBe(true);
    }),
  );
});

test('coarser ranges have all the bytes, in no more ranges than allowed, and no larger gap is closed than has to be', () => {
  fc.assert(
    fc.property(ranges, fc.integer({ min: 1, max: 6 }), (list, rangesMax) => {
      const union = unionOf(list);
      const coarse = coarsened(list, rangesMax);
      expect(coarse.length).toBe(Math.min(union.length, rangesMax));
      expect(areApart(coarse)).toBe(true);
      const kept = new Set(bytesOf(coarse));
      expect(bytesOf(list).every((byte) => kept.has(byte))).toBe(true);
      const gaps = union
        .slice(1)
        .map((range, n) => range.offset - (bytesOf([union[n] as Range]).at(-1) as number) - 1);
      const smallest = gaps.sort((a, b) => a - b).slice(0, union.length - coarse.length);
      expect(kept.size - bytesOf(list).length).toBe(smallest.reduce((sum, gap) => sum + gap, 0));
    }),
  );
});
