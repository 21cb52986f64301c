/** Streams of the directory: second information, and events. */

import type { ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { connect } from 'node:net';
import { PassThrough } from 'node:stream';
import { expect, onTestFinished, test } from 'vitest';
import type { WatchMessage } from '../../../src/control-protocol/directory-client.ts';
import { directoryRoutes } from '../../../src/control-protocol/directory-routes.ts';
import { type Message, streamMessages } from '../../../src/directory/sse.ts';
import { figure } from '../../support/directory-check.ts';
import { GiB, MiB, until } from '../../support/directory-lab.ts';
import { silentLog } from '../../support/log.ts';
import { makeLab } from './lab.ts';

/** What a gateway knows, from the messages of one watch after the other. */
class Watcher {
  readonly volumes = new Map<string, string>();
  /** Every NBD port that a storage system has had: its own next report puts the right one back. */
  readonly ports = new Set<string>();
  revision = 0;
  snapshots = 0;
  changes = 0;

  take(message: WatchMessage): void {
    if (message.kind === 'snapshot') {
      this.volumes.clear();
      this.snapshots += 1;
    } else {
      this.changes += 1;
      expect(message.change.revision).toBeGreaterThan(this.revision);
    }
    const records = message.kind === 'snapshot' ? message.information : message.change;
    this.revision = records.revision;
    for (const { name, state, sizeBytes } of records.volumes) this.volumes.set(name, `${state} ${sizeBytes}`);
    for (const { name, nbd } of records.storage) this.ports.add(`${name} ${nbd.port}`);
    if (message.kind === 'change')
      for (const name of message.change.removedVolumes) this.volumes.delete(name);
  }
}

test('a watch brings everything, then every change, and everything again after reconnecting', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = await lab.storage('a', GiB);
  await lab.create('v1', MiB);
  const watcher = new Watcher();
  const end = new AbortController();
  const follow = async (): Promise<void> => {
    while (!end.signal.aborted) {
      try {
        for await (const message of directory.watch(end.signal)) watcher.take(message);
      } catch (error) {
        expect(error).toMatchObject({ code: 'unreachable' });
      }
    }
  };
  const following = follow();
  await until(() => watcher.snapshots === 1);
  expect([...watcher.volumes]).toEqual([['v1', `ready ${MiB}`]]);
  expect(watcher.revision).toBe((await directory.cluster()).revision);
  await lab.create('v2', MiB);
  await lab.resize('v1', 2 * MiB);
  await until(() => watcher.volumes.get('v1') === `ready ${2 * MiB}`);
  expect(watcher.changes).toBe(4); // creating, ready; resizing, ready
  await directory.reportStorage(storage.name, { ...storage.reportBody, nbd: { host: 'east', port: 1 } });
  await until(() => watcher.ports.has('a 1'));
  await lab.restart();
  await until(() => watcher.snapshots >= 2); // one more when it came back to the one that was just stopping
  await lab.delete('v1');
  await until(() => !watcher.volumes.has('v1'));
  expect([...watcher.volumes]).toEqual([['v2', `ready ${MiB}`]]);
  await until(async () => watcher.revision === (await directory.cluster()).revision);
  end.abort();
  await following;
  await until(async () => (await figure(directory, 'event_streams')) === 0);
});

test('events are listed, and followed from where one left off', async () => {
  const { directory, ...lab } = await makeLab();
  await lab.storage('a', GiB);
  const end = new AbortController();
  const seen: string[] = [];
  const following = (async () => {
    for await (const { id, kind } of directory.followEvents(end.signal, 0)) seen.push(`${id} ${kind}`);
  })();
  await until(() => seen.length === 1);
  const fromNow: number[] = [];
  const later = (async () => {
    for await (const { id } of directory.followEvents(end.signal)) fromNow.push(id);
  })();
  await until(async () => (await figure(directory, 'event_streams')) === 2);
  await lab.create('v', MiB);
  await lab.delete('v');
  await until(() => seen.length === 3 && fromNow.length === 2);
  expect(seen).toEqual(['1 storage.online', '2 volume.created', '3 volume.deleted']);
  expect(fromNow).toEqual([2, 3]);
  end.abort();
  await Promise.all([following, later]);
  const ids = async (query: { since?: number; limit?: number }): Promise<number[]> =>
    (await directory.events(query)).map(({ id }) => id);
  expect(await ids({})).toEqual([1, 2, 3]);
  expect(await ids({ limit: 2 })).toEqual([2, 3]);
  expect(await ids({ limit: 0 })).toEqual([]);
  expect(await ids({ since: 1, limit: 1 })).toEqual([2]);
  expect(await ids({ since: 3 })).toEqual([]);
  expect(await ids({ since: 99 })).toEqual([]);
});

/** A server whose every answer is the stream, and the promise of its end. */
async function streamServer(messages: (signal: AbortSignal) => AsyncIterable<Message>, drainMsMax: number) {
  let ended: () => void = () => undefined;
  const end = new Promise<void>((resolve) => {
    ended = resolve;
  });
  const server = createServer((_request, response: ServerResponse) => {
    const limits = { commentMs: 20, drainMsMax };
    streamMessages(response, messages, { log: silentLog, limits }).finally(ended);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { port: (server.address() as AddressInfo).port, end };
}

test('a consumer that reads nothing keeps one message here, and is cut off', async () => {
  let made = 0;
  const { port, end } = await streamServer(async function* () {
    for (;;) {
      made += 1;
      yield { event: 'change', data: { text: 'x'.repeat(MiB) } };
    }
  }, 200);
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.pause();
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  await end;
  expect(made).toBeLessThan(64); // what the kernel's buffers take, and one
  socket.destroy();
});

test('silence is filled with comments', async () => {
  const { port } = await streamServer(async function* (signal) {
    await new Promise((resolve) => signal.addEventListener('abort', resolve));
    yield* [];
  }, 200);
  const heard = new PassThrough();
  const socket = connect(port, '127.0.0.1');
  socket.pipe(heard);
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n');
  let text = '';
  for await (const chunk of heard) {
    text += String(chunk);
    if ((text.match(/^:$/gm) ?? []).length > 3) break;
  }
  socket.destroy();
});

test('OpenAPI describes every route; health, readiness and metrics are there', async () => {
  const { directory } = await makeLab();
  const get = (path: string): Promise<Response> => fetch(`${directory.url}${path}`);
  const document = (await (await get('/openapi.json')).json()) as {
    openapi: string;
    info: { title: string };
    paths: Record<string, Record<string, { summary?: string; responses?: object }>>;
  };
  expect(document.openapi).toMatch(/^3\./);
  expect(document.info.title).toBe('Volary directory');
  const routes = Object.values(document.paths).flatMap((methods) => Object.values(methods));
  expect(routes.map(({ summary }) => summary).sort()).toEqual(
    Object.values(directoryRoutes)
      .map(({ summary }) => summary)
      .sort(),
  );
  for (const { responses } of routes) expect(responses).toBeDefined();
  // Every reference leads somewhere.
  for (const [, path = ''] of JSON.stringify(document).matchAll(/"\$ref":"#\/([^"]+)"/g)) {
    let at: unknown = document;
    for (const step of path.split('/')) at = (at as Record<string, unknown>)[step];
    expect(at, path).toBeDefined();
  }
  expect(await (await get('/healthz')).json()).toEqual({ ok: true });
  expect(await (await get('/readyz')).json()).toEqual({ ready: true });
  expect(await (await get('/metrics')).text()).toMatch(/^volary_directory_volumes 0$/m);
});
