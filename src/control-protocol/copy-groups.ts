/**
 * Copy groups as they are told: by the directory to the storage systems that have members, and back.
 *
 *   storage system (management API)
 *     PUT  /real-volumes/:id/group       GroupConfig    GroupView      the same or an older revision is nothing; older epochs are 409 `stale-epoch`
 *     POST /real-volumes/:id/hand-over   HandOver       GroupView      answered when it is a secondary of that epoch, durably
 *     GET  /real-volumes/:id/group                      GroupView
 *   directory
 *     POST /pairs                        PairReport     Recorded       409 `stale-epoch`: another member is primary
 *                                                       `conflict`: it knows an older revision of the pair, or the member is not wanted
 *     POST /leases                       LeaseRequest   LeaseAnswer
 *     POST /discards                     DiscardReport  204            an event
 */

import { z } from 'zod';
import { PairState, SuspendReason } from './catalog.ts';
import {
  AccessKey,
  Bytes,
  Endpoint,
  Epoch,
  Identity,
  RealVolumeId,
  StorageName,
  VolumeName,
} from './names.ts';

export const Fence = z.enum(['never', 'status', 'data']);
export type Fence = z.infer<typeof Fence>;

export const GroupMember = z.object({
  realVolume: RealVolumeId,
  storage: StorageName,
  peer: Endpoint,
  nbd: Endpoint,
  accessKey: AccessKey,
  /** What the record says of its pair; of the primary: duplex. */
  pair: PairState,
  /** `suspended`: a person wants no copying for now. */
  wanted: z.enum(['following', 'suspended']),
  /** Of the pair's record; the primary's next report of the pair says the highest that it knows. */
  pairRevision: z.int().min(0),
});
export type GroupMember = z.infer<typeof GroupMember>;

/** A copy group as the directory's record has it; members include the one that is told, and its primary. */
export const GroupConfig = z.object({
  volume: VolumeName,
  epoch: Epoch,
  /** Counts what is told of this group, over all epochs: what is older is nothing. */
  revision: z.int().min(1),
  sizeBytes: Bytes,
  fence: Fence,
  leaseMs: z.int().min(1),
  /** Of copying to members that differ, for each; 0: as fast as it goes. */
  copyBytesPerSecond: Bytes,
  primary: RealVolumeId,
  /** The primary before has handed over, or there was none: there is no lease to wait out. */
  isHandedOver: z.boolean(),
  /** The primary was made so by force, though the record did not say duplex: what it knows of the others counts for nothing. */
  isForced: z.boolean().optional(),
  members: z.array(GroupMember).min(1).max(16),
});
export type GroupConfig = z.infer<typeof GroupConfig>;

export const HandOver = z.object({ epoch: Epoch, to: RealVolumeId });
export type HandOver = z.infer<typeof HandOver>;

/** How a primary sees one of its pairs. */
export const PairView = z.object({
  realVolume: RealVolumeId,
  /** As in replication/SPEC.md: finer than the record's. */
  state: z.enum(['suspended', 'connecting', 'copying', 'equalizing', 'joining', 'duplex', 'leaving']),
  outOfSyncBytes: Bytes,
  /** Since the process began. */
  copiedBytes: Bytes,
});
export type PairView = z.infer<typeof PairView>;
export const GroupView = z.object({
  realVolume: RealVolumeId,
  epoch: Epoch,
  revision: z.int(),
  role: z.enum(['primary', 'secondary']),
  /** Of a primary: whether it serves hosts now. */
  serving: z.boolean(),
  pairs: z.array(PairView),
});
export type GroupView = z.infer<typeof GroupView>;

/** Revisions are counted, and none comes near. */
const PAIR_REVISION_MAX = 2 ** 52;

export const PairReport = z
  .object({
    /** Who says so: the primary of `epoch`. */
    primary: RealVolumeId,
    epoch: Epoch,
    member: RealVolumeId,
    pair: PairState.exclude(['simplex']),
    reason: SuspendReason.nullable(),
    /**
     * The highest that the primary has been told of the pair, by a GroupConfig or by `Recorded`, when it sends this.
     * A report that says duplex with another one than the record's is refused as `conflict`: it may have been held up on its way, and its
     * sender may have reported `suspended` since.
     */
    pairRevision: z.int().min(0).max(PAIR_REVISION_MAX),
    /** Where it is connected to the member: `conflict` when that is not where the member's storage system is, or is known to be. */
    peer: Endpoint.optional(),
  })
  .refine(
    ({ pair, reason }) => reason === null || pair === 'suspended',
    'only who is suspended has a reason',
  );
export type PairReport = z.infer<typeof PairReport>;
/** `pairRevision`: of the pair, from now on. */
export const Recorded = z.object({ revision: z.int(), pairRevision: z.int().min(0) });
export type Recorded = z.infer<typeof Recorded>;

/** What a member that came back had written alone, and has given up. */
export const DiscardReport = z.object({
  primary: RealVolumeId,
  epoch: Epoch,
  member: RealVolumeId,
  bytes: Bytes,
});
export type DiscardReport = z.infer<typeof DiscardReport>;

/** The storage system that asks, and which lives its data folder knows of (InstanceClaim). */
export const Asker = z.object({
  storage: StorageName,
  acknowledged: z.int().min(0),
  /** The one that was acknowledged last, and those that came after it and may have been, its own among them. */
  lives: z.array(Identity).max(16),
});
export type Asker = z.infer<typeof Asker>;

export const LeaseRequest = z.object({
  /** `wrong-identity` when another process has been taken for it since. Versions before did not say. */
  asker: Asker.optional(),
  leases: z.array(z.object({ realVolume: RealVolumeId, epoch: Epoch })).max(10_000),
  /**
   * Primaries that have lost their page cache, and do not want to be primary; they are among `leases`, too: one that is granted
   * is to go on, as nobody else can.
   */
  givingWay: z.array(RealVolumeId).max(10_000),
});
export type LeaseRequest = z.infer<typeof LeaseRequest>;
/** In the order of the request; false: it is not primary in that epoch any more. `unavailable` instead of an answer: ask again. */
/** `later`: it has asked to give way, and another copy is waited for. */
export const LeaseVerdict = z.enum(['granted', 'over', 'later']);
export type LeaseVerdict = z.infer<typeof LeaseVerdict>;
export const LeaseAnswer = z.object({ answers: z.array(LeaseVerdict) });
export type LeaseAnswer = z.infer<typeof LeaseAnswer>;
