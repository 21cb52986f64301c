import { expect, test } from 'vitest';
import { median, pairedRatios, spread } from '../../bench/statistics.ts';

test('the median is the middle value, by number and not by text, of an even count the mean of the middle two', () => {
  expect(median([10, 9, 100])).toBe(10);
  expect(median([4, 1, 3, 2])).toBe(2.5);
  expect(median([7])).toBe(7);
});

test('no values have no median', () => {
  expect(() => median([])).toThrow('no values');
});

test('median leaves its argument in order', () => {
  const values = [3, 1, 2];
  median(values);
  expect(values).toEqual([3, 1, 2]);
});

test('a spread has the median and both ends', () => {
  expect(spread([5, 1, 4])).toEqual({ median: 4, lowest: 1, highest: 5 });
});

test('ratios are taken round by round: a machine at half speed for one round changes nothing', () => {
  expect(pairedRatios([200, 100, 200], [100, 50, 100])).toEqual({ median: 2, lowest: 2, highest: 2 });
  expect(() => pairedRatios([1, 2], [1])).toThrow('2 rounds against 1');
});
