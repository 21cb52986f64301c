import { expect, test } from 'vitest';
import { parseSites } from '../../../src/cli/interface.ts';
import { formatProgress } from '../../../src/cli/pair-wait.ts';

const GiB = 2 ** 30;

test('sites in their order, however they are given', () => {
  expect(parseSites(['a', 'b'], [])).toEqual(['a', 'b']);
  expect(parseSites(['a'], ['b', 'c'])).toEqual(['a', 'b', 'c']);
  for (const [options, words, code] of [
    [['a', 'b'], ['c'], 'bad-argument'],
    [['a'], ['b', 'a'], 'bad-argument'],
    [['a'], ['b/c'], 'bad-name'],
    [[''], [], 'bad-name'],
  ] as const) {
    expect(() => parseSites(options, words)).toThrow(expect.objectContaining({ code }));
  }
});

test('progress of copies: what has been copied since somebody looks', () => {
  const copy = { storage: 'west-1', role: 'secondary', pair: 'copying', reason: null } as never;
  const at = (outOfSyncBytes: number) =>
    ({ ...(copy as object), outOfSyncBytes, outOfSyncKnown: true }) as never;
  expect(formatProgress('db', [at(4 * GiB)], 4 * GiB)).toBe(
    'volume db, west-1: copying  [------------------------] 0 %, 4 GiB out of sync',
  );
  expect(formatProgress('db', [at(GiB)], 4 * GiB)).toBe(
    'volume db, west-1: copying  [##################------] 75 %, 1 GiB out of sync',
  );
  expect(formatProgress('db', [at(0)], 0)).toMatch(/\[-{24}\] 0 %, 0 B out of sync$/);
  expect(formatProgress('db', [at(GiB), at(GiB)], 2 * GiB)).toMatch(/^volume db, west-1 and 1 more: copying/);
  expect(formatProgress('db', [], 0)).toBe('waiting for volume db');
});
