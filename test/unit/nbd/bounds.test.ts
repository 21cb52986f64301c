/** T2 and T3: what one client may hold, and that it does not hold up the others. */

import { describe, expect, test } from 'vitest';
import { Command, type HeaderStyle } from '../../../src/nbd-server-protocol/constants.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { requestMessage } from '../../support/wire.ts';
import { lab, pattern } from './lab.ts';

const MIB = 1024 * 1024;

function many(style: HeaderStyle, count: number, type: number, length: number, payload?: Buffer): Buffer {
  const one = { type, offset: 0, length, ...(payload === undefined ? {} : { payload }) };
  return Buffer.concat(
    Array.from({ length: count }, (_, index) => requestMessage(style, { ...one, cookie: BigInt(index) })),
  );
}

/** Lets the server work until its memory no longer grows; returns by how much it has grown. */
async function growth(): Promise<number> {
  const before = process.memoryUsage().arrayBuffers;
  let last = before;
  for (let same = 0; same < 5; ) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    const now = process.memoryUsage().arrayBuffers;
    same = now <= last ? same + 1 : 0;
    last = Math.max(last, now);
  }
  return last - before;
}

describe('T2: memory for one connection is bounded', () => {
  test('a client that asks for 8 GiB and takes nothing', async () => {
    await using server = await lab(new MemoryVolume(pattern(32 * MIB)));
    const greedy = await server.open({ style: 'structured' });
    greedy.wire.pause();
    greedy.wire.send(many('structured', 256, Command.read, 32 * MIB));
    expect(await growth()).toBeLessThan(16 * MIB);
    const other = await server.open();
    expect((await other.read(4096, 4096)).error).toBe(0);
  });

  test('a volume that answers nothing, and 1,000 reads and 64 MiB of writes for it', async () => {
    const gate = new Gate();
    await using server = await lab(new DelayVolume(new MemoryVolume(pattern(MIB)), gate.delay));
    const session = await server.open({ style: 'simple' });
    gate.shut();
    const writes = many('simple', 64, Command.write, MIB, Buffer.alloc(MIB, 7));
    const before = process.memoryUsage().arrayBuffers;
    session.wire.send(many('simple', 1000, Command.read, 128 * 1024), writes);
    await growth();
    expect(gate.held.length).toBeGreaterThan(0);
    expect(gate.held.length).toBeLessThanOrEqual(256);
    // The client's own copies of what it sends are in this process too.
    expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(3 * writes.length + 16 * MIB);
    gate.open();
  });
});

describe('T3: turns', () => {
  test('a client with 4 GiB of requests in one segment does not keep another waiting for their end', async () => {
    await using server = await lab(new MemoryVolume(pattern(4 * MIB)));
    const greedy = await server.open({ style: 'simple' });
    const other = await server.open({ style: 'simple' });
    const requests = 4000;
    let taken = 0;
    greedy.wire.send(many('simple', requests, Command.read, MIB));
    const taking = (async () => {
      for (; taken < requests; taken++) await greedy.wire.read(16 + MIB);
    })();
    await greedy.wire.read(0);
    expect((await other.read(0, 4096)).error).toBe(0);
    expect(taken).toBeLessThan(requests / 2);
    greedy.wire.destroy();
    await taking.catch(() => undefined);
  });
});
