/** What becomes of requests, flushes and sizes when connections are lost: R2 to R4, and the states. */

import { describe, expect, test } from 'vitest';
import {
  openRemoteVolume,
  type RemoteState,
  type RemoteVolume,
  type RemoteVolumeOptions,
} from '../../../src/nbd-client/remote-volume.ts';
import { Command, Errno, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { ALL_FLAGS, MULTI, made, type Script, ScriptedServer } from './scripted-server.ts';

const BLOCK = Buffer.alloc(512, 0xab);

async function open(
  server: ScriptedServer,
  options: Partial<RemoteVolumeOptions> = {},
): Promise<RemoteVolume> {
  const { address } = server;
  return openRemoteVolume({ address, exportName: 'disk', reconnectMs: 20_000, log: silentLog, ...options });
}

/** A server, and a volume that has all its connections. */
async function pair(script: Script, options: Partial<RemoteVolumeOptions> = {}) {
  const server = await new ScriptedServer(script).start();
  const states: RemoteState[] = [];
  const volume = await open(server, { ...options, onState: (state) => states.push(state) });
  const wanted = script.transmissionFlags === MULTI ? (options.connections ?? 4) : 1;
  const allThere = () =>
    eventually('all connections', () => (volume.liveConnections === wanted ? true : undefined));
  await allThere();
  return {
    server,
    volume,
    states,
    allThere,
    [Symbol.asyncDispose]: async () => {
      server.script.answer = () => undefined;
      await volume.close();
      await server.stop();
    },
  };
}

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
    expect(volume.state).toBe('failed');
    expect(await outcomeOf(volume.flush())).toBe('io');
    expect(await outcomeOf(volume.write(0, BLOCK, 0, 512, false))).toBe('io');
    await server.start();
    await eventually('it is back', () => (volume.state === 'connected' ? true : undefined));
    await volume.write(0, BLOCK, 0, 512, false);
    await volume.flush(); // R4: the one that found no server has lost nothing
    expect(states).toEqual(['connected', 'reconnecting', 'failed', 'connected']);
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

test('a connection outlives the time that a handshake may take', async () => {
  await using lab = await pair({}, { reconnectMs: 100 });
  await new Promise((resolve) => setTimeout(resolve, 250));
  expect([lab.server.accepted, lab.volume.liveConnections]).toEqual([1, 1]);
});

describe('close', () => {
  test('waits for what takes several requests, all of them', async () => {
    const GIB = 1024 ** 3;
    const held: (() => void)[] = [];
    await using lab = await pair({
      sizeBytes: 3 * GIB,
      answer: ({ encoder, request, socket }) => {
        if (request.command !== Command.trim) return undefined;
        held.push(() => socket.write(made((buffer) => encoder.ack(buffer, 0, request))));
        return 'nothing';
      },
    });
    const trimming = lab.volume.trim(0, 3 * GIB, false);
    const closing = lab.volume.close();
    for (let piece = 0; piece < 3; piece++) {
      await eventually(`piece ${piece}`, () => (held.length > piece ? true : undefined), 5000);
      held[piece]?.();
    }
    await Promise.all([trimming, closing]);
  });

  test('may be called as soon as the loss is told', async () => {
    await using server = await new ScriptedServer().start();
    let closing: Promise<void> | undefined;
    const volume: RemoteVolume = await open(server, {
      reconnectMs: 100,
      onState: (state) => {
        if (state === 'reconnecting') closing = volume.close();
      },
    });
    server.dropConnections();
    await eventually('the loss', () => (closing === undefined ? undefined : true));
    await closing;
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect([volume.state, server.accepted]).toEqual(['closed', 1]);
  });

  test('gives up a connection that is being made', async () => {
    const lab = await pair({ transmissionFlags: MULTI }, { connections: 2 });
    const { server, volume } = lab;
    server.script = { transmissionFlags: MULTI, raw: () => undefined };
    server.sockets[0]?.destroy();
    await eventually('another attempt', () => (server.accepted === 3 ? true : undefined));
    await volume.close();
    await eventually('all closed', () => (server.open === 0 ? true : undefined), 1000);
    await server.stop();
  });

  test('says goodbye on every connection, and leaves none', async () => {
    const lab = await pair({ transmissionFlags: MULTI });
    await lab.volume.close();
    const goodbyes = lab.server.seen.filter(({ request }) => request.command === Command.disconnect);
    expect(goodbyes.map(({ connection }) => connection).sort()).toEqual([0, 1, 2, 3]);
    expect([lab.volume.state, lab.volume.liveConnections]).toEqual(['closed', 0]);
    await lab.server.stop();
  });

  test('waits for what waits for a server; what comes then is refused', async () => {
    await using lab = await pair({ transmissionFlags: MULTI });
    const { server, volume } = lab;
    await server.stop();
    await eventually('the loss', () => (volume.state === 'reconnecting' ? true : undefined));
    const order: string[] = [];
    const writing = volume.write(0, BLOCK, 0, 512, false).then(() => order.push('written'));
    const closing = volume.close().then(() => order.push('closed'));
    expect(await outcomeOf(volume.write(0, BLOCK, 0, 512, false))).toBe('shutdown');
    await server.start();
    await Promise.all([writing, closing]);
    expect(order).toEqual(['written', 'closed']);
  });

  test('with the server away and nothing under way ends at once, and nothing is tried any more', async () => {
    const lab = await pair({ transmissionFlags: MULTI });
    await lab.server.stop();
    await eventually('the loss', () => (lab.volume.state === 'reconnecting' ? true : undefined));
    await lab.volume.close();
    const { accepted } = lab.server;
    await lab.server.start();
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(lab.server.accepted).toBe(accepted);
    await lab.server.stop();
  });
});
