/**
 *     running  delete    volume deleting   delete all real volumes    -> done, volume forgotten, garbage
 *
 * There is no way back, and nothing that would keep it from ending: what a storage system does not delete now is garbage.
 */

import { DeleteInput } from '../records.ts';
import { deletion, finished, leftOver, realVolumesOf, type Workflow } from './workflow.ts';

export const deleteVolume: Workflow = {
  effects({ operation, volume }) {
    const { force } = DeleteInput.parse(operation.input);
    return realVolumesOf(volume).map((each) => deletion(each, force));
  },

  turn({ operation, volume }, outcomes, now) {
    const garbage = leftOver(volume, outcomes);
    const later = garbage.length === 0 ? '' : `; ${garbage.length} of its real volumes are deleted later`;
    return {
      volume: null,
      operation: finished(operation, now),
      garbage,
      events: [
        {
          kind: 'volume.deleted',
          subject: volume.name,
          text: `volume ${volume.name} has been deleted${later}`,
          details: { operation: operation.id, later: garbage.map(({ realVolume }) => realVolume) },
        },
      ],
    };
  },
};
