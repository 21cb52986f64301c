/** The step machines of copy operations, as a table: (step, what came of its effects) -> records. */

import { describe, expect, test } from 'vitest';
import { addCopy } from '../../../src/directory/operations/add-copy.ts';
import { failoverCopy } from '../../../src/directory/operations/failover-copy.ts';
import { removeCopy } from '../../../src/directory/operations/remove-copy.ts';
import { firstGrowth, resizeVolume } from '../../../src/directory/operations/resize-volume.ts';
import { switchCopy } from '../../../src/directory/operations/switch-copy.ts';
import { tellCopy } from '../../../src/directory/operations/tell-copy.ts';
import type { Work } from '../../../src/directory/operations/workflow.ts';
import { type Answer, CANCELLED, id, NO_SPACE, shown, turn, UNREACHABLE, work } from './workflow-lab.ts';

const CONFLICT = { code: 'conflict', message: 'not now' } as const;
const UNAVAILABLE = { code: 'unavailable', message: 'it does not serve' } as const;

function copy(n: number, standing: string) {
  const [pair, reason = null] = standing.split(' ');
  const isPrimary = standing === 'primary';
  return {
    ...{
      storage: `s${n}`,
      realVolume: id(n),
      realOffset: 0,
      mode: 'normal',
      accessKey: String(n).repeat(32),
    },
    ...{
      role: isPrimary ? 'primary' : 'secondary',
      pair: isPrimary ? 'simplex' : pair,
      reason,
      file: `/f${n}`,
    },
  };
}

/** Two segments of 4,096 bytes: primaries on s1 and s3, secondaries on s2 and s4. */
function segments(first = 'duplex', second = 'duplex') {
  return [
    { offset: 0, length: 4096, epoch: 5, isGrouped: true, copies: [copy(1, 'primary'), copy(2, first)] },
    { offset: 4096, length: 4096, epoch: 7, isGrouped: true, copies: [copy(3, 'primary'), copy(4, second)] },
  ];
}

const READY = { state: 'ready', segments: segments() };

/** As `5: s1 primary, s2 duplex`, of each segment. */
function standings(
  workflow: Parameters<typeof turn>[0],
  at: Work,
  answers: readonly Answer[],
  isCertain = true,
): string[] {
  const outcomes = workflow.effects(at).map((effect, index) => {
    const answer = answers[index] ?? 'ok';
    return { effect, error: answer === 'ok' ? undefined : answer, file: '/new', isCertain, tookMs: 7 };
  });
  const { volume } = workflow.turn(at, outcomes, '2026-01-01T00:00:01.000Z');
  return (volume?.segments ?? []).map(
    ({ epoch, isHandedOver, copies }) =>
      `${epoch}${isHandedOver ? '' : ' waits'}: ${copies
        .map(({ storage, role, pair, reason }) =>
          [storage, role === 'primary' ? role : pair, reason].filter((word) => word !== null).join(' '),
        )
        .join(', ')}`,
  );
}

describe('add-copy', () => {
  const input = {
    storage: 's5',
    plan: { copies: [5, 6].map((n) => ({ ...copy(n, 'suspended new'), storage: 's5' })) },
  };
  const make = work('add-copy', 'running', 'make', input, READY);
  const unmake = work('add-copy', 'undoing', 'unmake', input, READY);

  test('effects', () => {
    expect(shown(addCopy.effects(make))).toEqual(['make s5 4096 limited', 'make s5 4096 limited']);
    expect(addCopy.effects(make)[1]).toMatchObject({
      body: { epoch: 7, volume: 'v', accessKey: '6'.repeat(32) },
    });
    expect(shown(addCopy.effects(unmake))).toEqual([
      'delete force s5 4096 once',
      'delete force s5 4096 once',
    ]);
  });

  test('make: all made', () => {
    expect(turn(addCopy, make, ['ok', 'ok'])).toMatchObject({
      volume: 'ready 8192 free',
      operation: 'done end -',
      garbage: [],
      events: ['volume.copy-added'],
    });
    expect(standings(addCopy, make, [])).toEqual([
      '5: s1 primary, s2 duplex, s5 suspended new',
      '7: s3 primary, s4 duplex, s5 suspended new',
    ]);
  });

  test.each<[string, Answer[], string]>([
    ['refused', ['ok', NO_SPACE], 'no-space'],
    ['not answered', [UNREACHABLE, CANCELLED], 'unreachable'],
  ])('make: %s', (_, answers, code) => {
    expect(turn(addCopy, make, answers)).toMatchObject({
      volume: 'ready 8192 busy',
      operation: `undoing unmake ${code}`,
      events: [],
    });
    expect(standings(addCopy, make, answers)).toEqual([
      '5: s1 primary, s2 duplex',
      '7: s3 primary, s4 duplex',
    ]);
  });

  test.each<[string, Answer[], string[]]>([
    ['all deleted', ['ok', 'ok'], []],
    ['one not answered', ['ok', UNREACHABLE], [`s5 ${id(6)} 4096`]],
  ])('unmake: %s', (_, answers, garbage) => {
    expect(turn(addCopy, unmake, answers)).toMatchObject({
      volume: 'ready 8192 free',
      operation: 'failed end no-space',
      garbage,
      events: ['volume.copy-add-failed'],
    });
  });
});

describe('remove-copy', () => {
  const removed = [{ storage: 's5', realVolume: id(5), sizeBytes: 4096 }];
  const at = (step: string) =>
    work('remove-copy', 'running', step, { storage: 's5', plan: { removed } }, READY);

  test.each<[string, Answer[]]>([
    ['told', ['ok', 'ok']],
    ['not told', ['ok', UNREACHABLE]],
  ])('tell: %s', (_, answers) => {
    expect(shown(removeCopy.effects(at('tell')))).toEqual(['tell s1 4096 once', 'tell s3 4096 once']);
    expect(turn(removeCopy, at('tell'), answers)).toMatchObject({
      operation: 'running delete -',
      events: [],
    });
  });

  test.each<[string, Answer[], string[]]>([
    ['deleted', ['ok'], []],
    ['not answered', [UNREACHABLE], [`s5 ${id(5)} 4096`]],
  ])('delete: %s', (_, answers, garbage) => {
    expect(shown(removeCopy.effects(at('delete')))).toEqual(['delete s5 4096 once']);
    expect(turn(removeCopy, at('delete'), answers)).toMatchObject({
      volume: 'ready 8192 free',
      operation: 'done end -',
      garbage,
      events: ['volume.copy-removed'],
    });
  });
});

describe.each([
  ['suspend-copy', 'volume.copy-suspended'],
  ['resync-copy', 'volume.copy-resynced'],
])('%s', (kind, event) => {
  test.each<[string, Answer[]]>([
    ['told', ['ok', 'ok']],
    ['not told', [UNREACHABLE, 'ok']],
  ])('tell: %s', (_, answers) => {
    const at = work(kind, 'running', 'tell', { storage: 's2' }, READY);
    expect(shown(tellCopy.effects(at))).toEqual(['tell s1 4096 once', 'tell s3 4096 once']);
    expect(turn(tellCopy, at, answers)).toMatchObject({
      volume: 'ready 8192 free',
      operation: 'done end -',
      events: [event],
    });
  });
});

const moves = [
  { offset: 0, from: id(1), to: id(2) },
  { offset: 4096, from: id(3), to: id(4) },
];

describe('switch-copy', () => {
  const handOver = work('switch-copy', 'running', 'hand-over', { site: 'west', plan: { moves } }, READY);
  const was = ['5: s1 primary, s2 duplex', '7: s3 primary, s4 duplex'];

  test('effects', () => {
    expect(shown(switchCopy.effects(handOver))).toEqual([
      'hand-over s1 4096 hand-over',
      'hand-over s3 4096 hand-over',
    ]);
    expect(switchCopy.effects(handOver)).toMatchObject([
      { epoch: 6, to: id(2) },
      { epoch: 8, to: id(4) },
    ]);
  });

  test.each<[string, Answer[], string, string[]]>([
    [
      'all hand over',
      ['ok', 'ok'],
      'running serve -',
      ['6: s1 duplex, s2 primary', '8: s3 duplex, s4 primary'],
    ],
    ['all refuse', [CONFLICT, CONFLICT], 'failed end conflict', was],
    [
      'one refuses',
      ['ok', CONFLICT],
      'failed end conflict',
      ['7 waits: s1 primary, s2 duplex', was[1] ?? ''],
    ],
    [
      'one does not answer',
      [UNREACHABLE, 'ok'],
      'failed end unreachable',
      ['7 waits: s1 primary, s2 duplex', '9 waits: s3 primary, s4 duplex'],
    ],
    [
      'one is given up, as the other refuses',
      [CONFLICT, CANCELLED],
      'failed end conflict',
      [was[0] ?? '', '9 waits: s3 primary, s4 duplex'],
    ],
  ])('hand-over: %s', (_, answers, operation, expected) => {
    const isOver = !operation.startsWith('running');
    expect(turn(switchCopy, handOver, answers)).toMatchObject({
      volume: `ready 8192 ${isOver ? 'free' : 'busy'}`,
      operation,
      events: [isOver ? 'copy.switch-failed' : 'copy.switched'],
    });
    expect(standings(switchCopy, handOver, answers)).toEqual(expected);
  });

  test('hand-over: refused by primaries that were asked before, and may still be about to', () => {
    expect(standings(switchCopy, handOver, [CONFLICT, CONFLICT], false)).toEqual([
      '7 waits: s1 primary, s2 duplex',
      '9 waits: s3 primary, s4 duplex',
    ]);
  });

  test('hand-over: done, and a pair has been lost before', () => {
    const lost = { state: 'ready', segments: segments('duplex', 'suspended unreachable') };
    const at = work('switch-copy', 'running', 'hand-over', { plan: { moves } }, lost);
    expect(turn(switchCopy, at, ['ok', 'ok'])).toMatchObject({ operation: 'failed end conflict' });
    expect(standings(switchCopy, at, [])).toEqual([
      '7 waits: s1 primary, s2 duplex',
      '9 waits: s3 primary, s4 suspended unreachable',
    ]);
  });
});

describe.each([
  ['switch-copy', switchCopy],
  ['failover-copy', failoverCopy],
] as const)('%s', (kind, workflow) => {
  const moved = [
    { offset: 0, length: 4096, epoch: 6, isGrouped: true, copies: [copy(1, 'duplex'), copy(2, 'primary')] },
    {
      offset: 4096,
      length: 4096,
      epoch: 8,
      isGrouped: true,
      copies: [copy(3, 'duplex'), copy(4, 'primary')],
    },
  ];
  const at = work(kind, 'running', 'serve', { plan: { moves } }, { state: 'ready', segments: moved });

  test.each<[string, Answer[], string]>([
    ['all do', ['ok', 'ok'], 'done end -'],
    ['one does not yet', ['ok', UNAVAILABLE], 'failed end unavailable'],
  ])('serve: %s', (_, answers, operation) => {
    expect(shown(workflow.effects(at))).toEqual(['serve s2 4096 serve', 'serve s4 4096 serve']);
    expect(turn(workflow, at, answers)).toMatchObject({ volume: 'ready 8192 free', operation, events: [] });
    expect(standings(workflow, at, answers)).toEqual([
      '6: s1 duplex, s2 primary',
      '8: s3 duplex, s4 primary',
    ]);
  });
});

describe('resize-volume of a volume with copies', () => {
  const further = {
    offset: 12_288,
    length: 512,
    epoch: 1,
    isGrouped: true,
    copies: [copy(5, 'primary'), copy(6, 'suspended new')],
  };
  const [first, last] = segments();
  const planned = [first, { ...last, length: 8192 }, further];
  const growing = {
    sizeBytes: 12_800,
    fromBytes: 8192,
    allowShrink: false,
    plan: { kind: 'grow', segments: planned },
  };
  /** What has become of the pairs since it was planned. */
  const now = segments('copying', 'suspended unreachable');
  const grow = (state: string, step: string): Work =>
    work('resize-volume', state, step, growing, { state: 'resizing', segments: now });

  test('grow: the secondary of the last segment, then its primary and what is new; pairs are as they have become', () => {
    expect(firstGrowth(grow('running', 'grow').volume, grow('running', 'grow').volume.segments)).toBe('grow');
    expect(firstGrowth(grow('running', 'grow').volume, planned as never)).toBe('grow-copies');
    expect(shown(resizeVolume.effects(grow('running', 'grow-copies')))).toEqual(['resize s4 8192 limited']);
    expect(turn(resizeVolume, grow('running', 'grow-copies'), ['ok'])).toMatchObject({
      operation: 'running grow -',
    });
    expect(turn(resizeVolume, grow('running', 'grow-copies'), [NO_SPACE])).toMatchObject({
      operation: 'undoing cut-back no-space',
    });
    expect(shown(resizeVolume.effects(grow('running', 'grow')))).toEqual([
      'resize s3 8192 limited',
      'make s5 512 limited',
      'make s6 512 limited',
    ]);
    expect(turn(resizeVolume, grow('running', 'grow'), ['ok', 'ok', 'ok'])).toMatchObject({
      volume: 'ready 12800 free',
      operation: 'done end -',
    });
    expect(standings(resizeVolume, grow('running', 'grow'), [])).toEqual([
      '5: s1 primary, s2 copying',
      '7: s3 primary, s4 suspended unreachable',
      '1: s5 primary, s6 suspended new',
    ]);
    expect(shown(resizeVolume.effects(grow('undoing', 'cut-back')))).toEqual([
      'resize s3 4096 for-ever',
      'resize s4 4096 for-ever',
      'delete force s5 512 once',
      'delete force s6 512 once',
    ]);
  });

  test('cut: the primary, then the secondary', () => {
    const cut = (n: number) => ({ storage: `s${n}`, realVolume: id(n), sizeBytes: 4096, toBytes: 1024 });
    const removed = [3, 4].map((n) => ({ storage: `s${n}`, realVolume: id(n), sizeBytes: 4096 }));
    const input = {
      sizeBytes: 1024,
      fromBytes: 8192,
      allowShrink: true,
      plan: { kind: 'shrink', cuts: [cut(1), cut(2)], removed },
    };
    const small = { state: 'resizing', sizeBytes: 1024, segments: [{ ...first, length: 1024 }] };
    const at = (step: string): Work => work('resize-volume', 'running', step, input, small);
    expect(shown(resizeVolume.effects(at('cut')))).toEqual([
      'resize s1 1024 for-ever',
      'delete force s3 4096 once',
      'delete force s4 4096 once',
    ]);
    expect(turn(resizeVolume, at('cut'), ['ok', 'ok', UNREACHABLE])).toMatchObject({
      volume: 'resizing 1024 busy',
      operation: 'running cut-copies -',
      garbage: [`s4 ${id(4)} 4096`],
    });
    expect(turn(resizeVolume, at('cut'), [NO_SPACE, 'ok', 'ok'])).toMatchObject({
      operation: 'failed end no-space',
    });
    expect(shown(resizeVolume.effects(at('cut-copies')))).toEqual(['resize s2 1024 for-ever']);
    expect(turn(resizeVolume, at('cut-copies'), ['ok'])).toMatchObject({
      volume: 'ready 1024 free',
      operation: 'done end -',
      events: ['volume.resized'],
    });
  });
});
