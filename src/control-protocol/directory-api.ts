/**
 * The directory's HTTP API: one schema a message, from which the server checks, the client is typed and OpenAPI is
 * made. Errors are `{"error":{"code","message"}}` with the status of runtime/http-server.ts.
 *
 *   GET    /cluster                                  ClusterView
 *   GET    /status                                   StatusView
 *   GET    /volumes                                  VolumeSummary[]
 *   POST   /volumes                CreateVolume      202 OperationRecord
 *   GET    /volumes/:name                            VolumeView
 *   PATCH  /volumes/:name          ResizeVolume      202 OperationRecord
 *   DELETE /volumes/:name?force                      202 OperationRecord
 *   POST   /volumes/:name/repair                     RepairView          (takes back what has failed of its real volumes)
 *   GET    /volumes/:name/location?offset&length     Location[]
 *   GET    /volumes/:name/record                     VolumeRecord        (gateways: what the watch would bring)
 *   POST   /volumes/:name/copies   AddCopy           202 OperationRecord
 *   DELETE /volumes/:name/copies/:storage            202 OperationRecord
 *   POST   /volumes/:name/copies/:storage/suspend    202 OperationRecord
 *   POST   /volumes/:name/copies/:storage/resync     202 OperationRecord
 *   POST   /volumes/:name/switch   SwitchCopy        202 OperationRecord (its result: handOverMs, serveMs)
 *   POST   /volumes/:name/failover FailOver          202 OperationRecord
 *   POST   /volumes/:name/login    Login             LoginView           (waits for the switch that it begins)
 *   GET    /interfaces, /interfaces/:name            InterfaceRecord
 *   PUT    /interfaces/:name       SetInterface      InterfaceRecord
 *   DELETE /interfaces/:name                         204
 *   GET    /groups, /groups/:name                    ConsistencyGroupView
 *   POST   /groups                 CreateGroup       201 ConsistencyGroupView
 *   POST   /pairs, /leases, /discards                copy-groups.ts
 *   GET    /operations, /operations/:id?waitMs       OperationRecord     (waits until finished, up to waitMs)
 *   GET    /storage, /storage/:name                  StorageView
 *   PUT    /storage/:name          StorageReport     Registered          (registers, and again every leaseMs / 3)
 *   POST   /storage/:name/claim    StorageClaim      Registered          (before it serves: `in-use` while another process is online with it)
 *   GET    /gateways                                 GatewayView[]
 *   PUT    /gateways/:name         GatewayReport     Registered
 *   GET    /events?since&limit                       EventRecord[]
 *   GET    /events/stream?since                      SSE: `event` EventRecord
 *   GET    /watch                                    SSE: first `snapshot` SecondInformation, then `change` InformationChange;
 *                                                    a comment at least every 5 s, so that silence means a dead connection
 */

import { z } from 'zod';
import {
  CopyRecord,
  ErrorBody,
  GatewayRecord,
  GroupRecord,
  Instant,
  InterfaceRecord,
  OperationRecord,
  StorageRecord,
  VolumeState,
} from './catalog.ts';
import {
  Bytes,
  Epoch,
  GatewayName,
  GroupName,
  Identity,
  InterfaceName,
  OperationId,
  RealVolumeId,
  SiteName,
  StorageName,
  VolumeName,
  VolumeSize,
} from './names.ts';

export const Failure = z.object({ error: ErrorBody });

export const ClusterView = z.object({ clusterId: Identity, revision: z.int(), version: z.string() });
export type ClusterView = z.infer<typeof ClusterView>;

/** Of copies. */
export const Transfer = z.enum(['sync', 'async']);
export type Transfer = z.infer<typeof Transfer>;

export const CreateVolume = z.object({
  name: VolumeName,
  sizeBytes: VolumeSize,
  /** Storage systems, in order; the ones without size share what is left evenly. Without it the directory chooses. */
  segments: z
    .array(z.object({ storage: StorageName, sizeBytes: VolumeSize.optional() }))
    .min(1)
    .max(1024)
    .optional(),
  /** Storage systems that get one more copy each, of the whole volume. */
  copies: z.array(StorageName).max(15).optional(),
  transfer: Transfer.optional(),
  group: GroupName.optional(),
});
export type CreateVolume = z.infer<typeof CreateVolume>;

export const AddCopy = z.object({ storage: StorageName, transfer: Transfer.optional() });
export type AddCopy = z.infer<typeof AddCopy>;

/** To the copy on a storage system, or, of each segment, to one in that site which is duplex. */
export const SwitchCopy = z.union([
  z.strictObject({ storage: StorageName }),
  z.strictObject({ site: SiteName }),
]);
export type SwitchCopy = z.infer<typeof SwitchCopy>;

export const FailOver = z.object({
  storage: StorageName,
  /** Also to a copy that is not duplex: what it lacks is lost. */
  force: z.boolean().default(false),
});
export type FailOver = z.input<typeof FailOver>;

/** By an interface: its sites, nearest first. By a gateway, automatically: its own site, unless hosts use the volume elsewhere. */
export const Login = z.union([
  z.strictObject({ interface: InterfaceName }),
  z.strictObject({ gateway: GatewayName }),
]);
export type Login = z.infer<typeof Login>;

/** Where to connect, and the site of the primary; when segments have theirs in several sites, that of the first. */
export const LoginView = z.object({ uri: z.string(), site: SiteName, gateway: GatewayName });
export type LoginView = z.infer<typeof LoginView>;

export const SetInterface = InterfaceRecord.omit({ name: true });
export type SetInterface = z.infer<typeof SetInterface>;

export const CreateGroup = z.object({
  name: GroupName,
  transfer: Transfer,
  journal: z.enum(['memory', 'volume']).optional(),
  journalSizeBytes: Bytes.optional(),
  fetch: z.enum(['push', 'pull']).optional(),
  fence: z.enum(['never', 'status', 'data']).default('never'),
});
export type CreateGroup = z.input<typeof CreateGroup>;

const Entries = z.int().min(0);
export const ConsistencyGroupView = GroupRecord.extend({
  /** How writes come to the secondaries' journals; null: without journal. */
  fetch: z.enum(['push', 'pull']).nullable(),
  journal: z.enum(['memory', 'volume']).nullable(),
  volumes: z.array(VolumeName),
  sequence: Entries,
  /** One for each storage system that has secondaries. */
  secondaries: z.array(
    z.object({
      storage: StorageName,
      stored: Entries,
      transferred: Entries,
      applied: Entries,
      discarded: Entries,
      journal: z.object({ used: Bytes, size: Bytes }),
    }),
  ),
});
export type ConsistencyGroupView = z.infer<typeof ConsistencyGroupView>;

export const ResizeVolume = z.object({
  sizeBytes: VolumeSize,
  /** Without it a smaller size is refused: what lies behind it is lost. */
  allowShrink: z.boolean().default(false),
});
export type ResizeVolume = z.input<typeof ResizeVolume>;

export const VolumeSummary = z.object({
  name: VolumeName,
  size: Bytes,
  state: VolumeState,
  group: GroupName.nullable(),
  segments: z.int(),
  storage: z.array(StorageName),
  createdAt: Instant,
});
export type VolumeSummary = z.infer<typeof VolumeSummary>;

const Lag = z.object({ entries: z.int(), bytes: Bytes, seconds: z.number() });

export const CopyView = CopyRecord.omit({ accessKey: true, pairRevision: true }).extend({
  site: SiteName,
  reason: z.string().nullable().describe('why it is not as it should be, in words; null: it is'),
  outOfSyncBytes: Bytes,
  outOfSyncKnown: z
    .boolean()
    .describe('false: its primary has not been asked, or has not answered; the bytes are 0 then'),
  lag: Lag,
});
export const SegmentView = z.object({
  offset: Bytes,
  length: Bytes,
  epoch: Epoch,
  copies: z.array(CopyView),
});
export type SegmentView = z.infer<typeof SegmentView>;

export const VolumeView = z.object({
  name: VolumeName,
  size: Bytes,
  /** The highest of its segments. */
  epoch: Epoch,
  state: VolumeState,
  group: GroupName.nullable(),
  uris: z.array(z.string()),
  segments: z.array(SegmentView),
  migrations: z.array(z.string()),
  operation: OperationId.nullable(),
  createdAt: Instant,
});
export type VolumeView = z.infer<typeof VolumeView>;

/** A piece of a volume as it lies on a real volume; `uri` is for direct access. */
export const Location = z.object({
  offset: Bytes,
  length: Bytes,
  storage: StorageName,
  site: SiteName,
  realVolume: RealVolumeId,
  realOffset: Bytes,
  role: CopyRecord.shape.role,
  uri: z.string(),
  file: z.string().nullable(),
});
export type Location = z.infer<typeof Location>;

/** `online`: it has been heard of within its lease. */
const Presence = z.object({ state: z.enum(['online', 'offline']), lastSeenAt: Instant.nullable() });

/** What of a volume's real volumes had failed: what has been taken back, and what could not be, with the reason. */
const Repaired = z.object({ storage: StorageName, realVolume: RealVolumeId, reason: z.string() });
export const RepairView = z.object({
  volume: VolumeName,
  repaired: z.array(Repaired),
  remaining: z.array(Repaired),
});
export type RepairView = z.infer<typeof RepairView>;

export const FailedRealVolume = z.object({ realVolume: RealVolumeId, reason: z.string() });

/**
 * Which life of a data folder a process is: each start has an id of its own, and so has each minute or so of a long one. The directory
 * keeps the latest of each storage system, and takes only one that comes after it.
 */
export const InstanceClaim = z.object({
  id: Identity,
  /** Of the one that was acknowledged last, which may be this one; 0: none was. The directory numbers them from 1. */
  acknowledged: z.int().min(0),
  /** The one that was acknowledged last, and those that came after it and may have been. */
  follows: z.array(Identity).max(16),
  /** It has the lock of the folder that those had: none of them runs any more. */
  isSamePlace: z.boolean(),
  /** A person says that the folder was put back from a backup, and is to be taken though it is older than what was there. */
  isRestored: z.boolean().optional(),
});
export type InstanceClaim = z.infer<typeof InstanceClaim>;

/** A storage system asks whether it may be the one of its name. */
export const StorageClaim = z.object({
  id: StorageRecord.shape.id,
  clusterId: Identity.nullable(),
  instance: InstanceClaim,
});
export type StorageClaim = z.infer<typeof StorageClaim>;

/** What a storage system says of itself. */
export const StorageReport = StorageRecord.omit({ name: true }).extend({
  /** The cluster that it has joined; null when it is new. */
  clusterId: Identity.nullable(),
  /** Versions before had none. */
  instance: InstanceClaim.optional(),
  realVolumes: z.int().min(0),
  usedBytes: Bytes.describe('allocated in the file system by real volumes'),
  failed: z.array(FailedRealVolume).max(100).describe('the first 100'),
});
export type StorageReport = z.infer<typeof StorageReport>;

export const GatewayReport = GatewayRecord.omit({ name: true }).extend({
  clusterId: Identity.nullable(),
  /** Revision of its second information. */
  revision: z.int().min(0),
  hosts: z.int().min(0).describe('connections of hosts'),
});
export type GatewayReport = z.infer<typeof GatewayReport>;

export const Registered = z.object({
  clusterId: Identity,
  leaseMs: z.int().min(1),
  /** Of a storage system's instance that has been taken. */
  instanceNumber: z.int().min(1).optional(),
});
export type Registered = z.infer<typeof Registered>;

export const StorageView = StorageRecord.extend({
  ...Presence.shape,
  uri: z.string(),
  /** Sum of the sizes of its real volumes, and what of the capacity that leaves. */
  provisionedBytes: Bytes,
  freeBytes: Bytes,
  usedBytes: Bytes,
  realVolumes: z.int(),
  failed: z.array(FailedRealVolume),
});
export type StorageView = z.infer<typeof StorageView>;

export const GatewayView = GatewayRecord.extend({ ...Presence.shape, revision: z.int(), hosts: z.int() });
export type GatewayView = z.infer<typeof GatewayView>;

export const StatusView = z.object({
  clusterId: Identity,
  revision: z.int(),
  /** `degraded`: something below is offline, has failed or is suspended. */
  health: z.enum(['ok', 'degraded']),
  storage: z.array(StorageView),
  gateways: z.array(GatewayView),
  volumes: z.object({
    count: z.int(),
    bytes: Bytes,
    notReady: z.array(VolumeName),
    suspended: z.array(VolumeName).default([]).describe('those with a copy that should follow, and does not'),
    newerEpoch: z
      .array(VolumeName)
      .default([])
      .describe('those with a copy that knows a newer epoch than the catalog, which may be an older one'),
  }),
  operations: z.array(OperationRecord).describe('those that are not finished'),
});
export type StatusView = z.infer<typeof StatusView>;
