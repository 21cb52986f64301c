/**
 * Deletes real volumes that are no volume's any more, as soon as their storage system is online, for as long as it takes: none is
 * leaked, and their room is free again only when they are gone.
 */

import { ControlError, StoreError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Catalog } from './catalog.ts';
import type { Peers } from './peers.ts';
import type { GarbageRecord } from './records.ts';

/** After a round in which something could not be deleted. */
const RETRY_MS = 5_000;
/** Deleted before the catalog forgets them together. */
const BATCH = 100;

export interface GarbageCollectorOptions {
  readonly catalog: Catalog;
  readonly peers: Peers;
  readonly log: Log;
  readonly retryMs?: number;
}

export class GarbageCollector {
  readonly #options: GarbageCollectorOptions;
  readonly #stopListening: () => void;
  #collecting = false;
  #again = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: GarbageCollectorOptions) {
    this.#options = options;
    this.#stopListening = options.catalog.onCommit((changes) => {
      if (changes.some(({ table, record }) => record !== null && /^(garbage|presence)$/.test(table)))
        this.collect();
    });
  }

  /** Begins a round, or another one after that which is under way. */
  collect(): void {
    this.#again = true;
    if (this.#collecting || this.#stopped) return;
    this.#collecting = true;
    this.#rounds().finally(() => {
      this.#collecting = false;
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#stopListening();
    clearTimeout(this.#timer);
  }

  async #rounds(): Promise<void> {
    while (this.#again && !this.#stopped) {
      this.#again = false;
      const byStorage = Map.groupBy(this.#options.catalog.view.garbage.values(), ({ storage }) => storage);
      const complete = await Promise.all([...byStorage.values()].map((records) => this.#clear(records)));
      if (this.#stopped || complete.every(Boolean)) continue;
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.collect(), this.#options.retryMs ?? RETRY_MS).unref();
    }
  }

  /** Of one storage system. False: something is left. */
  async #clear(records: GarbageRecord[]): Promise<boolean> {
    const { catalog, peers, log } = this.#options;
    const [first] = records;
    const record = first && catalog.view.storage.get(first.storage);
    if (record === undefined || !catalog.view.presence.has(`storage/${record.name}`)) return true; // its return begins a round
    const peer = peers.storage(record);
    const gone: GarbageRecord[] = [];
    let complete = true;
    for (const each of records.slice(0, BATCH)) {
      if (this.#stopped) return false;
      try {
        await peer.deleteRealVolume(each.realVolume, true);
        gone.push(each);
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
        complete = false;
        log.warn({ ...each, error: error.message }, 'a real volume cannot be deleted yet');
        if (error.code === 'unreachable') break;
      }
    }
    if (this.#stopped) return false;
    if (complete && records.length > BATCH) this.#again = true;
    return (await this.#forget(gone)) && complete;
  }

  async #forget(gone: readonly GarbageRecord[]): Promise<boolean> {
    const { catalog, log } = this.#options;
    try {
      await catalog.change((draft) => {
        for (const each of gone) draft.removeGarbage(each);
      });
      return true;
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      log.error({ error: error.message }, 'deleted real volumes cannot be forgotten yet');
      return false;
    }
  }
}
