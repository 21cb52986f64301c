/**
 * The catalog: everything is read from its view, and changed by `change` alone.
 *
 * Invariants
 *  1. A change is decided on a view and takes place only if no record that it touches has changed since: otherwise it is
 *     decided again. Whatever concerns volumes or storage systems compares the information's revision, so that no two of
 *     these are decided on the same view (two volumes never get the same room). Who is online may have changed meanwhile.
 *  2. When `change` answers, it is durable, and the view has it.
 *  3. Every VolumeRecord that is written keeps its invariants.
 */

import type {
  EventRecord,
  GatewayRecord,
  GroupRecord,
  InterfaceRecord,
  OperationRecord,
  StorageRecord,
  VolumeRecord,
} from '../control-protocol/catalog.ts';
import type { InterfaceName, RealVolumeId, StorageName, VolumeName } from '../control-protocol/names.ts';
import { assert, ControlError } from '../model/errors.ts';
import type { CatalogStore, LeaseId, Put } from './catalog-store.ts';
import { CatalogView } from './catalog-view.ts';
import {
  type AnnouncementRecord,
  type ClusterRecord,
  type GarbageRecord,
  type InstanceRecord,
  keys,
  type PeerKey,
  type RecordChange,
} from './records.ts';
import { assertVolume } from './volume-invariants.ts';

export type NewEvent = Omit<EventRecord, 'id' | 'at'>;

/** How much is remembered. */
export interface Memory {
  readonly eventsMax: number;
  /** Operations that have finished. They are forgotten some at a time. */
  readonly operationsMax: number;
}

const MEMORY: Memory = { eventsMax: 10_000, operationsMax: 1_000 };

export interface CatalogOptions {
  readonly store: CatalogStore;
  readonly now: () => Date;
  readonly memory?: Memory;
}

/** After each commit that the view has taken. */
export type CommitListener = (changes: readonly RecordChange[]) => void;

export class Catalog {
  readonly view = new CatalogView();
  readonly store: CatalogStore;
  readonly #now: () => Date;
  readonly #memory: Memory;
  readonly #ended = new AbortController();
  readonly #listeners = new Set<CommitListener>();
  #waiting: { readonly revision: number; readonly resolve: () => void }[] = [];
  #following: Promise<void> = Promise.resolve();
  #lastChange: Promise<unknown> = Promise.resolve();
  #closed = false;

  static async open(options: CatalogOptions): Promise<Catalog> {
    const catalog = new Catalog(options);
    const { revision, entries } = await options.store.range(keys.root);
    catalog.view.load(revision, entries);
    catalog.#following = catalog.#follow();
    return catalog;
  }

  private constructor({ store, now, memory = MEMORY }: CatalogOptions) {
    this.store = store;
    this.#now = now;
    this.#memory = memory;
  }

  /** `decide` may be called more than once; when it throws, nothing is changed. @throws StoreError, and what `decide` throws */
  change<T>(decide: (draft: Draft) => T): Promise<T> {
    if (this.#closed) return Promise.reject(new ControlError('unavailable', 'the directory is stopping'));
    const result = this.#lastChange.then(() => this.#change(decide));
    this.#lastChange = result.catch(() => undefined);
    return result;
  }

  onCommit(listener: CommitListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Lets what is being changed finish; the store stays open. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#lastChange;
    this.#ended.abort();
    await this.#following;
  }

  async #change<T>(decide: (draft: Draft) => T): Promise<T> {
    for (;;) {
      const draft = new Draft(this.view, this.#now(), this.#memory);
      const result = decide(draft);
      const transaction = draft.transaction();
      if (transaction === undefined) return result;
      const { committed, revision } = await this.store.transaction(transaction);
      await this.#reached(revision);
      if (committed) return result;
    }
  }

  #reached(revision: number): Promise<void> {
    if (this.view.revision >= revision) return Promise.resolve();
    return new Promise((resolve) => this.#waiting.push({ revision, resolve }));
  }

  async #follow(): Promise<void> {
    for await (const commit of this.store.watch(this.view.revision, this.#ended.signal)) {
      const changes = this.view.apply(commit);
      for (const { revision, resolve } of this.#waiting) if (revision <= commit.revision) resolve();
      this.#waiting = this.#waiting.filter(({ revision }) => revision > commit.revision);
      for (const listener of this.#listeners) listener(changes);
    }
  }
}

/** What one transaction will change, decided on a view. */
export class Draft {
  readonly view: CatalogView;
  readonly now: string;
  readonly #memory: Memory;
  readonly #puts = new Map<string, Put>();
  readonly #deletes = new Set<string>();
  #events = 0;
  #eventsForgotten = 0;

  constructor(view: CatalogView, now: Date, memory: Memory) {
    this.view = view;
    this.now = now.toISOString();
    this.#memory = memory;
  }

  putCluster(record: ClusterRecord): void {
    this.#put({ key: keys.cluster, value: record });
  }

  putVolume(record: VolumeRecord): void {
    assertVolume(record, this.view.volumes.get(record.name), (id: RealVolumeId) => this.view.ownerOf(id));
    this.#putInformation({ key: keys.volume(record.name), value: record });
  }

  removeVolume(name: VolumeName): void {
    this.#delete(keys.volume(name));
    this.#touchInformation();
  }

  putStorage(record: StorageRecord): void {
    this.#putInformation({ key: keys.storage(record.name), value: record });
  }

  putGateway(record: GatewayRecord): void {
    this.#put({ key: keys.gateway(record.name), value: record });
  }

  putInterface(record: InterfaceRecord): void {
    this.#put({ key: keys.interface(record.name), value: record });
  }

  removeInterface(name: InterfaceName): void {
    this.#delete(keys.interface(name));
  }

  putGroup(record: GroupRecord): void {
    this.#put({ key: keys.group(record.name), value: record });
  }

  /** Forgets the oldest finished ones when they have become too many by a tenth. */
  putOperation(record: OperationRecord): void {
    this.#put({ key: keys.operation(record.id), value: record });
    const { operationsMax } = this.#memory;
    if (record.finishedAt === null) return;
    const finished = [...this.view.operations.values()].filter(({ finishedAt }) => finishedAt !== null);
    if (finished.length < 1.1 * operationsMax) return;
    finished.sort((a, b) => (String(a.finishedAt) < String(b.finishedAt) ? -1 : 1));
    for (const { id } of finished.slice(0, finished.length - operationsMax)) this.#delete(keys.operation(id));
  }

  putGarbage(record: GarbageRecord): void {
    this.#put({ key: keys.garbage(record.realVolume), value: record });
  }

  removeGarbage(record: GarbageRecord): void {
    this.#delete(keys.garbage(record.realVolume));
  }

  putPresence(peer: PeerKey, lease: LeaseId): void {
    this.#put({ key: keys.presence(peer), value: { lease }, lease });
  }

  putInstance(name: StorageName, record: InstanceRecord): void {
    this.#put({ key: keys.instance(name), value: record });
  }

  putAnnouncement(peer: PeerKey, record: AnnouncementRecord): void {
    this.#put({ key: keys.announcement(peer), value: record });
  }

  addEvent(event: NewEvent): void {
    this.#events += 1;
    const id = this.view.newestEventId + this.#events;
    this.#put({ key: keys.event(id), value: { id, at: this.now, ...event } satisfies EventRecord });
    for (;;) {
      const oldest = this.view.events[this.#eventsForgotten];
      if (oldest === undefined || oldest.id > id - this.#memory.eventsMax) return;
      this.#delete(keys.event(oldest.id));
      this.#eventsForgotten += 1;
    }
  }

  /** undefined: nothing is to be changed. */
  transaction() {
    const puts = [...this.#puts.values()];
    const deletes = [...this.#deletes];
    if (puts.length + deletes.length === 0) return undefined;
    const touched = [...puts.map(({ key }) => key), ...deletes];
    return { compare: touched.map((key) => ({ key, revision: this.view.revisionOf(key) })), puts, deletes };
  }

  #putInformation(put: Put): void {
    this.#put(put);
    this.#touchInformation();
  }

  #touchInformation(): void {
    this.#puts.set(keys.information, { key: keys.information, value: {} });
  }

  #put(put: Put): void {
    assert(!this.#puts.has(put.key) && !this.#deletes.has(put.key), `${put.key} is changed once`);
    this.#puts.set(put.key, put);
  }

  #delete(key: string): void {
    assert(!this.#puts.has(key) && !this.#deletes.has(key), `${key} is changed once`);
    this.#deletes.add(key);
  }
}
