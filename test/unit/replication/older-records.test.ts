/** Records and members of which one knows more than the other: an older catalog, or an older data folder, has been put back. */

import { expect, test } from 'vitest';
import { PairReport } from '../../../src/control-protocol/copy-groups.ts';
import { type Epoch, StorageName } from '../../../src/control-protocol/names.ts';
import { caughtUpWith, lapsed, overtaken, recordPair } from '../../../src/replication/group-rules.ts';
import { M, NOBODY, outcome, P, type Report, report, STANDINGS, segmentOf, shown } from './record.ts';

test('a primary that knows more than the record is not believed that a pair is duplex, until the record has caught up', () => {
  for (const standing of STANDINGS.filter((each) => !each.includes('unwanted'))) {
    const before = segmentOf(standing);
    const newer = (pair: Report, pairRevision = 900) => report(pair, { pairRevision });
    expect(outcome(before, (segment) => recordPair(segment, newer('duplex')))).toBe('conflict');
    for (const pair of ['copying', 'suspended'] as const) {
      const after = recordPair(before, newer(pair));
      expect(after.copies[1]).toMatchObject({ pair, pairRevision: 901 });
      expect(outcome(after, (segment) => recordPair(segment, newer('duplex', 901)))).toMatch('s2 duplex');
    }
  }
  expect(PairReport.safeParse({ ...report('copying'), pairRevision: Number.MAX_SAFE_INTEGER }).success).toBe(
    false,
  );
});

test('a record that is older than what its primary says is duplex goes on past it, and calls nobody so before it is said again', () => {
  const newer = report('duplex', { pairRevision: 900 });
  for (const [standing, after] of [
    ['duplex', 'suspended unreachable'],
    ['suspended new', 'suspended new'],
    ['copying', 'copying'],
  ] as const) {
    const caughtUp = caughtUpWith(segmentOf(standing), newer);
    expect(shown(caughtUp)).toBe(`7: s1 primary, s2 ${after}`);
    expect(outcome(caughtUp, (segment) => recordPair(segment, newer))).toBe('conflict');
    const again = report('duplex', { pairRevision: caughtUp.copies[1]?.pairRevision ?? 0 });
    expect(outcome(caughtUp, (segment) => recordPair(segment, again))).toMatch('s2 duplex');
    for (const said of [
      again,
      report('suspended', { pairRevision: 9000 }),
      { ...newer, epoch: 6 as Epoch },
    ]) {
      expect(caughtUpWith(caughtUp, said)).toBe(caughtUp);
    }
  }
});

test('who says that it is behind is suspended, and what its primary has said before does not change that', () => {
  const at = (name: string) => StorageName.parse(name);
  const after = lapsed(segmentOf('duplex', 'duplex'), at('s2'));
  expect(shown(after)).toBe('7: s1 primary, s2 suspended unreachable, s3 duplex');
  expect(outcome(after, (segment) => recordPair(segment, report('duplex')))).toBe('conflict');
  for (const [standing, storage] of [
    ['duplex', 's1'],
    ['suspended new', 's2'],
  ] as const) {
    expect(outcome(segmentOf(standing), (segment) => lapsed(segment, at(storage)))).toBe('same');
  }
});

test('only who is suspended has a reason', () => {
  const told = (pair: Report) => PairReport.safeParse({ ...report(pair), reason: 'failed' }).success;
  expect([told('suspended'), told('copying'), told('duplex')]).toEqual([true, false, false]);
});

test('a record that members have overtaken goes on past them, with any copy, and believes nothing that it says of pairs', () => {
  const before = segmentOf('duplex', 'copying');
  expect(shown(overtaken(before, M, 20))).toBe(
    '21 waits forced: s1 suspended was-primary, s2 primary, s3 suspended unreachable',
  );
  const after = overtaken(before, P, 20);
  expect(shown(after)).toBe(
    '21 waits forced: s1 primary, s2 suspended unreachable, s3 suspended unreachable',
  );
  for (const [at, { pairRevision }] of after.copies.entries()) {
    expect(pairRevision).toBeGreaterThan((before.copies[at]?.pairRevision ?? 0) + 1_000_000); // than members have heard
  }
  expect(outcome(segmentOf('suspended new'), (segment) => overtaken(segment, M, 20))).toBe('conflict');
  expect(outcome(before, (segment) => overtaken(segment, NOBODY, 20))).toBe('not-found');
});
