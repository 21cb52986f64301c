/** Bounded memory, whatever clients do. The figures are limits of the whole server process. */

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Command } from '../../src/nbd-server-protocol/constants.ts';
import { NbdClient } from '../support/client.ts';
import { pattern } from '../support/layout.ts';
import { inMiB, memoryOf, processorMsOf } from '../support/process.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { eventually, requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { requestMessage } from '../support/wire.ts';

const MiB = 1024 * 1024;
const EXPORT = 256 * MiB;

describe('memory', () => {
  let folder: TemporaryFolder;
  let server: RunningServer;
  let uri: string;

  beforeEach(async () => {
    folder = await temporaryFolder();
    server = await startServe([
      folder.file('disk.img'),
      '--size',
      `${EXPORT}`,
      '--listen',
      'nbd://127.0.0.1:0',
    ]);
    uri = server.uris[0] as string;
  });

  afterEach(async () => {
    await server?.kill();
    await folder.remove();
  });

  function expectBelow(figure: 'VmRSS' | 'VmHWM', limit: number): void {
    const bytes = memoryOf(server.process.pid as number, figure);
    expect(bytes, `${figure} ${inMiB(bytes)}, limit ${inMiB(limit)}`).toBeLessThan(limit);
  }

  function connect(count: number): Promise<NbdClient[]> {
    return Promise.all(Array.from({ length: count }, () => NbdClient.open(uri)));
  }

  test('200 idle connections: below 150 MiB', async () => {
    const clients = await connect(200);
    for (const client of clients) expect((await client.read(0, 4096)).error).toBe(0);
    expectBelow('VmRSS', 150 * MiB);
    for (const client of clients) client.wire.destroy();
  });

  test('1 GiB of 1 MiB writes in flight on 16 connections: never above 400 MiB', async () => {
    const fio = requireTool('fio', 'fio');
    const load = [
      '--rw=write',
      '--bs=1m',
      '--size=64m',
      '--offset_increment=12m',
      '--iodepth=64',
      '--numjobs=16',
    ];
    await runOk(fio, ['--name=flood', '--ioengine=nbd', `--uri=${uri}`, ...load], { cwd: folder.path });
    expectBelow('VmHWM', 400 * MiB);
  });

  test('the same, when the volume takes none of them for a while', async () => {
    const fio = requireTool('fio', 'fio');
    const held = await startServe([], {
      command: [process.execPath, join(import.meta.dirname, 'held-server.ts')],
    });
    try {
      const pid = held.process.pid as number;
      const load = ['--rw=write', '--bs=1m', '--size=8m', '--io_size=64m', '--iodepth=64', '--numjobs=16'];
      const uri = `--uri=${held.uris[0]}`;
      const flood = runOk(fio, ['--name=flood', '--ioengine=nbd', uri, ...load], { cwd: folder.path });
      let seen = 0;
      await eventually('the server takes no more', async () => {
        const before = seen;
        seen = memoryOf(pid, 'VmRSS');
        await sleep(500);
        return before > 0 && Math.abs(seen - before) < MiB ? true : undefined;
      });
      held.process.kill('SIGUSR2');
      await flood;
      const most = memoryOf(pid, 'VmHWM');
      expect(most, `VmHWM ${inMiB(most)}`).toBeLessThan(400 * MiB);
    } finally {
      await held.kill();
    }
  });

  test('N5: clients that never read their replies hold up nobody and cost little', async () => {
    const [good, ...greedy] = await connect(9);
    const requests = Buffer.concat(
      Array.from({ length: 500 }, (_, index) =>
        requestMessage('simple', { type: Command.read, cookie: BigInt(index), offset: 0, length: 8 * MiB }),
      ),
    );
    for (const client of greedy) {
      client.wire.pause();
      client.wire.send(requests); // 4 GB of answers asked for, on each
    }
    const data = pattern(64 * 1024, 2);
    for (let round = 0; round < 200; round++) {
      expect(await good!.write(round * data.length, data)).toBe(0);
      const read = await good!.read(round * data.length, data.length);
      expect(read.data.equals(data)).toBe(true);
      if (round % 20 === 0) await sleep(10);
    }
    expect(await good!.flush()).toBe(0);
    expectBelow('VmHWM', 400 * MiB);
    // Nothing can be done for them, so nothing is done: waiting for a reader is no work.
    const pid = server.process.pid as number;
    const before = processorMsOf(pid);
    await sleep(1000);
    expect(processorMsOf(pid) - before).toBeLessThan(100);
    for (const client of greedy) client.wire.destroy('reset');
    expect((await good!.read(0, 4096)).error).toBe(0);
    await good!.disconnect();
    expect(await server.stop()).toEqual({ code: 0, signal: null });
  });

  test('N5: many small requests whose replies are never read are bounded too', async () => {
    const [good, ...greedy] = await connect(5);
    const requests = Buffer.concat(
      Array.from({ length: 100_000 }, (_, index) =>
        requestMessage('simple', { type: Command.read, cookie: BigInt(index), offset: 4096, length: 512 }),
      ),
    );
    for (const client of greedy) {
      client.wire.pause();
      client.wire.send(requests);
    }
    for (let round = 0; round < 50; round++) {
      expect((await good!.read(round * 4096, 4096)).error).toBe(0);
      await sleep(5);
    }
    expectBelow('VmHWM', 400 * MiB);
    for (const client of [good!, ...greedy]) client.wire.destroy();
  });
});
