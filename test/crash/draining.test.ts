/** N5, seen from the inside: what happens to requests that are under way when the server is told to stop. */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, describe, expect, test } from 'vitest';
import type { Volume } from '../../src/model/volume.ts';
import { NbdServer } from '../../src/nbd/server.ts';
import { NbdClient, outcome } from '../support/client.ts';
import { pattern } from '../support/layout.ts';
import { silentLog } from '../support/log.ts';
import { eventually } from '../support/tools.ts';
import { DelayVolume, Gate } from '../support/volumes/delay-volume.ts';
import { FaultVolume } from '../support/volumes/fault-volume.ts';
import { LogVolume } from '../support/volumes/log-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

describe('a server that is stopped', () => {
  let server: NbdServer | undefined;

  afterEach(async () => {
    await server?.stop().catch(() => undefined); // a test may have made it fail on purpose
  });

  async function serve(volumes: Record<string, Volume>, drainMs = 10_000): Promise<string> {
    const exports = Object.entries(volumes).map(([name, volume]) => ({ name, volume }));
    server = new NbdServer({
      exports: { list: () => exports, find: (name) => exports.find((entry) => entry.name === name) },
      log: silentLog,
      drainMs,
    });
    const address = await server.listen({ host: '127.0.0.1', port: 0 });
    if (!('port' in address)) throw new Error('listens on no port');
    return `nbd://127.0.0.1:${address.port}`;
  }

  test('N5: writes and reads in flight are answered, then the connection is closed, then all is flushed', async () => {
    const gate = new Gate();
    const log = new LogVolume(new MemoryVolume(Buffer.alloc(MiB)));
    const client = await NbdClient.open(await serve({ disk: new DelayVolume(log, gate.delay) }), 'disk');
    gate.shut('write', 'read');
    const data = pattern(64 * KiB, 1);
    const writes = [0, 1, 2, 3].map((index) => client.write(index * data.length, data));
    const read = client.read(MiB - 4 * KiB, 4 * KiB);
    await eventually('all are in flight', () => gate.held.length >= 5 || undefined);
    let stopped = false;
    const stop = (server as NbdServer).stop().then(() => {
      stopped = true;
    });
    await sleep(100);
    expect(stopped, 'it waits for what is in flight').toBe(false);
    gate.open();
    expect(await Promise.all(writes)).toEqual([0, 0, 0, 0]);
    expect((await read).error).toBe(0);
    expect((await client.wire.readToEnd()).length).toBe(0);
    client.wire.destroy();
    await stop;
    const flush = log.entries.findLast(({ operation }) => operation === 'flush');
    const lastWrite = log.entries.findLast(({ operation }) => operation === 'write');
    expect(flush?.startedAt).toBeGreaterThan(lastWrite?.endedAt as number);
  });

  test('N5: what is sent after that is not carried out', async () => {
    const gate = new Gate();
    const log = new LogVolume(new MemoryVolume(Buffer.alloc(MiB)));
    const client = await NbdClient.open(await serve({ disk: new DelayVolume(log, gate.delay) }), 'disk');
    gate.shut('write');
    const before = client.write(0, pattern(4 * KiB, 1));
    await eventually('it is in flight', () => gate.held.length === 1 || undefined);
    const stop = (server as NbdServer).stop();
    await sleep(50);
    const after = outcome(client.write(8 * KiB, pattern(4 * KiB, 2)));
    await sleep(50);
    gate.open();
    expect(await before).toBe(0);
    expect(await after).not.toBe(0);
    await stop;
    expect(log.entries.filter(({ offset }) => offset === 8 * KiB)).toEqual([]);
  });

  test('N5: a disk that does not answer does not keep it from ending', async () => {
    const gate = new Gate();
    const volume = new DelayVolume(new MemoryVolume(Buffer.alloc(MiB)), gate.delay);
    const client = await NbdClient.open(await serve({ disk: volume }, 200), 'disk');
    gate.shut('write');
    const write = outcome(client.write(0, pattern(4 * KiB, 1)));
    await eventually('it is in flight', () => gate.held.length === 1 || undefined);
    await (server as NbdServer).stop();
    expect(await write).toBe('closed');
    gate.open();
  });

  test('N5: one volume that cannot be flushed does not keep the others from being flushed', async () => {
    const bad = new FaultVolume(new MemoryVolume(Buffer.alloc(MiB)));
    const good = new LogVolume(new MemoryVolume(Buffer.alloc(MiB)));
    const uri = await serve({ bad, good });
    for (const name of ['bad', 'good']) {
      const client = await NbdClient.open(uri, name);
      expect(await client.write(0, pattern(4 * KiB, 1))).toBe(0);
      await client.disconnect();
    }
    bad.inject({ operation: 'flush', code: 'io' });
    await expect((server as NbdServer).stop()).rejects.toThrow('injected');
    expect(good.entries.map(({ operation }) => operation)).toContain('flush');
  });
});
