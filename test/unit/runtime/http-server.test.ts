import { afterEach, expect, test } from 'vitest';
import { z } from 'zod';
import { HttpClient } from '../../../src/control-protocol/http-client.ts';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';
import { createHttpServer, type HttpServer } from '../../../src/runtime/http-server.ts';
import { listenHttp } from '../../../src/runtime/listen.ts';

const silent = { debug() {}, info() {}, warn() {}, error() {} };
let running: HttpServer | undefined;
afterEach(() => running?.close());

async function serve(notReady: () => string | undefined = () => undefined): Promise<string> {
  const server = createHttpServer({ title: 'test', log: silent, notReady });
  running = server;
  server.after(() => {
    server.get(
      '/volumes/:name',
      {
        schema: { params: z.object({ name: VolumeName }), response: { 200: z.object({ name: VolumeName }) } },
      },
      ({ params }) => {
        if (params.name === 'gone') throw new ControlError('not-found', 'there is no volume gone');
        if (params.name === 'bug') throw new TypeError('secret detail');
        return { name: params.name };
      },
    );
  });
  return listenHttp(server, { host: '127.0.0.1', port: 0 });
}

const Answer = z.object({ name: z.string() });

test('a name in any script arrives as it was sent', async () => {
  const http = new HttpClient({ url: await serve(), who: 'the test' });
  expect(await http.call(Answer, 'GET', `/volumes/${encodeURIComponent('データ')}`)).toEqual({
    name: 'データ',
  });
});

test.each([
  ['..%2Fx', 'bad-request'],
  ['a%00b', 'bad-request'],
  ['x'.repeat(300), 'bad-request'],
  ['x'.repeat(2000), 'bad-request'],
  ['%zz', 'bad-request'],
  ['gone', 'not-found'],
  ['bug', 'failed'],
])('%.20s is refused as %s', async (name, code) => {
  const http = new HttpClient({ url: await serve(), who: 'the test' });
  const refused = http.call(Answer, 'GET', `/volumes/${name}`);
  await expect(refused).rejects.toMatchObject({ code });
  await expect(refused).rejects.not.toThrow(/secret/);
});

test('an answer of another form, and no answer, are unreachable', async () => {
  const url = await serve();
  const http = new HttpClient({ url, who: 'the test' });
  await expect(http.call(z.object({ size: z.int() }), 'GET', '/volumes/a')).rejects.toMatchObject({
    code: 'unreachable',
  });
  await running?.close();
  await expect(http.call(Answer, 'GET', '/volumes/a')).rejects.toThrow(/ECONNREFUSED/);
});

test('readiness has a reason, health has none, and metrics are Prometheus text', async () => {
  let missing: string | undefined = 'still starting';
  const url = await serve(() => missing);
  const before = await fetch(`${url}/readyz`);
  expect([before.status, await before.json()]).toEqual([503, { ready: false, reason: 'still starting' }]);
  missing = undefined;
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
  expect(await (await fetch(`${url}/metrics`)).text()).toMatch(/^process_cpu_user_seconds_total /m);
  const openapi = (await (await fetch(`${url}/openapi.json`)).json()) as { paths: object };
  expect(Object.keys(openapi.paths)).toEqual(['/volumes/{name}']);
});

test('an accept that fails costs that connection, not the process', async () => {
  const url = await serve();
  for (let n = 0; n < 2; n++) running?.server.emit('error', new Error('accept ENFILE')); // as Node tells of it
  const http = new HttpClient({ url, who: 'the test' });
  expect(await http.call(Answer, 'GET', '/volumes/a')).toEqual({ name: 'a' });
});
