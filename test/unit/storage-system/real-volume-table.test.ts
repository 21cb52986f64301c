import { afterEach, beforeEach, expect, test } from 'vitest';
import { GroupConfig } from '../../../src/control-protocol/copy-groups.ts';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import { StoreError } from '../../../src/model/errors.ts';
import type { DurableState } from '../../../src/replication/effects.ts';
import { openMetadataStore } from '../../../src/storage/metadata-store.ts';
import type { Failure, RealVolume } from '../../../src/storage-system/real-volume.ts';
import { RealVolumeTable } from '../../../src/storage-system/real-volume-table.ts';
import { mountTmpfs } from '../../support/disk.ts';
import { CLUSTER, epochOf, idOf, KEY } from '../../support/storage-system.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

let folder: TemporaryFolder;
beforeEach(async () => {
  folder = await temporaryFolder();
});
afterEach(() => folder.remove());

function recordOf(n: number): RealVolume {
  return {
    ...{
      id: idOf(n),
      sizeBytes: 4096 * n,
      volume: VolumeName.parse('データ'),
      epoch: epochOf(n),
      accessKey: KEY,
    },
    ...{ access: 'allowed', failure: null, isLeaving: false, createdAt: '2026-11-21T00:00:00.000Z' },
  };
}

function reopened(table: RealVolumeTable): RealVolumeTable {
  table.close();
  return new RealVolumeTable(folder.file('meta.db'));
}

test('S4: rows come back as they were, changed or not, with what they take', () => {
  let table = new RealVolumeTable(folder.file('meta.db'));
  table.add(recordOf(1));
  table.add({
    ...recordOf(2),
    volume: null,
    access: 'prohibited',
    failure: { cause: 'writes-lost', reason: 'why' },
  });
  table.add(recordOf(3));
  table.change(idOf(3), [
    { kind: 'epoch-raised', epoch: epochOf(9) },
    { kind: 'resized', sizeBytes: 2 ** 52 },
  ]);
  const before = [...table.all()];
  table = reopened(table);
  expect([...table.all()]).toEqual(before);
  expect(table.get(idOf(3))).toMatchObject({ epoch: 9, sizeBytes: 2 ** 52 });
  expect(table.count).toBe(3);
  table.change(idOf(3), [{ kind: 'resized', sizeBytes: 4096 }]);
  expect(table.provisionedBytes).toBe(4096 + 8192 + 4096);
  table.close();
});

test('S4: all events of a change, or none of them', () => {
  let table = new RealVolumeTable(folder.file('meta.db'));
  table.add(recordOf(5));
  const refused = () =>
    table.change(idOf(5), [{ kind: 'prohibited' }, { kind: 'epoch-raised', epoch: epochOf(4) }]);
  expect(refused).toThrow(expect.objectContaining({ code: 'stale-epoch' }));
  expect(table.get(idOf(5))).toEqual(recordOf(5));
  table = reopened(table);
  expect(table.get(idOf(5))).toEqual(recordOf(5));
  table.close();
});

test('S4: what is leaving stays in the table until its file has gone', () => {
  let table = new RealVolumeTable(folder.file('meta.db'));
  table.add(recordOf(1));
  expect(() => table.remove(idOf(1))).toThrow('leaving');
  table.change(idOf(1), [{ kind: 'removal-begun' }]);
  table = reopened(table);
  expect(table.get(idOf(1))?.isLeaving).toBe(true);
  table.remove(idOf(1));
  expect(table.provisionedBytes).toBe(0);
  table = reopened(table);
  expect(table.count).toBe(0);
  table.close();
});

test('the cluster is joined once, for good', () => {
  let table = new RealVolumeTable(folder.file('meta.db'));
  expect(table.clusterId).toBeUndefined();
  table.joinCluster(CLUSTER);
  table = reopened(table);
  expect(table.clusterId).toBe(CLUSTER);
  expect(() => table.joinCluster(CLUSTER)).toThrow('one cluster');
  table.close();
});

test('S5: on a full disk a row is there or not, in memory as in the store; a failure is known all the same, and kept later', async () => {
  const mount = await mountTmpfs('size=256k');
  try {
    const path = `${mount.path}/meta.db`;
    const table = new RealVolumeTable(path);
    let added = 0;
    const fill = () => {
      for (; added < 10_000; added++) table.add(recordOf(added + 1));
    };
    expect(fill).toThrow(StoreError);
    expect(added).toBeGreaterThan(0);
    expect(table.count).toBe(added);
    expect(table.get(idOf(added + 1))).toBeUndefined();
    const failure: Failure = { cause: 'writes-lost', reason: 'the disk is full' };
    expect(table.rememberFailure(idOf(1), failure)).toMatchObject({ failure });
    expect(() => table.keepFailures()).toThrow(StoreError);
    await mount.remount('size=8m');
    expect(table.keepFailures()).toEqual([idOf(1)]);
    expect(table.keepFailures()).toEqual([]);
    table.close();
    const again = new RealVolumeTable(path);
    expect(again.count).toBe(added);
    expect(again.get(idOf(1))?.failure).toEqual(failure);
    again.close();
  } finally {
    await mount.remove();
  }
});

test('N3: what had failed before causes were kept: a failed flush does not become whole by a later version', () => {
  const first = `CREATE TABLE real_volumes (
     id TEXT PRIMARY KEY, size_bytes INTEGER NOT NULL, volume TEXT, epoch INTEGER NOT NULL, access_key TEXT NOT NULL,
     access TEXT NOT NULL, failure TEXT, is_leaving INTEGER NOT NULL, created_at TEXT NOT NULL
   ) STRICT, WITHOUT ROWID;
   CREATE TABLE cluster (one INTEGER PRIMARY KEY, id TEXT NOT NULL) STRICT;`;
  const old = openMetadataStore(folder.file('meta.db'), { applicationId: 0x564c5353, migrations: [first] });
  const reasons = [
    'fdatasync failed: EIO: i/o error, fdatasync',
    'the file has been removed: what is written to it is lost when the server ends',
    'its file is missing',
    null,
  ];
  for (const [n, reason] of reasons.entries()) {
    const values = [idOf(n), KEY, reason];
    old.run(`INSERT INTO real_volumes VALUES (?, 4096, NULL, 1, ?, 'allowed', ?, 0, '2026')`, ...values);
  }
  old.close();
  const table = new RealVolumeTable(folder.file('meta.db'));
  expect([...table.all()].map(({ failure }) => failure)).toEqual([
    { cause: 'writes-lost', reason: reasons[0] },
    { cause: 'writes-lost', reason: reasons[1] },
    { cause: 'file-unusable', reason: reasons[2] },
    null,
  ]);
  table.close();
});

function stateOf(n: number, epoch: number): DurableState {
  const member = {
    ...{ realVolume: idOf(n), storage: 'east-1', accessKey: KEY, pair: 'simplex', wanted: 'following' },
    ...{ peer: { host: '127.0.0.1', port: 1 }, nbd: { host: '127.0.0.1', port: 2 }, pairRevision: 0 },
  };
  const config = GroupConfig.parse({
    ...{ volume: 'data', epoch, revision: 1, sizeBytes: 4096 * n, fence: 'never', leaseMs: 3000 },
    ...{ copyBytesPerSecond: 0, primary: idOf(n), isHandedOver: true, members: [member] },
  });
  return { config, epoch, role: 'primary', mayBeInStep: [idOf(9)], lacksAll: [], isEqual: false };
}

test('I10: what is durable of members comes back, with the epochs of their real volumes, which are never lowered', () => {
  let table = new RealVolumeTable(folder.file('meta.db'));
  for (const n of [1, 2, 5]) table.add(recordOf(n));
  const states = new Map([
    [idOf(1), stateOf(1, 7)],
    [idOf(5), stateOf(5, 3)],
  ]);
  expect(table.keepMembers(states).map(([before, after]) => [before.epoch, after.epoch])).toEqual([
    [1, 7],
    [5, 5],
  ]);
  table = reopened(table);
  expect(table.members()).toEqual(states);
  expect([1, 2, 5].map((n) => table.get(idOf(n))?.epoch)).toEqual([7, 2, 5]);
  table.keepMembers(new Map([[idOf(1), stateOf(1, 8)]]));
  table.forgetMember(idOf(5));
  table = reopened(table);
  expect(table.members()).toEqual(new Map([[idOf(1), stateOf(1, 8)]]));
  table.change(idOf(1), [{ kind: 'removal-begun' }]);
  // A member may still ask for it while its real volume goes, together with others.
  const late = new Map([1, 2, 7].map((n) => [idOf(n), stateOf(n, 9)]));
  expect(table.keepMembers(late).map(([, { id, epoch }]) => [id, epoch])).toEqual([[idOf(2), 9]]);
  expect([...table.members()].map(([id, { epoch }]) => [id, epoch])).toEqual([
    [idOf(1), 8],
    [idOf(2), 9],
  ]);
  table.forgetMember(idOf(2));
  table.remove(idOf(1));
  expect(table.members().size).toBe(0);
  table.close();
});
