/** A volume that is opened before its server is there: openMs, signal, and a target that changes meanwhile. */

import { describe, expect, test } from 'vitest';
import {
  openRemoteVolume,
  type RemoteRefusal,
  type RemoteState,
  startRemoteVolume,
} from '../../../src/nbd-client/remote-volume.ts';
import { silentLog } from '../../support/log.ts';
import { freePort } from '../../support/ports.ts';
import { eventually } from '../../support/tools.ts';
import { MULTI, ScriptedServer } from './scripted-server.ts';

const common = { exportName: 'disk', log: silentLog, reconnectMs: 20_000 };

/** A server that has a port and does not listen. */
async function absent(): Promise<ScriptedServer> {
  const server = await new ScriptedServer({ transmissionFlags: MULTI }).start();
  await server.stop();
  return server;
}

describe('openMs', () => {
  test('a server that comes later', async () => {
    await using server = await absent();
    const states: RemoteState[] = [];
    const onState = (state: RemoteState) => states.push(state);
    const opening = openRemoteVolume({ ...common, address: server.address, openMs: 20_000, onState });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(states).toEqual([]);
    await server.start();
    const volume = await opening;
    await eventually('all connections', () => (volume.liveConnections === 4 ? true : undefined));
    expect([states, server.accepted]).toEqual([['connected'], 4]);
    await volume.close();
  });

  test('one that refuses at first: each refusal is told', async () => {
    const refusal = { code: 'policy', text: 'not yet' } as const;
    await using server = await new ScriptedServer({ transmissionFlags: MULTI, refusal }).start();
    const refusals: RemoteRefusal[] = [];
    const onRefused = (told: RemoteRefusal) => refusals.push(told);
    const opening = openRemoteVolume({ ...common, address: server.address, openMs: 20_000, onRefused });
    await eventually('attempts', () => (refusals.length >= 3 ? true : undefined));
    server.script = { transmissionFlags: MULTI };
    const volume = await opening;
    for (const told of refusals) {
      expect(told).toEqual({ code: 'refused', message: expect.stringContaining('not yet') });
    }
    await volume.close();
  });

  test('by default there is one attempt', async () => {
    const refusal = { code: 'unknown', text: 'never heard of it' } as const;
    await using server = await new ScriptedServer({ refusal }).start();
    const refusals: RemoteRefusal[] = [];
    const onRefused = (told: RemoteRefusal) => refusals.push(told);
    const opening = openRemoteVolume({ ...common, address: server.address, onRefused });
    await expect(opening).rejects.toMatchObject({ code: 'invalid' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect([server.accepted, refusals.map(({ code }) => code)]).toEqual([1, ['unknown']]);
  });

  test('when it is over, the last failure says why, and nothing goes on', async () => {
    const refusal = { code: 'shutdown', text: 'leaving' } as const;
    await using server = await new ScriptedServer({ refusal }).start();
    const opening = openRemoteVolume({ ...common, address: server.address, openMs: 100 });
    await expect(opening).rejects.toMatchObject({
      code: 'shutdown',
      message: expect.stringContaining('leaving'),
    });
    const { accepted } = server;
    expect(accepted).toBeGreaterThan(1);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect([server.accepted, server.open]).toEqual([accepted, 0]);
  });

  test('it is over in the middle of the first attempt', async () => {
    await using server = await new ScriptedServer({ raw: () => undefined }).start();
    const opening = openRemoteVolume({ ...common, address: server.address, openMs: 50 });
    await expect(opening).rejects.toMatchObject({
      code: 'io',
      message: expect.stringContaining('does not answer'),
    });
    await eventually('given up', () => (server.open === 0 ? true : undefined));
  });

  test('a server that speaks something else is not asked again', async () => {
    const oldstyle = Buffer.from(`${Buffer.from('NBDMAGIC').toString('hex')}0000420281861253`, 'hex');
    const raw = (socket: { write(bytes: Buffer): void }) =>
      socket.write(Buffer.concat([oldstyle, Buffer.alloc(136)]));
    await using server = await new ScriptedServer({ raw }).start();
    const opening = openRemoteVolume({ ...common, address: server.address, openMs: 20_000 });
    await expect(opening).rejects.toMatchObject({ code: 'not-supported' });
    expect(server.accepted).toBe(1);
  });
});

describe('signal', () => {
  test.each(['before', 'in an attempt', 'between attempts'])('aborted %s', async (when) => {
    const script = when === 'in an attempt' ? { raw: () => undefined } : {};
    await using server = await new ScriptedServer(script).start();
    if (when === 'between attempts') await server.stop();
    const aborting = new AbortController();
    const cause = new Error('not wanted any more');
    if (when === 'before') aborting.abort(cause);
    const { signal } = aborting;
    const opening = openRemoteVolume({ ...common, address: server.address, openMs: 20_000, signal });
    const outcome = expect(opening).rejects.toMatchObject({ code: 'shutdown', cause });
    if (when === 'in an attempt') await eventually('it', () => (server.open === 1 ? true : undefined));
    if (when === 'between attempts') await new Promise((resolve) => setTimeout(resolve, 50));
    aborting.abort(cause);
    await outcome;
    await eventually('given up', () => (server.open === 0 ? true : undefined));
    if (when === 'between attempts') await server.start();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(server.accepted).toBe(when === 'in an attempt' ? 1 : 0);
  });

  test('means nothing to a volume that is open', async () => {
    await using server = await new ScriptedServer({ transmissionFlags: MULTI }).start();
    const aborting = new AbortController();
    const volume = await openRemoteVolume({ ...common, address: server.address, signal: aborting.signal });
    aborting.abort();
    await volume.read(0, Buffer.alloc(512), 0, 512);
    expect(volume.state).toBe('connected');
    await volume.close();
  });
});

describe('a target that changes before there is a volume', () => {
  test.each([
    ['the older one is away', 20_000, {}, true],
    ['the older one does not answer', 20_000, { raw: () => undefined }, false],
    ['the older one does not answer, and there is one attempt', 0, { raw: () => undefined }, false],
    ['the older one refuses', 20_000, { refusal: { code: 'policy', text: 'not here' } as const }, false],
  ])('%s', async (_name, openMs, script, isAway) => {
    await using from = await new ScriptedServer(script).start();
    await using to = await new ScriptedServer({ transmissionFlags: MULTI }).start();
    if (isAway) await from.stop();
    const remote = startRemoteVolume({ ...common, address: from.address, openMs });
    if (isAway) await new Promise((resolve) => setTimeout(resolve, 50));
    else await eventually('an attempt', () => (from.accepted > 0 ? true : undefined));
    remote.retarget({ address: to.address, exportName: 'disk' });
    const volume = await remote.volume;
    await eventually('all connections', () => (volume.liveConnections === 4 ? true : undefined));
    await eventually('none is left', () => (from.open === 0 ? true : undefined));
    expect(to.accepted).toBe(4);
    // The same handle goes on to serve.
    if (isAway) await from.start();
    from.script = { transmissionFlags: MULTI };
    remote.retarget({ address: from.address, exportName: 'disk' });
    await volume.read(0, Buffer.alloc(512), 0, 512);
    expect(from.seen).toHaveLength(1);
    await volume.close();
  });

  test('retargeted when refused', async () => {
    const refusal = { code: 'shutdown', text: 'moved' } as const;
    await using from = await new ScriptedServer({ refusal }).start();
    await using to = await new ScriptedServer({ transmissionFlags: MULTI, exportName: 'disk@8' }).start();
    const remote = startRemoteVolume({
      ...common,
      address: from.address,
      openMs: 20_000,
      onRefused: () => remote.retarget({ address: to.address, exportName: 'disk@8' }),
    });
    const volume = await remote.volume;
    expect([from.accepted, from.open]).toEqual([1, 0]);
    await volume.close();
  });

  test('after it has come to nothing, a new target is nothing', async () => {
    const remote = startRemoteVolume({ ...common, address: { host: '127.0.0.1', port: await freePort() } });
    await expect(remote.volume).rejects.toMatchObject({ code: 'io' });
    await using to = await new ScriptedServer({ transmissionFlags: MULTI }).start();
    remote.retarget({ address: to.address, exportName: 'disk' });
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(to.accepted).toBe(0);
  });

  test('in the same turn as the first connection: the volume is made, and comes back there', async () => {
    await using from = await new ScriptedServer({ transmissionFlags: MULTI }).start();
    await using to = await new ScriptedServer({ transmissionFlags: MULTI }).start();
    const remote = startRemoteVolume({
      ...common,
      address: from.address,
      onState: (state) => {
        if (state === 'connected') remote.retarget({ address: to.address, exportName: 'disk' });
      },
    });
    const volume = await remote.volume;
    await volume.read(0, Buffer.alloc(512), 0, 512);
    expect([from.seen.length, to.seen.length]).toEqual([0, 1]);
    await volume.close();
  });
});
