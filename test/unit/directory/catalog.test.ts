/** The one place through which the catalog is changed. */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { OperationRecord, VolumeRecord } from '../../../src/control-protocol/catalog.ts';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import { Catalog, type NewEvent } from '../../../src/directory/catalog.ts';
import { SqliteStore } from '../../../src/directory/sqlite-store.ts';
import { makeLab } from './lab.ts';

async function openCatalog(): Promise<{ catalog: Catalog; other: Catalog }> {
  const folder = mkdtempSync(join(tmpdir(), 'volary-catalog-'));
  const store = SqliteStore.open(join(folder, 'catalog.db'));
  const now = (): Date => new Date();
  const memory = { eventsMax: 20, operationsMax: 20 };
  const catalog = await Catalog.open({ store, now, memory });
  const other = await Catalog.open({ store, now, memory });
  onTestFinished(async () => {
    await catalog.close();
    await other.close();
    await store.close();
    rmSync(folder, { recursive: true });
  });
  return { catalog, other };
}

const event = (subject: string): NewEvent => ({ kind: 'test.done', subject, text: 'done', details: {} });

function segment(offset: number, length: number, id = offset / 4096, epoch = 1) {
  const copy = {
    storage: 's',
    realVolume: `rv-${String(id).padStart(16, '0')}`,
    realOffset: 0,
    role: 'primary',
    pair: 'simplex',
    mode: 'normal',
    accessKey: '0'.repeat(32),
    file: null,
  };
  return { offset, length, epoch, copies: [copy] };
}

function volume(fields: object): VolumeRecord {
  return VolumeRecord.parse({
    name: 'v',
    sizeBytes: 8192,
    state: 'ready',
    group: null,
    segments: [segment(0, 4096), segment(4096, 4096)],
    operation: null,
    createdAt: '2026-01-01T00:00:00.000Z',
    ...fields,
  });
}

test.each([
  ['1: a gap', { segments: [segment(0, 4096), segment(8192, 4096)], sizeBytes: 12_288 }],
  ['1: not from 0', { segments: [segment(4096, 4096)], sizeBytes: 4096 }],
  ['1: an overlap', { segments: [segment(0, 8192), segment(4096, 4096)] }],
  ['1: an empty segment', { segments: [segment(0, 8192), segment(8192, 0)] }],
  ['1: less than its size', { segments: [segment(0, 4096)] }],
  ['1: more than its size', { sizeBytes: 4096 }],
  ['1: nothing, while resizing', { segments: [], state: 'resizing', operation: `op-${'0'.repeat(16)}` }],
  ['2: an odd border', { segments: [segment(0, 512), segment(512, 512, 7)], sizeBytes: 1024 }],
  [
    '2: no primary',
    { segments: [{ ...segment(0, 8192), copies: [{ ...segment(0, 1).copies[0], role: 'secondary' }] }] },
  ],
  ['3: a real volume twice', { segments: [segment(0, 4096, 1), segment(4096, 4096, 1)] }],
  ["3: another volume's", { name: 'w' }],
  ['4: a smaller epoch', { segments: [segment(0, 4096), segment(4096, 4096)] }],
  ['a change without operation', { state: 'deleting' }],
])('a VolumeRecord with %s is never written', async (_, fields) => {
  const { catalog } = await openCatalog();
  const before = volume({ segments: [segment(0, 4096), segment(4096, 4096, 1, 2)] });
  await catalog.change((draft) => draft.putVolume(before));
  const { revision } = catalog.view;
  await expect(catalog.change((draft) => draft.putVolume(volume(fields)))).rejects.toThrow(/assertion/);
  expect(catalog.view.revision).toBe(revision);
  expect(catalog.view.volumes.get('v')).toEqual(before);
});

test('1: of two directories on one store, no one decides on what the other has changed', async () => {
  const { catalog, other } = await openCatalog();
  await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      (n % 2 === 0 ? catalog : other).change((draft) => draft.addEvent(event(`${n}`))),
    ),
  );
  const subjects = catalog.view.events.map(({ subject }) => subject);
  expect(subjects.sort()).toEqual(Array.from({ length: 20 }, (_, n) => `${n}`).sort());
  expect(catalog.view.events.map(({ id }) => id)).toEqual(Array.from({ length: 20 }, (_, n) => n + 1));
  await catalog.change((draft) => draft.putVolume(volume({})));
  await Promise.all([
    catalog.change((draft) => draft.removeVolume(VolumeName.parse('v'))),
    other.change((draft) => {
      if (!draft.view.volumes.has('v')) return;
      draft.putVolume(volume({ state: 'deleting', operation: `op-${'0'.repeat(16)}` }));
    }),
  ]);
  expect(catalog.view.volumes.size).toBe(0);
});

test('1: what concerns volumes is decided one after the other, also when it is about different ones', async () => {
  const { catalog, other } = await openCatalog();
  await Promise.all(
    Array.from({ length: 20 }, (_, n) =>
      (n % 2 === 0 ? catalog : other).change((draft) => {
        const before = draft.view.volumes.size;
        const segments = [segment(0, 8192, 100 + n)];
        draft.putVolume(volume({ name: `v${n}`, segments, createdAt: new Date(before).toISOString() }));
      }),
    ),
  );
  const befores = [...catalog.view.volumes.values()].map(({ createdAt }) => Date.parse(createdAt));
  expect(befores.sort((a, b) => a - b)).toEqual(Array.from({ length: 20 }, (_, n) => n));
});

test('events are bounded: the oldest are forgotten, ids go on without gaps', async () => {
  const { catalog } = await openCatalog();
  for (let n = 1; n <= 30; n += 1) {
    await catalog.change((draft) => {
      draft.addEvent(event(`${n}a`));
      draft.addEvent(event(`${n}b`));
    });
  }
  expect(catalog.view.events.map(({ id }) => id)).toEqual(Array.from({ length: 20 }, (_, at) => 41 + at));
  expect(catalog.view.events.at(-1)).toMatchObject({ subject: '30b' });
  expect((await catalog.store.range('/events/')).entries).toHaveLength(20);
});

test('what is decided with an error changes nothing', async () => {
  const { catalog } = await openCatalog();
  const change = catalog.change((draft) => {
    draft.addEvent(event('x'));
    throw new Error('no');
  });
  await expect(change).rejects.toThrow('no');
  expect(catalog.view.revision).toBe(0);
});

test('the directory says the version of the package', async () => {
  const { directory } = await makeLab();
  const { version } = JSON.parse(readFileSync(new URL('../../../package.json', import.meta.url), 'utf8'));
  expect((await directory.cluster()).version).toBe(version);
});

test('operations that have finished are forgotten in the end, those under way are not', async () => {
  const { catalog } = await openCatalog();
  const operation = (n: number, finishedAt: string | null): OperationRecord =>
    OperationRecord.parse({
      id: `op-${String(n).padStart(16, '0')}`,
      kind: 'delete-volume',
      volume: 'v',
      state: finishedAt === null ? 'running' : 'done',
      step: 'x',
      input: {},
      error: null,
      createdAt: '2026-01-01T00:00:00.000Z',
      finishedAt,
    });
  await catalog.change((draft) => draft.putOperation(operation(99, null)));
  for (let n = 60; n > 0; n -= 1) {
    const finishedAt = new Date(Date.UTC(2026, 0, 1, 0, 60 - n)).toISOString();
    await catalog.change((draft) => draft.putOperation(operation(n, finishedAt)));
    expect(catalog.view.operations.size).toBeLessThanOrEqual(1 + 22);
  }
  const known = [...catalog.view.operations.keys()].map((id) => Number(id.slice(3))).sort((a, b) => a - b);
  expect(known.length).toBeGreaterThan(20);
  expect(known).toEqual([...Array.from({ length: known.length - 1 }, (_, at) => at + 1), 99]);
});
