/** R6: a volume whose export is elsewhere now, and servers that say that it is not here. */

import { describe, expect, test } from 'vitest';
import {
  openRemoteVolume,
  type RemoteRefusal,
  type RemoteState,
  type RemoteVolume,
  type RemoteVolumeOptions,
} from '../../../src/nbd-client/remote-volume.ts';
import { Errno } from '../../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { silentLog } from '../../support/log.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { lab } from '../nbd/lab.ts';
import { ALL_FLAGS, MULTI, made, type Script, ScriptedServer } from './scripted-server.ts';

const BLOCK = Buffer.alloc(512, 0xab);

function targetOf({ address, script }: ScriptedServer) {
  return { address, exportName: script.exportName ?? 'disk' };
}

/** Two servers, and a volume with all its connections to the first. */
async function moving(script: Script, options: Partial<RemoteVolumeOptions> = {}) {
  const [from, to] = [await new ScriptedServer(script).start(), await new ScriptedServer(script).start()];
  const states: RemoteState[] = [];
  const refusals: RemoteRefusal[] = [];
  const volume = await openRemoteVolume({
    ...targetOf(from),
    reconnectMs: 20_000,
    log: silentLog,
    onState: (state) => states.push(state),
    onRefused: (refusal) => refusals.push(refusal),
    ...options,
  });
  const wanted = script.transmissionFlags === MULTI ? 4 : 1;
  const allAt = (server: ScriptedServer) =>
    eventually('all connections', () =>
      volume.liveConnections === wanted && server.open === wanted ? true : undefined,
    );
  await allAt(from);
  return {
    from,
    to,
    volume,
    states,
    refusals,
    allAt,
    [Symbol.asyncDispose]: async () => {
      await volume.close();
      await from.stop();
      await to.stop();
    },
  };
}

const isLost = (volume: RemoteVolume) =>
  eventually('the loss', () => (volume.state === 'reconnecting' ? true : undefined));

describe('retarget', () => {
  test('drops the links at once; what was unanswered, and what comes, is done at the new target', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, to, volume, states } = lab;
    from.script = { ...from.script, answer: () => 'nothing' };
    const target = Buffer.alloc(512);
    const before = [volume.write(0, BLOCK, 0, 512, true), volume.read(8192, target, 0, 512), volume.flush()];
    await eventually('three requests', () => (from.seen.length === 3 ? true : undefined));
    volume.retarget(targetOf(to));
    expect([volume.liveConnections, volume.state]).toEqual([0, 'reconnecting']);
    const after = volume.write(512, BLOCK, 0, 512, false);
    await Promise.all([...before, after]);
    expect(to.image.subarray(0, 1024).equals(Buffer.alloc(1024, 0xab))).toBe(true);
    expect(target.equals(to.image.subarray(8192, 8704))).toBe(true);
    await lab.allAt(to);
    expect([from.open, from.accepted, from.seen.length, to.accepted]).toEqual([0, 4, 3, 4]);
    expect(states).toEqual(['connected', 'reconnecting', 'connected']);
  });

  test('to the same target is nothing', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, volume, states } = lab;
    volume.retarget(targetOf(from));
    await volume.read(0, Buffer.alloc(512), 0, 512);
    expect([from.accepted, volume.liveConnections, states]).toEqual([4, 4, ['connected']]);
  });

  test('another export of the same server', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, volume } = lab;
    from.script = { transmissionFlags: MULTI, exportName: 'disk@2' };
    volume.retarget(targetOf(from));
    await volume.write(0, BLOCK, 0, 512, false);
    await lab.allAt(from);
    expect(from.accepted).toBe(8);
  });

  test('a unix socket and a port are different, whatever else', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { to, volume } = lab;
    volume.retarget({ address: { path: '/nowhere' }, exportName: 'disk' });
    await isLost(volume);
    volume.retarget({ address: { path: '/elsewhere' }, exportName: 'disk' });
    volume.retarget(targetOf(to));
    await lab.allAt(to);
  });

  test('P5: gives up attempts to the older target', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, to, volume } = lab;
    from.script = { transmissionFlags: MULTI, raw: () => undefined };
    from.dropConnections();
    await eventually('attempts', () => (from.accepted === 8 && from.open === 4 ? true : undefined));
    const writing = volume.write(0, BLOCK, 0, 512, false);
    volume.retarget(targetOf(to));
    await writing;
    await eventually('given up', () => (from.open === 0 ? true : undefined));
    await lab.allAt(to);
    expect([from.accepted, to.accepted]).toEqual([8, 4]);
  });

  test('there and back while nothing answers: one attempt for each connection in the end', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, to, volume } = lab;
    for (let round = 0; round < 20; round++) volume.retarget(targetOf(round % 2 === 0 ? to : from));
    volume.retarget(targetOf(to));
    await volume.write(0, BLOCK, 0, 512, false);
    await lab.allAt(to);
    await eventually('nothing is left', () => (from.open === 0 ? true : undefined));
  });

  test('P3: an operation is given up reconnectMs after it was lost first, retargeted or not', async () => {
    await using lab = await moving(
      { transmissionFlags: ALL_FLAGS, answer: () => 'nothing' },
      { reconnectMs: 300 },
    );
    const { from, to, volume } = lab;
    const reading = outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512));
    await eventually('it is sent', () => (from.seen.length === 1 ? true : undefined));
    for (const server of [from, to]) server.script = { ...server.script, raw: () => undefined };
    let settled = false;
    void reading.then(() => (settled = true));
    for (let round = 0; !settled; round++) {
      volume.retarget(targetOf(round % 2 === 0 ? to : from));
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    expect(await reading).toBe('io');
    for (const server of [from, to]) server.script = { transmissionFlags: ALL_FLAGS };
    volume.retarget(targetOf(to));
    volume.retarget(targetOf(from)); // a volume that has failed comes back at its new target, too
    await eventually('it is back', () => (volume.state === 'connected' ? true : undefined));
    expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe('done');
  });

  test('while the volume is being closed: what it waits for is done at the new target', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, to, volume } = lab;
    await from.stop();
    await isLost(volume);
    const writing = volume.write(0, BLOCK, 0, 512, false);
    const closing = volume.close();
    volume.retarget(targetOf(to));
    await Promise.all([writing, closing]);
    volume.retarget(targetOf(from));
    expect(volume.state).toBe('closed');
  });

  test('the volume may be closed as soon as onState tells of it', async () => {
    let closing: Promise<void> | undefined;
    await using lab = await moving(
      { transmissionFlags: MULTI },
      {
        onState: (state) => {
          if (state === 'reconnecting') closing = lab.volume.close();
        },
      },
    );
    lab.volume.retarget(targetOf(lab.to));
    expect(closing).toBeDefined();
    await closing;
    expect([lab.volume.state, lab.to.open]).toEqual(['closed', 0]);
  });

  test('an export that is less than before fails the volume for good, there as anywhere', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, to, volume } = lab;
    to.script = { transmissionFlags: MULTI, sizeBytes: 512 };
    volume.retarget(targetOf(to));
    await eventually('the failure', () => (volume.state === 'failed' ? true : undefined));
    volume.retarget(targetOf(from));
    expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe('failed');
  });
});

describe('R3, R6: flushes after a retarget', () => {
  test('with CAN_MULTI_CONN they cover what was answered before', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    await lab.volume.write(0, BLOCK, 0, 512, false);
    lab.volume.retarget(targetOf(lab.to));
    expect(await outcomeOf(lab.volume.flush())).toBe('done');
  });

  test.each([
    ['unflushed writes make the flush fail', false, 'failed'],
    ['flushed ones do not', true, 'done'],
  ])('without it, %s', async (_name, flushed, expected) => {
    await using lab = await moving({ transmissionFlags: ALL_FLAGS });
    await lab.volume.write(0, BLOCK, 0, 512, false);
    if (flushed) await lab.volume.flush();
    lab.volume.retarget(targetOf(lab.to));
    expect(await outcomeOf(lab.volume.flush())).toBe(expected);
  });

  test('a flush that was under way is asked for again, and covers nothing of its first attempt', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, to, volume } = lab;
    from.script = { ...from.script, answer: () => 'nothing' };
    const flushing = volume.flush();
    await eventually('the flush', () => (from.seen.length === 1 ? true : undefined));
    let refusals = 1;
    to.script = {
      transmissionFlags: MULTI,
      answer: ({ encoder, request }) =>
        refusals-- > 0 ? made((buffer) => encoder.error(buffer, 0, request, Errno.EIO, 'disk')) : undefined,
    };
    volume.retarget(targetOf(to));
    expect(await outcomeOf(flushing)).toBe('io');
    expect(await outcomeOf(volume.flush())).toBe('failed');
  });
});

test('R5: another port of one server: the new copy of a write waits for the old one', async () => {
  const gate = new Gate();
  const inner = new MemoryVolume(Buffer.alloc(8192));
  await using server = await lab(new DelayVolume(inner, gate.delay));
  const second = await server.server.listen({ host: '127.0.0.1', port: 0 });
  const volume = await openRemoteVolume({ address: server.address, exportName: 'disk', log: silentLog });
  gate.shut('write');
  const first = volume.write(0, Buffer.alloc(4096, 1), 0, 4096, false);
  await eventually('the old copy', () => (gate.held.length === 1 ? true : undefined));
  volume.retarget({ address: second, exportName: 'disk' });
  await eventually('the second port', () => (volume.liveConnections > 0 ? true : undefined));
  await new Promise((resolve) => setTimeout(resolve, 100)); // the new copy is at the server, before the gate
  expect(gate.held).toHaveLength(1);
  gate.letOneGo();
  await eventually('the new copy', () => (gate.held.length === 1 ? true : undefined));
  gate.open();
  await first;
  await volume.write(0, Buffer.alloc(4096, 2), 0, 4096, false);
  const bytes = Buffer.alloc(4096);
  inner.readNow(0, bytes, 0, 4096);
  expect(bytes.equals(Buffer.alloc(4096, 2))).toBe(true);
  await volume.close();
});

describe('onRefused', () => {
  test.each([
    ['unknown', 'unknown'],
    ['policy', 'refused'],
    ['shutdown', 'shutdown'],
  ] as const)(
    'a further handshake that ends with %s, until the export is there again',
    async (code, expected) => {
      await using lab = await moving({ transmissionFlags: MULTI });
      const { from, volume, refusals } = lab;
      from.script = { transmissionFlags: MULTI, refusal: { code, text: 'not here any more' } };
      from.dropConnections();
      const writing = volume.write(0, BLOCK, 0, 512, false);
      await eventually('attempts go on', () => (refusals.length >= 8 ? true : undefined));
      for (const refusal of refusals) {
        expect(refusal).toEqual({ code: expected, message: expect.stringContaining('not here any more') });
      }
      expect(volume.state).toBe('reconnecting');
      from.script = { transmissionFlags: MULTI };
      await writing;
      await lab.allAt(from);
    },
  );

  test('for reconnectMs; then the volume has failed, and still comes back by itself', async () => {
    await using lab = await moving({ transmissionFlags: ALL_FLAGS }, { reconnectMs: 1_000 });
    const { from, volume, states, refusals } = lab;
    from.script = { transmissionFlags: ALL_FLAGS, refusal: { code: 'policy', text: 'not now' } };
    from.dropConnections();
    await eventually('the failure', () => (volume.state === 'failed' ? true : undefined));
    await expect(volume.read(0, Buffer.alloc(512), 0, 512)).rejects.toMatchObject({
      code: 'io',
      message: expect.stringContaining('not now'),
    });
    const before = refusals.length;
    await eventually('attempts go on', () => (refusals.length > before ? true : undefined));
    from.script = { transmissionFlags: ALL_FLAGS };
    await eventually('it is back', () => (volume.state === 'connected' ? true : undefined));
    expect(states).toEqual(['connected', 'reconnecting', 'failed', 'connected']);
  });

  test('a request that is answered with ESHUTDOWN; the volume may be retargeted in the call', async () => {
    const refusals: RemoteRefusal[] = [];
    await using lab = await moving(
      { transmissionFlags: MULTI },
      {
        onRefused: (refusal) => {
          refusals.push(refusal);
          lab.volume.retarget(targetOf(lab.to));
        },
      },
    );
    const { from, to, volume } = lab;
    from.script = {
      transmissionFlags: MULTI,
      answer: ({ encoder, request }) =>
        made((buffer) => encoder.error(buffer, 0, request, Errno.ESHUTDOWN, 'epoch 7 is over')),
    };
    const writes = Array.from({ length: 100 }, (_, at) => volume.write(at * 512, BLOCK, 0, 512, false));
    await Promise.all(writes);
    expect(to.image.subarray(0, 51_200).equals(Buffer.alloc(51_200, 0xab))).toBe(true);
    expect(from.image.includes(BLOCK)).toBe(false);
    expect(refusals).toEqual([{ code: 'shutdown', message: expect.stringContaining('epoch 7 is over') }]);
    await lab.allAt(to);
    expect(from.open).toBe(0);
  });

  test('a server that is away, or breaks the protocol, has refused nothing', async () => {
    await using lab = await moving({ transmissionFlags: MULTI });
    const { from, volume, refusals } = lab;
    from.script = {
      transmissionFlags: MULTI,
      raw: (socket) => void socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'),
    };
    from.dropConnections();
    await eventually('attempts', () => (from.accepted > 8 ? true : undefined));
    await from.stop();
    from.script = { transmissionFlags: MULTI };
    await from.start();
    await volume.read(0, Buffer.alloc(512), 0, 512);
    expect(refusals).toEqual([]);
  });
});
