/** The rules of a copy group's record, as tables: every pair that a record can have, with every report, wish and promotion. */

import { describe, expect, test } from 'vitest';
import {
  CopyRecord,
  SegmentRecord,
  StorageRecord,
  VolumeRecord,
} from '../../../src/control-protocol/catalog.ts';
import { GroupConfig } from '../../../src/control-protocol/copy-groups.ts';
import type { RealVolumeId } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';
import {
  failedOver,
  failoverTarget,
  groupConfigOf,
  handOverUndone,
  leaseHolds,
  nextEpoch,
  recordPair,
  switched,
  wanted,
  withCopy,
  withoutCopy,
  worstPair,
} from '../../../src/replication/group-rules.ts';

import {
  copy,
  idOf,
  M,
  N,
  NOBODY,
  outcome,
  P,
  type Report,
  report,
  STANDINGS,
  type Standing,
  segmentOf,
  shown,
} from './record.ts';

describe('reports of pairs', () => {
  /** The pair, in the record, after the primary has reported with the record's revision, and with an older one. */
  const TABLE: Record<Standing, Record<Report, [latest: string, old: string]>> = {
    duplex: {
      copying: ['copying', 'conflict'],
      duplex: ['same', 'same'],
      suspended: ['suspended unreachable', 'suspended unreachable'],
    },
    copying: {
      copying: ['same', 'same'],
      duplex: ['duplex', 'conflict'],
      suspended: ['suspended unreachable', 'suspended unreachable'],
    },
    'suspended new': {
      copying: ['copying', 'copying'],
      duplex: ['duplex', 'conflict'],
      suspended: ['suspended unreachable', 'same'],
    },
    'suspended unreachable': {
      copying: ['copying', 'copying'],
      duplex: ['duplex', 'conflict'],
      suspended: ['suspended unreachable', 'same'],
    },
    'suspended was-primary': {
      copying: ['copying', 'copying'],
      duplex: ['duplex', 'conflict'],
      suspended: ['suspended unreachable', 'same'],
    },
    'suspended asked unwanted': {
      copying: ['conflict', 'conflict'],
      duplex: ['conflict', 'conflict'],
      suspended: ['suspended unreachable unwanted', 'same'],
    },
    'duplex unwanted': {
      copying: ['conflict', 'conflict'],
      duplex: ['conflict', 'conflict'],
      suspended: ['suspended unreachable unwanted', 'suspended unreachable unwanted'],
    },
  };

  for (const standing of STANDINGS) {
    for (const [pair, expected] of Object.entries(TABLE[standing]) as [Report, [string, string]][]) {
      test.each([
        ['with the latest revision', 5, expected[0]],
        ['with an older revision', 4, expected[1]],
      ])(`${standing} + ${pair} %s`, (_, pairRevision, after) => {
        const before = segmentOf(standing, 'duplex');
        const got = outcome(before, (segment) => recordPair(segment, report(pair, { pairRevision })));
        const whole = `7: s1 primary, s2 ${after}, s3 duplex`;
        expect(got).toBe(['same', 'conflict'].includes(after) ? after : whole);
      });

      test(`${standing} + ${pair} of another epoch, or by who is not primary`, () => {
        const tried = [
          { epoch: 6 },
          { epoch: 8 },
          { primary: M, member: P },
          { primary: N, member: M },
          { primary: NOBODY },
        ].map((more) => outcome(segmentOf(standing), (segment) => recordPair(segment, report(pair, more))));
        expect(new Set(tried)).toEqual(new Set(['stale-epoch']));
      });
    }
  }

  test('about a member that has been taken away: it is not in step, and will not be', () => {
    const tell = (pair: Report, member: RealVolumeId): string =>
      outcome(segmentOf('duplex'), (segment) => recordPair(segment, report(pair, { member })));
    expect(tell('suspended', NOBODY)).toBe('same');
    expect(tell('copying', NOBODY)).toBe('not-found');
    expect(tell('duplex', NOBODY)).toBe('not-found');
    for (const pair of ['copying', 'duplex', 'suspended'] as const) expect(tell(pair, P)).toBe('not-found');
  });

  test('every suspension makes the reports before it old: duplex that was held up does not come through', () => {
    for (const standing of STANDINGS.filter((each) => !each.includes('unwanted'))) {
      const heldUp = report('duplex');
      const after = recordPair(segmentOf(standing), report('suspended'));
      expect(outcome(after, (segment) => recordPair(segment, heldUp))).toBe('conflict');
      expect(recordPair(after, report('suspended')), 'told twice').toBe(after);
    }
  });

  test('the reason of a suspension is kept when the report has none, and forgotten when it is over', () => {
    const none = { reason: null };
    expect(shown(recordPair(segmentOf('suspended new'), report('suspended', none)))).toContain(
      's2 suspended new',
    );
    expect(shown(recordPair(segmentOf('duplex'), report('suspended', none)))).toContain(
      's2 suspended unreachable',
    );
    expect(shown(recordPair(segmentOf('suspended new'), report('copying')))).toContain('s2 copying');
  });
});

describe('copies that come and go', () => {
  const added = { storage: 's4', realVolume: idOf(4), realOffset: 0, accessKey: '4'.repeat(32), file: null };
  const fourth = CopyRecord.parse({ ...added, role: 'secondary', pair: 'suspended', mode: 'normal' });

  test('a new one is suspended, and to be brought up; the segment has a group from then on', () => {
    const alone = SegmentRecord.parse({ offset: 0, length: 4096, epoch: 1, copies: [copy(1, 'primary')] });
    expect(alone.isGrouped).toBe(false);
    const grown = withCopy(alone, fourth);
    expect(grown.isGrouped).toBe(true);
    expect(shown(grown)).toBe('1: s1 primary, s4 suspended new');
    expect(shown(withoutCopy(grown, idOf(4)))).toBe('1: s1 primary');
    expect(withoutCopy(grown, idOf(4)).isGrouped).toBe(true);
  });

  test('one on each storage system, and not too many', () => {
    const twice = { ...fourth, storage: copy(2, 'duplex').storage };
    expect(outcome(segmentOf('duplex'), (segment) => withCopy(segment, twice))).toBe('conflict');
    const copies = Array.from({ length: 15 }, (_, at) => ({ ...copy(2, 'duplex'), storage: `t${at}` }));
    const full = SegmentRecord.parse({ ...segmentOf('duplex'), copies: [copy(1, 'primary'), ...copies] });
    expect(outcome(full, (segment) => withCopy(segment, fourth))).toBe('conflict');
  });

  test.each<[RealVolumeId, string]>([
    [P, 'conflict'],
    [M, '7: s1 primary, s3 copying'],
    [N, '7: s1 primary, s2 duplex'],
    [NOBODY, 'not-found'],
  ])('%s is taken away', (member, expected) => {
    expect(outcome(segmentOf('duplex', 'copying'), (segment) => withoutCopy(segment, member))).toBe(expected);
  });

  const WISHES: Record<Standing, [suspended: string, following: string]> = {
    duplex: ['s2 duplex unwanted', 'same'],
    copying: ['s2 copying unwanted', 'same'],
    'suspended new': ['s2 suspended new unwanted', 'same'],
    'suspended unreachable': ['s2 suspended asked unwanted', 'same'],
    'suspended was-primary': ['s2 suspended asked unwanted', 'same'],
    'suspended asked unwanted': ['same', 's2 suspended asked'],
    'duplex unwanted': ['same', 's2 duplex'],
  };
  test.each(STANDINGS)('%s: what a person wants', (standing) => {
    const wish = (what: 'suspended' | 'following'): string =>
      outcome(segmentOf(standing), (segment) => wanted(segment, M, what)).replace('7: s1 primary, ', '');
    expect([wish('suspended'), wish('following')]).toEqual(WISHES[standing]);
  });

  test('a primary is not suspended', () => {
    expect(outcome(segmentOf('duplex'), (segment) => wanted(segment, P, 'suspended'))).toBe('conflict');
    expect(outcome(segmentOf('duplex'), (segment) => wanted(segment, NOBODY, 'suspended'))).toBe('not-found');
  });
});

describe('another primary', () => {
  interface Promotions {
    readonly switched: string;
    readonly failedOver: string;
    readonly forced: string;
  }
  const taken = '8 waits: s1 suspended was-primary, s2 primary, s3 duplex';
  /** Who is forced lacks what the others have: they are not in step with it. */
  const forced = '8 waits forced: s1 suspended was-primary, s2 primary, s3 suspended unreachable';
  const TABLE: Record<Standing, Promotions> = {
    duplex: { switched: '8: s1 duplex, s2 primary, s3 duplex', failedOver: taken, forced: taken },
    copying: { switched: 'conflict', failedOver: 'conflict', forced },
    'suspended new': { switched: 'conflict', failedOver: 'conflict', forced: 'conflict' },
    'suspended unreachable': { switched: 'conflict', failedOver: 'conflict', forced },
    'suspended was-primary': { switched: 'conflict', failedOver: 'conflict', forced },
    'suspended asked unwanted': { switched: 'conflict', failedOver: 'conflict', forced },
    'duplex unwanted': {
      switched: '8: s1 duplex, s2 primary, s3 duplex',
      failedOver: taken,
      forced: taken,
    },
  };

  test.each(STANDINGS)('%s is promoted', (standing) => {
    const before = segmentOf(standing, 'duplex');
    expect({
      switched: outcome(before, (segment) => switched(segment, M)),
      failedOver: outcome(before, (segment) => failedOver(segment, M, false)),
      forced: outcome(before, (segment) => failedOver(segment, M, true)),
    }).toEqual(TABLE[standing]);
  });

  test('never the primary itself, nor anybody else', () => {
    for (const [member, code] of [
      [P, 'conflict'],
      [NOBODY, 'not-found'],
    ] as const) {
      expect(outcome(segmentOf('duplex'), (segment) => switched(segment, member))).toBe(code);
      expect(outcome(segmentOf('duplex'), (segment) => failedOver(segment, member, true))).toBe(code);
    }
  });

  test('others keep their pairs when who is promoted holds all; a primary that gave way has no lease to wait out', () => {
    const before = segmentOf('duplex', 'copying');
    expect(shown(switched(before, M))).toBe('8: s1 duplex, s2 primary, s3 copying');
    expect(shown(failedOver(before, M, false, true))).toBe(
      '8: s1 suspended was-primary, s2 primary, s3 copying',
    );
    expect(shown(failedOver(segmentOf('copying', 'copying'), M, true))).toBe(
      '8 waits forced: s1 suspended was-primary, s2 primary, s3 suspended unreachable',
    );
  });

  test('a primary that gave way while it may have been waiting for the lease of who was before it leaves that to who comes after', () => {
    const before = failedOver(segmentOf('duplex', 'duplex'), M, false);
    expect(shown(failedOver(before, N, false, true))).toBe(
      '9 waits: s1 suspended was-primary, s2 suspended was-primary, s3 primary',
    );
  });

  test('a primary that was forced is so for its epoch', () => {
    const before = failedOver(segmentOf('copying', 'copying'), M, true);
    const inStep = { ...before, copies: before.copies.map((each) => ({ ...each, pair: 'duplex' as const })) };
    expect(switched(inStep, N).isForced).toBe(false);
    expect(failedOver(inStep, N, true).isForced).toBe(false);
    expect(handOverUndone(before).isForced).toBe(false);
    expect(wanted(before, N, 'suspended').isForced).toBe(true);
  });

  test('refusals say what to do', () => {
    const textOf = (act: () => unknown): string => {
      try {
        act();
      } catch (error) {
        if (error instanceof ControlError) return error.message;
        throw error;
      }
      throw new Error('it was not refused');
    };
    expect(textOf(() => switched(segmentOf('copying'), M))).toContain('wait until it is duplex');
    expect(textOf(() => switched(segmentOf('suspended asked unwanted'), M))).toContain('resynchronise it');
    expect(textOf(() => switched(segmentOf('copying', 'duplex'), M))).toContain('one that is duplex on s3');
    expect(textOf(() => failoverTarget(segmentOf('copying'), M, false))).toContain('force it');
    expect(textOf(() => withoutCopy(segmentOf('duplex'), P))).toContain('switch to another copy first');
  });

  test('a hand-over that is undone: the same primary, of an epoch after the one that it may have handed over', () => {
    const before = segmentOf('duplex', 'copying');
    expect(nextEpoch(before)).toBe(8);
    expect(shown(handOverUndone(before))).toBe('9 waits: s1 primary, s2 duplex, s3 copying');
  });

  test('reports of before are old after every promotion', () => {
    for (const after of [
      switched(segmentOf('duplex'), M),
      failedOver(segmentOf('duplex'), M, false),
      handOverUndone(segmentOf('duplex')),
    ]) {
      expect(outcome(after, (segment) => recordPair(segment, report('duplex')))).toBe('stale-epoch');
    }
  });

  test('a lease is the primary’s, of the epoch that is', () => {
    const before = segmentOf('duplex');
    const holders = [P, M, NOBODY].flatMap((member) =>
      [6, 7, 8].filter((epoch) => leaseHolds(before, member, epoch)).map((epoch) => `${member} ${epoch}`),
    );
    expect(holders).toEqual([`${P} 7`]);
    const after = failedOver(before, M, false);
    expect([leaseHolds(after, P, 7), leaseHolds(after, P, 8), leaseHolds(after, M, 8)]).toEqual([
      false,
      false,
      true,
    ]);
  });
});

test('a primary’s own pair is the worst of its pairs', () => {
  expect(worstPair(withoutCopy(segmentOf('duplex'), M))).toBe('simplex');
  expect(worstPair(segmentOf('duplex'))).toBe('duplex');
  expect(worstPair(segmentOf('duplex', 'copying'))).toBe('copying');
  expect(worstPair(segmentOf('suspended new', 'copying'))).toBe('suspended');
});

test('what members are told', () => {
  const segment = { ...segmentOf('suspended asked unwanted'), isHandedOver: false };
  const volume = VolumeRecord.parse({
    name: 'v',
    sizeBytes: 4096,
    state: 'ready',
    group: null,
    fence: 'data',
    segments: [segment],
    operation: null,
    createdAt: '2026-01-01T00:00:00.000Z',
  });
  const storage = new Map(
    [1, 2].map((n) => {
      const record = StorageRecord.parse({
        name: `s${n}`,
        site: 'east',
        id: '00000000-0000-4000-8000-000000000000',
        nbd: { host: '10.0.0.1', port: n },
        peer: { host: '10.0.0.1', port: 100 + n },
        manage: 'http://10.0.0.1:1',
        capacityBytes: 4096,
        folder: '/srv',
      });
      return [record.name as string, record];
    }),
  );
  const settings = { leaseMs: 3000, copyBytesPerSecond: 0 };
  const config = groupConfigOf(volume, segment, storage, 12, settings);
  expect(GroupConfig.parse(config)).toEqual({
    volume: 'v',
    epoch: 7,
    revision: 12,
    sizeBytes: 4096,
    fence: 'data',
    ...settings,
    primary: P,
    isHandedOver: false,
    isForced: false,
    members: [
      {
        realVolume: P,
        storage: 's1',
        peer: { host: '10.0.0.1', port: 101 },
        nbd: { host: '10.0.0.1', port: 1 },
        accessKey: '1'.repeat(32),
        pair: 'duplex',
        wanted: 'following',
        pairRevision: 5,
      },
      {
        realVolume: M,
        storage: 's2',
        peer: { host: '10.0.0.1', port: 102 },
        nbd: { host: '10.0.0.1', port: 2 },
        accessKey: '2'.repeat(32),
        pair: 'suspended',
        wanted: 'suspended',
        pairRevision: 5,
      },
    ],
  });
});
