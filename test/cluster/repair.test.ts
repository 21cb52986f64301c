/**
 * N3 over two gateways: after a flush of one has failed, no flush of the other succeeds for writes that may be lost, whatever is
 * started again; until somebody takes the volume back.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RepairView, StorageView, VolumeView } from '../../src/control-protocol/directory-api.ts';
import { NbdClient } from '../support/client.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { attachStrace } from '../support/strace.ts';
import { eventually } from '../support/tools.ts';

/** Longer than a gateway keeps a volume without hosts. */
const KEPT_MS = 2_500;
const page = Buffer.alloc(4096, 7);
let cluster: Cluster;

beforeAll(async () => {
  const gateways = { 'east-gw': { reconnect: '2s' }, 'west-gw': { reconnect: '2s' } };
  cluster = await startCluster({ storage: { 'east-1': {} }, gateways });
  await cluster.volary('volume', 'create', 'db', '--size', '16MiB');
});
afterAll(() => cluster?.end());

const shown = async () =>
  ((await cluster.volary('volume', 'show', 'db')) as VolumeView).segments[0]?.copies[0];
const open = (gateway: string) => NbdClient.open(cluster.gateway(gateway).uri, 'db');

test('N3: a failed flush, a storage system that is started again, and a repair', async () => {
  const storage = cluster.storage('east-1');
  const [east, west] = [await open('east-gw'), await open('west-gw')];
  expect([await east.write(0, page), await west.write(4096, page)]).toEqual([0, 0]);
  const file = (await shown())?.file ?? '';
  const strace = await attachStrace(storage.pid(), `${cluster.folder}/eio.log`, [
    ...['-P', file, '-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO'],
  ]);
  expect(await east.flush()).not.toBe(0);
  await strace.detach();
  await storage.restart();
  expect(await west.flush()).not.toBe(0);
  expect(await west.write(8192, page)).not.toBe(0);
  const reason = await eventually('the directory knows', async () => (await shown())?.reason ?? undefined);
  expect(reason).toMatch(/^its real volume has failed: fdatasync failed/);
  expect((await cluster.volary('storage', 'show', 'east-1')) as StorageView).toMatchObject({
    failed: [{ reason: expect.stringContaining('fdatasync failed') }],
  });

  for (const host of [east, west]) await host.disconnect();
  const { repaired, remaining } = (await cluster.volary('volume', 'repair', 'db')) as RepairView;
  expect([repaired.length, remaining]).toEqual([1, []]);
  for (const gateway of ['east-gw', 'west-gw']) {
    // A gateway keeps the volume for a moment after its last host; as it has seen the failure, it takes no writes for so long.
    for (let served = false; !served; await sleep(KEPT_MS)) {
      const host = await open(gateway);
      served = (await host.write(0, page)) === 0 && (await host.flush()) === 0;
      await host.disconnect();
    }
  }
  await eventually('the directory knows', async () => (await shown())?.reason === null || undefined);
});
