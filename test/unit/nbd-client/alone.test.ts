/** P6: what may have an older copy on its way is sent only over links that were got by the name that demands to be alone. */

import { describe, expect, test } from 'vitest';
import { NbdServer } from '../../../src/nbd/server.ts';
import { openRemoteVolume, startRemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { LogVolume } from '../../support/volumes/log-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import type { Address } from '../../support/wire.ts';

const BLOCK = Buffer.alloc(512, 0xab);
/** Longer than any test. */
const LONG_MS = 600_000;

/** Gives its export by both names; the one that demands to be alone when it is granted. */
async function newServer() {
  const gate = new Gate();
  const log = new LogVolume(new DelayVolume(new MemoryVolume(Buffer.alloc(1024 * 1024)), gate.delay));
  const asked: string[] = [];
  let granted = Promise.resolve();
  const server = new NbdServer({
    exports: {
      list: () => [],
      find: async (name) => {
        asked.push(name);
        if (name === 'alone') await granted;
        return { name: 'disk', volume: log };
      },
    },
    log: silentLog,
    drainMs: 100,
  });
  const address = (await server.listen({ host: '127.0.0.1', port: 0 })) as Address;
  return {
    ...{ gate, server },
    target: { address, exportName: 'disk', aloneName: 'alone' },
    asked: () => [...new Set(asked.splice(0))],
    cut: () => server.disconnect(log, 'cut off'),
    /** Until the function that is returned is called. */
    withhold: () => {
      const { promise, resolve } = Promise.withResolvers<void>();
      granted = promise;
      return resolve;
    },
    written: () => log.entries.filter(({ operation }) => operation === 'write').map(({ offset }) => offset),
    [Symbol.asyncDispose]: async () => {
      gate.open();
      await server.stop();
    },
  };
}

/** A volume at one server, which holds what comes, and another server. */
async function moving(operation: 'write' | 'read' = 'write') {
  const [from, to] = [await newServer(), await newServer()];
  const volume = await openRemoteVolume({ ...from.target, log: silentLog, connections: 1 });
  from.gate.shut(operation);
  const lost =
    operation === 'write' ? volume.write(0, BLOCK, 0, 512, false) : volume.read(0, Buffer.alloc(512), 0, 512);
  await eventually('it has arrived', () => (from.gate.held.length === 1 ? true : undefined));
  return {
    ...{ from, to, volume, lost },
    [Symbol.asyncDispose]: async () => {
      from.gate.open();
      to.gate.open();
      await volume.close();
      await to[Symbol.asyncDispose]();
      await from[Symbol.asyncDispose]();
    },
  };
}

test('a volume that is opened is alone: an earlier life of its user may have sent something', async () => {
  await using at = await moving();
  expect(at.from.asked()).toEqual(['alone']);
});

test('also when it comes to another target before it is open', async () => {
  await using from = await newServer();
  await using to = await newServer();
  from.withhold();
  const opening = startRemoteVolume({ ...from.target, log: silentLog, connections: 1, openMs: LONG_MS });
  opening.retarget(to.target, LONG_MS);
  const volume = await opening.volume;
  expect(to.asked()).toEqual(['alone']);
  await volume.close();
});

describe('after a retarget', () => {
  test('what the older target answers demands nothing', async () => {
    await using at = await moving();
    at.volume.retarget(at.to.target, LONG_MS);
    await at.volume.write(512, BLOCK, 0, 512, false);
    at.from.gate.open();
    await at.lost;
    expect(at.to.asked()).toEqual(['disk']);
  });

  test.each([
    ['is not answered in time', 100, async () => undefined],
    ['is lost with its connection', LONG_MS, (at: { from: { server: NbdServer } }) => at.from.server.stop()],
  ] as const)(
    'a write that %s waits until it is alone, and what is under way at the newer target goes on',
    async (_what, finishMs, lose) => {
      await using at = await moving();
      at.to.gate.shut('write');
      const grant = at.to.withhold();
      at.volume.retarget(at.to.target, finishMs);
      const beside = at.volume.write(512, BLOCK, 0, 512, false);
      await eventually('it is there', () => (at.to.gate.held.length === 1 ? true : undefined));
      const losing = lose(at);
      await eventually('it is demanded', () => (at.to.asked().includes('alone') ? true : undefined));
      at.to.gate.open();
      await beside;
      expect(at.to.written()).toEqual([512]);
      grant();
      await at.lost;
      expect(at.to.written()).toEqual([512, 0]);
      at.from.gate.open();
      await losing;
    },
  );

  test('a write that was lost before demands to be alone, and a read does not', async () => {
    for (const [operation, name] of [
      ['write', 'alone'],
      ['read', 'disk'],
    ] as const) {
      await using at = await moving(operation);
      at.volume.retarget(at.to.target);
      await at.lost;
      expect(at.to.asked()).toEqual([name]);
    }
  });
});

test('a write that is lost at the same target demands nothing: that has its own fence', async () => {
  await using at = await moving();
  at.volume.retarget(at.to.target, LONG_MS);
  await at.volume.write(512, BLOCK, 0, 512, false);
  at.to.gate.shut('write');
  const again = at.volume.write(1024, BLOCK, 0, 512, false);
  await eventually('it has arrived', () => (at.to.gate.held.length === 1 ? true : undefined));
  at.to.asked();
  const cut = at.to.cut();
  at.to.gate.open();
  await Promise.all([again, cut]);
  await at.volume.flush();
  expect(at.to.asked()).toEqual(['disk']);
});
