/**
 * Copy groups as they are told: by the directory to the storage systems that have members, and back.
 *
 *   storage system (management API)
 *     PUT  /real-volumes/:id/group       GroupConfig    GroupView      the same or an older revision is nothing; older epochs are 409 `stale-epoch`
 *     POST /real-volumes/:id/hand-over   HandOver       GroupView      answered when it is a secondary of that epoch, durably
 *     GET  /real-volumes/:id/group                      GroupView
 *   directory
 *     POST /pairs                        PairReport     Recorded       409 `stale-epoch`: another member is primary
 *     POST /leases                       LeaseRequest   LeaseAnswer
 */

import { z } from 'zod';
import { PairState, SuspendReason } from './catalog.ts';
import { AccessKey, Bytes, Endpoint, Epoch, RealVolumeId, StorageName, VolumeName } from './names.ts';

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

export const PairReport = z.object({
  /** Who says so: the primary of `epoch`. */
  primary: RealVolumeId,
  epoch: Epoch,
  member: RealVolumeId,
  pair: PairState.exclude(['simplex']),
  reason: SuspendReason.nullable(),
});
export type PairReport = z.infer<typeof PairReport>;
export const Recorded = z.object({ revision: z.int() });

export const LeaseRequest = z.object({
  leases: z.array(z.object({ realVolume: RealVolumeId, epoch: Epoch })).max(10_000),
  /** Primaries that have lost their page cache, and do not want to be primary. */
  givingWay: z.array(RealVolumeId).max(10_000),
});
export type LeaseRequest = z.infer<typeof LeaseRequest>;
/** In the order of the request. */
export const LeaseAnswer = z.object({ granted: z.array(z.boolean()) });
export type LeaseAnswer = z.infer<typeof LeaseAnswer>;
