/**
 *     running  hand-over   the primaries hand over               -> serve: the record has the new primaries
 *                          one refused, all others refused too   -> failed, nothing has changed
 *                          one may have handed over              -> failed: the primaries of before, of a still newer epoch
 *              serve       tell the new primaries, until they serve   -> done; or failed: they are primaries all the same
 *
 * 1. Between the hand-over and the record of it nobody serves, and nobody else can be promoted: who was asked gets no lease.
 * 2. A hand-over that arrives after it has been undone is refused: the epoch that it begins is an old one.
 */

import type { SegmentRecord } from '../../control-protocol/catalog.ts';
import type { RealVolumeId } from '../../control-protocol/names.ts';
import type { ControlErrorCode } from '../../model/errors.ts';
import { handOverUndone, nextEpoch, switched } from '../../replication/group-rules.ts';
import type { NewEvent } from '../catalog.ts';
import { longestMs, type Move, movesOf, served, servings } from './failover-copy.ts';
import {
  type Effect,
  finished,
  mainError,
  type Outcome,
  referenceOf,
  type Turn,
  type Work,
  type Workflow,
} from './workflow.ts';

export const switchCopy: Workflow = {
  effects(work) {
    if (work.operation.step === 'serve') return servings(work);
    return movesOf(work).map(
      ({ segment, from, to }): Effect => ({
        ...referenceOf(segment, from),
        kind: 'hand-over',
        epoch: nextEpoch(segment),
        to: to.realVolume,
        patience: 'hand-over',
      }),
    );
  },

  turn(work, outcomes, now) {
    if (work.operation.step === 'serve') return served(work, outcomes, now);
    const error = mainError(outcomes) ?? notInStep(movesOf(work));
    return error === undefined ? handedOver(work, outcomes) : undone(work, outcomes, error, now);
  },
};

function handedOver(work: Work, outcomes: readonly Outcome[]): Turn {
  const { operation, volume } = work;
  const moves = movesOf(work);
  const result = { handOverMs: longestMs(outcomes) };
  return {
    volume: withSegments(work, moves, (segment, { to }) => switched(segment, to.realVolume)),
    operation: { ...operation, step: 'serve', result },
    garbage: [],
    events: [movedEvent('copy.switched', work, moves, volume.name)],
  };
}

/** What the primaries said before they handed over is in the record: a pair that they have lost is not switched to. */
function notInStep(moves: readonly Move[]): Outcome['error'] {
  const lost = moves.find(({ to }) => to.pair !== 'duplex');
  if (lost === undefined) return undefined;
  const message = `the copy on storage system ${lost.to.storage} has fallen behind: wait until it is duplex`;
  return { code: 'conflict', message };
}

/** Answers after which a primary is what it was, unless it was asked before and may still be about to hand over. */
const REFUSALS: readonly ControlErrorCode[] = ['bad-request', 'not-found', 'conflict', 'not-supported'];

function undone(work: Work, outcomes: readonly Outcome[], why: Outcome['error'], now: string): Turn {
  const { operation, volume } = work;
  const asked = new Set<RealVolumeId>(
    outcomes
      .filter(({ error, isCertain }) => !(isCertain && error !== undefined && REFUSALS.includes(error.code)))
      .map(({ effect }) => effect.realVolume),
  );
  const mayHave = movesOf(work).filter(({ from }) => asked.has(from.realVolume));
  return {
    volume: { ...withSegments(work, mayHave, handOverUndone), operation: null },
    operation: finished(operation, now, why),
    garbage: [],
    events: [
      {
        kind: 'copy.switch-failed',
        subject: volume.name,
        text: `volume ${volume.name} was not switched: ${why?.message}`,
        details: { operation: operation.id, code: why?.code ?? null, undone: mayHave.length },
      },
    ],
  };
}

function withSegments(
  { volume }: Work,
  moves: readonly Move[],
  change: (segment: SegmentRecord, move: Move) => SegmentRecord,
) {
  const segments = volume.segments.map((segment) => {
    const move = moves.find((each) => each.segment === segment);
    return move === undefined ? segment : change(segment, move);
  });
  return { ...volume, segments };
}

export function movedEvent(
  kind: 'copy.switched' | 'copy.failed-over',
  { operation }: Pick<Work, 'operation'>,
  moves: readonly Pick<Move, 'from' | 'to'>[],
  name: string,
): NewEvent {
  const list = (copies: { storage: string }[]): string =>
    [...new Set(copies.map(({ storage }) => storage))].join(', ');
  const [from, to] = [list(moves.map((move) => move.from)), list(moves.map((move) => move.to))];
  const how = kind === 'copy.switched' ? 'been switched' : 'failed over';
  return {
    kind,
    subject: name,
    text: `the primary of volume ${name} has ${how} from storage system ${from} to ${to}`,
    details: { operation: operation.id, from, to, segments: moves.length },
  };
}
