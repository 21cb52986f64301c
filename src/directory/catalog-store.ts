/**
 * CatalogStore: where the catalog lies. No more than etcd can do too: keys with JSON objects, one revision that counts
 * commits, compare-and-swap transactions, watches, leases. sqlite-store.ts is the one for a single directory.
 *
 * What every store keeps (test/unit/directory/catalog-store-contract.ts):
 *  1. A transaction happens wholly or not at all, and is durable when it is answered. Each that changes something raises the
 *     store's revision by one; a key's revision is that of the transaction which last put it, 0 when there is no such key.
 *  2. A watch brings every commit after the revision that it starts from, once, in order, as a whole. It remembers a bounded number
 *     of commits: who is further behind gets a CompactedError, and reads everything again.
 *  3. Keys put with a lease go, in one commit, when nobody has kept the lease alive for its time. A store that is opened again
 *     gives every lease its full time once more.
 */

import { VolaryError } from '../model/errors.ts';

export interface Entry {
  readonly key: string;
  readonly value: object;
  readonly revision: number;
}

export interface Comparison {
  readonly key: string;
  /** 0: there must be no such key. */
  readonly revision: number;
}

export interface Put {
  readonly key: string;
  readonly value: object;
  /** Without one, the key is of no lease any more. */
  readonly lease?: LeaseId | undefined;
}

export interface Transaction {
  readonly compare: readonly Comparison[];
  /** Each key is changed once at most. */
  readonly puts: readonly Put[];
  readonly deletes: readonly string[];
}

/** The store's revision afterwards; when a comparison did not hold, nothing has been changed. */
export interface TransactionResult {
  readonly committed: boolean;
  readonly revision: number;
}

export interface Change {
  readonly key: string;
  /** null: deleted. */
  readonly value: object | null;
}

export interface Commit {
  readonly revision: number;
  readonly changes: readonly Change[];
}

export type LeaseId = string;

/** Keys are paths as `/volumes/NAME`; a prefix ends with `/`. */
export interface CatalogStore {
  get(key: string): Promise<Entry | undefined>;
  /** All of one moment, in the order of their keys' bytes. */
  range(prefix: string): Promise<{ readonly revision: number; readonly entries: Entry[] }>;
  /** @throws LeaseError when a lease is not there any more; StoreError */
  transaction(transaction: Transaction): Promise<TransactionResult>;
  /** Ends with `signal` or the store. @throws CompactedError */
  watch(afterRevision: number, signal: AbortSignal): AsyncIterable<Commit>;
  grantLease(ttlMs: number): Promise<LeaseId>;
  /** False: it has expired, or never was. */
  keepAlive(lease: LeaseId): Promise<boolean>;
  close(): Promise<void>;
}

export class CompactedError extends VolaryError {
  readonly code = 'compacted';
}

export class LeaseError extends VolaryError {
  readonly code = 'no-lease';
}
