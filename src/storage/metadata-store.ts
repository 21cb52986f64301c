/**
 * MetadataStore: what a role must not forget, in one SQLite file that this process alone writes.
 *
 * Invariants
 * 1. What `run` or `transaction` has returned from is durable, whole, after kill -9 and power loss (WAL with
 *    synchronous=FULL: one fsync each). Of what has thrown, nothing is there; only after an 'io' error, and a crash
 *    soon after it, may all of it be.
 * 2. user_version is how many migrations the file has had; each has happened wholly or not at all, with its number.
 * 3. A file that is damaged, somebody else's, or a later version's is refused, with all that it says left as it is.
 * 4. A transaction that has met a StoreError cannot be committed, nor gone on with, even if its function has caught
 *    that: SQLite may have rolled it back already, and each further statement would be a transaction of its own.
 * 5. What the disk has given it when it was opened, volumes cannot take from it: on a disk that they have filled, a record can
 *    still be changed or deleted, without which no volume could be deleted, and no space be freed.
 *
 * All calls are synchronous, and wait for the disk: for metadata, which is small and seldom, never for data.
 */

import { accessSync, closeSync, constants, fstatSync, openSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import * as sys from '../base/syscalls.ts';
import { assert, StoreError, UsageError } from '../model/errors.ts';
import { folderErrorOf } from './errors.ts';
import { folderSpace } from './folder-space.ts';

const BUSY_TIMEOUT_MS = 2000; // somebody may be looking at the file, or taking a copy of it
const STATEMENTS_MAX = 200;
const LOG_BYTES_KEPT = 4 * 1024 * 1024; // of the WAL, when a large transaction has made it longer; SQLite begins it anew earlier
const GROWTH_BYTES_KEPT = 256 * 1024; // of the file itself, beyond its end
const FILE_MODE = 0o600; // its log, and the log's index, get the same from SQLite
const SPACE_NEEDED_BYTES = 64 * 1024; // less than this is a full disk: the WAL's index grows by half of it

/** SQLite's primary result codes, the low byte of errcode; all others are our own mistakes. */
const BUSY = 5;
const LOCKED = 6;
const READONLY = 8;
const IOERR = 10;
const CORRUPT = 11;
const FULL = 13;
const CANTOPEN = 14;
const NOTADB = 26;
const IOERR_SHORT_READ = 522; // an extended one

export interface MetadataStoreOptions {
  /** Says whose file it is, in its header: 1 to 2^31 - 1. */
  readonly applicationId: number;
  /** SQL scripts without BEGIN and COMMIT: the n-th leads from version n - 1 to n. Never changed, only added to. */
  readonly migrations: readonly string[];
}

/** Integers come back as numbers; one beyond 2^53 - 1 throws when it is read. */
export type MetadataValue = null | number | bigint | string | Uint8Array;

/**
 * Makes the file when missing, and brings it to the latest version. Throws UsageError or StoreError. What the store does
 * afterwards throws StoreError, and UsageError ('corrupt-metadata') only for a file that is damaged.
 */
export function openMetadataStore(path: string, options: MetadataStoreOptions): MetadataStore {
  const { applicationId, migrations } = options;
  assert(applicationId > 0 && applicationId === (applicationId | 0), 'an application id has 31 bits');
  refuseWhatIsNoDatabase(path);
  let database: DatabaseSync | undefined;
  try {
    makeWhenMissing(path);
    // References are checked after each migration, not within it: a table that is made anew would lose its rows.
    database = new DatabaseSync(path, { timeout: BUSY_TIMEOUT_MS, enableForeignKeyConstraints: false });
    const version = checkedVersion(database, path, options);
    database.exec('PRAGMA journal_mode = WAL');
    database.exec('PRAGMA synchronous = FULL');
    database.exec(`PRAGMA journal_size_limit = ${LOG_BYTES_KEPT}`);
    migrations.slice(version).forEach((script, index) => {
      migrate(database as DatabaseSync, script, version + index + 1, applicationId);
    });
    database.exec('PRAGMA foreign_keys = ON');
    keepSpaceForLog(`${path}-wal`);
    return new MetadataStore(database, path);
  } catch (error) {
    database?.close();
    throw explained(error, path);
  }
}

export class MetadataStore {
  readonly #database: DatabaseSync;
  readonly #path: string;
  readonly #statements = new Map<string, StatementSync>(); // the least recently used first
  #inTransaction = false;
  /** Why the transaction under way cannot be committed any more. */
  #spoilt: Error | undefined;

  /** By openMetadataStore. */
  constructor(database: DatabaseSync, path: string) {
    this.#database = database;
    this.#path = path;
  }

  /** All rows of a SELECT; what they are is the caller's to know. */
  read<Row extends object>(sql: string, ...parameters: MetadataValue[]): Row[] {
    return this.#attempt(() => this.#statement(sql).all(...parameters) as Row[]);
  }

  /** How many rows an INSERT, UPDATE or DELETE has changed. */
  run(sql: string, ...parameters: MetadataValue[]): number {
    const changes = this.#attempt(() => Number(this.#statement(sql).run(...parameters).changes));
    assert(
      this.#database.isTransaction === this.#inTransaction,
      'a transaction is begun and ended here only',
    );
    return changes;
  }

  /** Does all that `change` does, or, when it throws, nothing. It must not wait for anything. */
  transaction<T>(change: () => T): T {
    assert(!this.#inTransaction, 'transactions do not nest');
    this.#attempt(() => this.#database.exec('BEGIN IMMEDIATE'));
    this.#inTransaction = true;
    try {
      const result = change();
      assert(!(result instanceof Promise), 'a transaction does not wait');
      this.#attempt(() => this.#database.exec('COMMIT'));
      return result;
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      throw error;
    } finally {
      this.#inTransaction = false;
      this.#spoilt = undefined;
    }
  }

  /** Brings the log into the file, as far as the disk lets it: what is left is found by the next open. */
  close(): void {
    assert(!this.#inTransaction, 'a store is not closed within a transaction');
    if (this.#database.isOpen) this.#database.close();
  }

  #statement(sql: string): StatementSync {
    const known = this.#statements.get(sql);
    const statement = known ?? this.#database.prepare(sql);
    this.#statements.delete(sql);
    this.#statements.set(sql, statement);
    if (this.#statements.size > STATEMENTS_MAX) {
      for (const oldest of this.#statements.keys()) {
        this.#statements.delete(oldest);
        break;
      }
    }
    return statement;
  }

  #attempt<T>(operation: () => T): T {
    if (this.#spoilt !== undefined) throw this.#spoilt;
    try {
      return operation();
    } catch (error) {
      const failure = passing(explained(error, this.#path));
      if (this.#inTransaction && failure !== error) this.#spoilt = failure;
      throw failure;
    }
  }
}

// ── opening ────────────────────────────────────────────────────────────────────────────────────────────────

/** Tells what SQLite would tell as "unable to open database file" only. */
function refuseWhatIsNoDatabase(path: string): void {
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats !== undefined && !stats.isFile()) {
      throw new UsageError('not-a-file', `${path} is no regular file: take it away`);
    }
    accessSync(stats === undefined ? dirname(path) : path, constants.R_OK | constants.W_OK);
    // SQLite would take the file as new, and its log, with all that was committed, away.
    const log = statSync(`${path}-wal`, { throwIfNoEntry: false });
    if ((stats?.size ?? 0) === 0 && (log?.size ?? 0) > 0) throw damaged(path);
  } catch (error) {
    throw folderErrorOf(error, path);
  }
}

/** For this user alone, which SQLite does not see to. An empty file is a new one. */
function makeWhenMissing(path: string): void {
  try {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE);
    // Before SQLite has it: whoever closes a file in the same process takes SQLite's locks on it away.
    keepSpace(fd, path, fstatSync(fd).size, GROWTH_BYTES_KEPT);
    closeSync(fd);
  } catch (error) {
    throw folderErrorOf(error, path);
  }
}

/** SQLite's locks are not on its log, and it keeps the log while it is open. */
function keepSpaceForLog(path: string): void {
  try {
    const fd = openSync(path, constants.O_RDWR | constants.O_CREAT, FILE_MODE);
    keepSpace(fd, path, 0, LOG_BYTES_KEPT);
    closeSync(fd);
  } catch (error) {
    throw folderErrorOf(error, path);
  }
}

/**
 * Without an effect on a disk that has little room left, which others need as well (the log's index among them), or on a file
 * system that cannot: the store works without it, too.
 */
function keepSpace(fd: number, path: string, offset: number, length: number): void {
  if (folderSpace(dirname(path)).freeBytes < 2 * length) return;
  sys.allocate(fd, sys.FALLOC_FL_KEEP_SIZE, offset, length);
}

/** How many migrations the file has had. Only reads. */
function checkedVersion(database: DatabaseSync, path: string, options: MetadataStoreOptions): number {
  const applicationId = integer(database, 'PRAGMA application_id');
  const version = integer(database, 'PRAGMA user_version');
  const tables = integer(database, 'SELECT count(*) FROM sqlite_schema');
  const isNew = applicationId === 0 && version === 0 && tables === 0;
  if (!isNew && applicationId !== options.applicationId) {
    const text = `${path} holds the metadata of something else: give another data folder`;
    throw new UsageError('wrong-data-folder', text);
  }
  const known = options.migrations.length;
  if (version > known) {
    const text = `${path} was written by a later version of Volary (${version}, known is ${known}): use that version`;
    throw new UsageError('newer-format', text);
  }
  // As long as reading all of it takes: metadata is small, and damage is better met now than under load.
  const [check] = database.prepare('PRAGMA quick_check(1)').all();
  if (check?.quick_check !== 'ok' || version < 0) throw damaged(path);
  return version;
}

function integer(database: DatabaseSync, sql: string): number {
  const [value] = Object.values(database.prepare(sql).get() ?? {});
  assert(typeof value === 'number', `${sql} gives a number`);
  return value;
}

function migrate(database: DatabaseSync, script: string, version: number, applicationId: number): void {
  database.exec('BEGIN IMMEDIATE');
  try {
    database.exec(script);
    assert(database.isTransaction, `migration ${version} ends its transaction itself`);
    const [dangling] = database.prepare('PRAGMA foreign_key_check').all();
    assert(dangling === undefined, `migration ${version} leaves references to nothing`);
    database.exec(`PRAGMA application_id = ${applicationId}`);
    database.exec(`PRAGMA user_version = ${version}`);
    database.exec('COMMIT');
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

// ── errors ─────────────────────────────────────────────────────────────────────────────────────────────────

/** The disk's faults, and the file's, as ours; a wrong statement or a broken constraint stays as it is. */
function explained(cause: unknown, path: string): Error {
  assert(cause instanceof Error, 'what is thrown is an error');
  const { code, errcode } = cause as { code?: unknown; errcode?: unknown };
  if (code !== 'ERR_SQLITE_ERROR' || typeof errcode !== 'number') return cause;
  if (errcode === IOERR_SHORT_READ) return damaged(path, cause);
  switch (errcode & 0xff) {
    case CORRUPT:
    case NOTADB:
      return damaged(path, cause);
    case BUSY:
    case LOCKED:
      return new UsageError('locked', `${path} is being changed by another program: stop that one first`, {
        cause,
      });
    case FULL:
      return full(path, cause);
    // The log, and its index, are made and grown as needed: where that fails, SQLite does not tell why.
    case IOERR:
    case CANTOPEN:
    case READONLY:
      if (folderSpace(dirname(path)).freeBytes < SPACE_NEEDED_BYTES) return full(path, cause);
      return new StoreError('io', `cannot use ${path} (${cause.message}): look into the disk first`, {
        cause,
      });
    default:
      return cause;
  }
}

/** A store that is in use meets another program's lock only while that lasts: it works on afterwards. */
function passing(error: Error): Error {
  if (!(error instanceof UsageError) || error.code !== 'locked') return error;
  return new StoreError('locked', error.message, { cause: error.cause });
}

function full(path: string, cause: Error): StoreError {
  return new StoreError('no-space', `there is no space left for ${path}: free some`, { cause });
}

function damaged(path: string, cause?: Error): UsageError {
  const text = `${path} is damaged: put it back from a backup, together with the rest of its folder`;
  return new UsageError('corrupt-metadata', text, { cause });
}
