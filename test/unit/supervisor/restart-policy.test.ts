import { expect, test } from 'vitest';
import { restartDelayMs } from '../../../src/supervisor/restart-policy.ts';

test.each([
  ['the first time', undefined, 0, 100],
  ['the first time, after years', undefined, 1e11, 100],
  ['again', 100, 0, 200],
  ['and again', 200, 9_999, 400],
  ['and again', 400, 0, 800],
  ['and again', 800, 0, 1600],
  ['and again', 1600, 0, 3200],
  ['no more than 5 s', 3200, 0, 5000],
  ['for ever', 5000, 9_999, 5000],
  ['after 10 s up, from the beginning', 5000, 10_000, 100],
])('%s: last wait %s ms, up for %i ms', (_, lastDelayMs, uptimeMs, expected) => {
  expect(restartDelayMs(lastDelayMs, uptimeMs)).toBe(expected);
});
