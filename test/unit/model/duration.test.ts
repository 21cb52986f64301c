import { expect, test } from 'vitest';
import { parseDuration } from '../../../src/model/duration.ts';

test.each([
  ['0ms', 0],
  ['500ms', 500],
  ['10s', 10_000],
  ['5m', 300_000],
  ['2h', 7_200_000],
])('%s', (text, durationMs) => {
  expect(parseDuration(text)).toBe(durationMs);
});

test.each(['', '10', 's', '1.5s', '-1s', '10 s', '10S', '1000h', '99999999999999999999s'])(
  '"%s" is no time',
  (text) => {
    expect(() => parseDuration(text)).toThrow(expect.objectContaining({ code: 'bad-argument' }));
  },
);
