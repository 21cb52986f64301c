/**
 * What lies where in the catalog, and the records that are the directory's own business. Everything read from the store goes
 * through `decode`: a catalog that says what it cannot say stops the directory, loudly.
 */

import { z } from 'zod';
import {
  CopyRecord,
  EventRecord,
  GatewayRecord,
  GroupRecord,
  Instant,
  InterfaceRecord,
  OperationRecord,
  SegmentRecord,
  StorageRecord,
  VolumeRecord,
} from '../control-protocol/catalog.ts';
import { FailedRealVolume } from '../control-protocol/directory-api.ts';
import {
  Bytes,
  type GatewayName,
  type GroupName,
  Identity,
  type InterfaceName,
  type OperationId,
  RealVolumeId,
  SiteName,
  StorageName,
  type VolumeName,
  VolumeSize,
} from '../control-protocol/names.ts';
import { assert } from '../model/errors.ts';

export const ClusterRecord = z.object({ clusterId: Identity, createdAt: Instant });
export type ClusterRecord = z.infer<typeof ClusterRecord>;

/** Of a storage system or gateway; there as long as its lease is kept alive. */
export const PresenceRecord = z.object({ lease: z.string() });
export type PresenceRecord = z.infer<typeof PresenceRecord>;

/** What the events have said of a storage system or gateway: what differs from it is the next event. */
export const AnnouncementRecord = z.object({
  state: z.enum(['online', 'offline']),
  lastSeenAt: Instant.nullable(),
  failed: z.array(FailedRealVolume),
});
export type AnnouncementRecord = z.infer<typeof AnnouncementRecord>;

/** The life of a storage system's data folder that was taken last (instances.ts). */
export const InstanceRecord = z.object({
  id: Identity,
  number: z.int().min(1),
  /** It has been taken as restored, and has not reported since: where it is nobody knows yet. */
  isRestored: z.boolean().optional(),
});
export type InstanceRecord = z.infer<typeof InstanceRecord>;

export const RealVolumeReference = z.object({
  storage: StorageName,
  realVolume: RealVolumeId,
  sizeBytes: Bytes,
});
export type RealVolumeReference = z.infer<typeof RealVolumeReference>;

/** A real volume that is no volume's any more, and may be there still: it is deleted as soon as its storage system answers. */
export const GarbageRecord = RealVolumeReference.extend({ volume: z.string() });
export type GarbageRecord = z.infer<typeof GarbageRecord>;

// Inputs of operations: what was asked for, and `plan`, what is to be done for it, which stays in the directory.

export const DeleteInput = z.object({ force: z.boolean() });
export type DeleteInput = z.infer<typeof DeleteInput>;

const ResizePlan = z.discriminatedUnion('kind', [
  /** The segments as they shall be. */
  z.object({ kind: z.literal('grow'), segments: z.array(SegmentRecord) }),
  /** What the volume's record has let go of: a tail of the last segment's copies, and whole real volumes. */
  z.object({
    kind: z.literal('shrink'),
    cuts: z.array(RealVolumeReference.extend({ toBytes: Bytes })),
    removed: z.array(RealVolumeReference),
  }),
]);
export const ResizeInput = z.object({
  sizeBytes: VolumeSize,
  fromBytes: VolumeSize,
  allowShrink: z.boolean(),
  plan: ResizePlan,
});
export type ResizeInput = z.infer<typeof ResizeInput>;

export const AddCopyInput = z.object({
  storage: StorageName,
  /** In the order of the segments. */
  plan: z.object({ copies: z.array(CopyRecord) }),
});
export type AddCopyInput = z.infer<typeof AddCopyInput>;

/** The record has let go of them. */
export const RemoveCopyInput = z.object({
  storage: StorageName,
  plan: z.object({ removed: z.array(RealVolumeReference) }),
});
export type RemoveCopyInput = z.infer<typeof RemoveCopyInput>;

export const WantedInput = z.object({ storage: StorageName });
export type WantedInput = z.infer<typeof WantedInput>;

/** Another primary for some segments. */
export const MoveInput = z.object({
  storage: StorageName.optional(),
  site: SiteName.optional(),
  force: z.boolean().optional(),
  /** The primaries of before have said that they do not want to be it. */
  hasGivenWay: z.boolean().optional(),
  plan: z.object({
    moves: z.array(z.object({ offset: Bytes, from: RealVolumeId, to: RealVolumeId })).min(1),
  }),
});
export type MoveInput = z.infer<typeof MoveInput>;

export type PeerKind = 'storage' | 'gateway';
/** As `storage/east-1`. */
export type PeerKey = `${PeerKind}/${string}`;

const EVENT_DIGITS = 16;

export const keys = {
  root: '/',
  cluster: '/cluster',
  /** Put by every transaction that changes what gateways are told: its revision is the information's, and its comparison orders them all. */
  information: '/information',
  volume: (name: VolumeName) => `/volumes/${name}`,
  storage: (name: StorageName) => `/storage/${name}`,
  gateway: (name: GatewayName) => `/gateways/${name}`,
  interface: (name: InterfaceName) => `/interfaces/${name}`,
  group: (name: GroupName) => `/groups/${name}`,
  operation: (id: OperationId) => `/operations/${id}`,
  event: (id: number) => `/events/${String(id).padStart(EVENT_DIGITS, '0')}`,
  garbage: (id: RealVolumeId) => `/garbage/${id}`,
  presence: (peer: PeerKey) => `/presence/${peer}`,
  announcement: (peer: PeerKey) => `/announced/${peer}`,
  instance: (name: StorageName) => `/instances/${name}`,
};

const TABLES = {
  cluster: ClusterRecord,
  information: z.object({}),
  volumes: VolumeRecord,
  storage: StorageRecord,
  gateways: GatewayRecord,
  interfaces: InterfaceRecord,
  groups: GroupRecord,
  operations: OperationRecord,
  events: EventRecord,
  garbage: GarbageRecord,
  presence: PresenceRecord,
  announced: AnnouncementRecord,
  instances: InstanceRecord,
};
type Tables = typeof TABLES;

/** A change of one table; `id` is what follows the table's name in the key; null: it is gone. */
export type RecordChange = {
  [Table in keyof Tables]: {
    readonly table: Table;
    readonly id: string;
    readonly record: z.infer<Tables[Table]> | null;
  };
}[keyof Tables];

export function decode(key: string, value: object | null): RecordChange {
  const [, table = '', id = ''] = /^\/([a-z]+)(?:\/(.*))?$/s.exec(key) ?? [];
  assert(Object.hasOwn(TABLES, table), `the catalog has a key ${key}`);
  const record = value === null ? null : TABLES[table as keyof Tables].parse(value);
  return { table, id, record } as RecordChange;
}
