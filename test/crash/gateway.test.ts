/**
 * A gateway among real processes: directory, storage systems and gateways come and go while hosts work on a volume that
 * lies on two storage systems.
 */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { openRemoteVolume, type RemoteVolume } from '../../src/nbd-client/remote-volume.ts';
import { outcomeOf } from '../contract/model-run.ts';
import { startLoad } from '../support/cluster/load.ts';
import { type Cluster, type ClusterShape, startCluster } from '../support/cluster.ts';
import { silentLog } from '../support/log.ts';
import { testRandom } from '../support/random.ts';
import { portOf } from '../support/server.ts';
import { eventually } from '../support/tools.ts';

const MIB = 1024 * 1024;
const SEGMENTS = ['--segment', 'east-1:8MiB', '--segment', 'east-2:8MiB'];

const shape: ClusterShape = {
  storage: { 'east-1': {}, 'east-2': {} },
  gateways: { 'east-gw': { workers: 2 }, 'west-gw': { reconnect: '1s' } },
};

describe('a gateway among real processes', () => {
  let cluster: Cluster;
  let hosts: RemoteVolume[];

  beforeEach(async () => {
    hosts = [];
    cluster = await startCluster(shape);
    await cluster.volary('volume', 'create', 'disk', '--size', '16MiB', ...SEGMENTS, '--wait');
  });

  afterEach(async () => {
    await Promise.allSettled(hosts.map((host) => host.close()));
    await cluster.end();
  });

  /** A host whose requests wait for a gateway that is away, as the kernel's do. */
  async function host(gateway: string, connections = 2): Promise<RemoteVolume> {
    const address = { host: '127.0.0.1', port: portOf(cluster.gateway(gateway).uri) };
    const volume = await openRemoteVolume({
      address,
      exportName: 'disk',
      connections,
      reconnectMs: 60_000,
      log: silentLog,
    });
    hosts.push(volume);
    return volume;
  }

  test('V5: beyond the limit requests fail with EIO, and then go on by themselves', async () => {
    const volume = await host('west-gw');
    const block = Buffer.alloc(4096, 7);
    await volume.write(8 * MIB, block, 0, 4096, true);
    await cluster.storage('east-2').kill();
    const target = Buffer.alloc(4096);
    const lost = [volume.write(8 * MIB, block, 0, 4096, true), volume.read(8 * MIB, target, 0, 4096)];
    expect(await Promise.all(lost.map(outcomeOf))).toEqual(['io', 'io']);
    expect(await outcomeOf(volume.write(0, block, 0, 4096, false))).toBe('done');
    expect(await outcomeOf(volume.read(0, target, 0, 4096))).toBe('done');
    await cluster.storage('east-2').start();
    await eventually('it has recovered', async () =>
      (await outcomeOf(volume.write(12 * MIB, block, 0, 4096, true))) === 'done' ? true : undefined,
    );
    await volume.read(8 * MIB, target, 0, 4096);
    expect(target.equals(block)).toBe(true);
  });

  test('Q1: kill -9 of gateway, storage systems and directory in turn, under load: nothing is lost', async () => {
    const volume = await host('east-gw');
    const load = startLoad(volume, testRandom('kill -9 of every role'), 16);
    const roles = [
      cluster.gateway('east-gw'),
      cluster.storage('east-1'),
      cluster.directory,
      cluster.storage('east-2'),
      cluster.gateway('east-gw'),
    ];
    for (const role of roles) {
      await load.progress();
      await role.restart();
    }
    await load.progress();
    await load.finish();
  });

  test('V2: a gateway starts, and serves, while the directory is away', async () => {
    const before = await host('east-gw');
    await before.write(8 * MIB - 2048, Buffer.alloc(4096, 3), 0, 4096, true);
    const kept = join(cluster.gateway('east-gw').data, 'second-information.json');
    await eventually('it is on disk, as it is within a second', async () =>
      (await readFile(kept, 'utf8')).includes('"state":"ready"') ? true : undefined,
    );
    await cluster.directory.kill();
    await cluster.gateway('east-gw').kill();
    await cluster.gateway('east-gw').start();
    const target = Buffer.alloc(4096);
    await (await host('east-gw')).read(8 * MIB - 2048, target, 0, 4096);
    expect(target.equals(Buffer.alloc(4096, 3))).toBe(true);
    await cluster.directory.start();
    await cluster.volary('volume', 'resize', 'disk', '32MiB', '--wait');
    await eventually('the new size', async () =>
      (await host('east-gw')).sizeBytes === 32 * MIB ? true : undefined,
    );
  });

  test('V2: two gateways write to one volume at once, each its own blocks, and read what the other wrote', async () => {
    const [one, other] = [await host('east-gw'), await host('west-gw')];
    const write = async (volume: RemoteVolume, first: number): Promise<void> => {
      for (let block = first; block < 4096; block += 16) {
        await volume.write(block * 4096, Buffer.alloc(4096, (block % 255) + 1), 0, 4096, false);
      }
      await volume.flush();
    };
    await Promise.all([write(one, 0), write(other, 8)]);
    for (const [volume, first] of [
      [one, 8],
      [other, 0],
    ] as const) {
      for (let block = first; block < 4096; block += 16) {
        const target = Buffer.alloc(4096);
        await volume.read(block * 4096, target, 0, 4096);
        expect(target.equals(Buffer.alloc(4096, (block % 255) + 1))).toBe(true);
      }
    }
  });

  test('resize and delete while a host works', async () => {
    const volume = await host('east-gw');
    await volume.resize(24 * MIB);
    const bytes = Buffer.alloc(24 * MIB, 5);
    await volume.write(0, bytes, 0, bytes.length, true);
    const target = Buffer.alloc(24 * MIB);
    await volume.read(0, target, 0, target.length);
    expect(target.equals(bytes)).toBe(true);
    const refused = await cluster.tryVolary(['volume', 'delete', 'disk', '--wait']);
    expect(refused.stderr).toContain('in-use');
    await volume.close();
    await cluster.volary('volume', 'delete', 'disk', '--wait');
    await expect(host('east-gw')).rejects.toMatchObject({ code: 'invalid' });
  });
});
