/** Steps of operations, short to write and to look at. */

import { expect } from 'vitest';
import { OperationRecord, VolumeRecord } from '../../../src/control-protocol/catalog.ts';
import type { Effect, Outcome, Work, Workflow } from '../../../src/directory/operations/workflow.ts';

const NOW = '2026-01-01T00:00:00.000Z';
export const LATER = '2026-01-01T00:00:01.000Z';
const OPERATION = `op-${'0'.repeat(16)}`;
export const NO_SPACE = { code: 'no-space', message: 'full' } as const;
export const UNREACHABLE = { code: 'unreachable', message: 'no answer' } as const;
export const CANCELLED = { code: 'cancelled', message: 'given up' } as const;

export const id = (n: number): string => `rv-${String(n).repeat(16)}`;

export function segment(n: number, offset: number, length: number, file: string | null = null) {
  const copy = {
    storage: `s${n}`,
    realVolume: id(n),
    realOffset: 0,
    role: 'primary',
    pair: 'simplex',
    mode: 'normal',
    accessKey: String(n).repeat(32),
    file,
  };
  return { offset, length, epoch: 1, copies: [copy] };
}

/** Of two segments of 4,096 bytes, on s1 and s2. */
export function work(kind: string, state: string, step: string, input: object, volume: object = {}): Work {
  return {
    operation: OperationRecord.parse({
      id: OPERATION,
      kind,
      volume: 'v',
      state,
      step,
      input,
      error: state === 'undoing' ? NO_SPACE : null,
      createdAt: NOW,
      finishedAt: null,
    }),
    volume: VolumeRecord.parse({
      name: 'v',
      sizeBytes: 8192,
      state: 'creating',
      group: null,
      segments: [segment(1, 0, 4096, '/f1'), segment(2, 4096, 4096, '/f2')],
      operation: OPERATION,
      createdAt: NOW,
      ...volume,
    }),
  };
}

export type Answer = 'ok' | NonNullable<Outcome['error']>;

/** What comes of the step's effects, answered in order. */
export function turn(workflow: Workflow, at: Work, answers: readonly Answer[]) {
  const effects = workflow.effects(at);
  expect(effects).toHaveLength(answers.length);
  const outcomes = effects.map((effect, index): Outcome => {
    const answer = answers[index] as Answer;
    const file = effect.kind === 'make' && answer === 'ok' ? `/new/${effect.realVolume}` : undefined;
    return { effect, error: answer === 'ok' ? undefined : answer, file, isCertain: true, tookMs: 7 };
  });
  const { volume, operation, garbage, events } = workflow.turn(at, outcomes, LATER);
  return {
    volume: volume && `${volume.state} ${volume.sizeBytes} ${volume.operation === null ? 'free' : 'busy'}`,
    segments: volume?.segments.map(({ length, copies }) => `${length} ${copies[0]?.file}`),
    operation: `${operation.state} ${operation.step} ${operation.error?.code ?? '-'}`,
    finishedAt: operation.finishedAt,
    garbage: garbage.map(({ storage, realVolume, sizeBytes }) => `${storage} ${realVolume} ${sizeBytes}`),
    events: events.map(({ kind }) => kind),
  };
}

export function shown(effects: Effect[]): string[] {
  return effects.map((effect) => {
    const { kind, storage, sizeBytes, patience } = effect;
    const force = effect.kind === 'delete' && effect.force ? ' force' : '';
    return `${kind}${force} ${storage} ${sizeBytes} ${patience}`;
  });
}
