/**
 * The catalog in one SQLite file: a CatalogStore for one directory.
 *
 * Invariants
 *  1. What is in memory (revision, history) follows a commit, never precedes it.
 *  2. The history begins with the commits of this process, and is bounded in number and bytes.
 *  3. A key's lease is written down with its time, so that it goes on when the file is opened again; the deadline is memory's.
 */

import { randomUUID } from 'node:crypto';
import { assert, StoreError } from '../model/errors.ts';
import { type MetadataStore, openMetadataStore } from '../storage/metadata-store.ts';
import {
  type CatalogStore,
  type Change,
  type Commit,
  CompactedError,
  type Entry,
  LeaseError,
  type LeaseId,
  type Transaction,
  type TransactionResult,
} from './catalog-store.ts';
import { Leases } from './leases.ts';

/** "VolD" */
const APPLICATION_ID = 0x566f6c44;

const MIGRATIONS = [
  `CREATE TABLE entries (
     key      TEXT PRIMARY KEY,
     value    TEXT NOT NULL,
     revision INTEGER NOT NULL,
     lease    TEXT,
     ttl_ms   INTEGER
   ) STRICT, WITHOUT ROWID;
   CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
   CREATE TABLE store (revision INTEGER NOT NULL) STRICT;
   INSERT INTO store VALUES (0);`,
];

export interface HistoryBounds {
  readonly commitsMax: number;
  readonly bytesMax: number;
}

const HISTORY: HistoryBounds = { commitsMax: 10_000, bytesMax: 32 * 1024 * 1024 };

/** After a disk error, leases that are due are looked at again. */
const EXPIRY_RETRY_MS = 1_000;

interface Row {
  readonly key: string;
  readonly value: string;
  readonly revision: number;
}

export class SqliteStore implements CatalogStore {
  readonly #metadata: MetadataStore;
  readonly #bounds: HistoryBounds;
  readonly #leases = new Leases((leases) => this.#expire(leases));
  readonly #wakeWatchers = new Set<() => void>();
  #history: { readonly commit: Commit; readonly bytes: number }[] = [];
  #historyBytes = 0;
  #revision: number;
  #closed = false;

  /** @throws UsageError, StoreError */
  static open(path: string, bounds = HISTORY): SqliteStore {
    return new SqliteStore(
      openMetadataStore(path, { applicationId: APPLICATION_ID, migrations: MIGRATIONS }),
      bounds,
    );
  }

  private constructor(metadata: MetadataStore, bounds: HistoryBounds) {
    this.#metadata = metadata;
    this.#bounds = bounds;
    this.#revision = metadata.read<{ revision: number }>('SELECT revision FROM store')[0]?.revision ?? 0;
    const leases = metadata.read<{ lease: string; ttl_ms: number }>(
      'SELECT DISTINCT lease, ttl_ms FROM entries WHERE lease IS NOT NULL',
    );
    for (const { lease, ttl_ms } of leases) this.#leases.grant(lease, ttl_ms);
  }

  async get(key: string): Promise<Entry | undefined> {
    const [row] = this.#metadata.read<Row>('SELECT key, value, revision FROM entries WHERE key = ?', key);
    return row && entryOf(row);
  }

  async range(prefix: string): Promise<{ revision: number; entries: Entry[] }> {
    assert(prefix.endsWith('/'), 'a prefix ends with a slash');
    const end = `${prefix.slice(0, -1)}0`; // the character after the slash
    const rows = this.#metadata.read<Row>(
      'SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? ORDER BY key',
      prefix,
      end,
    );
    return { revision: this.#revision, entries: rows.map(entryOf) };
  }

  async transaction({ compare, puts, deletes }: Transaction): Promise<TransactionResult> {
    assert(!this.#closed, 'a store that is closed is not written to');
    assert(
      new Set([...puts.map(({ key }) => key), ...deletes]).size === puts.length + deletes.length,
      'a transaction changes a key once',
    );
    const revision = this.#revision + 1;
    const committed = this.#metadata.transaction(() => {
      if (!compare.every(({ key, revision }) => this.#revisionOf(key) === revision)) return undefined;
      const texts: string[] = [];
      const changes: Change[] = [];
      for (const key of deletes) {
        if (this.#metadata.run('DELETE FROM entries WHERE key = ?', key) > 0)
          changes.push({ key, value: null });
      }
      for (const { key, value, lease } of puts) {
        const text = JSON.stringify(value);
        this.#put(key, text, revision, lease);
        texts.push(text);
        changes.push({ key, value: JSON.parse(text) });
      }
      if (changes.length > 0) this.#metadata.run('UPDATE store SET revision = ?', revision);
      return { changes, bytes: texts.reduce((sum, { length }) => sum + length, 0) };
    });
    if (committed !== undefined) this.#remember(revision, committed.changes, committed.bytes);
    return { committed: committed !== undefined, revision: this.#revision };
  }

  async *watch(afterRevision: number, signal: AbortSignal): AsyncGenerator<Commit> {
    let next = afterRevision + 1;
    let wake: () => void = () => undefined;
    const wakeLatest = (): void => wake();
    this.#wakeWatchers.add(wakeLatest);
    signal.addEventListener('abort', wakeLatest);
    try {
      while (!signal.aborted && !this.#closed) {
        const firstKept = this.#revision - this.#history.length + 1;
        if (next < firstKept)
          throw new CompactedError(`revision ${next} is forgotten: read everything again`);
        const commit = this.#history[next - firstKept]?.commit;
        if (commit === undefined) {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        } else {
          next += 1;
          yield commit;
        }
      }
    } finally {
      this.#wakeWatchers.delete(wakeLatest);
      signal.removeEventListener('abort', wakeLatest);
    }
  }

  async grantLease(ttlMs: number): Promise<LeaseId> {
    const lease = randomUUID();
    this.#leases.grant(lease, ttlMs);
    return lease;
  }

  async keepAlive(lease: LeaseId): Promise<boolean> {
    return this.#leases.keepAlive(lease);
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#leases.close();
    for (const wake of this.#wakeWatchers) wake();
    this.#metadata.close();
  }

  #revisionOf(key: string): number {
    const [row] = this.#metadata.read<Row>('SELECT revision FROM entries WHERE key = ?', key);
    return row?.revision ?? 0;
  }

  #put(key: string, text: string, revision: number, lease: LeaseId | undefined): void {
    const ttlMs = lease === undefined ? undefined : this.#leases.ttlMsOf(lease);
    if (lease !== undefined && ttlMs === undefined) throw new LeaseError(`lease ${lease} has expired`);
    this.#metadata.run(
      'INSERT OR REPLACE INTO entries (key, value, revision, lease, ttl_ms) VALUES (?, ?, ?, ?, ?)',
      key,
      text,
      revision,
      lease ?? null,
      ttlMs ?? null,
    );
  }

  #remember(revision: number, changes: Change[], bytes: number): void {
    if (changes.length === 0) return;
    this.#revision = revision;
    this.#history.push({ commit: { revision, changes }, bytes });
    this.#historyBytes += bytes;
    const { commitsMax, bytesMax } = this.#bounds;
    while (this.#history.length > 1 && (this.#history.length > commitsMax || this.#historyBytes > bytesMax)) {
      this.#historyBytes -= this.#history.shift()?.bytes ?? 0;
    }
    for (const wake of this.#wakeWatchers) wake();
  }

  #expire(leases: LeaseId[]): void {
    try {
      const revision = this.#revision + 1;
      const changes = this.#metadata.transaction(() => {
        const gone = leases.flatMap((lease) =>
          this.#metadata
            .read<Row>('SELECT key FROM entries WHERE lease = ?', lease)
            .map(({ key }): Change => ({ key, value: null })),
        );
        for (const { key } of gone) this.#metadata.run('DELETE FROM entries WHERE key = ?', key);
        if (gone.length > 0) this.#metadata.run('UPDATE store SET revision = ?', revision);
        return gone;
      });
      this.#remember(revision, changes, 0);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      for (const lease of leases) this.#leases.grant(lease, EXPIRY_RETRY_MS);
    }
  }
}

function entryOf({ key, value, revision }: Row): Entry {
  return { key, value: JSON.parse(value), revision };
}
