/**
 * A real volume as it is remembered, and how it may change. Pure: what happens goes in, the changed record comes out.
 *
 *   unused             made, and no virtual volume's
 *   in-use             part of a virtual volume
 *   access-prohibited  nobody may read or write it; remembers whose it is
 *   failed             its file is missing or too short, or it may have lost what was written; remembers the rest
 *   leaving            being deleted: nobody knows it any more, only its file may still be there
 *
 * Invariants
 * 1. What happens in which state is in `transitions`, for every state and every event; `changed` is the only way from one
 *    record to the next, and asserts that it ends in a state that the table says.
 * 2. An epoch only becomes larger, in every state, `failed` included: who was cut off stays cut off.
 * 3. The first reason of a failure is kept, and the worse cause. A file that cannot be used is no failure any more when it is
 *    `found-whole`, at a start. What may have lost writes that were answered stays failed, over any number of starts, until
 *    somebody says that he knows (`accepted`): else another user's flush would succeed for writes that are lost (N3).
 */

import type { AccessKey, Epoch, RealVolumeId, VolumeName } from '../control-protocol/names.ts';
import type { ChangeRealVolume, RealVolumeState } from '../control-protocol/storage-api.ts';
import { assert, ControlError } from '../model/errors.ts';

/**
 * `file-unusable`: found when it was looked at, before anybody used it. `writes-lost`: a flush failed, or the file became unusable
 * under somebody who used it: writes that had been answered, and not flushed, may be lost, and nobody can tell which.
 */
export type FailureCause = 'file-unusable' | 'writes-lost';

export interface Failure {
  readonly cause: FailureCause;
  /** As a sentence. */
  readonly reason: string;
}

export interface RealVolume {
  readonly id: RealVolumeId;
  readonly sizeBytes: number;
  /** Whose it is. */
  readonly volume: VolumeName | null;
  readonly epoch: Epoch;
  readonly accessKey: AccessKey;
  readonly access: 'allowed' | 'prohibited';
  readonly failure: Failure | null;
  readonly isLeaving: boolean;
  readonly createdAt: string;
}

export type Condition = RealVolumeState | 'leaving';

export type RealVolumeEvent =
  | { readonly kind: 'given'; readonly volume: VolumeName }
  | { readonly kind: 'released' }
  | { readonly kind: 'prohibited' }
  | { readonly kind: 'allowed' }
  | { readonly kind: 'epoch-raised'; readonly epoch: Epoch }
  | { readonly kind: 'resized'; readonly sizeBytes: number }
  | ({ readonly kind: 'failed' } & Failure)
  | { readonly kind: 'found-whole' }
  | { readonly kind: 'accepted' }
  | { readonly kind: 'removal-begun' };

/** The states in which an event may end, or why it is refused. */
type Outcome = readonly Condition[] | string;

const leaving = 'it is being deleted';
const failed = 'it has failed: take it back with "volary volume repair", or delete it';
const known: readonly Condition[] = ['unused', 'in-use', 'access-prohibited'];

export const transitions: Record<Condition, Record<RealVolumeEvent['kind'], Outcome>> = {
  unused: {
    given: ['in-use'],
    released: ['unused'],
    prohibited: ['access-prohibited'],
    allowed: ['unused'],
    'epoch-raised': ['unused'],
    resized: ['unused'],
    failed: ['failed'],
    'found-whole': ['unused'],
    accepted: ['unused'],
    'removal-begun': ['leaving'],
  },
  'in-use': {
    given: ['in-use'],
    released: ['unused'],
    prohibited: ['access-prohibited'],
    allowed: ['in-use'],
    'epoch-raised': ['in-use'],
    resized: ['in-use'],
    failed: ['failed'],
    'found-whole': ['in-use'],
    accepted: ['in-use'],
    'removal-begun': ['leaving'],
  },
  'access-prohibited': {
    given: ['access-prohibited'],
    released: ['access-prohibited'],
    prohibited: ['access-prohibited'],
    allowed: ['unused', 'in-use'],
    'epoch-raised': ['access-prohibited'],
    resized: ['access-prohibited'],
    failed: ['failed'],
    'found-whole': ['access-prohibited'],
    accepted: ['access-prohibited'],
    'removal-begun': ['leaving'],
  },
  failed: {
    given: failed,
    released: ['failed'],
    prohibited: ['failed'],
    allowed: ['failed'],
    'epoch-raised': ['failed'],
    resized: failed,
    failed: ['failed'],
    'found-whole': ['failed', ...known],
    accepted: known,
    'removal-begun': ['leaving'],
  },
  leaving: {
    given: leaving,
    released: leaving,
    prohibited: leaving,
    allowed: leaving,
    'epoch-raised': leaving,
    resized: leaving,
    failed: ['leaving'],
    'found-whole': ['leaving'],
    accepted: leaving,
    'removal-begun': ['leaving'],
  },
};

export function conditionOf(realVolume: RealVolume): Condition {
  if (realVolume.isLeaving) return 'leaving';
  if (realVolume.failure !== null) return 'failed';
  if (realVolume.access === 'prohibited') return 'access-prohibited';
  return realVolume.volume === null ? 'unused' : 'in-use';
}

/** The record after the event. @throws ControlError `conflict` or `stale-epoch` when it may not happen */
export function changed(before: RealVolume, event: RealVolumeEvent): RealVolume {
  const from = conditionOf(before);
  const outcome = transitions[from][event.kind];
  if (typeof outcome === 'string') throw new ControlError('conflict', `real volume ${before.id}: ${outcome}`);
  const after = effectOf(before, event);
  assert(outcome.includes(conditionOf(after)), `${event.kind} leads from ${from} to ${conditionOf(after)}`);
  assert(after.epoch >= before.epoch, 'an epoch never becomes smaller');
  return after;
}

function effectOf(before: RealVolume, event: RealVolumeEvent): RealVolume {
  switch (event.kind) {
    case 'given':
      if (before.volume === null || before.volume === event.volume)
        return { ...before, volume: event.volume };
      throw new ControlError(
        'conflict',
        `real volume ${before.id} is part of ${before.volume}: it must be released before ${event.volume} gets it`,
      );
    case 'released':
      return { ...before, volume: null };
    case 'prohibited':
      return { ...before, access: 'prohibited' };
    case 'allowed':
      return { ...before, access: 'allowed' };
    case 'epoch-raised':
      if (event.epoch >= before.epoch) return { ...before, epoch: event.epoch };
      throw new ControlError(
        'stale-epoch',
        `real volume ${before.id} has epoch ${before.epoch}: ${event.epoch} is over`,
      );
    case 'resized':
      return { ...before, sizeBytes: event.sizeBytes };
    case 'failed':
      return withFailure(before, event);
    case 'found-whole':
      return before.failure?.cause === 'file-unusable' ? { ...before, failure: null } : before;
    case 'accepted':
      return { ...before, failure: null };
    case 'removal-begun':
      return { ...before, isLeaving: true };
  }
}

function withFailure(before: RealVolume, { cause, reason }: Failure): RealVolume {
  if (before.failure === null) return { ...before, failure: { cause, reason } };
  const isWorse = cause === 'writes-lost' && before.failure.cause !== cause;
  return isWorse ? { ...before, failure: { ...before.failure, cause } } : before;
}

/** What is asked for, but its size. The epoch first: who carries an older one is refused before anything else is looked at. */
export function eventsOf(before: RealVolume, wanted: ChangeRealVolume): RealVolumeEvent[] {
  const { epoch, volume, access } = wanted;
  const events: RealVolumeEvent[] = [];
  if (epoch !== undefined) events.push({ kind: 'epoch-raised', epoch });
  if (volume !== undefined && volume !== before.volume) {
    events.push(volume === null ? { kind: 'released' } : { kind: 'given', volume });
  }
  if (access !== undefined) events.push({ kind: access });
  return events;
}
