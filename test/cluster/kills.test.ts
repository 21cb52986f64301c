/**
 * V2, V5, Q1: hosts go on while the processes behind them die. fio writes across the border of two storage systems, and
 * verifies every block afterwards; an error that it sees, or a block that differs, is a failure.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { fioVerify } from '../support/fio.ts';
import { eventually } from '../support/tools.ts';

const SIZE_MIB = 64;
const halves = ['--segment', 'east-1:32MiB', '--segment', 'east-2:32MiB'];

describe('a volume over two storage systems, under load', () => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await startCluster({
      storage: { 'east-1': {}, 'east-2': {} },
      gateways: { 'east-gw': {}, 'west-gw': {} },
    });
    await cluster.volary('volume', 'create', 'demo', '--size', `${SIZE_MIB}MiB`, ...halves);
  });

  afterAll(() => cluster?.end());

  /** About 8 seconds of writes. */
  function load(connections: number): Promise<void> {
    const uri = cluster.uri('demo', 'east-gw');
    return fioVerify({ uri, sizeMiB: SIZE_MIB, writesPerSecond: 2000, connections, cwd: cluster.folder });
  }

  /** Acts after a second of load; what fio finds comes first. */
  async function whileLoaded(connections: number, act: () => Promise<void>): Promise<void> {
    await Promise.all([load(connections), sleep(1000).then(act)]);
  }

  /** Reads and checks what `load` has written. */
  function verify(gateway: string, connections: number): Promise<void> {
    const uri = cluster.uri('demo', gateway);
    return fioVerify({ uri, sizeMiB: SIZE_MIB, connections, cwd: cluster.folder, verifyOnly: true });
  }

  test('V5: each storage system is killed once and comes back', async () => {
    await whileLoaded(1, async () => {
      for (const name of ['east-1', 'east-2']) {
        await cluster.storage(name).restart();
        await sleep(1000);
      }
    });
  });

  test('V5: one storage system is away for 5 s, the other stands still: the host waits', async () => {
    await whileLoaded(4, async () => {
      const pid = cluster.storage('east-1').pid();
      process.kill(pid, 'SIGSTOP');
      await cluster.storage('east-2').kill();
      await sleep(5000);
      process.kill(pid, 'SIGCONT');
      await cluster.storage('east-2').start();
    });
    await verify('west-gw', 4); // nothing is kept in one gateway
  });

  // Longer than a role waits for an answer of the directory, or between two attempts to reach it.
  test('V2: the directory is away for 15 s: hosts that are there go on, and new ones come in', async () => {
    await cluster.directory.kill();
    await Promise.all([load(2), sleep(15_000)]);
    await verify('east-gw', 2);
    await cluster.directory.start();
    await eventually('everybody is online again', async () => {
      const { health } = await cluster.client.status();
      return health === 'ok' ? true : undefined;
    });
  });

  test('a storage system that was away through a restart of all others serves again', async () => {
    await fioVerify({ uri: cluster.uri('demo'), sizeMiB: SIZE_MIB, cwd: cluster.folder });
    await Promise.all([
      cluster.directory.kill(),
      cluster.gateway('east-gw').kill(),
      cluster.storage('east-1').kill(),
    ]);
    await cluster.storage('east-2').kill();
    await cluster.directory.start();
    await cluster.gateway('east-gw').start();
    await cluster.storage('east-1').start();
    await cluster.storage('east-2').start();
    await verify('east-gw', 1);
  });
});
