/** HttpClient in front of servers that answer whatever they like. */

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { afterEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import { z } from 'zod';
import { controlErrorOf, HttpClient, isAway, pathOf } from '../../../src/control-protocol/http-client.ts';
import { ControlError } from '../../../src/model/errors.ts';
import { freePort } from '../../support/ports.ts';

const MiB = 2 ** 20;
const servers: Server[] = [];
afterEach(() => {
  vi.useRealTimers();
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

type Answer = (response: ServerResponse, request: IncomingMessage) => void;

/** A server that answers so, and a client for it. */
async function clientOf(answer: Answer, options: { timeoutMs?: number; advice?: string } = {}) {
  const server = createServer((request, response) => answer(response, request));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return new HttpClient({ url: `http://127.0.0.1:${port}`, who: 'the test', ...options });
}

const Anything = z.json();
const get = (client: HttpClient) => client.call(Anything, 'GET', '/x');
const unreachable = (message: RegExp) =>
  expect.objectContaining({ code: 'unreachable', message: expect.stringMatching(message) });

describe('answers', () => {
  test('a refusal arrives with its code and its sentence; a code that we do not know is `failed`', async () => {
    for (const [code, expected] of [
      ['not-found', 'not-found'],
      ['no-space', 'no-space'],
      ['from-the-future', 'failed'],
      ['toString', 'failed'],
    ] as const) {
      const client = await clientOf((response) => {
        response.writeHead(409).end(JSON.stringify({ error: { code, message: 'so it is' } }));
      });
      await expect(get(client)).rejects.toMatchObject({ code: expected, message: 'so it is' });
      expect(controlErrorOf({ code, message: 'so it is' })).toMatchObject({ code: expected });
    }
  });

  test.each([
    ['no JSON', 200, '<html>', /no JSON/],
    ['JSON of another form', 200, '{"size":"big"}', /GET \/x should not: .*size/],
    ['a refusal that is none', 500, '{"error":"bad"}', /status 500/],
    ['a refusal without JSON', 502, 'Bad Gateway', /no JSON/],
    ['an empty answer', 200, '', /no JSON/],
  ])('%s', async (_, status, body, sentence) => {
    const client = await clientOf((response) => response.writeHead(status).end(body));
    const asked = client.call(z.object({ size: z.int() }), 'GET', '/x');
    await expect(asked).rejects.toEqual(unreachable(sentence));
    await expect(asked).rejects.toBeInstanceOf(ControlError);
  });

  test('a redirection is not followed', async () => {
    const asked: string[] = [];
    const client = await clientOf((response, { url = '' }) => {
      asked.push(url);
      response.writeHead(307, { location: '/elsewhere' }).end();
    });
    await expect(get(client)).rejects.toEqual(unreachable(/the test/));
    expect(asked).toEqual(['/x']);
  });

  test('an answer without end is given up at 64 MiB, and its connection closed', async () => {
    let sent = 0;
    const closed = Promise.withResolvers<void>();
    const client = await clientOf((response) => {
      response.on('close', () => closed.resolve());
      const send = (): void => {
        do sent += MiB;
        while (!response.destroyed && response.write(' '.repeat(MiB)));
      };
      response.on('drain', send);
      send();
    });
    await expect(get(client)).rejects.toEqual(unreachable(/more than 67108864 bytes/));
    await closed.promise;
    expect(sent).toBeGreaterThan(32 * MiB);
    expect(sent).toBeLessThan(256 * MiB);
  });

  test('no answer in time, and half of one', async () => {
    for (const answer of [() => {}, (response: ServerResponse) => response.write('{"half":')]) {
      const client = await clientOf(answer, { timeoutMs: 100 });
      await expect(get(client)).rejects.toEqual(unreachable(/no answer in time/));
    }
  });

  test('somebody listens who speaks another language, such as NBD: the reason is told', async () => {
    const server = createTcpServer((socket) => socket.end('NBDMAGICIHAVEOPT'));
    onTestFinished(() => void server.close());
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const client = new HttpClient({ url: `http://127.0.0.1:${port}`, who: 'the test' });
    const error: unknown = await get(client).catch((reason: unknown) => reason);
    expect(error).toEqual(unreachable(/HTTP/));
  });

  test('nobody listens: the reason, and what to do', async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const client = new HttpClient({ url, who: 'the test', advice: 'is it running?' });
    const error: unknown = await get(client).catch((reason: unknown) => reason);
    expect(error).toEqual(unreachable(/ECONNREFUSED/));
    expect(error).toMatchObject({ message: `the test (${url}): ECONNREFUSED; is it running?` });
    expect(isAway(error)).toBe(true);
    expect(isAway(new ControlError('not-found', ''))).toBe(false);
  });

  test('an aborted request is over', async () => {
    const abort = new AbortController();
    const client = await clientOf(() => abort.abort());
    await expect(client.call(Anything, 'GET', '/x', { signal: abort.signal })).rejects.toMatchObject({
      code: 'unreachable',
    });
  });

  test('names are encoded in paths, values in queries; undefined ones stay away', async () => {
    const client = await clientOf((response, { url }) => response.end(JSON.stringify(url)));
    const asked = client.call(Anything, 'GET', pathOf('volumes', 'a/b ü'), {
      query: { since: undefined, limit: 0, q: 'a&b' },
    });
    expect(await asked).toBe('/volumes/a%2Fb%20%C3%BC?limit=0&q=a%26b');
  });
});

describe('event streams', () => {
  const endless = new AbortController().signal;

  async function collect(client: HttpClient, signal = endless) {
    const events: { event: string | undefined; data: string }[] = [];
    for await (const { event, data } of client.events('/e', signal)) events.push({ event, data });
    return events;
  }

  test('events arrive whole, however the stream is cut', async () => {
    const text =
      ': hello\n\nevent: change\ndata: {"a":"größe"}\n\nid: 7\nevent: big\r\ndata: 1\r\ndata: 2\r\n\r\n';
    const bytes = Buffer.from(text);
    for (const step of [1, 2, 3, 7, bytes.length]) {
      const client = await clientOf(async (response) => {
        for (let start = 0; start < bytes.length; start += step) {
          await new Promise<unknown>((sent) => response.write(bytes.subarray(start, start + step), sent));
        }
        response.end('event: half\ndata: never');
      });
      expect(await collect(client), `in pieces of ${step}`).toEqual([
        { event: 'change', data: '{"a":"größe"}' },
        { event: 'big', data: '1\n2' },
      ]);
    }
  });

  test('a connection that breaks, and a refusal, are errors', async () => {
    const breaking = await clientOf((response) => {
      response.write('data: 1\n\n', () => response.destroy());
    });
    await expect(collect(breaking)).rejects.toMatchObject({ code: 'unreachable' });
    const refusing = await clientOf((response) => {
      response.writeHead(404).end('{"error":{"code":"not-found","message":"no"}}');
    });
    await expect(collect(refusing)).rejects.toMatchObject({ code: 'not-found' });
  });

  test('its signal ends it without an error, before and in the midst of it', async () => {
    const abort = new AbortController();
    const closed = Promise.withResolvers<void>();
    const client = await clientOf((response) => {
      response.on('close', () => closed.resolve());
      response.write('data: 1\n\n');
    });
    for await (const { data } of client.events('/e', abort.signal)) {
      expect(data).toBe('1');
      abort.abort();
    }
    await closed.promise;
    expect(await collect(client, abort.signal)).toEqual([]);
  });

  test('who stops reading closes the connection', async () => {
    const closed = Promise.withResolvers<void>();
    const client = await clientOf((response) => {
      response.on('close', () => closed.resolve());
      response.write('data: 1\n\ndata: 2\n\n');
    });
    for await (const { data } of client.events('/e', endless)) {
      expect(data).toBe('1');
      break;
    }
    await closed.promise;
  });

  test('silence for 15 s is an error; a comment is none', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    const opened = Promise.withResolvers<ServerResponse>();
    const client = await clientOf((response) => {
      response.write(': hello\n\n');
      opened.resolve(response);
    });
    const events = client.events('/e', endless);
    const first = events.next();
    const response = await opened.promise;
    await vi.advanceTimersByTimeAsync(14_000);
    response.write('data: 1\n\n');
    expect(await first).toMatchObject({ value: { data: '1' } });
    const second = events.next();
    const refused = expect(second).rejects.toEqual(unreachable(/silent/));
    await vi.advanceTimersByTimeAsync(15_001);
    await refused;
  });

  test.each(['one line', 'many lines'])(
    'a message without end, in %s, is given up at 64 MiB',
    async (how) => {
      const piece = how === 'one line' ? 'x'.repeat(MiB) : `\ndata: ${'x'.repeat(MiB)}`;
      const closed = Promise.withResolvers<void>();
      const client = await clientOf((response) => {
        response.on('close', () => closed.resolve());
        response.write('data: x');
        const send = (): void => {
          while (!response.destroyed && response.write(piece));
        };
        response.on('drain', send);
        send();
      });
      await expect(collect(client)).rejects.toEqual(unreachable(/more than 67108864 bytes/));
      await closed.promise;
    },
  );
});
