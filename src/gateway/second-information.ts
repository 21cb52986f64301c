/**
 * Second information: what a gateway knows of volumes and storage systems, made from what the directory tells (its first
 * information). Pure: a message and what is known give what is known next.
 *
 * Invariants
 *  1. It is always one that the directory had: whole, at one revision. Nothing is put together from several answers.
 *  2. It is of one cluster for ever; another cluster's is refused.
 *  3. A change that is not newer than what is known is nothing. A snapshot counts whatever its revision is: the directory
 *     may have been put back from a backup, and it alone knows what is.
 */

import type {
  InformationChange,
  SecondInformation,
  StorageRecord,
  VolumeRecord,
} from '../control-protocol/catalog.ts';
import type { WatchMessage } from '../control-protocol/directory-client.ts';
import type { Epoch, RealVolumeId, StorageName, VolumeName } from '../control-protocol/names.ts';
import { formatRealVolumeExport } from '../control-protocol/real-volume-export.ts';
import type { RemoteTarget } from '../nbd-client/remote-volume.ts';

export interface Information {
  readonly clusterId: string;
  readonly revision: number;
  readonly volumes: ReadonlyMap<string, VolumeRecord>;
  readonly storage: ReadonlyMap<string, StorageRecord>;
}

export type Reduction =
  | { readonly kind: 'next'; readonly information: Information }
  | { readonly kind: 'nothing' }
  | { readonly kind: 'wrong-cluster'; readonly clusterId: string };

export function informationOf({ clusterId, revision, volumes, storage }: SecondInformation): Information {
  return {
    clusterId,
    revision,
    volumes: new Map(volumes.map((record) => [record.name, record])),
    storage: new Map(storage.map((record) => [record.name, record])),
  };
}

export function recordsOf({ clusterId, revision, volumes, storage }: Information): SecondInformation {
  return { clusterId, revision, volumes: [...volumes.values()], storage: [...storage.values()] };
}

/** `clusterId` is the cluster that has been joined; undefined: none yet. */
export function reduce(
  known: Information | undefined,
  clusterId: string | undefined,
  message: WatchMessage,
): Reduction {
  if (message.kind === 'change') {
    if (known === undefined || message.change.revision <= known.revision) return { kind: 'nothing' };
    return { kind: 'next', information: changed(known, message.change) };
  }
  const { information } = message;
  if (clusterId !== undefined && information.clusterId !== clusterId) {
    return { kind: 'wrong-cluster', clusterId: information.clusterId };
  }
  return { kind: 'next', information: informationOf(information) };
}

function changed(known: Information, change: InformationChange): Information {
  const volumes = new Map(known.volumes);
  const storage = new Map(known.storage);
  for (const name of change.removedVolumes) volumes.delete(name);
  for (const name of change.removedStorage) storage.delete(name);
  for (const record of change.volumes) volumes.set(record.name, record);
  for (const record of change.storage) storage.set(record.name, record);
  return { clusterId: known.clusterId, revision: change.revision, volumes, storage };
}

/** A segment as a gateway uses it: through its primary. */
export interface PlannedSegment {
  readonly offset: number;
  readonly length: number;
  readonly storage: StorageName;
  readonly realVolume: RealVolumeId;
  readonly realOffset: number;
  /** The real volumes of all its copies. */
  readonly copies: readonly RealVolumeId[];
  readonly epoch: Epoch;
  /** The primary of the epoch before has handed over to this one, and serves what it is still asked through to it. */
  readonly isHandedOver: boolean;
  readonly target: RemoteTarget;
}

/** How a volume is served. */
export interface VolumePlan {
  readonly name: VolumeName;
  /** A volume of the same name that was made at another time is another volume. */
  readonly createdAt: string;
  readonly sizeBytes: number;
  readonly segments: readonly PlannedSegment[];
}

export type Planning =
  | { readonly kind: 'plan'; readonly plan: VolumePlan }
  /** Nobody may use it; why, in words. */
  | { readonly kind: 'unusable'; readonly reason: string }
  /** The record, or what it refers to, is not whole; what is served already may stay so. */
  | { readonly kind: 'incomplete'; readonly reason: string }
  | { readonly kind: 'unknown' };

const UNUSABLE = { creating: 'is still being created', deleting: 'is being deleted' } as const;

export function planOf(information: Information | undefined, name: string): Planning {
  const record = information?.volumes.get(name);
  if (information === undefined || record === undefined) return { kind: 'unknown' };
  const { state, sizeBytes, createdAt } = record;
  if (state === 'creating' || state === 'deleting') {
    return { kind: 'unusable', reason: `volume ${name} ${UNUSABLE[state]}` };
  }
  const segments: PlannedSegment[] = [];
  let end = 0;
  for (const { offset, length, epoch, isHandedOver, copies } of record.segments) {
    if (offset >= sizeBytes) break; // a resize has made it, and not put it to use yet
    const primary = copies.find(({ role }) => role === 'primary');
    const storage = primary === undefined ? undefined : information.storage.get(primary.storage);
    if (primary === undefined || storage === undefined || offset !== end) {
      return incomplete(name, end);
    }
    const used = Math.min(length, sizeBytes - offset);
    const { realVolume, accessKey } = primary;
    segments.push({
      offset,
      length: used,
      storage: primary.storage,
      realVolume,
      realOffset: primary.realOffset,
      copies: copies.map(({ realVolume }) => realVolume),
      epoch,
      isHandedOver,
      target: {
        address: storage.nbd,
        exportName: formatRealVolumeExport(realVolume, epoch, accessKey),
        aloneName: formatRealVolumeExport(realVolume, epoch, accessKey, 'alone'),
        description: `${realVolume} (epoch ${epoch}) of storage system ${storage.name}`, // without its key
      },
    });
    end = offset + used;
  }
  if (end !== sizeBytes || segments.length === 0) {
    return incomplete(name, end);
  }
  return { kind: 'plan', plan: { name: record.name, createdAt, sizeBytes, segments } };
}

function incomplete(name: string, offset: number): Planning {
  return { kind: 'incomplete', reason: `it is not known where volume ${name} is from byte ${offset} on` };
}
