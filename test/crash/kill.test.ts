/**
 * kill -9 at any moment. The page cache outlives the process, so whatever was acknowledged must be in the file
 * afterwards, flushed or not; what was not acknowledged may be there, or not, or in part.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { BLOCK_BYTES, Book, bytesOf, loadOn } from '../support/book.ts';
import { NbdClient } from '../support/client.ts';
import { testRandom } from '../support/random.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const SIZE = 64 * 1024 * 1024;
const ROUNDS = 6;
const CONNECTIONS = 4;

describe('kill -9 under load', () => {
  let folder: TemporaryFolder;
  let server: RunningServer | undefined;

  beforeAll(async () => {
    folder = await temporaryFolder();
  });

  afterAll(async () => {
    await server?.kill();
    await folder?.remove();
  });

  function start(): Promise<RunningServer> {
    return startServe([folder.file('disk.img'), '--size', `${SIZE}`, '--listen', 'nbd://127.0.0.1:0']);
  }

  test.each([
    ['small requests, deep', 4, 16],
    ['requests up to 512 KiB', 128, 4],
  ])('Q1: nothing that was acknowledged is lost (%s)', async (kind, blocksMax, depth) => {
    const random = testRandom(`kill -9, ${kind}`);
    const book = new Book(SIZE / BLOCK_BYTES);
    server = await start();
    const wipe = await NbdClient.open(server.uris[0] as string);
    expect(await wipe.writeZeroes(0, SIZE)).toBe(0);
    await wipe.disconnect();
    for (let round = 0; round < ROUNDS; round++) {
      const uri = server.uris[0] as string;
      const before = book.acknowledged;
      const clients = await Promise.all(Array.from({ length: CONNECTIONS }, () => NbdClient.open(uri)));
      const load = Promise.all(clients.map((client) => loadOn(client, book, random, { depth, blocksMax })));
      await Promise.race([load, sleep(50 + random.below(500))]);
      expect((await server.kill()).signal).toBe('SIGKILL');
      await load;
      expect(book.acknowledged, `seed ${random.seed}, round ${round}: no load`).toBeGreaterThan(before);

      const { wrong, mixed } = await book.check(folder.file('disk.img'));
      expect(wrong, `seed ${random.seed}, round ${round}`).toEqual([]);
      server = await start();
      await mend(server.uris[0] as string, book, mixed);
    }
    await server.stop();
  });

  /** Writes blocks anew that an unanswered write left half old and half new. */
  async function mend(uri: string, book: Book, mixed: readonly number[]): Promise<void> {
    const client = await NbdClient.open(uri);
    for (const block of mixed) {
      const claim = book.rewrite(block);
      expect(await client.write(block * BLOCK_BYTES, bytesOf(claim))).toBe(0);
      book.acknowledge(claim);
    }
    await client.disconnect();
  }
});
