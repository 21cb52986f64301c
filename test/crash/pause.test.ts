/** A server that stands still for a while (SIGSTOP: a suspended machine, a swapping one) loses nothing. */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { BLOCK_BYTES, Book, loadOn } from '../support/book.ts';
import { NbdClient } from '../support/client.ts';
import { testRandom } from '../support/random.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const SIZE = 32 * 1024 * 1024;

let folder: TemporaryFolder;
let server: RunningServer;

beforeAll(async () => {
  folder = await temporaryFolder();
  server = await startServe([folder.file('disk.img'), '--size', `${SIZE}`, '--listen', 'nbd://127.0.0.1:0']);
});

afterAll(async () => {
  server?.process.kill('SIGCONT');
  await server?.kill();
  await folder?.remove();
});

test('SIGSTOP and SIGCONT under load: every request is answered once, nothing is lost', async () => {
  const random = testRandom('SIGSTOP');
  const book = new Book(SIZE / BLOCK_BYTES);
  const uri = server.uris[0] as string;
  const clients = await Promise.all(Array.from({ length: 4 }, () => NbdClient.open(uri)));
  let finished = false;
  const options = { depth: 16, blocksMax: 64, finished: () => finished };
  const load = Promise.all(clients.map((client) => loadOn(client, book, random, options)));
  for (let round = 0; round < 10; round++) {
    await Promise.race([load, sleep(random.below(100))]);
    server.process.kill('SIGSTOP');
    await Promise.race([load, sleep(random.below(200))]);
    server.process.kill('SIGCONT');
  }
  finished = true;
  await load;
  expect(book.unanswered).toBe(0);
  expect(book.acknowledged).toBeGreaterThan(100);
  for (const client of clients) await client.disconnect();
  expect((await book.check(folder.file('disk.img'))).wrong, `seed ${random.seed}`).toEqual([]);
  expect(await server.stop()).toEqual({ code: 0, signal: null });
});
