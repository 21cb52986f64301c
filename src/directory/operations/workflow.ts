/**
 * Workflows: what an operation does next, as pure functions of its record and its volume's.
 *
 *     running --effects--> outcomes --turn--> next records, written in ONE transaction, and so on until `done` or `failed`
 *
 * Invariants
 *  1. Effects are idempotent: who finds a record at a step does all of the step's effects again, whoever began them.
 *  2. What is to be done is in the records before it is begun; so whatever exists at a storage system is named in the catalog.
 *  3. A real volume is forgotten when it is known to be deleted, or becomes garbage, which is deleted later.
 */

import type {
  CopyRecord,
  OperationRecord,
  SegmentRecord,
  VolumeRecord,
} from '../../control-protocol/catalog.ts';
import type { Epoch, RealVolumeId, StorageName } from '../../control-protocol/names.ts';
import type { MakeRealVolume } from '../../control-protocol/storage-api.ts';
import type { ControlErrorCode } from '../../model/errors.ts';
import type { NewEvent } from '../catalog.ts';
import type { GarbageRecord, RealVolumeReference } from '../records.ts';

/**
 * How long to go on while a storage system does not answer: `limited` gives up after a while; `for-ever` does not; `once` leaves the
 * rest to the garbage collection, or the teller. A `hand-over` is short, as hosts wait; and so is it for a new primary to `serve`.
 */
export type Patience = 'once' | 'limited' | 'for-ever' | 'hand-over' | 'serve';

/** Something that one storage system is to do. */
export type Effect = {
  readonly storage: StorageName;
  readonly realVolume: RealVolumeId;
  readonly sizeBytes: number;
  readonly patience: Patience;
} & (
  | { readonly kind: 'make'; readonly body: MakeRealVolume }
  | { readonly kind: 'resize' }
  /** `force`: also when somebody uses it. Otherwise whoever does has a short while to let go. */
  | { readonly kind: 'delete'; readonly force: boolean }
  /** To take its group, as the catalog has it now. */
  | { readonly kind: 'tell' }
  /** Likewise, and, as its primary, to serve hosts. */
  | { readonly kind: 'serve' }
  | { readonly kind: 'hand-over'; readonly epoch: Epoch; readonly to: RealVolumeId }
);

export interface Outcome {
  readonly effect: Effect;
  /** undefined: done. */
  readonly error: { readonly code: ControlErrorCode; readonly message: string } | undefined;
  /** Path of the raw file, of one that was made. */
  readonly file: string | undefined;
  /** No attempt of before can still be under way: what a storage system has answered is how it stays. */
  readonly isCertain: boolean;
  readonly tookMs: number;
}

export interface Turn {
  /** null: forgotten. */
  readonly volume: VolumeRecord | null;
  readonly operation: OperationRecord;
  readonly garbage: readonly GarbageRecord[];
  readonly events: readonly NewEvent[];
}

export interface Work {
  readonly operation: OperationRecord;
  readonly volume: VolumeRecord;
}

export interface Workflow {
  /** Of the operation's step. */
  effects(work: Work): Effect[];
  /** What becomes of it; `now` is an Instant. */
  turn(work: Work, outcomes: readonly Outcome[], now: string): Turn;
}

// What the workflows have in common.

export function realVolumesOf(volume: Pick<VolumeRecord, 'segments'>): RealVolumeReference[] {
  return volume.segments.flatMap((segment) => segment.copies.map((copy) => referenceOf(segment, copy)));
}

export function referenceOf(
  { length }: Pick<SegmentRecord, 'length'>,
  { storage, realVolume, realOffset }: Pick<CopyRecord, 'storage' | 'realVolume' | 'realOffset'>,
): RealVolumeReference {
  return { storage, realVolume, sizeBytes: realOffset + length };
}

export function deletion(of: RealVolumeReference, force: boolean): Effect {
  return { ...of, kind: 'delete', force, patience: 'once' };
}

/** The one that says most: a refusal, rather than no answer, rather than what was given up because of another. */
export function mainError(outcomes: readonly Outcome[]): Outcome['error'] {
  const errors = outcomes.flatMap(({ error }) => (error === undefined ? [] : [error]));
  const silent: ControlErrorCode[] = ['unreachable', 'unavailable', 'cancelled'];
  const rank = ({ code }: { code: ControlErrorCode }): number => silent.indexOf(code);
  return errors.sort((a, b) => rank(a) - rank(b))[0];
}

/** Of deletions: what is not known to be gone. */
export function leftOver(volume: VolumeRecord, outcomes: readonly Outcome[]): GarbageRecord[] {
  return outcomes.flatMap(({ effect: { kind, storage, realVolume, sizeBytes }, error }) =>
    kind !== 'delete' || error === undefined ? [] : [{ storage, realVolume, sizeBytes, volume: volume.name }],
  );
}

export function finished(
  operation: OperationRecord,
  now: string,
  error: OperationRecord['error'] = null,
  result: OperationRecord['result'] = null,
): OperationRecord {
  const state = error === null ? 'done' : 'failed';
  return { ...operation, state, step: 'end', error, result, finishedAt: now };
}
