/**
 * The catalog's records: what the directory keeps (first information) and what gateways are told of it (second
 * information). They are made and changed by the directory alone.
 *
 * Invariants of a VolumeRecord, which the directory's writer asserts:
 *  1. The segments follow one another without gaps from offset 0, and cover `sizeBytes` when the state is `ready`.
 *  2. Every segment has exactly one primary; all inner borders are multiples of 4,096.
 *  3. A real volume belongs to one segment of one volume.
 *  4. An epoch never becomes smaller.
 *  5. The copies of a segment are on different storage systems. A primary's pair is `simplex`, a secondary's is not; only what
 *     is suspended has a reason.
 */

import { z } from 'zod';
import {
  AccessKey,
  Bytes,
  Endpoint,
  Epoch,
  GatewayName,
  GroupName,
  HttpUrl,
  Identity,
  InterfaceName,
  OperationId,
  RealVolumeId,
  SiteName,
  StorageName,
  VolumeName,
} from './names.ts';

export const Instant = z.iso.datetime();

const AnyJson = z.json();

/** Any JSON value. For OpenAPI that is any value: the schema of z.json() refers to itself, by a name that no document has. */
const Json = z.custom<z.infer<typeof AnyJson>>((value) => AnyJson.safeParse(value).success, 'must be JSON');

/** Of a secondary with its primary; a primary's own is `simplex`. */
export const PairState = z.enum(['simplex', 'copying', 'duplex', 'suspended']);
export type PairState = z.infer<typeof PairState>;

/** Why a pair is suspended. */
export const SuspendReason = z.enum([
  'new', //         it has just been added
  'asked', //       a person did
  'unreachable', // no connection, or no answer in time
  'failed', //      it could not write
  'was-primary', // it has not come back since it was primary
  'refused', //     it does not take this primary
]);
export type SuspendReason = z.infer<typeof SuspendReason>;

/** One copy of a segment: a range of a real volume. */
export const CopyRecord = z.object({
  storage: StorageName,
  realVolume: RealVolumeId,
  /** Where the segment's first byte is in the real volume. */
  realOffset: Bytes,
  role: z.enum(['primary', 'secondary']),
  /** `duplex` is promotable: it holds every write that was answered (replication/SPEC.md). */
  pair: PairState,
  reason: SuspendReason.nullable().default(null),
  /** `suspended`: a person wants no copying for now. */
  wanted: z.enum(['following', 'suspended']).default('following'),
  /** Counts what has been recorded of the pair: a report that knows an older one does not make it `duplex`. */
  pairRevision: z.int().min(0).default(0),
  mode: z.enum(['normal', 'through', 'pending', 'migrating']),
  accessKey: AccessKey,
  /** Path of the raw file on its storage system; null until it has been made. */
  file: z.string().nullable(),
});
export type CopyRecord = z.infer<typeof CopyRecord>;

/** A stretch of a virtual volume and its copy group. */
export const SegmentRecord = z.object({
  offset: Bytes,
  length: Bytes,
  epoch: Epoch,
  /** The primary of the epoch has taken over from one that handed over, or is the first: no lease has to be waited out. */
  isHandedOver: z.boolean().default(true),
  /** A person has forced the primary of the epoch, though it was not promotable: what it knows of the others counts for nothing. */
  isForced: z.boolean().default(false),
  /** It has, or had, more than one copy: its members are told the group that they are. */
  isGrouped: z.boolean().default(false),
  /** What the catalog's revisions are behind those that members have been told: an older catalog was put back. */
  revisionsMissed: z.int().min(0).optional(),
  copies: z.array(CopyRecord).min(1),
});
export type SegmentRecord = z.infer<typeof SegmentRecord>;

export const VolumeState = z.enum([
  'creating', // real volumes are being made; nobody may use it yet
  'ready',
  'resizing', // in use, at the size that it says
  'deleting', // nobody may use it any more
]);

export const VolumeRecord = z.object({
  name: VolumeName,
  sizeBytes: Bytes,
  state: VolumeState,
  group: GroupName.nullable(),
  /** What becomes of a write when a secondary cannot be reached (SPEC.md R6). */
  fence: z.enum(['never', 'status', 'data']).default('never'),
  segments: z.array(SegmentRecord),
  /** What is going on with it: at most one operation at a time. */
  operation: OperationId.nullable(),
  createdAt: Instant,
});
export type VolumeRecord = z.infer<typeof VolumeRecord>;

export const StorageRecord = z.object({
  name: StorageName,
  site: SiteName,
  /** Of its data folder: another folder is another storage system. */
  id: Identity,
  nbd: Endpoint,
  peer: Endpoint,
  manage: HttpUrl,
  capacityBytes: Bytes,
  /** Path of its data folder, on its machine. */
  folder: z.string(),
});
export type StorageRecord = z.infer<typeof StorageRecord>;

export const GatewayRecord = z.object({
  name: GatewayName,
  site: SiteName,
  id: Identity,
  /** NBD URIs without export name. */
  uris: z.array(z.string()).min(1),
  manage: HttpUrl,
});
export type GatewayRecord = z.infer<typeof GatewayRecord>;

export const ErrorBody = z.object({ code: z.string(), message: z.string() });
export type ErrorBody = z.infer<typeof ErrorBody>;

export const OperationRecord = z.object({
  id: OperationId,
  kind: z.enum([
    'create-volume',
    'resize-volume',
    'delete-volume',
    'add-copy',
    'remove-copy',
    'suspend-copy',
    'resync-copy',
    'switch-copy',
    'failover-copy',
  ]),
  volume: VolumeName,
  /** `undoing`: it failed, and takes back what it had begun. */
  state: z.enum(['running', 'undoing', 'done', 'failed']),
  /** The step that comes next; names differ by kind. */
  step: z.string(),
  input: z.record(z.string(), Json),
  /** What there is to say of it when it is done, as `handOverMs` of a switch. */
  result: z.record(z.string(), Json).nullable().default(null),
  error: ErrorBody.nullable(),
  createdAt: Instant,
  finishedAt: Instant.nullable(),
});
export type OperationRecord = z.infer<typeof OperationRecord>;

/** Where a host is attached. */
export const InterfaceRecord = z.object({
  name: InterfaceName,
  /** Nearest first. */
  sites: z.array(SiteName).min(1).max(64),
});
export type InterfaceRecord = z.infer<typeof InterfaceRecord>;

/** A consistency group: volumes whose writes share one order. */
export const GroupRecord = z.object({
  name: GroupName,
  transfer: z.enum(['sync', 'async']),
  fence: z.enum(['never', 'status', 'data']),
  createdAt: Instant,
});
export type GroupRecord = z.infer<typeof GroupRecord>;

/** Something that happened; `id` counts from 1 without gaps. */
export const EventRecord = z.object({
  id: z.int().min(1),
  at: Instant,
  /** As `volume.created`, `storage.offline`. */
  kind: z.string(),
  /** What it happened to. */
  subject: z.string(),
  text: z.string(),
  details: z.record(z.string(), Json),
});
export type EventRecord = z.infer<typeof EventRecord>;

/** What a gateway knows: the directory's knowledge at one revision. */
export const SecondInformation = z.object({
  clusterId: Identity,
  revision: z.int().min(0),
  volumes: z.array(VolumeRecord),
  storage: z.array(StorageRecord),
});
export type SecondInformation = z.infer<typeof SecondInformation>;

/** What has changed since the revision before: whole records, and the names of those that are gone. */
export const InformationChange = z.object({
  revision: z.int().min(0),
  volumes: z.array(VolumeRecord),
  removedVolumes: z.array(VolumeName),
  storage: z.array(StorageRecord),
  removedStorage: z.array(StorageName),
});
export type InformationChange = z.infer<typeof InformationChange>;
