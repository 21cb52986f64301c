/**
 * The record has the new primaries when it begins: from then on the ones before get no lease, and are refused.
 *
 *     running  serve     tell the new primaries, until they serve   -> done; or failed: they are primaries all the same
 */

import type { SegmentRecord } from '../../control-protocol/catalog.ts';
import { assert } from '../../model/errors.ts';
import { primaryOf } from '../../replication/group-rules.ts';
import { MoveInput } from '../records.ts';
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

export const failoverCopy: Workflow = {
  effects: servings,
  turn: (work, outcomes, now) => served(work, outcomes, now),
};

export interface Move {
  readonly segment: SegmentRecord;
  readonly from: SegmentRecord['copies'][number];
  readonly to: SegmentRecord['copies'][number];
}

/** What was planned, as the segments are now. */
export function movesOf({ operation, volume }: Work): Move[] {
  const { plan } = MoveInput.parse(operation.input);
  return plan.moves.map(({ offset, from, to }) => {
    const segment = volume.segments.find((each) => each.offset === offset);
    const [source, target] = [from, to].map((id) =>
      segment?.copies.find(({ realVolume }) => realVolume === id),
    );
    assert(
      segment !== undefined && source !== undefined && target !== undefined,
      `${operation.id} moves among copies that there are`,
    );
    return { segment, from: source, to: target };
  });
}

/** To those that have become primary. */
export function servings(work: Work): Effect[] {
  return movesOf(work).map(({ segment, to }) => ({
    ...referenceOf(segment, to),
    kind: 'serve',
    patience: 'serve',
  }));
}

export function served({ operation, volume }: Work, outcomes: readonly Outcome[], now: string): Turn {
  const error = mainError(outcomes);
  const serveMs = longestMs(outcomes);
  const names = new Set(volume.segments.map((segment) => primaryOf(segment).storage));
  return {
    volume: { ...volume, operation: null },
    operation:
      error === undefined
        ? finished(operation, now, null, { ...operation.result, serveMs })
        : finished(
            operation,
            now,
            {
              code: error.code,
              message: `the primary of volume ${volume.name} is on ${[...names].join(', ')} now, and does not serve yet: ${error.message}`,
            },
            operation.result,
          ),
    garbage: [],
    events: [],
  };
}

export function longestMs(outcomes: readonly Outcome[]): number {
  return Math.max(0, ...outcomes.map(({ tookMs }) => tookMs));
}
