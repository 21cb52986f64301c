/** The real rules, with limits that are as short as runs are. */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { ReplicaLimits } from '../../src/replication/limits.ts';
import { Replica } from '../../src/replication/replica.ts';
import type { ReplicaLike } from './member-process.ts';
import type { Scheduler } from './scheduler.ts';

export type Limits = Partial<ReplicaLimits>;

/** Of one run. Volumes are small, and what bounds large ones is to be met in them, too. */
export function anyLimits(scheduler: Scheduler, recordMs: number): Limits {
  return {
    recordMs,
    pieceBytes: 4096 * (4 + scheduler.random.below(60)),
    piecesInFlight: 1 + scheduler.random.below(4),
    flushBytes: scheduler.chance(0.5) ? 4096 * 4 : 1024 * 1024,
    hotExtentsMax: scheduler.chance(0.5) ? 2 : 1024,
    idleMs: scheduler.chance(0.5) ? scheduler.between(200, 3_000) : 30_000,
  };
}

export function makeReplica(id: MemberId, limits: Limits): ReplicaLike {
  return new Replica({ id, ...limits });
}
