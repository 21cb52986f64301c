/** `volary up` when its roles, or itself, are killed. */

import { writeFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { isRunning, processesWith } from '../support/process.ts';
import { eventually, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { pidsOf, startUp, topologyText, type UpCluster } from '../support/up.ts';

let folder: TemporaryFolder;
let cluster: UpCluster | undefined;

beforeEach(async () => {
  folder = await temporaryFolder();
  writeFileSync(folder.file('topology.yaml'), await topologyText());
});

afterEach(async () => {
  await cluster?.up.stop();
  cluster = undefined;
  await folder.remove();
});

async function start(more: readonly string[] = []): Promise<UpCluster> {
  cluster = await startUp([
    '--topology',
    folder.file('topology.yaml'),
    '--data',
    folder.file('data'),
    ...more,
  ]);
  return cluster;
}

test('each role that is killed comes back, at the same address, and the cluster is whole again', async () => {
  const { ready, killAndAwait, client, up } = await start();
  for (const name of ['directory', ...Object.keys(ready.storage), ...Object.keys(ready.gateways)]) {
    const pid = await killAndAwait(name);
    expect(isRunning(pid), name).toBe(true);
  }
  const { manage, uri } = Object.values(ready.gateways)[0] as { manage: string; uri: string };
  expect((await fetch(`${manage}/readyz`)).status).toBe(200);
  const status = await eventually('health', async () => {
    const now = await client.status();
    return now.health === 'ok' ? now : undefined;
  });
  expect(status.gateways.map(({ uris }) => uris)).toEqual([[uri]]);
  expect(await up.stop()).toEqual({ code: 0, signal: null });
});

test('a role that is killed again and again comes back each time', async () => {
  const { killAndAwait, up } = await start();
  for (let round = 0; round < 3; round++) await killAndAwait('east-1');
  const waits = up
    .log()
    .flatMap(({ role, restartMs }) => (role === 'east-1' && restartMs ? [restartMs] : []));
  expect(waits[0]).toBe(100);
  expect(waits).toHaveLength(3);
});

test('--no-restart: what has died stays away, and is told; the others go on', async () => {
  const { ready, pidOf, up } = await start(['--no-restart']);
  process.kill(pidOf('east-1'), 'SIGKILL');
  const told = await eventually('the end is told', () => up.log().find(({ state }) => state === 'ended'));
  expect(told).toMatchObject({ role: 'east-1', end: { code: null, signal: 'SIGKILL' } });
  expect(told).not.toHaveProperty('restartMs');
  expect(pidsOf(ready).filter((pid) => !isRunning(pid))).toEqual([pidOf('east-1')]);
  expect(await up.stop()).toEqual({ code: 0, signal: null });
});

test('the supervisor is killed: nothing goes on running, and the next one starts at once', async () => {
  const { ready, up } = await start();
  await up.kill();
  const again = await start();
  expect(pidsOf(ready).filter(isRunning)).toEqual([]);
  expect(again.ready.storage['east-1']?.uri).toBe(ready.storage['east-1']?.uri);
});

test('the supervisor is killed before its roles have started: nothing goes on running', async () => {
  const { up } = await start();
  await up.stop();
  const pids = new Set<number>();
  for (let round = 0; round < 3; round++) {
    const next = startUp(['--topology', folder.file('topology.yaml'), '--data', folder.file('data')]);
    const [supervisor] = await eventually('its roles', () => {
      const found = processesWith(folder.path);
      for (const { pid } of found) pids.add(pid);
      return found.length > 4
        ? found.filter(({ args }) => args.includes('up')).map(({ pid }) => pid)
        : undefined;
    });
    process.kill(Number(supervisor), 'SIGKILL');
    await expect(next).rejects.toThrow(/SIGKILL/);
  }
  await eventually('the end of all', () => ([...pids].some(isRunning) ? undefined : true));
});
