/** A gateway whose storage systems, directory and hosts come and go. */

import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Log } from '../../../src/model/log.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { NbdClient, outcome } from '../../support/client.ts';
import { DirectoryStandIn } from '../../support/cluster/directory-stand-in.ts';
import { GatewayLab } from '../../support/cluster/gateway-lab.ts';
import { startLoad } from '../../support/cluster/load.ts';
import { volumeOf } from '../../support/cluster/records.ts';
import { KEY } from '../../support/cluster/storage-stand-in.ts';
import { silentLog } from '../../support/log.ts';
import { testRandom } from '../../support/random.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate, seededDelays } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const MIB = 1024 * 1024;
/** Long enough for a gateway without a fence to do the wrong thing; a right one is right whatever it is. */
const TEMPTATION_MS = 150;

let lab: GatewayLab;
beforeEach(async () => {
  lab = await GatewayLab.start();
});
afterEach(() => lab.stop());

const slow = (seed: number): DelayVolume =>
  new DelayVolume(new MemoryVolume(Buffer.alloc(MIB)), seededDelays(seed, 3));

describe('V5: a storage system that goes away', () => {
  test('and comes back: requests wait, none fails', async () => {
    lab.volume('disk', [lab.real(0, slow(1)), lab.real(1, slow(2))]);
    const host = await lab.host(await lab.gateway(), 'disk');
    const load = startLoad(host, testRandom('a storage system comes and goes'));
    for (const storage of [lab.storage[0], lab.storage[1], lab.storage[0]]) {
      await load.progress();
      await storage.stop();
      await storage.start();
    }
    await load.progress();
    await load.finish();
  });

  test('for longer than reconnectMs: EIO, and it recovers; the other segment is not touched by it', async () => {
    lab.volume('disk', [lab.real(0, MIB), lab.real(1, MIB)]);
    const host = await lab.host(await lab.gateway('east-gw', { reconnectMs: 300 }), 'disk');
    const block = Buffer.alloc(4096, 5);
    await host.write(0, block, 0, 4096, false);
    await lab.storage[1].stop();
    expect(await outcomeOf(host.write(MIB, block, 0, 4096, false))).toBe('io');
    expect(await outcomeOf(host.write(MIB - 512, block, 0, 1024, false))).toBe('io');
    expect(await outcomeOf(host.write(4096, block, 0, 4096, true))).toBe('done');
    await lab.storage[1].start();
    const written = async (): Promise<true | undefined> =>
      (await outcomeOf(host.write(MIB, block, 0, 4096, true))) === 'done' ? true : undefined;
    await eventually('the storage system is back', written);
    await host.flush();
    const target = Buffer.alloc(4096);
    await host.read(MIB, target, 0, 4096);
    expect(target.equals(block)).toBe(true);
  });

  test('a flush that found it away may succeed later', async () => {
    lab.volume('disk', [lab.real(0, MIB), lab.real(1, MIB)]);
    const gateway = await lab.gateway('east-gw', { reconnectMs: 300 });
    const client = await NbdClient.open(`nbd://127.0.0.1:${gateway.port}`, 'disk');
    await lab.storage[1].stop();
    expect(await outcome(client.flush())).toBe(5);
    await lab.storage[1].start();
    await eventually('a flush', async () => ((await outcome(client.flush())) === 0 ? true : undefined));
    client.wire.destroy();
  });

  test('before the first host: it waits for the volume; and is told so when it takes too long', async () => {
    lab.volume('disk', [lab.real(0, MIB)]);
    const gateway = await lab.gateway('east-gw', { reconnectMs: 1_000 });
    await lab.storage[0].stop();
    const waiting = lab.host(gateway, 'disk');
    await lab.storage[0].start();
    expect((await waiting).sizeBytes).toBe(MIB);
    await lab.storage[0].stop();
    lab.volume('other', [lab.real(0, MIB)]);
    const told = await lab.host(gateway, 'other').catch((error: unknown) => error);
    expect(told).toMatchObject({
      code: 'shutdown',
      message: expect.stringContaining('storage system east-1'),
    });
    expect(String(told)).not.toContain(KEY); // who knows it may use the real volume
  });
});

describe('a path that changes under load', () => {
  test('epochs, in turn on both storage systems: no request fails, nothing is lost', async () => {
    const segments = [lab.real(0, slow(3)), lab.real(1, slow(4))] as const;
    lab.volume('disk', segments);
    const host = await lab.host(await lab.gateway(), 'disk', 2);
    const load = startLoad(host, testRandom('epochs under load'));
    const epochs = [1, 1];
    for (const index of [0, 1, 0, 1, 1] as const) {
      await load.progress();
      await lab.storage[index].raiseEpoch(segments[index].realVolume as never);
      epochs[index] = (epochs[index] ?? 0) + 1;
      lab.volume(
        'disk',
        segments.map((segment, at) => ({ ...segment, epoch: epochs[at] ?? 1 })),
      );
    }
    await load.progress();
    await load.finish();
  });

  test('a new epoch that the watch does not bring: the directory is asked', async () => {
    const segment = lab.real(0, MIB);
    lab.volume('disk', [segment]);
    const host = await lab.host(await lab.gateway(), 'disk');
    lab.directory.muted = true;
    lab.volume('disk', [{ ...segment, epoch: 2 }]);
    await lab.storage[0].raiseEpoch(segment.realVolume as never);
    await host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
  });

  test('a path is opened with an epoch that is old by then: it follows', async () => {
    const segment = lab.real(0, MIB);
    lab.volume('disk', [segment]);
    const gateway = await lab.gateway();
    await lab.storage[0].raiseEpoch(segment.realVolume as never);
    const opening = lab.host(gateway, 'disk');
    await eventually('a refusal', () => (lab.storage[0].refusals > 0 ? true : undefined));
    lab.volume('disk', [{ ...segment, epoch: 2 }]);
    expect((await opening).sizeBytes).toBe(MIB);
  });

  test('a storage system at another address', async () => {
    lab.volume('disk', [lab.real(0, slow(5)), lab.real(1, slow(6))]);
    const host = await lab.host(await lab.gateway(), 'disk');
    const load = startLoad(host, testRandom('another address'));
    await load.progress();
    await lab.storage[0].stop();
    await lab.storage[0].start(0);
    lab.directory.putStorage(lab.storage[0].record);
    await load.progress();
    await load.finish();
  });

  test('bytes that are at another offset: requests are held meanwhile, none fails', async () => {
    const inner = new MemoryVolume(Buffer.alloc(2 * MIB));
    const segment = lab.real(0, new DelayVolume(inner, seededDelays(7, 3)), { length: MIB });
    lab.volume('disk', [segment]);
    const host = await lab.host(await lab.gateway(), 'disk');
    const old = Buffer.alloc(4096, 1);
    const writes = Array.from({ length: 20 }, (_, at) => host.write(at * 4096, old, 0, 4096, false));
    lab.volume('disk', [{ ...segment, realOffset: MIB }]);
    await Promise.all(writes);
    const zeroes = Buffer.alloc(4096);
    await eventually('the other place', async () => {
      const target = Buffer.alloc(4096, 7);
      await host.read(200 * 4096, target, 0, 4096);
      await host.write(200 * 4096, old, 0, 4096, false);
      inner.readNow(MIB + 200 * 4096, target, 0, 4096);
      return target.equals(old) ? true : undefined;
    });
    const target = Buffer.alloc(4096, 7);
    inner.readNow(100 * 4096, target, 0, 4096);
    expect(target.equals(zeroes)).toBe(true);
  });
});

test('another real volume is another place: what is under way at the one does not come to the other', async () => {
  const gate = new Gate();
  const [older, newer] = [new MemoryVolume(Buffer.alloc(MIB)), new MemoryVolume(Buffer.alloc(MIB))];
  const first = lab.real(0, MIB);
  lab.volume('disk', [first, lab.real(1, new DelayVolume(older, gate.delay))]);
  const host = await lab.host(await lab.gateway(), 'disk');
  const block = Buffer.alloc(4096, 3);
  gate.shut('write');
  const writing = host.write(MIB, block, 0, 4096, false);
  await eventually('the write has arrived', () => (gate.held.length === 1 ? true : undefined));
  lab.volume('disk', [first, lab.real(0, newer)]); // it has been smaller between, which nobody has heard of here
  await sleep(TEMPTATION_MS);
  gate.open();
  await writing;
  await eventually('the other real volume', async () => {
    await host.write(MIB + 4096, block, 0, 4096, false);
    const target = Buffer.alloc(4096);
    newer.readNow(4096, target, 0, 4096);
    return target.equals(block) ? true : undefined;
  });
  const [there, here] = [Buffer.alloc(4096, 7), Buffer.alloc(4096, 7)];
  older.readNow(0, there, 0, 4096);
  newer.readNow(0, here, 0, 4096);
  expect([there.equals(block), here.equals(Buffer.alloc(4096))]).toEqual([true, true]);
});

test('a record that is not whole is reported once, and the volume served as it was', async () => {
  const segment = lab.real(0, MIB);
  const warnings: string[] = [];
  const log: Log = { ...silentLog, warn: (_fields, text) => warnings.push(text) };
  lab.volume('disk', [segment]);
  const gateway = await lab.gateway('east-gw', { log });
  const host = await lab.host(gateway, 'disk');
  lab.volume('disk', [segment], { sizeBytes: 2 * MIB });
  for (const name of ['other', 'another']) {
    lab.volume(name, [lab.real(1, MIB)]);
    await lab.host(gateway, name);
  }
  await host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
  expect(warnings.filter((text) => text === 'serving it as it was')).toHaveLength(1);
});

test('N4: the write of a dead host connection stays before a newer one, also over a new epoch', async () => {
  const gate = new Gate();
  const inner = new MemoryVolume(Buffer.alloc(MIB));
  const segment = lab.real(0, new DelayVolume(inner, gate.delay));
  lab.volume('disk', [segment]);
  const gateway = await lab.gateway();
  const uri = `nbd://127.0.0.1:${gateway.port}`;
  const [dying, other] = [await NbdClient.open(uri, 'disk'), await NbdClient.open(uri, 'disk')];
  const [older, newer] = [Buffer.alloc(4096, 0x0d), Buffer.alloc(4096, 0xee)];
  gate.shut('write');
  void outcome(dying.write(0, older));
  await eventually('the write has arrived', () => (gate.held.length === 1 ? true : undefined));
  dying.wire.destroy('reset');
  const raised = lab.storage[0].raiseEpoch(segment.realVolume as never);
  lab.volume('disk', [{ ...segment, epoch: 2 }]);
  const answer = outcome(other.write(0, newer));
  await sleep(TEMPTATION_MS);
  expect(gate.held.map(({ data }) => data?.[0])).toEqual([older[0]]);
  gate.open();
  await raised;
  expect(await answer).toBe(0);
  const found = Buffer.alloc(4096);
  inner.readNow(0, found, 0, 4096);
  expect(found.equals(newer)).toBe(true);
  other.wire.destroy();
});

describe('V2: the directory', () => {
  test('is away when the gateway starts: it serves what it knows, and learns the rest later', async () => {
    lab.volume('disk', [lab.real(0, MIB), lab.real(1, MIB)]);
    const first = await lab.gateway();
    await (await lab.host(first, 'disk')).write(MIB - 2048, Buffer.alloc(4096, 9), 0, 4096, true);
    await first.service.stop();
    await lab.directory.stop();
    const second = await lab.gateway();
    const target = Buffer.alloc(4096);
    await (await lab.host(second, 'disk')).read(MIB - 2048, target, 0, 4096);
    expect(target.equals(Buffer.alloc(4096, 9))).toBe(true);
    lab.directory.putVolume(volumeOf('new', [lab.real(0, MIB)]));
    await lab.directory.start();
    await eventually('the new volume', async () => {
      const opened = lab.host(second, 'new').catch(() => undefined);
      return (await opened)?.sizeBytes;
    });
    await eventually('a report', () => lab.directory.reports.get('east-gw'));
  });

  test('comes and goes: hosts do not notice', async () => {
    lab.volume('disk', [lab.real(0, slow(8))]);
    const gateway = await lab.gateway();
    const host = await lab.host(gateway, 'disk');
    const load = startLoad(host, testRandom('the directory comes and goes'));
    for (let round = 0; round < 3; round++) {
      await lab.directory.stop();
      await load.progress();
      await lab.directory.start();
      await load.progress();
    }
    await load.finish();
  });

  test('has the damaged second information replaced', async () => {
    lab.volume('disk', [lab.real(0, MIB)]);
    await (await lab.gateway()).service.stop();
    writeFileSync(`${lab.folder.file('east-gw')}/second-information.json`, '{"format":1');
    expect((await lab.host(await lab.gateway(), 'disk')).sizeBytes).toBe(MIB);
  });

  test('of another cluster ends the start', async () => {
    await (await lab.gateway()).service.stop();
    const other = new DirectoryStandIn();
    await other.start();
    await expect(lab.gateway('east-gw', { directoryUrl: other.url })).rejects.toMatchObject({
      code: 'wrong-cluster',
    });
    await other.stop();
    await (await lab.gateway()).service.stop(); // nothing is left behind: the folder can be used again
  });

  test('of another cluster that turns up later is not listened to', async () => {
    lab.volume('disk', [lab.real(0, MIB)]);
    const gateway = await lab.gateway();
    const host = await lab.host(gateway, 'disk');
    const { url } = lab.directory;
    await lab.directory.stop();
    const other = new DirectoryStandIn();
    await other.start(Number(new URL(url).port));
    await eventually('it has been asked', () => (other.snapshots > 1 ? true : undefined));
    await host.write(0, Buffer.alloc(4096, 1), 0, 4096, true);
    expect((await lab.host(gateway, 'disk')).sizeBytes).toBe(MIB);
    await other.stop();
  });
});

test('stop: a directory that does not answer is not waited for', async () => {
  const gateway = await lab.gateway();
  lab.directory.hangs = true;
  await eventually('a report', () => (lab.directory.hanging > 0 ? true : undefined));
  const stopping = gateway.service.stop();
  await eventually('it is given up', () => (lab.directory.hanging === 0 ? true : undefined), 5_000);
  await stopping;
});

test('stop: storage systems that are away, or hang, are not waited for longer than a moment; what was not flushed is told', async () => {
  const gate = new Gate();
  const notFlushed: unknown[] = [];
  const log: Log = {
    ...silentLog,
    error: (fields, text) => {
      if (text === 'not flushed') notFlushed.push((fields as { export: string }).export);
    },
  };
  lab.volume('away', [lab.real(0, MIB)]);
  lab.volume('hanging', [lab.real(1, new DelayVolume(new MemoryVolume(Buffer.alloc(MIB)), gate.delay))]);
  const gateway = await lab.gateway('east-gw', { log, reconnectMs: 600_000 });
  const uri = `nbd://127.0.0.1:${gateway.port}`;
  const [away, hanging] = [await NbdClient.open(uri, 'away'), await NbdClient.open(uri, 'hanging')];
  expect(await away.write(0, Buffer.alloc(4096, 1))).toBe(0);
  expect(await hanging.write(0, Buffer.alloc(4096, 1))).toBe(0);
  gate.shut('write', 'flush');
  const answer = outcome(hanging.write(0, Buffer.alloc(4096, 2)));
  await eventually('the write has arrived', () => (gate.held.length === 1 ? true : undefined));
  await lab.storage[0].stop();
  await expect(gateway.service.stop()).rejects.toMatchObject({ code: 'io' });
  expect(await answer).toBe('closed');
  expect(notFlushed.sort()).toEqual(['away', 'hanging']);
  gate.open();
});

test('stop: what is in flight is answered, and the folder is free', async () => {
  const gate = new Gate();
  lab.volume('disk', [lab.real(0, new DelayVolume(new MemoryVolume(Buffer.alloc(MIB)), gate.delay))]);
  const gateway = await lab.gateway();
  const client = await NbdClient.open(`nbd://127.0.0.1:${gateway.port}`, 'disk');
  gate.shut('write');
  const answer = client.write(0, Buffer.alloc(4096, 1));
  await eventually('the write has arrived', () => (gate.held.length === 1 ? true : undefined));
  const stopped = gateway.service.stop();
  gate.open();
  expect(await answer).toBe(0);
  await stopped;
  await (await lab.gateway()).service.stop();
});
