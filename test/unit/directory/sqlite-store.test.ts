import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { CompactedError } from '../../../src/directory/catalog-store.ts';
import { SqliteStore } from '../../../src/directory/sqlite-store.ts';
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
