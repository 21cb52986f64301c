/** What becomes of requests, flushes and sizes when connections are lost: R2 to R4, and the states. */

import { describe, expect, test } from 'vitest';
import { Command, Errno, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { eventually } from '../../support/tools.ts';
import { pair } from './pair.ts';
import { ALL_FLAGS, MULTI, made } from './scripted-server.ts';

const BLOCK = Buffer.alloc(512, 0xab);

describe('how many connections', () => {
  test.each([
    ['four by default, when the server can have several', MULTI, {}, 4],
    ['as many as asked for', MULTI, { connections: 2 }, 2],
    ['one, when the server promises nothing for several', ALL_FLAGS, { connections: 4 }, 1],
  ])('%s', async (_name, transmissionFlags, options, expected) => {
    await using lab = await pair({ transmissionFlags }, options);
    for (let i = 0; i < 50; i++) await lab.volume.read(0, Buffer.alloc(512), 0, 512);
    expect([lab.server.accepted, lab.volume.liveConnections]).toEqual([expected, expected]);
  });

  test('many requests at once use them all, at most 128 in flight on one', async () => {
    await using lab = await pair({ transmissionFlags: MULTI, answer: () => 'nothing' });
    const { server, volume } = lab;
    const reads = Array.from({ length: 1000 }, () => volume.read(0, Buffer.alloc(512), 0, 512));
    await eventually('512 requests', () => (server.seen.length >= 512 ? true : undefined));
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(server.seen.length).toBe(512);
    const perConnection = [0, 1, 2, 3].map((at) => server.seen.filter((s) => s.connection === at).length);
    expect(perConnection).toEqual([128, 128, 128, 128]);
    server.script.answer = () => undefined;
    server.dropConnections();
    await Promise.all(reads);
  });
});

test('what is asked for together goes over one connection, as long as it is little', async () => {
  await using lab = await pair({ transmissionFlags: MULTI });
  const read = () => lab.volume.read(0, Buffer.alloc(512), 0, 512);
  await Promise.all(Array.from({ length: 16 }, read));
  expect(new Set(lab.server.seen.map(({ connection }) => connection)).size).toBe(1);
});

describe('R2: requests outlive their connection', () => {
  test('a write in flight goes to another connection that lives', async () => {
    let dropped = false;
    await using lab = await pair({
      transmissionFlags: MULTI,
      answer: ({ request }) => {
        if (request.command !== Command.write || dropped) return undefined;
        dropped = true;
        return 'close';
      },
    });
    const { server, volume, states } = lab;
    await volume.write(4096, BLOCK, 0, 512, false);
    const writes = server.seen.filter(({ request }) => request.command === Command.write);
    expect(writes).toHaveLength(2);
    expect(writes[0]?.connection).not.toBe(writes[1]?.connection);
    expect(server.image.subarray(4096, 4608).equals(BLOCK)).toBe(true);
    expect(states).not.toContain('reconnecting'); // three others lived on
    await lab.allThere();
  });

  test('what came and what waited while the server was away is done when it is back', async () => {
    await using lab = await pair({ transmissionFlags: MULTI, answer: () => 'nothing' });
    const { server, volume, states } = lab;
    const target = Buffer.alloc(512);
    const before = [volume.write(0, BLOCK, 0, 512, true), volume.read(8192, target, 0, 512), volume.flush()];
    await eventually('three requests', () => (server.seen.length === 3 ? true : undefined));
    await server.stop();
    await eventually('the loss', () => (volume.state === 'reconnecting' ? true : undefined));
    const after = volume.write(512, BLOCK, 0, 512, false);
    server.script.answer = () => undefined;
    await server.start();
    await Promise.all([...before, after]);
    expect(server.image.subarray(0, 1024).equals(Buffer.alloc(1024, 0xab))).toBe(true);
    expect(target.equals(server.image.subarray(8192, 8704))).toBe(true);
    expect([volume.state, states]).toEqual(['connected', ['connected', 'reconnecting', 'connected']]);
  });

  test('away for longer: io for what waits and what comes, and it recovers', async () => {
    await using lab = await pair({ transmissionFlags: MULTI }, { reconnectMs: 150 });
    const { server, volume, states } = lab;
    await volume.write(0, BLOCK, 0, 512, false);
    await server.stop();
    expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe('io');
    await eventually('the failure', () => (volume.state === 'failed' ? true : undefined));
    expect(await outcomeOf(volume.flush())).toBe('io');
    expect(await outcomeOf(volume.write(0, BLOCK, 0, 512, false))).toBe('io');
    await server.start();
    await eventually('it is back', () => (volume.state === 'connected' ? true : undefined));
    await volume.write(0, BLOCK, 0, 512, false);
    await volume.flush(); // R4: the one that found no server has lost nothing
    expect(states).toEqual(['connected', 'reconnecting', 'failed', 'connected']);
  });

  test('nobody asks for anything while it has failed: it recovers all the same', async () => {
    await using lab = await pair({ transmissionFlags: MULTI }, { reconnectMs: 50 });
    const { server, volume, states } = lab;
    await server.stop();
    await eventually('the failure', () => (volume.state === 'failed' ? true : undefined));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await server.start();
    await lab.allThere();
    expect(states).toEqual(['connected', 'reconnecting', 'failed', 'connected']);
    await volume.write(0, BLOCK, 0, 512, true);
    await volume.flush();
    expect(server.image.subarray(0, 512).equals(BLOCK)).toBe(true);
  });

  test('one of four connections dies with a request of every kind: the others carry them all out', async () => {
    const requests = 8;
    let held = 0;
    let dying: number | undefined;
    await using lab = await pair({
      transmissionFlags: MULTI,
      answer: ({ connection, socket }) => {
        dying ??= connection;
        if (connection !== dying) return undefined;
        held += 1;
        if (held === requests) socket.destroy();
        return 'nothing';
      },
    });
    const { server, volume, states } = lab;
    const target = Buffer.alloc(512);
    const [, , , , , , , extents] = await Promise.all([
      volume.read(65_536, target, 0, 512),
      volume.write(0, BLOCK, 0, 512, false),
      volume.write(512, BLOCK, 0, 512, true),
      volume.trim(1024, 512, false),
      volume.writeZeroes(2048, 512, { fua: false, noHole: true, fast: false }),
      volume.cache(0, 512),
      volume.flush(),
      volume.blockStatus(0, 4096, 10),
    ]);
    expect(target.equals(server.image.subarray(65_536, 66_048))).toBe(true);
    expect(server.image.subarray(0, 1024).equals(Buffer.alloc(1024, 0xab))).toBe(true);
    expect(extents).toEqual([{ length: 4096, hole: false, zero: false }]);
    expect([held, states]).toEqual([requests, ['connected']]);
  });

  test('P3: what has been lost for reconnectMs is given up, however often it was sent since', async () => {
    let shouldAnswer = false;
    const answer = () => (shouldAnswer ? undefined : ('nothing' as const));
    await using lab = await pair({ transmissionFlags: ALL_FLAGS, answer }, { reconnectMs: 1000 });
    const { server, volume, states } = lab;
    const old = outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512));
    await eventually('it is sent', () => (server.seen.length === 1 ? true : undefined));
    server.dropConnections();
    await eventually('it is sent again', () => (server.seen.length === 2 ? true : undefined));
    await new Promise((resolve) => setTimeout(resolve, 500));
    await server.stop();
    await eventually('the loss', () => (states.at(-1) === 'reconnecting' ? true : undefined));
    const fresh = outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512));
    expect(await old).toBe('io');
    shouldAnswer = true;
    await server.start();
    expect(await fresh).toBe('done');
    expect(states).not.toContain('failed');
  });

  test('a server that says ESHUTDOWN is left, and asked again', async () => {
    let refusals = 1;
    await using lab = await pair({
      answer: ({ encoder, request }) =>
        request.command === Command.write && refusals-- > 0
          ? made((buffer) => encoder.error(buffer, 0, request, Errno.ESHUTDOWN, 'going'))
          : undefined,
    });
    await lab.volume.write(0, BLOCK, 0, 512, false);
    expect(lab.server.accepted).toBe(2);
  });

  test('a connection that owes an answer and is silent is given up', async () => {
    await using lab = await pair(
      { answer: ({ connection }) => (connection === 0 ? 'nothing' : undefined) },
      { reconnectMs: 200 },
    );
    await lab.volume.read(0, Buffer.alloc(512), 0, 512);
    expect(lab.server.accepted).toBe(2);
  });

  test('a large read that is lost half-way is whole in the end', async () => {
    let cut = false;
    await using lab = await pair({
      send: (socket, reply) => {
        if (cut) socket.write(reply);
        else socket.end(reply.subarray(0, reply.length >> 1));
        cut = true;
      },
    });
    const target = Buffer.alloc(1024 * 1024);
    await lab.volume.read(0, target, 0, target.length);
    expect(target.equals(lab.server.image)).toBe(true);
  });
});

test('R2: a block status that is lost half-way is whole in the end', async () => {
  const descriptors = Array.from({ length: 100 }, (_, index) => ({ length: 512, state: (index % 2) * 3 }));
  let cut = false;
  await using lab = await pair({
    answer: ({ encoder, request }) =>
      request.command === Command.blockStatus
        ? made((buffer) => encoder.blockStatus(buffer, 0, request, 1, descriptors, true))
        : undefined,
    send: (socket, reply) => {
      if (cut) socket.write(reply);
      else socket.end(reply.subarray(0, reply.length >> 1));
      cut = true;
    },
  });
  const extents = await lab.volume.blockStatus(0, 51_200, 1000);
  expect(extents).toHaveLength(100);
  expect(extents[99]).toEqual({ length: 512, hole: true, zero: true });
  expect(lab.server.accepted).toBe(2);
});

describe('R3, R4: flushes', () => {
  test('R3: with CAN_MULTI_CONN a flush on a new connection covers what was answered on a dead one', async () => {
    await using lab = await pair({ transmissionFlags: MULTI });
    await lab.volume.write(0, BLOCK, 0, 512, false);
    lab.server.dropConnections();
    expect(await outcomeOf(lab.volume.flush())).toBe('done');
  });

  test('R3: without it, answered and unflushed writes of a lost connection make the flush fail, and what follows', async () => {
    await using lab = await pair({ transmissionFlags: ALL_FLAGS });
    const { server, volume } = lab;
    await volume.write(0, BLOCK, 0, 512, false);
    server.dropConnections();
    expect(await outcomeOf(volume.flush())).toBe('failed');
    expect(await outcomeOf(volume.write(0, BLOCK, 0, 512, false))).toBe('failed');
    expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe('done');
  });

  test.each(['flush', 'fua'])('R3: without it, but nothing unflushed (%s): all is well', async (how) => {
    await using lab = await pair({ transmissionFlags: ALL_FLAGS });
    const { server, volume } = lab;
    await volume.write(0, BLOCK, 0, 512, how === 'fua');
    if (how === 'flush') await volume.flush();
    server.dropConnections();
    expect(await outcomeOf(volume.flush())).toBe('done');
    expect(server.accepted).toBe(2);
  });

  test('R3: a write that was answered after the flush was sent is not covered by it', async () => {
    const held: (() => void)[] = [];
    await using lab = await pair({
      transmissionFlags: ALL_FLAGS,
      answer: ({ request, socket, encoder }) => {
        if (request.command !== Command.flush || held.length > 0) return undefined;
        held.push(() => socket.write(made((buffer) => encoder.ack(buffer, 0, request))));
        return 'nothing';
      },
    });
    const { server, volume } = lab;
    const flushing = volume.flush();
    await eventually('the flush', () => (held.length > 0 ? true : undefined));
    await volume.write(0, BLOCK, 0, 512, false);
    held[0]?.();
    await flushing;
    server.dropConnections();
    expect(await outcomeOf(volume.flush())).toBe('failed');
  });

  test('R4: a flush that the server refuses fails the volume for writes', async () => {
    let refusals = 1;
    await using lab = await pair({
      transmissionFlags: MULTI,
      answer: ({ encoder, request }) =>
        request.command === Command.flush && refusals-- > 0
          ? made((buffer) => encoder.error(buffer, 0, request, Errno.EIO, 'disk'))
          : undefined,
    });
    expect(await outcomeOf(lab.volume.flush())).toBe('io');
    expect(await outcomeOf(lab.volume.flush())).toBe('failed');
    expect(await outcomeOf(lab.volume.writeZeroes(0, 512, { fua: false, noHole: true, fast: false }))).toBe(
      'failed',
    );
  });

  test('FUA is a flush behind the write where the server has none', async () => {
    await using lab = await pair({ transmissionFlags: MULTI & ~TransmissionFlag.sendFua });
    await lab.volume.write(0, BLOCK, 0, 512, true);
    await lab.volume.trim(0, 512, true);
    expect(lab.server.seen.map(({ request }) => [request.command, request.flags & 1])).toEqual([
      [Command.write, 0],
      [Command.flush, 0],
      [Command.trim, 0],
      [Command.flush, 0],
    ]);
  });
});

describe('an export that comes back changed', () => {
  const SIZE = 1024 * 1024;
  test.each([
    ['smaller', { sizeBytes: SIZE - 512 }, `${SIZE - 512} bytes`],
    ['read-only', { transmissionFlags: MULTI | TransmissionFlag.readOnly }, 'write'],
    ['without CAN_MULTI_CONN', { transmissionFlags: ALL_FLAGS }, 'CAN_MULTI_CONN'],
    ['without FUA', { transmissionFlags: MULTI & ~TransmissionFlag.sendFua }, 'FUA'],
    [
      'with larger blocks',
      { blockSizes: { minimum: 4096, preferred: 4096, maximumPayload: 33554432 } },
      '4096',
    ],
  ])('%s: the volume has failed for good, and says why', async (_name, change, text) => {
    await using lab = await pair({ transmissionFlags: MULTI }, { connections: 2 });
    const { server, volume } = lab;
    server.script = { ...server.script, ...change };
    server.dropConnections();
    await eventually('the failure', () => (volume.state === 'failed' ? true : undefined));
    const reading = volume.read(0, Buffer.alloc(512), 0, 512);
    await expect(reading).rejects.toMatchObject({ code: 'failed', message: expect.stringContaining(text) });
    const { accepted } = server;
    server.script = { transmissionFlags: MULTI };
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([volume.state, server.accepted - accepted, server.open]).toEqual(['failed', 0, 0]);
  });

  test('larger: the new size is taken', async () => {
    await using lab = await pair({ transmissionFlags: MULTI, sizeBytes: 4096 });
    const { server, volume } = lab;
    await expect(volume.read(4096, Buffer.alloc(512), 0, 512)).rejects.toThrow('the volume ends');
    server.script = { transmissionFlags: MULTI, sizeBytes: 8192 };
    server.dropConnections();
    await eventually('the new size', () => (volume.sizeBytes === 8192 ? true : undefined));
    const target = Buffer.alloc(512);
    await volume.read(4096, target, 0, 512);
    expect(target.equals(server.image.subarray(4096, 4608))).toBe(true);
  });
});

test('what a connection says of the size is not believed when a resize came between', async () => {
  await using lab = await pair({ transmissionFlags: ALL_FLAGS | TransmissionFlag.sendResize });
  const { volume } = lab;
  const before = performance.now();
  await volume.resize(4096);
  expect(volume.judge(volume.session, before)).toEqual({ kind: 'stale' });
  expect(volume.sizeBytes).toBe(4096);
  await new Promise((resolve) => setTimeout(resolve, 5));
  expect(volume.judge({ ...volume.session, sizeBytes: 4095 }, performance.now()).kind).toBe('less');
  expect(volume.judge({ ...volume.session, sizeBytes: 8192 }, performance.now())).toEqual({ kind: 'use' });
  expect(volume.sizeBytes).toBe(8192);
});

test('with needs, an export may come back with less than it had, and is waited for while it has less than is needed', async () => {
  await using lab = await pair({ transmissionFlags: MULTI, sizeBytes: 8192 }, { connections: 2 });
  const { server, volume } = lab;
  volume.needs(4096);
  server.script = { transmissionFlags: MULTI, sizeBytes: 4096 };
  server.dropConnections();
  await volume.read(0, Buffer.alloc(512), 0, 512);
  expect([volume.state, volume.sizeBytes]).toEqual(['connected', 4096]);
  server.script = { transmissionFlags: MULTI, sizeBytes: 2048 };
  server.dropConnections();
  const reading = volume.read(0, Buffer.alloc(512), 0, 512);
  await eventually('some attempts', () => (server.accepted > 6 ? true : undefined));
  expect(volume.state).toBe('reconnecting');
  volume.needs(2048);
  await reading;
  expect(volume.sizeBytes).toBe(2048);
});

test('a connection outlives the time that a handshake may take', async () => {
  await using lab = await pair({}, { reconnectMs: 100 });
  await new Promise((resolve) => setTimeout(resolve, 250));
  expect([lab.server.accepted, lab.volume.liveConnections]).toEqual([1, 1]);
});
