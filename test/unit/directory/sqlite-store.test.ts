import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { CompactedError } from '../../../src/directory/catalog-store.ts';
import { SqliteStore } from '../../../src/directory/sqlite-store.ts';
import { StoreError } from '../../../src/model/errors.ts';
import { describeCatalogStore } from './catalog-store-contract.ts';

function newFolder(): string {
  return mkdtempSync(join(tmpdir(), 'volary-sqlite-store-'));
}

describeCatalogStore('SqliteStore', async () => {
  const folder = newFolder();
  return {
    open: async () => SqliteStore.open(join(folder, 'catalog.db')),
    remove: async () => rmSync(folder, { recursive: true }),
  };
});

async function firstAfter(store: SqliteStore, revision: number): Promise<number | undefined> {
  for await (const commit of store.watch(revision, new AbortController().signal)) return commit.revision;
  return undefined;
}

test.each([
  ['commits', { commitsMax: 3, bytesMax: 1_000_000 }],
  ['bytes', { commitsMax: 1_000, bytesMax: 3 * JSON.stringify({ text: 'x'.repeat(100) }).length }],
])('2: a watch from what is forgotten, being too many %s, is told so', async (_, bounds) => {
  const folder = newFolder();
  const store = SqliteStore.open(join(folder, 'catalog.db'), bounds);
  onTestFinished(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });
  for (let n = 0; n < 5; n += 1) {
    const puts = [{ key: '/t/a', value: { text: 'x'.repeat(100) } }];
    await store.transaction({ compare: [], puts, deletes: [] });
  }
  expect(await firstAfter(store, 2)).toBe(3);
  await expect(firstAfter(store, 1)).rejects.toThrow(CompactedError);
});

test('2: what another process has committed before is forgotten', async () => {
  const folder = newFolder();
  const path = join(folder, 'catalog.db');
  const before = SqliteStore.open(path);
  await before.transaction({ compare: [], puts: [{ key: '/t/a', value: {} }], deletes: [] });
  await before.close();
  const store = SqliteStore.open(path);
  onTestFinished(async () => {
    await store.close();
    rmSync(folder, { recursive: true });
  });
  await expect(firstAfter(store, 0)).rejects.toThrow(CompactedError);
});

test('another program that holds the file for a while costs no lease, and no directory', async () => {
  const folder = newFolder();
  const path = join(folder, 'catalog.db');
  const store = SqliteStore.open(path);
  const other = new DatabaseSync(path);
  onTestFinished(async () => {
    other.close();
    await store.close();
    rmSync(folder, { recursive: true });
  });
  const lease = await store.grantLease(100);
  await store.transaction({ compare: [], puts: [{ key: '/t/a', value: {}, lease }], deletes: [] });
  other.exec('BEGIN IMMEDIATE');
  const put = store.transaction({ compare: [], puts: [{ key: '/t/b', value: {} }], deletes: [] });
  await expect(put).rejects.toThrow(StoreError);
  await sleep(300); // the lease has ended: what goes wrong then is nobody's to catch
  other.exec('ROLLBACK');
  for await (const { changes } of store.watch(1, new AbortController().signal)) {
    expect(changes).toEqual([{ key: '/t/a', value: null }]);
    break;
  }
});
