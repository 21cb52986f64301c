/**
 * RealVolumeTable: what the storage system must not forget, in DATA/meta.db: a row for each real volume, one for each that is
 * a member of a copy group, the cluster that it has joined, and which lives it has had.
 *
 * Invariants
 * 1. Memory and the store hold the same: memory is changed after the store has been, durably, in the same turn. Failures alone
 *    are known, too, when the store has failed as well, and kept as soon as it works again.
 * 2. A real volume exists when, and only when, it has a row. Its file is made before the row and removed after
 *    the row says that it is leaving; the row goes when the file has gone. So after a crash
 *      a file without a row    is what a making has left: without data, since nobody has ever used it
 *      a row that is leaving   is what a deletion has left: it is finished
 *      a file that is longer   than its row is what a resize has left: growing begins with the file, shrinking with the row
 * 3. Every change of a row goes through `changed` of real-volume.ts, which refuses what may not happen.
 * 4. A real volume never has a smaller epoch than what is durable of it as a member: both are raised in one transaction.
 * 5. What was put back from a backup, and was no member then, is known as such until it is one: others of its group may have been made as
 *    it was later, and it is not new to them.
 */

import { GroupConfig } from '../control-protocol/copy-groups.ts';
import { type AccessKey, Epoch, type RealVolumeId, type VolumeName } from '../control-protocol/names.ts';
import { assert } from '../model/errors.ts';
import type { DurableState } from '../replication/effects.ts';
import {
  type MetadataStore,
  type MetadataStoreOptions,
  openMetadataStore,
} from '../storage/metadata-store.ts';
import type { InstanceState } from './instance.ts';
import {
  changed,
  type Failure,
  type FailureCause,
  type RealVolume,
  type RealVolumeEvent,
} from './real-volume.ts';

/** The n-th leads from version n - 1 to n; never changed, only added to. */
const migrations = [
  `CREATE TABLE real_volumes (
     id         TEXT PRIMARY KEY,
     size_bytes INTEGER NOT NULL CHECK (size_bytes > 0),
     volume     TEXT,
     epoch      INTEGER NOT NULL CHECK (epoch > 0),
     access_key TEXT NOT NULL,
     access     TEXT NOT NULL CHECK (access IN ('allowed', 'prohibited')),
     failure    TEXT,
     is_leaving INTEGER NOT NULL CHECK (is_leaving IN (0, 1)),
     created_at TEXT NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE cluster (
     one INTEGER PRIMARY KEY CHECK (one = 1),
     id  TEXT NOT NULL
   ) STRICT;`,
  // What had failed under somebody who used it could not be told from the rest, but by its reason.
  `ALTER TABLE real_volumes ADD COLUMN failure_cause TEXT CHECK (failure_cause IN ('file-unusable', 'writes-lost'));
   UPDATE real_volumes SET failure_cause = CASE
     WHEN failure LIKE 'fdatasync failed%' OR failure LIKE 'the file %' THEN 'writes-lost'
     ELSE 'file-unusable'
   END WHERE failure IS NOT NULL;`,
  `CREATE TABLE members (
     real_volume TEXT PRIMARY KEY REFERENCES real_volumes (id) ON DELETE CASCADE,
     state       TEXT NOT NULL
   ) STRICT, WITHOUT ROWID;`,
  `CREATE TABLE instance (
     one   INTEGER PRIMARY KEY CHECK (one = 1),
     state TEXT NOT NULL
   ) STRICT;`,
  `CREATE TABLE put_back (
     real_volume TEXT PRIMARY KEY REFERENCES real_volumes (id) ON DELETE CASCADE
   ) STRICT, WITHOUT ROWID;`,
];

const STORE: MetadataStoreOptions = { applicationId: 0x564c5353, migrations }; // "VLSS"

interface Row {
  readonly id: string;
  readonly size_bytes: number;
  readonly volume: string | null;
  readonly epoch: number;
  readonly access_key: string;
  readonly access: string;
  readonly failure: string | null;
  readonly failure_cause: string | null;
  readonly is_leaving: number;
  readonly created_at: string;
}

const COLUMNS =
  'size_bytes, volume, epoch, access_key, access, failure, failure_cause, is_leaving, created_at';

export class RealVolumeTable {
  readonly #store: MetadataStore;
  readonly #realVolumes = new Map<RealVolumeId, RealVolume>();
  /** Those whose failure is in memory alone. */
  readonly #unkept = new Set<RealVolumeId>();
  readonly #putBack = new Set<RealVolumeId>();
  #clusterId: string | undefined;
  #provisionedBytes = 0;

  /** Opens the store at `path`, or makes it. Throws UsageError or StoreError. */
  constructor(path: string) {
    this.#store = openMetadataStore(path, STORE);
    for (const row of this.#store.read<Row>(`SELECT id, ${COLUMNS} FROM real_volumes ORDER BY id`)) {
      const realVolume = fromRow(row);
      this.#realVolumes.set(realVolume.id, realVolume);
      this.#provisionedBytes += realVolume.sizeBytes;
    }
    this.#clusterId = this.#store.read<{ id: string }>('SELECT id FROM cluster')[0]?.id;
    this.#readPutBack();
  }

  /** All rows, those that are leaving included. */
  all(): IterableIterator<RealVolume> {
    return this.#realVolumes.values();
  }

  get count(): number {
    return this.#realVolumes.size;
  }

  /** The sum of the sizes. */
  get provisionedBytes(): number {
    return this.#provisionedBytes;
  }

  get(id: RealVolumeId): RealVolume | undefined {
    return this.#realVolumes.get(id);
  }

  /** Throws StoreError; nothing is there then. */
  add(realVolume: RealVolume): void {
    assert(!this.#realVolumes.has(realVolume.id), `${realVolume.id} is there already`);
    this.#store.run(
      `INSERT INTO real_volumes (${COLUMNS}, id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
      ...valuesOf(realVolume),
      realVolume.id,
    );
    this.#realVolumes.set(realVolume.id, realVolume);
    this.#provisionedBytes += realVolume.sizeBytes;
  }

  /**
   * What happens to a real volume that is there: all events, durably, or none of them.
   * @throws ControlError when one may not happen, StoreError when it cannot be kept
   */
  change(id: RealVolumeId, events: readonly RealVolumeEvent[]): RealVolume {
    const before = this.#known(id);
    const after = events.reduce(changed, before);
    if (isSame(before, after) && !this.#unkept.has(id)) return before;
    const parts = COLUMNS.split(', ').map((column) => `${column} = ?`);
    const sql = `UPDATE real_volumes SET ${parts.join(', ')} WHERE id = ?`;
    const rows = this.#store.run(sql, ...valuesOf(after), id);
    assert(rows === 1, `${id} has a row`);
    this.#unkept.delete(id);
    this.#keep(before, after);
    return after;
  }

  /** A failure that could not be kept, because the store has failed as well: known until the process ends, or `keepFailures`. */
  rememberFailure(id: RealVolumeId, failure: Failure): RealVolume {
    const before = this.#known(id);
    const after = changed(before, { kind: 'failed', ...failure });
    this.#unkept.add(id);
    this.#keep(before, after);
    return after;
  }

  /** Makes failures durable that could not be kept before. @returns which are now. @throws StoreError */
  keepFailures(): RealVolumeId[] {
    const unkept = [...this.#unkept];
    for (const id of unkept) this.change(id, []);
    return unkept;
  }

  /** The row of a real volume whose file has gone. */
  remove(id: RealVolumeId): void {
    const before = this.#known(id);
    assert(before.isLeaving, `${id} is leaving`);
    this.#store.run('DELETE FROM real_volumes WHERE id = ?', id);
    this.#realVolumes.delete(id);
    this.#unkept.delete(id);
    this.#putBack.delete(id);
    this.#provisionedBytes -= before.sizeBytes;
  }

  // --- members of copy groups ------------------------------------------------------------------------------

  /** What is durable of each. */
  members(): Map<RealVolumeId, DurableState> {
    const rows = this.#store.read<{ real_volume: string; state: string }>(
      'SELECT real_volume, state FROM members ORDER BY real_volume',
    );
    return new Map(rows.map(({ real_volume, state }) => [real_volume as RealVolumeId, stateOf(state)]));
  }

  /**
   * What is to be durable of members; their real volumes get the epochs. All of it, or nothing; what is being deleted, or has gone, is
   * left out.
   * @returns the real volumes before and after
   * @throws StoreError
   */
  keepMembers(states: ReadonlyMap<RealVolumeId, DurableState>): [before: RealVolume, after: RealVolume][] {
    const kept = [...states].filter(([id]) => this.get(id)?.isLeaving === false);
    const changes = kept.map(([id, { epoch }]): [RealVolume, RealVolume] => {
      const before = this.#known(id);
      if (epoch <= before.epoch) return [before, before];
      return [before, changed(before, { kind: 'epoch-raised', epoch: Epoch.parse(epoch) })];
    });
    this.#store.transaction(() => {
      for (const [id, state] of kept) {
        const sql =
          'INSERT INTO members (real_volume, state) VALUES (?, ?) ON CONFLICT DO UPDATE SET state = excluded.state';
        this.#store.run(sql, id, JSON.stringify(state));
        if (this.#putBack.has(id)) this.#store.run('DELETE FROM put_back WHERE real_volume = ?', id);
      }
      for (const [before, { id, epoch }] of changes) {
        if (epoch > before.epoch)
          this.#store.run('UPDATE real_volumes SET epoch = ? WHERE id = ?', epoch, id);
      }
    });
    for (const [before, after] of changes) this.#keep(before, after);
    for (const [id] of kept) this.#putBack.delete(id);
    return changes;
  }

  /** The folder was put back from a backup: all that are no members, for invariant 5. @throws StoreError */
  keepPutBack(): void {
    this.#store.run(
      'INSERT OR IGNORE INTO put_back SELECT id FROM real_volumes WHERE id NOT IN (SELECT real_volume FROM members)',
    );
    this.#readPutBack();
  }

  isPutBack(id: RealVolumeId): boolean {
    return this.#putBack.has(id);
  }

  #readPutBack(): void {
    const rows = this.#store.read<{ real_volume: string }>('SELECT real_volume FROM put_back');
    for (const { real_volume } of rows) this.#putBack.add(real_volume as RealVolumeId);
  }

  /** The real volume is no member any more. @throws StoreError */
  forgetMember(id: RealVolumeId): void {
    this.#store.run('DELETE FROM members WHERE real_volume = ?', id);
  }

  /** The cluster that the storage system has joined. */
  get clusterId(): string | undefined {
    return this.#clusterId;
  }

  /** Once, for good. */
  joinCluster(id: string): void {
    assert(this.#clusterId === undefined, 'a storage system joins one cluster');
    this.#store.run('INSERT INTO cluster (one, id) VALUES (1, ?)', id);
    this.#clusterId = id;
  }

  /** Which lives the folder has had (instance.ts); undefined: none that is known. */
  instance(): InstanceState | undefined {
    const [row] = this.#store.read<{ state: string }>('SELECT state FROM instance');
    return row === undefined ? undefined : (JSON.parse(row.state) as InstanceState);
  }

  /** @throws StoreError */
  keepInstance(state: InstanceState): void {
    const sql =
      'INSERT INTO instance (one, state) VALUES (1, ?) ON CONFLICT DO UPDATE SET state = excluded.state';
    this.#store.run(sql, JSON.stringify(state));
  }

  close(): void {
    this.#store.close();
  }

  #keep(before: RealVolume, after: RealVolume): void {
    this.#realVolumes.set(after.id, after);
    this.#provisionedBytes += after.sizeBytes - before.sizeBytes;
  }

  #known(id: RealVolumeId): RealVolume {
    const realVolume = this.#realVolumes.get(id);
    assert(realVolume !== undefined, `${id} is there`);
    return realVolume;
  }
}

/** In the order of COLUMNS. */
function valuesOf(realVolume: RealVolume): (string | number | null)[] {
  const { sizeBytes, volume, epoch, accessKey, access, failure, isLeaving, createdAt } = realVolume;
  const { reason = null, cause = null } = failure ?? {};
  return [sizeBytes, volume, epoch, accessKey, access, reason, cause, isLeaving ? 1 : 0, createdAt];
}

function isSame(a: RealVolume, b: RealVolume): boolean {
  const values = valuesOf(b);
  return valuesOf(a).every((value, index) => value === values[index]);
}

/** The rows are this module's own, and were checked by the API before they were written. */
function fromRow(row: Row): RealVolume {
  return {
    id: row.id as RealVolumeId,
    sizeBytes: row.size_bytes,
    volume: row.volume as VolumeName | null,
    epoch: row.epoch as Epoch,
    accessKey: row.access_key as AccessKey,
    access: row.access === 'prohibited' ? 'prohibited' : 'allowed',
    failure: row.failure === null ? null : { cause: causeOf(row.failure_cause), reason: row.failure },
    isLeaving: row.is_leaving === 1,
    createdAt: row.created_at,
  };
}

/** As `keepMembers` has written it; what later versions add to the config has a default. */
function stateOf(text: string): DurableState {
  const state = JSON.parse(text) as DurableState;
  return { ...state, config: GroupConfig.parse(state.config) };
}

/** The rest is what has to be accepted: rather that than a volume that comes back by itself. */
function causeOf(cause: string | null): FailureCause {
  return cause === 'file-unusable' ? cause : 'writes-lost';
}
