/** S5, Q2: processes that are started with what is not theirs say so and harm nobody. */

import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, expect, test } from 'vitest';
import { StorageName } from '../../src/control-protocol/names.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { copied, elsewhere } from '../support/data-folders.ts';
import { run } from '../support/tools.ts';
import { startVolary, volaryCommand } from '../support/volary-process.ts';

const name = StorageName.parse('east-1');
const PATIENCE = { timeout: 30_000 };

let clusters: Cluster[] = [];
afterEach(async () => {
  await Promise.all(clusters.map((cluster) => cluster.end()));
  clusters = [];
});

async function cluster(): Promise<Cluster> {
  const started = await startCluster();
  clusters.push(started);
  return started;
}

/** Runs a role that must not start. */
async function failing(kind: string, flags: readonly string[]): Promise<{ code: number; stderr: string }> {
  const { code, stderr } = await run(volaryCommand, ['run', kind, ...flags], { timeoutMs: 30_000 });
  return { code, stderr: stderr.split('\n').find((line) => line.startsWith('error: ')) ?? stderr };
}

test('S5: two data folders mixed up are refused, and serve again when they are put right', async () => {
  const east = await cluster();
  await east.volary(
    'volume',
    'create',
    'demo',
    '--size',
    '8MiB',
    '--segment',
    'east-1:4MiB',
    '--segment',
    'east-2:4MiB',
  );
  const [one, two] = [east.storage('east-1'), east.storage('east-2')];
  await one.stop();
  await two.stop();
  const aside = join(east.folder, 'aside');
  const swap = async (): Promise<void> => {
    await rename(one.data, aside);
    await rename(two.data, one.data);
    await rename(aside, two.data);
  };
  await swap();
  for (const storage of [one, two]) {
    const { code, stderr } = await failing('storage', storage.flags);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: wrong-data-folder: /);
  }
  await swap();
  await one.start();
  await two.start();
  expect((await east.client.status()).health).toBe('ok');
});

test('S5: a storage system of one cluster is refused by another', async () => {
  const [here, there] = [await cluster(), await cluster()];
  const storage = here.storage('east-1');
  await storage.stop();
  const flags = storage.flags.map((flag) => (flag === here.directory.url ? there.directory.url : flag));
  const { code, stderr } = await failing('storage', flags);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: wrong-cluster: /)]);
  await storage.start();
  expect((await here.client.status()).health).toBe('ok');
});

test('S5: the name of a storage system cannot be taken by an empty folder', async () => {
  const east = await cluster();
  const storage = east.storage('east-1');
  await storage.stop();
  const flags = storage.flags.map((flag) => (flag === storage.data ? `${storage.data}-new` : flag));
  const { code, stderr } = await failing('storage', flags);
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: wrong-identity: /)]);
});

test('S5: one data folder is used by one process', async () => {
  const east = await cluster();
  for (const [kind, role] of [
    ['storage', east.storage('east-1')],
    ['gateway', east.gateway('east-gw')],
    ['directory', east.directory],
  ] as const) {
    const { code, stderr } = await failing(kind, role.flags);
    expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: locked: /)]);
  }
});

test('a copy of a data folder does not run beside the original', async () => {
  const east = await cluster();
  const storage = east.storage('east-1');
  const { manage } = await east.client.storageSystem(name);
  const copy = await copied(storage);
  const { code, stderr } = await failing('storage', await elsewhere(storage.flags, copy));
  expect([code, stderr]).toEqual([
    1,
    expect.stringMatching(/^error: wrong-identity: another process runs with a copy of this data folder: /),
  ]);
  expect(stderr).toContain(manage);
  expect(await east.client.storageSystem(name)).toMatchObject({
    state: 'online',
    manage,
  });
});

test('a data folder that was moved is taken, and the one it was moved from is not any more', async () => {
  const east = await cluster();
  const storage = east.storage('east-1');
  await storage.stop();
  const copy = await copied(storage);
  const original = storage.flags;
  storage.flags = original.map((flag) => (flag === storage.data ? copy : flag));
  await storage.start();
  const { code, stderr } = await failing('storage', await elsewhere(original, storage.data));
  expect([code, stderr]).toEqual([1, expect.stringMatching(/^error: wrong-identity: another process runs /)]);
  await storage.stop();
  await expect.poll(async () => (await east.client.storageSystem(name)).state, PATIENCE).toBe('offline');
  expect(await failing('storage', original)).toEqual({
    code: 1,
    stderr: expect.stringMatching(/^error: wrong-identity: .*older/),
  });
});

test('a data folder that was rolled back is refused; a killed one goes on at once, again and again', async () => {
  const east = await cluster();
  const storage = east.storage('east-1');
  await storage.stop();
  const snapshot = await copied(storage);
  await storage.start();
  await storage.restart();
  await storage.restart();
  await storage.stop();
  await rm(storage.data, { recursive: true });
  await rename(snapshot, storage.data);
  await expect.poll(async () => (await east.client.storageSystem(name)).state, PATIENCE).toBe('offline');
  expect(await failing('storage', storage.flags)).toEqual({
    code: 1,
    stderr: expect.stringMatching(/^error: wrong-identity: .*rolled back.*--restored/),
  });
});

test('a process that was stopped while another took over its folder ends itself', async () => {
  const east = await cluster();
  const storage = east.storage('east-1');
  const original = storage.process();
  process.kill(original.pid, 'SIGSTOP');
  const copy = await copied(storage);
  await expect.poll(async () => (await east.client.storageSystem(name)).state, PATIENCE).toBe('offline');
  const other = await startVolary(['run', 'storage', ...(await elsewhere(storage.flags, copy))]);
  try {
    process.kill(original.pid, 'SIGCONT');
    expect((await original.exit).code).toBe(1);
    expect(original.stderr()).toContain('another process runs with a copy of this data folder');
    expect((await east.client.storageSystem(name)).state).toBe('online');
  } finally {
    await other.kill();
  }
});
