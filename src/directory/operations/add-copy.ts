/**
 *     running  make      make a real volume for each segment    -> done, the record has the copies
 *                        one failed                             -> undoing
 *     undoing  unmake    delete what was made                   -> failed, garbage
 *
 * The volume stays ready all the time. The copies are empty: their primaries bring them up as soon as they are told.
 */

import type { SegmentRecord, VolumeRecord } from '../../control-protocol/catalog.ts';
import type { RealVolumeId } from '../../control-protocol/names.ts';
import { assert } from '../../model/errors.ts';
import { withCopy } from '../../replication/group-rules.ts';
import { AddCopyInput } from '../records.ts';
import { makings } from './create-volume.ts';
import {
  deletion,
  finished,
  leftOver,
  mainError,
  realVolumesOf,
  type Turn,
  type Work,
  type Workflow,
} from './workflow.ts';

export const addCopy: Workflow = {
  effects(work) {
    const made = madeBy(work);
    if (work.operation.step === 'make') return makings(work.volume, made, 'limited');
    return realVolumesOf({ segments: made }).map((each) => deletion(each, true));
  },

  turn(work, outcomes, now): Turn {
    const { operation, volume } = work;
    const { name } = volume;
    const { storage } = AddCopyInput.parse(operation.input);
    const error = mainError(outcomes);
    if (operation.step === 'unmake') {
      return {
        volume: { ...volume, operation: null },
        operation: finished(operation, now, operation.error),
        garbage: leftOver(volume, outcomes),
        events: [
          {
            kind: 'volume.copy-add-failed',
            subject: name,
            text: `volume ${name} has no copy on storage system ${storage}: ${operation.error?.message}`,
            details: { operation: operation.id, storage, code: operation.error?.code ?? null },
          },
        ],
      };
    }
    if (error !== undefined) {
      const undoing = { ...operation, state: 'undoing', step: 'unmake', error } as const;
      return { volume, operation: undoing, garbage: [], events: [] };
    }
    const files = new Map(outcomes.map(({ effect, file }) => [effect.realVolume, file]));
    return {
      volume: { ...volume, segments: withCopies(volume, madeBy(work), files), operation: null },
      operation: finished(operation, now),
      garbage: [],
      events: [
        {
          kind: 'volume.copy-added',
          subject: name,
          text: `volume ${name} has a copy on storage system ${storage}, which is being brought up`,
          details: { operation: operation.id, storage },
        },
      ],
    };
  },
};

/** The volume's segments with the new copies alone. */
function madeBy({ operation, volume }: Work): SegmentRecord[] {
  const { plan } = AddCopyInput.parse(operation.input);
  return volume.segments.map((segment, at) => {
    const copy = plan.copies[at];
    assert(copy !== undefined, `${operation.id} has planned a copy of each segment`);
    return { ...segment, copies: [copy] };
  });
}

function withCopies(
  volume: VolumeRecord,
  made: readonly SegmentRecord[],
  files: ReadonlyMap<RealVolumeId, string | undefined>,
): SegmentRecord[] {
  return volume.segments.map((segment, at) => {
    const [copy] = made[at]?.copies ?? [];
    assert(copy !== undefined, 'a copy of each segment has been made');
    return withCopy(segment, { ...copy, file: files.get(copy.realVolume) ?? null });
  });
}
