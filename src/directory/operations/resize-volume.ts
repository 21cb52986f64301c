/**
 *     grow
 *     running  grow      volume resizing   lengthen the last real volume,
 *                        (as it was)       make further ones             -> done, volume ready, larger
 *                                          one failed                    -> undoing
 *     undoing  cut-back  volume resizing   cut the last one again,
 *                                          delete further ones           -> failed, volume ready, as it was, garbage
 *     shrink
 *     running  cut       volume resizing   cut the last real volume,
 *                        (smaller already) delete those behind it        -> done, volume ready, garbage
 *                                          the last one cannot be cut    -> failed, volume ready, smaller all the same
 *
 * A cut is waited for as long as it takes: were it left for later, it could come after the volume has grown again.
 */

import type { SegmentRecord, VolumeRecord } from '../../control-protocol/catalog.ts';
import { assert } from '../../model/errors.ts';
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
  type Turn,
  type Work,
  type Workflow,
} from './workflow.ts';

export const resizeVolume: Workflow = {
  effects({ operation, volume }) {
    const { plan } = ResizeInput.parse(operation.input);
    if (plan.kind === 'shrink') {
      const removed = plan.removed.map((each) => deletion(each, true));
      if (plan.cut === null) return removed;
      const { toBytes, ...last } = plan.cut;
      return [{ ...last, kind: 'resize', sizeBytes: toBytes, patience: 'for-ever' }, ...removed];
    }
    const further = plan.segments.slice(volume.segments.length);
    if (operation.step === 'cut-back') {
      return [
        ...lengthenings(volume, volume.segments, plan.segments, 'for-ever'),
        ...realVolumesOf({ ...volume, segments: further }).map((each) => deletion(each, true)),
      ];
    }
    return [
      ...lengthenings(volume, plan.segments, plan.segments, 'limited'),
      ...makings(volume, further, 'limited'),
    ];
  },

  turn(work, outcomes, now) {
    const input = ResizeInput.parse(work.operation.input);
    if (input.plan.kind === 'shrink') return shrunk(work, outcomes, now);
    if (work.operation.step === 'cut-back') return cutBack(work, outcomes, now);
    const error = mainError(outcomes);
    if (error !== undefined) {
      return {
        volume: work.volume,
        operation: { ...work.operation, state: 'undoing', step: 'cut-back', error },
        garbage: [],
        event: undefined,
      };
    }
    const files = new Map(outcomes.map(({ effect, file }) => [effect.realVolume, file]));
    const volume: VolumeRecord = {
      ...work.volume,
      sizeBytes: input.sizeBytes,
      segments: withFiles(input.plan.segments, files),
      state: 'ready',
      operation: null,
    };
    return {
      volume,
      operation: finished(work.operation, now),
      garbage: [],
      event: resizedEvent(volume, work, input.fromBytes),
    };
  },
};

/** The copies of the last segment that there is already get the size that they have in `wanted`, if `grown` has changed it. */
function lengthenings(
  volume: VolumeRecord,
  wanted: readonly SegmentRecord[],
  grown: readonly SegmentRecord[],
  patience: Effect['patience'],
): Effect[] {
  const at = volume.segments.length - 1;
  const [now, then, target] = [volume.segments[at], grown[at], wanted[at]];
  assert(now !== undefined && then !== undefined && target !== undefined, 'a volume that grows has segments');
  if (now.length === then.length) return [];
  return realVolumesOf({ ...volume, segments: [target] }).map((each) => ({
    ...each,
    kind: 'resize',
    patience,
  }));
}

function shrunk(work: Work, outcomes: readonly Outcome[], now: string): Turn {
  const volume: VolumeRecord = { ...work.volume, state: 'ready', operation: null };
  const { fromBytes } = ResizeInput.parse(work.operation.input);
  const error = mainError(outcomes.filter(({ effect }) => effect.kind === 'resize')) ?? null;
  return {
    volume,
    operation: finished(work.operation, now, error),
    garbage: leftOver(volume, outcomes),
    event: resizedEvent(volume, work, fromBytes),
  };
}

function cutBack(work: Work, outcomes: readonly Outcome[], now: string): Turn {
  const { operation } = work;
  const { name } = work.volume;
  return {
    volume: { ...work.volume, state: 'ready', operation: null },
    operation: finished(operation, now, operation.error),
    garbage: leftOver(work.volume, outcomes),
    event: {
      kind: 'volume.resize-failed',
      subject: name,
      text: `volume ${name} was not resized: ${operation.error?.message}`,
      details: { operation: operation.id, code: operation.error?.code ?? null },
    },
  };
}

function resizedEvent(volume: VolumeRecord, { operation }: Work, fromBytes: number): Turn['event'] {
  return {
    kind: 'volume.resized',
    subject: volume.name,
    text: `volume ${volume.name} has been resized from ${fromBytes} to ${volume.sizeBytes} bytes`,
    details: { operation: operation.id, fromBytes, sizeBytes: volume.sizeBytes },
  };
}
