/**
 * The catalog as it is, decoded, in memory: fed by the store's own watch, and by nothing else. Records are never changed in place.
 */

import type {
  EventRecord,
  GatewayRecord,
  GroupRecord,
  InterfaceRecord,
  OperationRecord,
  SegmentRecord,
  StorageRecord,
  VolumeRecord,
} from '../control-protocol/catalog.ts';
import type { RealVolumeId, StorageName } from '../control-protocol/names.ts';
import { assert } from '../model/errors.ts';
import type { Commit, Entry } from './catalog-store.ts';
import {
  type AnnouncementRecord,
  type ClusterRecord,
  decode,
  type GarbageRecord,
  type InstanceRecord,
  keys,
  type PresenceRecord,
  type RecordChange,
} from './records.ts';

export class CatalogView {
  cluster: ClusterRecord | undefined;
  readonly volumes = new Map<string, VolumeRecord>();
  readonly storage = new Map<string, StorageRecord>();
  readonly gateways = new Map<string, GatewayRecord>();
  readonly interfaces = new Map<string, InterfaceRecord>();
  readonly groups = new Map<string, GroupRecord>();
  readonly operations = new Map<string, OperationRecord>();
  readonly garbage = new Map<string, GarbageRecord>();
  readonly presence = new Map<string, PresenceRecord>();
  readonly announced = new Map<string, AnnouncementRecord>();
  readonly instances = new Map<string, InstanceRecord>();
  /** Oldest first, ids without gaps. */
  readonly events: EventRecord[] = [];

  readonly #ownerOf = new Map<RealVolumeId, string>();
  /** Of volumes. */
  readonly #countAt = new Map<StorageName, number>();
  readonly #revisions = new Map<string, number>();
  #revision = 0;

  /** Of the store. */
  get revision(): number {
    return this.#revision;
  }

  /** Of what gateways are told: the revision that last changed it. */
  get informationRevision(): number {
    return this.revisionOf(keys.information);
  }

  get newestEventId(): number {
    return this.events.at(-1)?.id ?? 0;
  }

  /** 0: there is no such key. */
  revisionOf(key: string): number {
    return this.#revisions.get(key) ?? 0;
  }

  /** Name of the volume that the real volume belongs to. */
  ownerOf(realVolume: RealVolumeId): string | undefined {
    return this.#ownerOf.get(realVolume);
  }

  /** How many real volumes the catalog knows at a storage system: of volumes, and those that are to be deleted. */
  realVolumesAt(storage: StorageName): number {
    let count = this.#countAt.get(storage) ?? 0;
    for (const garbage of this.garbage.values()) if (garbage.storage === storage) count += 1;
    return count;
  }

  load(revision: number, entries: readonly Entry[]): void {
    assert(this.#revision === 0, 'a view is loaded once');
    this.#revision = revision;
    for (const { key, value, revision } of entries) {
      this.#revisions.set(key, revision);
      this.#take(decode(key, value));
    }
  }

  apply({ revision, changes }: Commit): RecordChange[] {
    assert(revision === this.#revision + 1, 'commits come one after the other');
    this.#revision = revision;
    return changes.map(({ key, value }) => {
      if (value === null) this.#revisions.delete(key);
      else this.#revisions.set(key, revision);
      const change = decode(key, value);
      this.#take(change);
      return change;
    });
  }

  #take(change: RecordChange): void {
    switch (change.table) {
      case 'cluster':
        this.cluster = change.record ?? undefined;
        break;
      case 'information':
        break;
      case 'volumes':
        this.#takeVolume(change.id, change.record);
        break;
      case 'events':
        this.#takeEvent(Number(change.id), change.record);
        break;
      case 'storage':
        putOrDelete(this.storage, change.id, change.record);
        break;
      case 'gateways':
        putOrDelete(this.gateways, change.id, change.record);
        break;
      case 'interfaces':
        putOrDelete(this.interfaces, change.id, change.record);
        break;
      case 'groups':
        putOrDelete(this.groups, change.id, change.record);
        break;
      case 'operations':
        putOrDelete(this.operations, change.id, change.record);
        break;
      case 'garbage':
        putOrDelete(this.garbage, change.id, change.record);
        break;
      case 'presence':
        putOrDelete(this.presence, change.id, change.record);
        break;
      case 'announced':
        putOrDelete(this.announced, change.id, change.record);
        break;
      case 'instances':
        putOrDelete(this.instances, change.id, change.record);
        break;
      default:
        change satisfies never;
    }
  }

  #takeVolume(name: string, record: VolumeRecord | null): void {
    for (const { storage, realVolume } of copiesOf(this.volumes.get(name))) {
      this.#ownerOf.delete(realVolume);
      this.#countAt.set(storage, (this.#countAt.get(storage) ?? 0) - 1);
    }
    for (const { storage, realVolume } of copiesOf(record)) {
      this.#ownerOf.set(realVolume, name);
      this.#countAt.set(storage, (this.#countAt.get(storage) ?? 0) + 1);
    }
    putOrDelete(this.volumes, name, record);
  }

  #takeEvent(id: number, record: EventRecord | null): void {
    if (record === null) {
      assert(this.events.shift()?.id === id, 'the oldest event is forgotten first');
      return;
    }
    assert(this.events.length === 0 || record.id === this.newestEventId + 1, 'event ids have no gaps');
    this.events.push(record);
  }
}

function copiesOf(volume: VolumeRecord | null | undefined): SegmentRecord['copies'] {
  return (volume?.segments ?? []).flatMap(({ copies }) => copies);
}

function putOrDelete<T>(table: Map<string, T>, id: string, record: T | null): void {
  if (record === null) table.delete(id);
  else table.set(id, record);
}
