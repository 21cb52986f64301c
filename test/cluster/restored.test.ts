/** R8, S5: storage systems that go on with a data folder that was put back from a backup (`--restored`). */

import { once } from 'node:events';
import { rename, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { StorageName } from '../../src/control-protocol/names.ts';
import { NbdClient } from '../support/client.ts';
import { type Cluster, layCluster, type RoleHandle, startCluster } from '../support/cluster.ts';
import { allDuplex, expectEqualFiles, primaryOf, secondariesOf, showVolume } from '../support/copies.ts';
import { copied, elsewhere } from '../support/data-folders.ts';
import { runOk } from '../support/tools.ts';
import { startVolary } from '../support/volary-process.ts';

const PATIENCE = { timeout: 30_000 };
const BYTES = 65_536;

const undo: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const step of undo.splice(0).reverse()) await step();
});

async function cluster(): Promise<Cluster> {
  const started = await startCluster();
  undo.push(() => started.end());
  return started;
}

async function write(east: Cluster, volume: string, byte: number): Promise<void> {
  const host = await NbdClient.open(east.gateway('east-gw').uri, volume);
  expect(await host.write(0, Buffer.alloc(BYTES, byte))).toBe(0);
  await host.disconnect();
}

async function expectContent(east: Cluster, volume: string, byte: number): Promise<void> {
  const host = await NbdClient.open(east.gateway('east-gw').uri, volume);
  expect((await host.read(0, BYTES)).data.equals(Buffer.alloc(BYTES, byte))).toBe(true);
  await host.disconnect();
}

/** The record says of one that has been put back that it is primary until it has given way. */
async function becomesPrimary(east: Cluster, volume: string, storage: string): Promise<void> {
  const primaries = async () =>
    (await showVolume(east, volume)).segments.map((each) => primaryOf(each).storage);
  await expect.poll(primaries, PATIENCE).toEqual([storage]);
}

async function eventsOf(east: Cluster, wanted: string): Promise<number> {
  return (await east.client.events({ since: 0 })).filter(({ kind }) => kind === wanted).length;
}

/** It is stopped, and what it had at `backup` is what it goes on with. */
async function restore(storage: RoleHandle, backup: string): Promise<void> {
  await storage.stop();
  await rm(storage.data, { recursive: true });
  await rename(backup, storage.data);
  storage.flags.push('--restored');
  await storage.start();
}

test('a data folder that was put back is taken when a person says so, and its copies are brought up anew', async () => {
  const east = await cluster();
  const storage = east.storage('east-2');
  for (const [volume, here, there] of [
    ['near', 'east-2', 'east-1'],
    ['far', 'east-1', 'east-2'],
  ] as const) {
    await east.volary('volume', 'create', volume, '--size', '8MiB', '--segment', here, '--copy', there);
    await allDuplex(east, volume);
  }
  await storage.stop();
  const backup = await copied(storage);
  await storage.start();
  for (const volume of ['near', 'far']) {
    await allDuplex(east, volume);
    await write(east, volume, 7);
  }
  await restore(storage, backup);
  for (const volume of ['near', 'far']) {
    await becomesPrimary(east, volume, 'east-1');
    expect(await expectEqualFiles(await allDuplex(east, volume))).toBe(1);
    await expectContent(east, volume, 7);
  }
  expect(await eventsOf(east, 'storage.restored')).toBe(1);
  await storage.restart(); // with the flag still
  for (const volume of ['near', 'far']) expect(await expectEqualFiles(await allDuplex(east, volume))).toBe(1);
  expect(await eventsOf(east, 'storage.restored')).toBe(1);
});

test.each([
  ['its primary, and is again', 'east-2'],
  ['a copy of it later', 'east-1'],
])(
  'what was put back from before a volume had copies lacks all that was written since, when it was %s',
  async (_, primary) => {
    const east = await cluster();
    const storage = east.storage('east-2');
    await east.volary('volume', 'create', 'db', '--size', '8MiB', '--segment', 'east-2');
    await write(east, 'db', 5);
    await storage.stop();
    const backup = await copied(storage);
    await storage.start();
    await east.volary('copy', 'add', 'db', 'east-1');
    await allDuplex(east, 'db');
    if (primary !== 'east-2') await east.volary('copy', 'switch', 'db', primary, '--wait');
    await write(east, 'db', 7);
    await restore(storage, backup);
    await becomesPrimary(east, 'db', 'east-1');
    expect(await expectEqualFiles(await allDuplex(east, 'db'))).toBe(1);
    await expectContent(east, 'db', 7);
  },
);

/** A way to the directory that can be cut. */
async function wayTo(url: string): Promise<{ url: string; cut: () => Promise<void> }> {
  const { hostname, port } = new URL(url);
  const sockets = new Set<Socket>();
  const server = createServer((near) => {
    const far = connect({ host: hostname, port: Number(port) });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.pipe(to);
      from.on('error', () => to.destroy());
      from.on('close', () => sockets.delete(from));
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const cut = async (): Promise<void> => {
    server.close();
    for (const socket of sockets) socket.destroy();
  };
  undo.push(cut);
  return { url: `http://127.0.0.1:${(server.address() as { port: number }).port}`, cut };
}

test('a primary that is connected to the process of before does not take it for the member that was put back', async () => {
  const east = await layCluster();
  undo.push(() => east.end());
  const storage = east.storage('east-2');
  const way = await wayTo(east.directory.url);
  const flags = [...storage.flags];
  storage.flags = flags.map((flag) => (flag === east.directory.url ? way.url : flag));
  for (const role of [east.directory, east.storage('east-1'), storage, east.gateway('east-gw')])
    await role.start();
  await east.volary('volume', 'create', 'db', '--size', '8MiB', '--segment', 'east-1', '--copy', 'east-2');
  await allDuplex(east, 'db');
  await storage.stop();
  const backup = await copied(storage);
  await storage.start();
  await allDuplex(east, 'db');
  await write(east, 'db', 7);

  await way.cut(); // the process goes on, and so does its primary
  const name = StorageName.parse('east-2');
  await expect.poll(async () => (await east.client.storageSystem(name)).state, PATIENCE).toBe('offline');
  const put = await startVolary(['run', 'storage', ...(await elsewhere(flags, backup)), '--restored']);
  undo.push(() => put.kill());
  await expect.poll(() => eventsOf(east, 'storage.restored'), PATIENCE).toBe(1);
  await write(east, 'db', 8);
  const [segment] = (await allDuplex(east, 'db')).segments;
  if (segment === undefined) throw new Error('a volume without segments');
  const { realVolume } = secondariesOf(segment)[0] ?? {};
  await runOk('cmp', [primaryOf(segment).file ?? '', join(backup, 'volumes', `${realVolume}.raw`)]);
});
