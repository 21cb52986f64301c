/** What a storage system tells the directory, and what it makes of the answers. */

import { cpSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ControlError } from '../../../src/model/errors.ts';
import { startStorageSystem } from '../../../src/storage-system/service.ts';
import { silentLog } from '../../support/log.ts';
import { freePort } from '../../support/ports.ts';
import {
  CLUSTER,
  exportOf,
  idOf,
  MiB,
  reportDirectory,
  storageOptions,
  wantedOf,
} from '../../support/storage-system.ts';
import { type StorageLab, storageLab } from './lab.ts';

const OTHER = '99999999-2222-4333-8444-555555555555';
const page = Buffer.alloc(4096, 7);

let lab: StorageLab;
beforeEach(async () => {
  lab = await storageLab();
});
afterEach(() => lab[Symbol.asyncDispose]());

const startAgain = (directoryUrl = lab.directory.url) =>
  startStorageSystem({ ...storageOptions(lab.folder, directoryUrl), log: silentLog });

/** A volume can be made, opened and written. */
async function expectService(): Promise<void> {
  await lab.client.makeRealVolume(idOf(1), wantedOf(MiB));
  expect(await (await lab.open(exportOf(idOf(1)))).write(0, page)).toBe(0);
}

test('the first report has no cluster, all that follow have the one that was joined, also after a restart', async () => {
  lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 30 });
  await expect.poll(() => lab.directory.reports.length, { timeout: 10_000 }).toBeGreaterThan(1);
  await lab.restart();
  const [first, ...rest] = lab.directory.reports;
  expect(first).toMatchObject({ clusterId: null, site: 'east', folder: lab.folder, capacityBytes: 2 ** 50 });
  expect(new Set(rest.map(({ clusterId }) => clusterId))).toEqual(new Set([CLUSTER]));
  expect(new Set(rest.map(({ id }) => id))).toEqual(new Set([first?.id]));
});

test('what it tells is where it is, as advertised', async () => {
  await lab.restart(undefined, { advertise: 'storage.example' });
  const { nbd, peer, manage } = lab.directory.reports.at(-1) ?? {};
  expect(nbd).toEqual({ host: 'storage.example', port: Number(new URL(lab.ready.uri).port) });
  expect(lab.ready.uri).toMatch(/^nbd:\/\/storage\.example:\d+$/);
  expect(lab.ready.peer).toBe(`storage.example:${peer?.port}`);
  expect(manage).toBe(lab.ready.manage);
  await lab.restart();
});

test('it tells again every third of the lease, with what is used', async () => {
  await expectService();
  lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 30 });
  await expect.poll(() => lab.directory.reports.length, { timeout: 10_000 }).toBeGreaterThan(5);
  await expect.poll(() => lab.directory.reports.at(-1)?.usedBytes, { timeout: 10_000 }).toBe(4096);
  expect(lab.directory.reports.at(-1)?.realVolumes).toBe(1);
});

test('a failure is told at once, whatever the lease', async () => {
  lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 3_000_000 });
  await lab.restart();
  await expectService();
  const use = await lab.open(exportOf(idOf(1)));
  rmSync(`${lab.folder}/volumes/${idOf(1)}.raw`);
  await use.flush();
  await expect.poll(() => lab.directory.reports.at(-1)?.failed).toMatchObject([{ realVolume: idOf(1) }]);
});

test('a directory that is away at the start, and comes: it is served meanwhile, and joined then', async () => {
  const port = await freePort();
  const url = `http://127.0.0.1:${port}`;
  await lab.restart(undefined, { dataFolder: `${lab.folder}-2`, directoryUrl: url });
  await expectService();
  const readyz = async () => (await fetch(`${lab.ready.manage}/readyz`)).status;
  expect(await readyz()).toBe(503);
  await using directory = await reportDirectory(port);
  await expect.poll(readyz, { timeout: 10_000 }).toBe(200);
  expect(directory.reports[0]).toMatchObject({ clusterId: null, realVolumes: 1 });
  await lab.restart(); // with the directory of the others
});

test('a directory that takes connections and says nothing is not waited for', async () => {
  const silent = createServer();
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const { port } = silent.address() as AddressInfo;
  const url = `http://127.0.0.1:${port}`;
  await lab.restart(undefined, { dataFolder: `${lab.folder}-2`, directoryUrl: url });
  await expectService();
  const stopped = lab.restart(); // with a report still under way
  silent.close();
  await stopped;
});

test.each(['wrong-cluster', 'wrong-identity'] as const)(
  '%s at the start: it does not start',
  async (code) => {
    await lab.restart(async () => {
      lab.directory.answer = () => new ControlError(code, 'go away');
      await expect(startAgain()).rejects.toMatchObject({ code });
      lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 3000 });
    });
  },
);

test('wrong-cluster, when the directory does not look at what it is told', async () => {
  await lab.restart(async () => {
    lab.directory.answer = () => ({ clusterId: OTHER, leaseMs: 3000 });
    await expect(startAgain()).rejects.toMatchObject({ code: 'wrong-cluster' });
    lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 3000 });
  });
  expect(lab.directory.reports.at(-1)?.clusterId).toBe(CLUSTER);
});

test('wrong-cluster while it runs: logged once, it serves on, and is registered when its own directory is back', async () => {
  lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 30 });
  await lab.restart();
  lab.directory.answer = () => ({ clusterId: OTHER, leaseMs: 30 });
  const refusals = () => lab.log.filter(({ level, to }) => level === 'error' && to === 'refused');
  await expect.poll(() => refusals().length, { timeout: 10_000 }).toBe(1);
  await expectService();
  const readyz = async () => {
    const response = await fetch(`${lab.ready.manage}/readyz`);
    return `${response.status} ${await response.text()}`;
  };
  expect(await readyz()).toMatch(/^503 .*the directory refuses it: .*cluster/);
  const before = lab.directory.reports.length;
  await expect.poll(() => lab.directory.reports.length, { timeout: 10_000 }).toBeGreaterThan(before + 1);
  expect(new Set(lab.directory.reports.slice(before).map(({ clusterId }) => clusterId))).toEqual(
    new Set([CLUSTER]),
  );
  expect(refusals()).toHaveLength(1);
  lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 30 });
  await expect.poll(() => lab.log.at(-1)?.to, { timeout: 10_000 }).toBe('registered');
  expect(await readyz()).toBe('200 {"ready":true}');
});

test('a folder that has been copied does not serve while the directory, which knows of the other, is away', async () => {
  const copy = `${lab.folder}-2`;
  cpSync(lab.folder, copy, { recursive: true });
  const away = `http://127.0.0.1:${await freePort()}`;
  const started = startStorageSystem({ ...storageOptions(copy, away), log: silentLog });
  await expect(started).rejects.toMatchObject({
    code: 'unavailable',
    message: expect.stringContaining('copied'),
  });
  await lab.restart(undefined, { directoryUrl: away }); // the original does
  await lab.restart();
});

test('wrong-identity while it runs: it says that it cannot go on', async () => {
  await lab.restart(async () => {
    lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 30 });
    const service = await startAgain();
    lab.directory.answer = () => new ControlError('wrong-identity', 'another has it');
    await expect(service.lost).rejects.toMatchObject({ code: 'wrong-identity' });
    await service.stop();
    lab.directory.answer = () => ({ clusterId: CLUSTER, leaseMs: 30 });
  });
});
