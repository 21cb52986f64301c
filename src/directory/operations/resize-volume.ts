/**
 *     grow
 *     running  grow-copies  volume resizing   lengthen the last segment's secondaries, if
 *                           (as it was)       it has any and grows                         -> grow
 *              grow                           lengthen its primary, make further segments  -> done, volume ready, larger
 *                                             one of these failed                          -> undoing
 *     undoing  cut-back     volume resizing   cut the last one's real volumes again,
 *                                             delete further ones                          -> failed, volume ready, as it was, garbage
 *     shrink
 *     running  cut          volume resizing   cut the last segment's primary,
 *                           (smaller already) delete those behind it                       -> cut-copies, or done; garbage
 *                                             it cannot be cut                             -> failed, volume ready, smaller all the same
 *              cut-copies                     cut its secondaries                          -> done, volume ready
 *
 * 1. A secondary is never smaller than its primary.
 * 2. A cut is waited for as long as it takes: were it left for later, it could come after the volume has grown again.
 * 3. Pairs go on changing meanwhile: of the segments that there are, the plan says the length alone.
 */

import type { SegmentRecord, VolumeRecord } from '../../control-protocol/catalog.ts';
import type { RealVolumeId } from '../../control-protocol/names.ts';
import { primaryOf, secondariesOf } from '../../replication/group-rules.ts';
import { ResizeInput } from '../records.ts';
import { makings, withFiles } from './create-volume.ts';
import {
  deletion,
  type Effect,
  finished,
  leftOver,
  mainError,
  type Outcome,
  realVolumesOf,
  referenceOf,
  type Turn,
  type Work,
  type Workflow,
} from './workflow.ts';

export const resizeVolume: Workflow = {
  effects({ operation, volume }) {
    const { plan } = ResizeInput.parse(operation.input);
    if (plan.kind === 'shrink') {
      const cuts = plan.cuts
        .filter(({ realVolume }) => isPrimary(volume, realVolume) === (operation.step === 'cut'))
        .map(
          ({ toBytes, ...of }): Effect => ({
            ...of,
            kind: 'resize',
            sizeBytes: toBytes,
            patience: 'for-ever',
          }),
        );
      if (operation.step === 'cut-copies') return cuts;
      return [...cuts, ...plan.removed.map((each) => deletion(each, true))];
    }
    const further = plan.segments.slice(volume.segments.length);
    const { last, target } = lastSegments(volume, plan.segments);
    if (operation.step === 'cut-back') {
      const back = last.length === target.length ? [] : lengthenings(last.copies, last.length, 'for-ever');
      return [...back, ...realVolumesOf({ segments: further }).map((each) => deletion(each, true))];
    }
    if (operation.step === 'grow-copies') {
      return lengthenings(secondariesOf(last), target.length, 'limited');
    }
    const lengthening =
      last.length === target.length ? [] : lengthenings([primaryOf(last)], target.length, 'limited');
    return [...lengthening, ...makings(volume, further, 'limited')];
  },

  turn(work, outcomes, now) {
    const { operation, volume } = work;
    const input = ResizeInput.parse(operation.input);
    if (input.plan.kind === 'shrink') return shrunk(work, outcomes, now);
    if (operation.step === 'cut-back') return cutBack(work, outcomes, now);
    const error = mainError(outcomes);
    const goesOn = { volume, garbage: [], events: [] };
    if (error !== undefined) {
      return { ...goesOn, operation: { ...operation, state: 'undoing', step: 'cut-back', error } };
    }
    if (operation.step === 'grow-copies') return { ...goesOn, operation: { ...operation, step: 'grow' } };
    const files = new Map(outcomes.map(({ effect, file }) => [effect.realVolume, file]));
    const resized: VolumeRecord = {
      ...volume,
      sizeBytes: input.sizeBytes,
      segments: withFiles(grown(volume, input.plan.segments), files),
      state: 'ready',
      operation: null,
    };
    return {
      volume: resized,
      operation: finished(operation, now),
      garbage: [],
      events: [resizedEvent(resized, work, input.fromBytes)],
    };
  },
};

/** The step that growing begins with. */
export function firstGrowth(volume: VolumeRecord, planned: readonly SegmentRecord[]): 'grow-copies' | 'grow' {
  const { last, target } = lastSegments(volume, planned);
  return last.length !== target.length && secondariesOf(last).length > 0 ? 'grow-copies' : 'grow';
}

function lastSegments(volume: VolumeRecord, planned: readonly SegmentRecord[]) {
  const at = volume.segments.length - 1;
  return { last: volume.segments[at] as SegmentRecord, target: planned[at] as SegmentRecord };
}

function lengthenings(
  copies: SegmentRecord['copies'],
  length: number,
  patience: Effect['patience'],
): Effect[] {
  return copies.map((copy) => ({ ...referenceOf({ length }, copy), kind: 'resize', patience }));
}

function grown({ segments }: VolumeRecord, planned: readonly SegmentRecord[]): SegmentRecord[] {
  return planned.map((then, at) => {
    const now = segments[at];
    return now === undefined ? then : { ...now, length: then.length };
  });
}

function isPrimary({ segments }: VolumeRecord, id: RealVolumeId): boolean {
  return segments.some((segment) => primaryOf(segment).realVolume === id);
}

function shrunk(work: Work, outcomes: readonly Outcome[], now: string): Turn {
  const { operation, volume } = work;
  const { fromBytes, plan } = ResizeInput.parse(operation.input);
  const error = mainError(outcomes.filter(({ effect }) => effect.kind === 'resize')) ?? null;
  const garbage = leftOver(volume, outcomes);
  const hasCopies = plan.kind === 'shrink' && plan.cuts.length > 1;
  if (operation.step === 'cut' && hasCopies && error === null) {
    return { volume, operation: { ...operation, step: 'cut-copies' }, garbage, events: [] };
  }
  const ready: VolumeRecord = { ...volume, state: 'ready', operation: null };
  return {
    volume: ready,
    operation: finished(operation, now, error),
    garbage,
    events: [resizedEvent(ready, work, fromBytes)],
  };
}

function cutBack(work: Work, outcomes: readonly Outcome[], now: string): Turn {
  const { operation } = work;
  const { name } = work.volume;
  return {
    volume: { ...work.volume, state: 'ready', operation: null },
    operation: finished(operation, now, operation.error),
    garbage: leftOver(work.volume, outcomes),
    events: [
      {
        kind: 'volume.resize-failed',
        subject: name,
        text: `volume ${name} was not resized: ${operation.error?.message}`,
        details: { operation: operation.id, code: operation.error?.code ?? null },
      },
    ],
  };
}

function resizedEvent(volume: VolumeRecord, { operation }: Work, fromBytes: number): Turn['events'][number] {
  return {
    kind: 'volume.resized',
    subject: volume.name,
    text: `volume ${volume.name} has been resized from ${fromBytes} to ${volume.sizeBytes} bytes`,
    details: { operation: operation.id, fromBytes, sizeBytes: volume.sizeBytes },
  };
}
