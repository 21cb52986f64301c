/** N5: SIGTERM at any moment, whatever the clients do. */

import { connect as connectSocket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { Command } from '../../src/nbd-server-protocol/constants.ts';
import { BLOCK_BYTES, Book, loadOn } from '../support/book.ts';
import { addressOf, NbdClient } from '../support/client.ts';
import { pattern } from '../support/layout.ts';
import { testRandom } from '../support/random.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { eventually, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { readGreeting, requestMessage, Wire } from '../support/wire.ts';

const MiB = 1024 * 1024;
const SIZE = 64 * MiB;

describe('SIGTERM', () => {
  let folder: TemporaryFolder;
  let server: RunningServer;

  beforeEach(async () => {
    folder = await temporaryFolder();
    server = await start();
  });

  afterEach(async () => {
    await server?.kill();
    await folder.remove();
  });

  function start(): Promise<RunningServer> {
    return startServe([folder.file('disk.img'), '--size', `${SIZE}`, '--listen', 'nbd://127.0.0.1:0']);
  }

  test('N5: under load everything acknowledged is in the file, and the exit status is 0', async () => {
    const random = testRandom('SIGTERM under load');
    const book = new Book(SIZE / BLOCK_BYTES);
    for (let round = 0; round < 4; round++) {
      const uri = server.uris[0] as string;
      const clients = await Promise.all(Array.from({ length: 4 }, () => NbdClient.open(uri)));
      const options = { depth: 8, blocksMax: round % 2 === 0 ? 8 : 128 };
      const load = Promise.all(clients.map((client) => loadOn(client, book, random, options)));
      await Promise.race([load, sleep(50 + random.below(300))]);
      expect(await server.stop()).toEqual({ code: 0, signal: null });
      await load;
      const { wrong } = await book.check(folder.file('disk.img'));
      expect(wrong, `seed ${random.seed}, round ${round}`).toEqual([]);
      server = await start();
      await settle(book);
    }
    expect(book.acknowledged).toBeGreaterThan(0);
  });

  /** A request that was cut off in the middle may have left a mixture: a new image for a new round. */
  async function settle(book: Book): Promise<void> {
    const client = await NbdClient.open(server.uris[0] as string);
    expect(await client.writeZeroes(0, SIZE)).toBe(0);
    await client.disconnect();
    book.forget();
  }

  test('N5: clients that never read, say nothing, or stop in the middle do not keep it from ending', async () => {
    const uri = server.uris[0] as string;
    const greedy = await NbdClient.open(uri);
    greedy.wire.pause();
    for (let index = 0; index < 200; index++)
      greedy.wire.send(requestMessage('simple', { type: Command.read, offset: 0, length: 8 * MiB }));

    await Wire.connect(addressOf(uri)); // says nothing at all
    const greeted = await Wire.connect(addressOf(uri));
    await readGreeting(greeted); // and does not go on

    const halfHeader = await NbdClient.open(uri);
    halfHeader.wire.send(requestMessage('simple', { type: Command.read, length: 4096 }).subarray(0, 13));
    const halfPayload = await NbdClient.open(uri);
    const write = requestMessage('simple', { type: Command.write, offset: 0, payload: pattern(MiB, 1) });
    halfPayload.wire.send(write.subarray(0, write.length / 2));
    const halfClosed = await NbdClient.open(uri);
    halfClosed.wire.halfClose();

    const good = await NbdClient.open(uri);
    expect(await good.write(MiB, pattern(MiB, 2))).toBe(0);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
  });

  test('N5: a new connection is refused from then on, also while old ones are being finished', async () => {
    const uri = server.uris[0] as string;
    const greedy = await NbdClient.open(uri);
    greedy.wire.pause();
    for (let index = 0; index < 200; index++)
      greedy.wire.send(requestMessage('simple', { type: Command.read, offset: 0, length: 8 * MiB }));
    await sleep(100);
    const stopped = server.stop();
    await eventually('connections are refused', () => refused(uri), 5_000);
    expect(server.process.exitCode, 'it refuses while it still waits for the greedy client').toBe(null);
    greedy.wire.destroy('reset');
    expect(await stopped).toEqual({ code: 0, signal: null });
  });
});

function refused(uri: string): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connectSocket({ ...addressOf(uri) });
    socket.once('connect', () => {
      socket.destroy();
      resolve(undefined);
    });
    socket.once('error', (error: NodeJS.ErrnoException) =>
      resolve(error.code === 'ECONNREFUSED' ? true : undefined),
    );
  });
}
