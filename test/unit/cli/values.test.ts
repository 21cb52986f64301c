import { expect, test } from 'vitest';
import { parseBusyPoll, parseSingle } from '../../../src/cli/values.ts';

const refusal = expect.objectContaining({ code: 'bad-argument' });

test('an option that is given once is parsed, one that is not given stays away', () => {
  expect(parseSingle('size', '5', Number)).toBe(5);
  expect(parseSingle('size', undefined, Number)).toBeUndefined();
});

test('an option that is given twice is refused by name', () => {
  expect(() => parseSingle('size', ['5', '6'], Number)).toThrow(/--size is given more than once/);
});

test.each([
  ['0', 0],
  ['50', 50],
  ['10000', 10_000],
])('%s µs of busy polling', (text, busyPollUs) => {
  expect(parseBusyPoll(text)).toBe(busyPollUs);
});

test.each(['', '-1', '1.5', '10001', '50us', 'off'])('"%s" is no time of busy polling', (text) => {
  expect(() => parseBusyPoll(text)).toThrow(refusal);
});
