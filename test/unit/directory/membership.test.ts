/** Who belongs to the cluster, and who is there. */

import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import type { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { GiB, MiB, StorageStandIn, until } from '../../support/directory-lab.ts';
import { makeLab } from './lab.ts';

async function kindsOf(directory: DirectoryClient): Promise<string[]> {
  return (await directory.events({ since: 0 })).map(({ kind, subject }) => `${kind} ${subject}`);
}

test('who reports is registered, online until its lease ends, and told of once', async () => {
  const { directory, ...lab } = await makeLab({ leaseMs: 1_500 });
  const storage = await lab.storage('a', GiB);
  const gateway = await lab.gateway('gw');
  expect(await directory.storageSystem(storage.name)).toMatchObject({
    name: 'a',
    state: 'online',
    uri: 'nbd://127.0.0.1:20000',
    capacityBytes: GiB,
    provisionedBytes: 0,
    freeBytes: GiB,
    failed: [],
  });
  expect(await directory.gateways()).toMatchObject([{ name: 'gw', state: 'online', hosts: 0, revision: 0 }]);
  expect(await directory.status()).toMatchObject({
    health: 'ok',
    revision: (await directory.cluster()).revision,
  });
  const { clusterId } = await directory.cluster();
  expect(storage.clusterId).toBe(clusterId);
  await gateway.stop();
  await until(async () => (await directory.gateways())[0]?.state === 'offline');
  expect((await directory.gateways())[0]?.lastSeenAt).not.toBeNull();
  expect(await directory.status()).toMatchObject({ health: 'degraded' });
  await until(async () => (await kindsOf(directory)).length === 3);
  await gateway.start();
  await gateway.reportOnce(directory.url);
  expect(await directory.gateways()).toMatchObject([{ state: 'online', manage: gateway.url }]);
  expect(await kindsOf(directory)).toEqual([
    'storage.online a',
    'gateway.online gw',
    'gateway.offline gw',
    'gateway.online gw',
  ]);
});

test('a directory that comes back neither forgets who is there nor tells of it again', async () => {
  const { directory, ...lab } = await makeLab({ leaseMs: 2_000 });
  const storage = await lab.storage('a', GiB);
  const { clusterId } = await directory.cluster();
  await lab.restart();
  expect((await directory.cluster()).clusterId).toBe(clusterId);
  expect(await directory.storageSystem(storage.name)).toMatchObject({ state: 'online' });
  await storage.reportOnce(directory.url);
  expect(await kindsOf(directory)).toEqual(['storage.online a']);
  await storage.stop();
  await lab.restart(); // the lease ends with this one
  await until(async () => (await directory.storageSystem(storage.name)).state === 'offline');
  await until(async () => (await kindsOf(directory)).length === 2);
  expect(await kindsOf(directory)).toEqual(['storage.online a', 'storage.offline a']);
});

test('only who is online is given volumes', async () => {
  const { directory, ...lab } = await makeLab({ leaseMs: 1_500 });
  const [a] = [await lab.storage('a', GiB), await lab.storage('b', MiB)];
  await lab.create('old', 2 * MiB);
  await a.stop();
  await until(async () => (await directory.storageSystem(a.name)).state === 'offline');
  await expect(lab.create('v', 2 * MiB)).rejects.toMatchObject({ code: 'no-space' });
  await expect(lab.create('v', MiB, [{ storage: 'a' }])).rejects.toMatchObject({ code: 'unavailable' });
  await expect(lab.resize('old', MiB, true)).rejects.toMatchObject({ code: 'unavailable' });
  await expect(lab.resize('old', 4 * MiB)).rejects.toMatchObject({ code: 'no-space' });
  expect(await directory.volume('old' as never)).toMatchObject({ state: 'ready', size: 2 * MiB });
  expect(await lab.resize('old', 3 * MiB)).toMatchObject({ state: 'done' }); // on b
  expect(await lab.resize('old', 2 * MiB, true)).toMatchObject({ state: 'done' });
});

test('a name belongs to one data folder, a data folder has one name, and both belong to one cluster', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = await lab.storage('a', GiB);
  const report = storage.reportBody;
  await expect(directory.reportStorage(storage.name, { ...report, id: randomUUID() })).rejects.toMatchObject({
    code: 'wrong-identity',
    message: expect.stringContaining('another name'),
  });
  await expect(directory.reportStorage('b' as never, report)).rejects.toMatchObject({
    code: 'wrong-identity',
  });
  const foreign = { ...report, clusterId: randomUUID() };
  await expect(directory.reportStorage(storage.name, foreign)).rejects.toMatchObject({
    code: 'wrong-cluster',
  });
  expect((await directory.storageSystems()).map(({ id }) => id)).toEqual([storage.id]);
});

test('a gateway that has lost its data folder comes back under its name, when the one before has gone', async () => {
  const { directory, ...lab } = await makeLab({ leaseMs: 1_500 });
  const gateway = await lab.gateway('gw');
  const other = { ...gateway.reportBody, id: randomUUID() };
  await expect(directory.reportGateway(gateway.name, other)).rejects.toMatchObject({
    code: 'wrong-identity',
  });
  await gateway.stop();
  await until(async () => (await directory.gateways())[0]?.state === 'offline');
  await directory.reportGateway(gateway.name, other);
  expect(await directory.gateways()).toMatchObject([{ id: other.id, state: 'online' }]);
});

test('two data folders of one name at once: one is registered', async () => {
  const { directory } = await makeLab();
  const both = [new StorageStandIn('a', GiB), new StorageStandIn('a', GiB)];
  for (const each of both) await each.start();
  const results = await Promise.allSettled(both.map((each) => each.reportOnce(directory.url)));
  for (const each of both) await each.stop();
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
});

test('a storage system that returns elsewhere: the record follows, and so do the views', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = await lab.storage('a', GiB);
  await lab.create('v', MiB);
  const { revision } = await directory.cluster();
  await storage.reportOnce(directory.url);
  expect((await directory.cluster()).revision).toBe(revision);
  const moved = { ...storage.reportBody, nbd: { host: '::1', port: 30_000 } };
  await directory.reportStorage(storage.name, moved);
  expect((await directory.cluster()).revision).toBeGreaterThan(revision);
  const [piece] = await directory.location('v' as never, {});
  expect(piece?.uri).toMatch(/^nbd:\/\/\[::1\]:30000\/rv-[0-9a-f]{16}@1\.[0-9a-f]{32}$/);
});

test('a real volume that has failed is told of once, with its volume', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = await lab.storage('a', GiB);
  await lab.create('v', MiB);
  const [realVolume] = Object.keys(storage.sizes);
  storage.failed = [{ realVolume: realVolume as never, reason: 'a flush failed' }];
  await storage.reportOnce(directory.url);
  await storage.reportOnce(directory.url);
  await lab.restart();
  await storage.reportOnce(directory.url);
  expect(await directory.status()).toMatchObject({ health: 'degraded' });
  const events = await directory.events({});
  expect(events.filter(({ kind }) => kind === 'real-volume.failed')).toMatchObject([
    { subject: realVolume, details: { storage: 'a', volume: 'v', reason: 'a flush failed' } },
  ]);
});
