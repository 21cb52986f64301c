/** 10,000 real volumes on one storage system that may have 256 descriptors: few are open, all can be used. */

import { mkdirSync, readdirSync, truncateSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { openDataFolder } from '../../src/storage/data-folder.ts';
import { RealVolumeTable } from '../../src/storage-system/real-volume-table.ts';
import { NbdClient } from '../support/client.ts';
import { type Folder, memoryFolder } from '../support/disk.ts';
import { inMiB, memoryOf } from '../support/process.ts';
import {
  clientOf,
  epochOf,
  exportOf,
  idOf,
  MiB,
  type ReportDirectory,
  realVolumes,
  reportDirectory,
  STORAGE,
  type StorageProcess,
  startStorageProcess,
  wantedOf,
} from '../support/storage-system.ts';
import { eventually, requireTool } from '../support/tools.ts';
import { volaryCommand } from '../support/volary-process.ts';

const VOLUMES = 10_000;
const DESCRIPTORS = 256;
const SIZE = MiB;

let folder: Folder;
let directory: ReportDirectory;
let storage: StorageProcess;

beforeAll(async () => {
  folder = memoryFolder();
  directory = await reportDirectory();
  await fill(`${folder.path}/data`);
  const prlimit = requireTool('prlimit', 'util-linux');
  const command = [prlimit, `--nofile=${DESCRIPTORS}:${DESCRIPTORS}`, volaryCommand];
  storage = await startStorageProcess(`${folder.path}/data`, directory.url, { command });
});

afterAll(async () => {
  await storage?.kill();
  await directory?.[Symbol.asyncDispose]();
  await folder?.remove();
});

/** As if they had been made one by one. */
async function fill(path: string): Promise<void> {
  const data = await openDataFolder(path, { role: 'storage', name: STORAGE });
  const table = new RealVolumeTable(data.file('meta.db'));
  mkdirSync(data.file('volumes'));
  for (let n = 0; n < VOLUMES; n++) {
    const file = `${data.file('volumes')}/${idOf(n)}.raw`;
    writeFileSync(file, '');
    truncateSync(file, SIZE);
    const { volume, epoch, accessKey, sizeBytes } = wantedOf(SIZE);
    const rest = {
      access: 'allowed',
      failure: null,
      isLeaving: false,
      createdAt: new Date().toISOString(),
    } as const;
    table.add({ id: idOf(n), volume, epoch, accessKey, sizeBytes, ...rest });
  }
  table.close();
  data.close();
}

function openFiles(): number {
  return readdirSync(`/proc/${storage.pid}/fd`).length;
}

const pageOf = (n: number) => Buffer.alloc(4096, 1 + (n % 255));

test('all are there, in bounded memory, and none is open', async () => {
  expect(await realVolumes(storage.places)).toHaveLength(VOLUMES);
  expect(openFiles()).toBeLessThan(64);
  const held = memoryOf(storage.pid, 'VmRSS');
  expect(held, inMiB(held)).toBeLessThan(300 * MiB);
});

test('each can be written and read, one after the other: most have been closed again', async () => {
  const some = Array.from({ length: 1000 }, (_, i) => i * 10);
  for (const n of some) {
    const use = await NbdClient.open(storage.places.uri, exportOf(idOf(n)));
    expect(await use.write(0, pageOf(n))).toBe(0);
    await use.disconnect();
  }
  await eventually('files are closed', () => openFiles() < 130 || undefined);
  for (const n of some) {
    const look = await NbdClient.open(storage.places.uri, idOf(n));
    expect((await look.read(0, 4096)).data.equals(pageOf(n)), idOf(n)).toBe(true);
    await look.disconnect();
  }
});

test('descriptors that run out refuse who comes last, fail no volume, and are there again when others have gone', async () => {
  const clients: NbdClient[] = [];
  const refused: number[] = [];
  for (let n = 0; n < DESCRIPTORS; n++) {
    // Each takes one for its connection and one for its file.
    const opening = NbdClient.open(storage.places.uri, exportOf(idOf(n)));
    await opening.then(
      (client) => clients.push(client),
      () => refused.push(n),
    );
    if (refused.length > 0) break;
  }
  expect(clients.length).toBeGreaterThan(50);
  expect(refused.length).toBe(1);
  expect(await clients[0]?.write(4096, pageOf(7))).toBe(0);
  await Promise.all(clients.map((client) => client.disconnect()));
  const again = await eventually('there is a descriptor', () =>
    NbdClient.open(storage.places.uri, exportOf(idOf(refused[0] ?? 0))).catch(() => undefined),
  );
  expect(await again.write(0, pageOf(1))).toBe(0);
  await again.disconnect();
  const failed = (await realVolumes(storage.places)).filter(({ state }) => state === 'failed');
  expect(failed).toEqual([]);
});

test('making, changing and deleting among so many', async () => {
  const client = clientOf(storage.places);
  await client.makeRealVolume(idOf(VOLUMES), wantedOf(SIZE));
  await client.changeRealVolume(idOf(VOLUMES), { sizeBytes: 2 * SIZE, epoch: epochOf(2) });
  await client.deleteRealVolume(idOf(VOLUMES), false);
  expect(await storage.stop()).toEqual({ code: 0, signal: null });
});
