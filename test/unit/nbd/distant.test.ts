/** Exports whose volume is at another server: what is asked of it, and how it is answered. */

import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { type NbdExport, NbdServer } from '../../../src/nbd/server.ts';
import { Command } from '../../../src/nbd-server-protocol/constants.ts';
import { silentLog } from '../../support/log.ts';
import { Session } from '../../support/nbd-session.ts';
import { testRandom } from '../../support/random.ts';
import { eventually } from '../../support/tools.ts';
import { type Delay, DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import type { Call } from '../../support/volumes/wrapped-volume.ts';
import type { Address } from '../../support/wire.ts';
import { pattern } from './lab.ts';

const MIB = 1024 * 1024;

async function serve(nbdExport: NbdExport): Promise<[NbdServer, Address]> {
  const server = new NbdServer({
    exports: { list: () => [nbdExport], find: () => nbdExport },
    log: silentLog,
  });
  return [server, (await server.listen({ host: '127.0.0.1', port: 0 })) as Address];
}

test('zeroes are sent, rather than holes asked for, up to a length', async () => {
  const volume = new MemoryVolume(Buffer.alloc(4 * MIB));
  await volume.trim(0, 4 * MIB);
  const [server, address] = await serve({ name: 'disk', volume, distant: true });
  const session = await Session.open(address);
  const [short, long] = [await session.read(0, MIB), await session.read(0, 2 * MIB)];
  expect([short.dataChunks > 0, short.holeChunks]).toEqual([true, 0]);
  expect([long.dataChunks, long.holeChunks]).toEqual([0, 1]);
  session.wire.destroy();
  await server.stop();
});

test.each(['simple', 'structured', 'extended'] as const)(
  'up to 1 MiB is one read, %s headers',
  async (style) => {
    const reads: number[] = [];
    const count: Delay = async ({ operation, length }) => {
      if (operation === 'read') reads.push(length);
    };
    const volume = new DelayVolume(new MemoryVolume(pattern(4 * MIB)), count);
    const [server, address] = await serve({ name: 'disk', volume, distant: true });
    const session = await Session.open(address, { style });
    for (const [offset, length] of [
      [4096, MIB],
      [1, MIB + 1],
    ] as const) {
      const answer = await session.read(offset, length);
      expect(answer.data.equals(pattern(4 * MIB).subarray(offset, offset + length))).toBe(true);
    }
    expect(reads[0]).toBe(MIB);
    expect(reads.slice(1).reduce((sum, length) => sum + length, 0)).toBe(MIB + 1);
    session.wire.destroy();
    await server.stop();
  },
);

describe('payloads are gathered', () => {
  test.each([
    ['distant', { distant: true }],
    ['only gathered', { gathers: true }],
  ])(
    'a long write that arrives in pieces of any size is few writes, which meet where pages do: %s',
    async (_, kind) => {
      const random = testRandom('gathered payloads');
      for (let round = 0; round < 20; round += 1) {
        const writes: Call[] = [];
        const note: Delay = async (call) => {
          if (call.operation === 'write') writes.push(call);
        };
        const memory = new MemoryVolume(pattern(4 * MIB));
        const [server, address] = await serve({
          name: 'disk',
          volume: new DelayVolume(memory, note),
          ...kind,
        });
        const session = await Session.open(address, { style: round % 2 === 0 ? 'extended' : 'simple' });
        const offset = random.below(MIB);
        const payload = Buffer.alloc(1 + random.below(3 * MIB - 1), 0x77);
        const flags = session.payloadFlag | (random.below(2) * session.fuaFlag);
        const message = session.prepare({ type: Command.write, offset, payload, flags });
        for (let at = 0; at < message.length; ) {
          const end = Math.min(message.length, at + 1 + random.below(700_000));
          session.wire.send(message.subarray(at, end));
          at = end;
          if (random.below(3) === 0) await sleep(1);
        }
        const answer = await session.next();
        const expected = pattern(4 * MIB);
        payload.copy(expected, offset);
        expect(answer.error, `seed ${random.seed}`).toBe(0);
        expect((await session.read(0, 4 * MIB)).data.equals(expected), `seed ${random.seed}`).toBe(true);
        const spans = writes.map((call) => ({ offset: call.offset, length: call.length }));
        expect(spans.reduce((sum, { length }) => sum + length, 0)).toBe(payload.length);
        expect(spans.length).toBeLessThanOrEqual(Math.ceil(payload.length / MIB) + 1);
        for (const span of spans.slice(0, -1)) expect((span.offset + span.length) % 4096).toBe(0);
        session.wire.destroy();
        await server.stop();
      }
    },
  );

  test('N5: while writes are slow, no more is taken than a connection may hold; then all goes on', async () => {
    const gate = new Gate();
    const memory = new MemoryVolume(Buffer.alloc(16 * MIB));
    const [server, address] = await serve({
      name: 'disk',
      volume: new DelayVolume(memory, gate.delay),
      distant: true,
    });
    const session = await Session.open(address);
    gate.shut('write');
    for (let index = 0; index < 16; index += 1) {
      session.send({ type: Command.write, offset: index * MIB, payload: Buffer.alloc(MIB, index + 1) });
    }
    await eventually('four are under way', () => (gate.held.length >= 4 ? true : undefined));
    await sleep(50);
    expect(gate.held.length).toBe(4);
    gate.open();
    expect((await session.all()).map(({ error }) => error)).toEqual(Array(16).fill(0));
    for (let index = 0; index < 16; index += 1) {
      expect((await session.read(index * MIB + 4095, 1)).data[0]).toBe(index + 1);
    }
    session.wire.destroy();
    await server.stop();
  });

  test('a client that goes in the midst of a payload leaves nothing of the piece behind', async () => {
    const memory = new MemoryVolume(Buffer.alloc(4 * MIB));
    const [server, address] = await serve({ name: 'disk', volume: memory, distant: true });
    const session = await Session.open(address);
    const message = session.prepare({ type: Command.write, offset: 0, payload: Buffer.alloc(2 * MIB, 9) });
    session.wire.send(message.subarray(0, MIB + MIB / 2));
    const other = await Session.open(address);
    await eventually('the first piece is there', async () =>
      (await other.read(MIB - 1, 1)).data[0] === 9 ? true : undefined,
    );
    session.wire.destroy();
    await server.stop();
    const rest = Buffer.alloc(3 * MIB, 1);
    memory.readNow(MIB, rest, 0, rest.length);
    expect(rest.every((byte) => byte === 0)).toBe(true);
  });

  test('N4: a piece waits for the write of a dead connection that it overlaps', async () => {
    const gate = new Gate();
    const memory = new MemoryVolume(Buffer.alloc(4 * MIB));
    const [server, address] = await serve({
      name: 'disk',
      volume: new DelayVolume(memory, gate.delay),
      distant: true,
    });
    const [dying, living] = [await Session.open(address), await Session.open(address)];
    gate.shut('write');
    dying.send({ type: Command.write, offset: 512 * 1024, payload: Buffer.alloc(4096, 1) });
    await eventually('the old write is under way', () => (gate.held.length === 1 ? true : undefined));
    const message = living.prepare({ type: Command.write, offset: 0, payload: Buffer.alloc(MIB, 2) });
    living.wire.send(message.subarray(0, MIB / 4)); // gathering has begun before the other one dies
    await sleep(20);
    dying.wire.destroy();
    living.wire.send(message.subarray(MIB / 4));
    await sleep(50);
    expect(gate.held.length).toBe(1);
    gate.open();
    expect((await living.next()).error).toBe(0);
    expect((await living.read(0, MIB)).data.every((byte) => byte === 2)).toBe(true);
    living.wire.destroy();
    await server.stop();
  });
});
