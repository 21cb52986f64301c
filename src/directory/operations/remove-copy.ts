/**
 * The record has let go of the copies when it begins.
 *
 *     running  tell      tell the primaries, once          -> delete
 *              delete    delete the copies' real volumes   -> done, garbage
 *
 * A primary that does not answer is told later, and until then finds that they are gone.
 */

import { primaryOf } from '../../replication/group-rules.ts';
import { RemoveCopyInput } from '../records.ts';
import {
  deletion,
  type Effect,
  finished,
  leftOver,
  referenceOf,
  type Work,
  type Workflow,
} from './workflow.ts';

export const removeCopy: Workflow = {
  effects(work) {
    if (work.operation.step === 'tell') return tellings(work);
    const { plan } = RemoveCopyInput.parse(work.operation.input);
    return plan.removed.map((each) => deletion(each, false));
  },

  turn({ operation, volume }, outcomes, now) {
    if (operation.step === 'tell') {
      return { volume, operation: { ...operation, step: 'delete' }, garbage: [], events: [] };
    }
    const { storage } = RemoveCopyInput.parse(operation.input);
    const garbage = leftOver(volume, outcomes);
    const later = garbage.length === 0 ? '' : `; ${garbage.length} real volumes are deleted later`;
    return {
      volume: { ...volume, operation: null },
      operation: finished(operation, now),
      garbage,
      events: [
        {
          kind: 'volume.copy-removed',
          subject: volume.name,
          text: `volume ${volume.name} has no copy on storage system ${storage} any more${later}`,
          details: { operation: operation.id, storage, later: garbage.map(({ realVolume }) => realVolume) },
        },
      ],
    };
  },
};

/** To the primaries of a volume's segments, once: the teller goes on where one does not answer. */
export function tellings({ volume }: Pick<Work, 'volume'>): Effect[] {
  return volume.segments.map((segment) => ({
    ...referenceOf(segment, primaryOf(segment)),
    kind: 'tell',
    patience: 'once',
  }));
}
