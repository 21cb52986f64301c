/** R7: a retarget while the older target goes on with what it has been sent. */

import { describe, expect, test } from 'vitest';
import { Backoff } from '../../../src/nbd-client/backoff.ts';
import { openRemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { LogVolume } from '../../support/volumes/log-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { lab } from '../nbd/lab.ts';
import { ALL_FLAGS, ScriptedServer } from './scripted-server.ts';

const BLOCK = Buffer.alloc(512, 0xab);
/** Longer than any test. */
const LONG_MS = 600_000;

async function newServer() {
  const log = new LogVolume(new MemoryVolume(Buffer.alloc(1024 * 1024)));
  const server = await lab(log);
  return {
    target: { address: server.address, exportName: 'disk' },
    /** Offsets of the writes so far. */
    written: () => log.entries.filter(({ operation }) => operation === 'write').map(({ offset }) => offset),
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}

/** A volume at one server, which holds a write of it, and another server. */
async function moving() {
  const gate = new Gate();
  const held = new DelayVolume(new MemoryVolume(Buffer.alloc(1024 * 1024)), gate.delay);
  const from = await lab(held);
  const to = await newServer();
  const volume = await openRemoteVolume({ address: from.address, exportName: 'disk', log: silentLog });
  await eventually('all connections', () => (volume.liveConnections === 4 ? true : undefined));
  gate.shut('write');
  const writing = volume.write(0, BLOCK, 0, 512, false);
  await eventually('the write has arrived', () => (gate.held.length === 1 ? true : undefined));
  return {
    ...{ from, to, volume, gate, writing },
    connectionsOfOld: () => from.server.connectionsOf(held),
    [Symbol.asyncDispose]: async () => {
      gate.open();
      await volume.close();
      await to[Symbol.asyncDispose]();
      await from[Symbol.asyncDispose]();
    },
  };
}

describe('what the older target has in hand', () => {
  test('is answered there and not sent again; what comes goes to the newer one, and waits for nothing', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, LONG_MS);
    await at.volume.write(512, BLOCK, 0, 512, false);
    await at.volume.flush();
    expect(at.gate.held).toHaveLength(1);
    at.gate.open();
    await at.writing;
    expect(at.to.written()).toEqual([512]);
    await eventually('the old connections have gone', () => (at.connectionsOfOld() === 0 ? true : undefined));
  });

  test('connections that owe nothing leave at once', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, LONG_MS);
    await eventually('three have gone', () => (at.connectionsOfOld() === 1 ? true : undefined));
  });

  test('is sent again when it was not answered in time', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, 100);
    await at.writing;
    expect(at.to.written()).toEqual([0]);
  });

  test('is sent again when the connection is lost', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, LONG_MS);
    const stopped = at.from.server.stop();
    await at.writing;
    expect(at.to.written()).toEqual([0]);
    at.gate.open();
    await stopped;
  });

  test('is sent again when a later retarget trusts the older one no longer', async () => {
    await using at = await moving();
    await using third = await newServer();
    at.volume.retarget(at.to.target, LONG_MS);
    at.volume.retarget(third.target);
    await at.writing;
    expect([at.to.written(), third.written()]).toEqual([[], [0]]);
    await at.volume.close();
  });

  test('is failed by giveUp', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, LONG_MS);
    at.volume.giveUp('enough');
    expect(await outcomeOf(at.writing)).toBe('io');
  });

  test('is waited for by close', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, LONG_MS);
    let closed = false;
    const closing = at.volume.close().then(() => {
      closed = true;
    });
    await eventually('three have gone', () => (at.connectionsOfOld() === 1 ? true : undefined));
    expect(closed).toBe(false);
    at.gate.open();
    await Promise.all([at.writing, closing]);
    await eventually('the last has gone', () => (at.connectionsOfOld() === 0 ? true : undefined));
  });
});

test('without CAN_MULTI_CONN one connection takes the place of the other: all is sent again', async () => {
  const [from, to] = [
    await new ScriptedServer({ transmissionFlags: ALL_FLAGS, answer: () => 'nothing' }).start(),
    await new ScriptedServer({ transmissionFlags: ALL_FLAGS }).start(),
  ];
  const volume = await openRemoteVolume({ address: from.address, exportName: 'disk', log: silentLog });
  const writing = volume.write(0, BLOCK, 0, 512, false);
  await eventually('the write has arrived', () => (from.seen.length === 1 ? true : undefined));
  volume.retarget({ address: to.address, exportName: 'disk' }, LONG_MS);
  await writing;
  expect(to.image.subarray(0, 512).equals(BLOCK)).toBe(true);
  await volume.close();
  await from.stop();
  await to.stop();
});

describe('pauses between attempts', () => {
  const pausesOf = (backoff: Backoff): number[] => Array.from({ length: 10 }, () => backoff.next());

  test('become longer, and are none again after a good connection', () => {
    const backoff = new Backoff();
    expect(pausesOf(backoff)).toEqual([0, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    backoff.reset();
    expect(backoff.next()).toBe(0);
  });

  test('stay short after a retarget', () => {
    const backoff = new Backoff();
    pausesOf(backoff);
    backoff.beEager();
    expect(pausesOf(backoff)).toEqual([0, 10, 20, 40, 50, 50, 50, 50, 50, 50]);
  });
});
