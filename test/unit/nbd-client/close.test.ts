/** The end of a RemoteVolume: it waits for what is under way, and leaves nothing behind. */

import { describe, expect, test } from 'vitest';
import type { RemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { Command } from '../../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { eventually } from '../../support/tools.ts';
import { open, pair } from './pair.ts';
import { MULTI, made, ScriptedServer } from './scripted-server.ts';

const BLOCK = Buffer.alloc(512, 0xab);

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
