/**
 * V2, V5, Q1: hosts go on while the processes behind them die. fio writes across the border of two storage systems, and
 * verifies every block afterwards; an error that it sees, or a block that differs, is a failure.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { fioVerify } from '../support/fio.ts';
import { eventually, requireTool, run, runOk } from '../support/tools.ts';

const SIZE_MIB = 64;
const halves = ['--segment', 'east-1:32MiB', '--segment', 'east-2:32MiB'];

describe('a volume over two storage systems, under load', () => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await startCluster();
    await cluster.volary('volume', 'create', 'demo', '--size', `${SIZE_MIB}MiB`, ...halves);
  });

  afterAll(() => cluster?.end());

  /** About 10 seconds of writes. */
  function load(connections: number): Promise<void> {
    return fioVerify({
      uri: cluster.uri('demo'),
      sizeMiB: SIZE_MIB,
      writesPerSecond: 1600,
      connections,
      cwd: cluster.folder,
    });
  }

  /** Acts after a second of load; what fio finds comes first. */
  async function whileLoaded(connections: number, act: () => Promise<void>): Promise<void> {
    await Promise.all([load(connections), sleep(1000).then(act)]);
  }

  test.each([1, 4])(
    'V5: each storage system is killed once and comes back (%i connections)',
    async (connections) => {
      await whileLoaded(connections, async () => {
        for (const name of ['east-1', 'east-2']) {
          await cluster.storage(name).restart();
          await sleep(1000);
        }
      });
    },
  );

  test('V5: a storage system is away for 5 s: the host waits', async () => {
    await whileLoaded(1, async () => {
      await cluster.storage('east-2').kill();
      await sleep(5000);
      await cluster.storage('east-2').start();
    });
  });

  test('V5: a storage system that stands still for 5 s', async () => {
    await whileLoaded(4, async () => {
      const pid = cluster.storage('east-1').pid();
      process.kill(pid, 'SIGSTOP');
      await sleep(5000);
      process.kill(pid, 'SIGCONT');
    });
  });

  test('V2: the directory is away for 30 s: hosts that are there go on, and new ones come in', async () => {
    await cluster.directory.kill();
    await load(2);
    await sleep(20_000);
    await fioVerify({
      uri: cluster.uri('demo'),
      sizeMiB: SIZE_MIB,
      cwd: cluster.folder,
      verifyOnly: true,
      connections: 2,
    });
    await cluster.directory.start();
    await eventually('everybody is online again', async () => {
      const { health } = await cluster.client.status();
      return health === 'ok' ? true : undefined;
    });
  });

  test('V2: a gateway starts and serves while the directory is away', async () => {
    await fioVerify({ uri: cluster.uri('demo'), sizeMiB: SIZE_MIB, cwd: cluster.folder });
    await cluster.directory.kill();
    await cluster.gateway('east-gw').kill();
    await cluster.gateway('east-gw').start('ready line');
    await fioVerify({ uri: cluster.uri('demo'), sizeMiB: SIZE_MIB, cwd: cluster.folder, verifyOnly: true });
    await cluster.directory.start();
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
    await fioVerify({ uri: cluster.uri('demo'), sizeMiB: SIZE_MIB, cwd: cluster.folder, verifyOnly: true });
  });
});

describe('a storage system that stays away beyond the limit', () => {
  let cluster: Cluster;

  beforeAll(async () => {
    cluster = await startCluster({
      storage: { 'east-1': {}, 'east-2': {} },
      gateways: { 'east-gw': { reconnect: '2s' } },
    });
    await cluster.volary('volume', 'create', 'demo', '--size', '64MiB', ...halves);
  });

  afterAll(() => cluster?.end());

  test('V5: EIO after the limit, on its part of the volume only, and it recovers by itself', async () => {
    const uri = cluster.uri('demo');
    const qemuIo = requireTool('qemu-io', 'qemu-utils');
    const io = (command: string) => run(qemuIo, ['-f', 'raw', '-c', command, uri], { timeoutMs: 60_000 });
    await runOk(qemuIo, [
      '-f',
      'raw',
      '-c',
      'write -P 7 32M 64k',
      '-c',
      'write -P 9 0 64k',
      '-c',
      'flush',
      uri,
    ]);

    // A host that was there before sees the error on requests to the lost half alone.
    const held = run(
      qemuIo,
      [
        '-f',
        'raw',
        '-c',
        'read -P 9 0 4k',
        '-c',
        'sleep 4000',
        '-c',
        'read 32M 4k',
        '-c',
        'read -P 9 4k 4k',
        uri,
      ],
      { timeoutMs: 60_000 },
    );
    await sleep(1500);
    await cluster.storage('east-2').kill();
    const { stdout, stderr } = await held;
    expect(`${stdout}${stderr}`).toMatch(/read failed: Input\/output error/);
    expect(stdout.match(/read 4096\/4096 bytes/g)).toHaveLength(2);

    await cluster.storage('east-2').start();
    const after = await eventually('the half that was lost is read again', async () => {
      const result = await io('read -P 7 32M 64k');
      return result.code === 0 ? result : undefined;
    });
    expect(after.stdout).not.toMatch(/Pattern verification failed/);
  });
});
