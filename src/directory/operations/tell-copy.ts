/**
 * suspend-copy and resync-copy: the record says what a person wants when it begins.
 *
 *     running  tell      tell the primaries, once   -> done
 *
 * What comes of it is the primaries' report. One that does not answer is told later.
 */

import { WantedInput } from '../records.ts';
import { tellings } from './remove-copy.ts';
import { finished, mainError, type Workflow } from './workflow.ts';

export const tellCopy: Workflow = {
  effects: tellings,

  turn({ operation, volume }, outcomes, now) {
    const { name } = volume;
    const { storage } = WantedInput.parse(operation.input);
    const later = mainError(outcomes) === undefined ? '' : ', as soon as its primary can be told';
    const isSuspended = operation.kind === 'suspend-copy';
    return {
      volume: { ...volume, operation: null },
      operation: finished(operation, now, null, { isTold: later === '' }),
      garbage: [],
      events: [
        {
          kind: isSuspended ? 'volume.copy-suspended' : 'volume.copy-resynced',
          subject: name,
          text: `the copy of volume ${name} on storage system ${storage} is to ${isSuspended ? 'be left behind' : 'follow'}${later}`,
          details: { operation: operation.id, storage },
        },
      ],
    };
  },
};
