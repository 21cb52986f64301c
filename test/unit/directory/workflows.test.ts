/** The step machines of operations, as a table: (step, what came of its effects) -> records. */

import { describe, expect, test } from 'vitest';
import { createVolume } from '../../../src/directory/operations/create-volume.ts';
import { deleteVolume } from '../../../src/directory/operations/delete-volume.ts';
import { resizeVolume } from '../../../src/directory/operations/resize-volume.ts';
import type { Work } from '../../../src/directory/operations/workflow.ts';
import {
  type Answer,
  CANCELLED,
  id,
  LATER,
  NO_SPACE,
  segment,
  shown,
  turn,
  UNREACHABLE,
  work,
} from './workflow-lab.ts';

describe('create-volume', () => {
  const unmade = { segments: [segment(1, 0, 4096), segment(2, 4096, 4096)] };
  const make = work('create-volume', 'running', 'make', {}, unmade);
  const unmake = work('create-volume', 'undoing', 'unmake', {}, { ...unmade, state: 'deleting' });

  test('effects', () => {
    expect(shown(createVolume.effects(make))).toEqual(['make s1 4096 limited', 'make s2 4096 limited']);
    const [first] = createVolume.effects(make);
    expect(first).toMatchObject({
      body: { sizeBytes: 4096, volume: 'v', epoch: 1, accessKey: '1'.repeat(32) },
    });
    expect(shown(createVolume.effects(unmake))).toEqual([
      'delete force s1 4096 once',
      'delete force s2 4096 once',
    ]);
  });

  test('make: all made', () => {
    expect(turn(createVolume, make, ['ok', 'ok'])).toEqual({
      volume: 'ready 8192 free',
      segments: [`4096 /new/${id(1)}`, `4096 /new/${id(2)}`],
      operation: 'done end -',
      finishedAt: LATER,
      garbage: [],
      events: ['volume.created'],
    });
  });

  test.each<[string, Answer[], string]>([
    ['refused', [NO_SPACE, 'ok'], 'no-space'],
    ['not answered', ['ok', UNREACHABLE], 'unreachable'],
    ['given up because another was refused', [CANCELLED, NO_SPACE], 'no-space'],
    ['not answered, and refused', [UNREACHABLE, NO_SPACE], 'no-space'],
    ['all of it', [UNREACHABLE, UNREACHABLE], 'unreachable'],
  ])('make: %s', (_, answers, code) => {
    expect(turn(createVolume, make, answers)).toMatchObject({
      volume: 'deleting 8192 busy',
      operation: `undoing unmake ${code}`,
      finishedAt: null,
      garbage: [],
      events: [],
    });
  });

  test.each<[string, Answer[], string[]]>([
    ['all deleted', ['ok', 'ok'], []],
    ['one not answered', ['ok', UNREACHABLE], [`s2 ${id(2)} 4096`]],
    ['one refused', [NO_SPACE, 'ok'], [`s1 ${id(1)} 4096`]],
  ])('unmake: %s', (_, answers, garbage) => {
    expect(turn(createVolume, unmake, answers)).toEqual({
      volume: null,
      segments: undefined,
      operation: 'failed end no-space',
      finishedAt: LATER,
      garbage,
      events: ['volume.create-failed'],
    });
  });
});

describe('delete-volume', () => {
  const at = (force: boolean): Work =>
    work('delete-volume', 'running', 'delete', { force }, { state: 'deleting' });

  test('effects', () => {
    expect(shown(deleteVolume.effects(at(false)))).toEqual(['delete s1 4096 once', 'delete s2 4096 once']);
    expect(shown(deleteVolume.effects(at(true)))).toEqual([
      'delete force s1 4096 once',
      'delete force s2 4096 once',
    ]);
  });

  test.each<[string, Answer[], string[]]>([
    ['all deleted', ['ok', 'ok'], []],
    ['one not answered', [UNREACHABLE, 'ok'], [`s1 ${id(1)} 4096`]],
    ['none', [UNREACHABLE, NO_SPACE], [`s1 ${id(1)} 4096`, `s2 ${id(2)} 4096`]],
  ])('delete: %s', (_, answers, garbage) => {
    expect(turn(deleteVolume, at(false), answers)).toEqual({
      volume: null,
      segments: undefined,
      operation: 'done end -',
      finishedAt: LATER,
      garbage,
      events: ['volume.deleted'],
    });
  });
});

describe('resize-volume, larger', () => {
  const segments = [segment(1, 0, 4096, '/f1'), segment(2, 4096, 8192, '/f2'), segment(3, 12_288, 512)];
  const input = {
    sizeBytes: 12_800,
    fromBytes: 8192,
    allowShrink: false,
    plan: { kind: 'grow', segments },
  };
  const grow = work('resize-volume', 'running', 'grow', input, { state: 'resizing' });
  const back = work('resize-volume', 'undoing', 'cut-back', input, { state: 'resizing' });

  test('effects', () => {
    expect(shown(resizeVolume.effects(grow))).toEqual(['resize s2 8192 limited', 'make s3 512 limited']);
    expect(shown(resizeVolume.effects(back))).toEqual([
      'resize s2 4096 for-ever',
      'delete force s3 512 once',
    ]);
    const further = [segment(1, 0, 4096), segment(2, 4096, 4096), segment(3, 8192, 512)];
    const behind = { ...input, plan: { kind: 'grow', segments: further } };
    const only = (state: string, step: string): Work =>
      work('resize-volume', state, step, behind, { state: 'resizing' });
    expect(shown(resizeVolume.effects(only('running', 'grow')))).toEqual(['make s3 512 limited']);
    expect(shown(resizeVolume.effects(only('undoing', 'cut-back')))).toEqual(['delete force s3 512 once']);
  });

  test('grow: all done', () => {
    expect(turn(resizeVolume, grow, ['ok', 'ok'])).toEqual({
      volume: 'ready 12800 free',
      segments: ['4096 /f1', '8192 /f2', `512 /new/${id(3)}`],
      operation: 'done end -',
      finishedAt: LATER,
      garbage: [],
      events: ['volume.resized'],
    });
  });

  test.each<[string, Answer[], string]>([
    ['the last refuses', [NO_SPACE, 'ok'], 'no-space'],
    ['a further one does not answer', ['ok', UNREACHABLE], 'unreachable'],
    ['given up', [NO_SPACE, CANCELLED], 'no-space'],
  ])('grow: %s', (_, answers, code) => {
    expect(turn(resizeVolume, grow, answers)).toMatchObject({
      volume: 'resizing 8192 busy',
      segments: ['4096 /f1', '4096 /f2'],
      operation: `undoing cut-back ${code}`,
      garbage: [],
    });
  });

  test.each<[string, Answer[], string[]]>([
    ['all undone', ['ok', 'ok'], []],
    ['a further one does not answer', ['ok', UNREACHABLE], [`s3 ${id(3)} 512`]],
    ['the last refuses', [NO_SPACE, 'ok'], []],
  ])('cut-back: %s', (_, answers, garbage) => {
    expect(turn(resizeVolume, back, answers)).toEqual({
      volume: 'ready 8192 free',
      segments: ['4096 /f1', '4096 /f2'],
      operation: 'failed end no-space',
      finishedAt: LATER,
      garbage,
      events: ['volume.resize-failed'],
    });
  });
});

describe('resize-volume, smaller', () => {
  const input = (cut: object | null) => ({
    sizeBytes: 1024,
    fromBytes: 8192,
    allowShrink: true,
    plan: {
      kind: 'shrink',
      cuts: cut === null ? [] : [cut],
      removed: [{ storage: 's2', realVolume: id(2), sizeBytes: 4096 }],
    },
  });
  const cut = { storage: 's1', realVolume: id(1), sizeBytes: 4096, toBytes: 1024 };
  const small = { state: 'resizing', sizeBytes: 1024, segments: [segment(1, 0, 1024, '/f1')] };
  const at = work('resize-volume', 'running', 'cut', input(cut), small);

  test('effects', () => {
    expect(shown(resizeVolume.effects(at))).toEqual(['resize s1 1024 for-ever', 'delete force s2 4096 once']);
    const whole = work('resize-volume', 'running', 'cut', input(null), small);
    expect(shown(resizeVolume.effects(whole))).toEqual(['delete force s2 4096 once']);
  });

  test.each<[string, Answer[], string, string[]]>([
    ['all done', ['ok', 'ok'], 'done end -', []],
    ['one behind does not answer', ['ok', UNREACHABLE], 'done end -', [`s2 ${id(2)} 4096`]],
    ['the last refuses', [NO_SPACE, 'ok'], 'failed end no-space', []],
  ])('cut: %s', (_, answers, operation, garbage) => {
    expect(turn(resizeVolume, at, answers)).toEqual({
      volume: 'ready 1024 free',
      segments: ['1024 /f1'],
      operation,
      finishedAt: LATER,
      garbage,
      events: ['volume.resized'],
    });
  });
});
