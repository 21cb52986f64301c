/**
 * A RemoteVolume whose server is killed under load and started again: its user sees no failure, and all that was
 * acknowledged is there. The page cache outlives the process; a power cut is another matter (remote-volume.ts, N1).
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { openRemoteVolume, type RemoteVolume } from '../../src/nbd-client/remote-volume.ts';
import { outcomeOf } from '../contract/model-run.ts';
import { BLOCK_BYTES, Book, bytesOf } from '../support/book.ts';
import { silentLog } from '../support/log.ts';
import { freePort } from '../support/ports.ts';
import { type SeededRandom, testRandom } from '../support/random.ts';
import { portOf, type RunningServer, startServe } from '../support/server.ts';
import { eventually, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const SIZE = 64 * 1024 * 1024;
const ROUNDS = 6;

describe('kill -9 of the server of a RemoteVolume', () => {
  let folder: TemporaryFolder;
  let server: RunningServer | undefined;
  let listen: string;

  beforeAll(async () => {
    folder = await temporaryFolder();
    listen = `nbd://127.0.0.1:${await freePort()}`;
  });

  afterAll(async () => {
    await server?.kill();
    await folder?.remove();
  });

  async function start(): Promise<RunningServer> {
    server = await startServe([folder.file('disk.img'), '--size', `${SIZE}`, '--listen', listen]);
    return server;
  }

  function open(reconnectMs: number): Promise<RemoteVolume> {
    const address = { host: '127.0.0.1', port: portOf(listen) };
    return openRemoteVolume({ address, exportName: 'disk.img', reconnectMs, log: silentLog });
  }

  /** One request whose effect is in the book; rejects when it fails, or reads other bytes than it should. */
  async function step(volume: RemoteVolume, book: Book, random: SeededRandom): Promise<void> {
    const dice = random.below(100);
    if (dice < 5) return volume.flush();
    const claim = book.claim(random, dice < 30 ? 128 : 4, dice >= 90);
    const [offset, length] = [claim.block * BLOCK_BYTES, claim.count * BLOCK_BYTES];
    if (dice < 20) {
      const target = Buffer.alloc(length);
      await volume.read(offset, target, 0, length);
      if (!target.equals(book.before(claim))) throw new Error(`blocks from ${claim.block} read as others`);
      book.release(claim);
      return;
    }
    const fua = dice % 10 === 0;
    if (claim.stamp === 0) await volume.writeZeroes(offset, length, { fua, noHole: false, fast: false });
    else await volume.write(offset, bytesOf(claim), 0, length, fua);
    book.acknowledge(claim);
  }

  test('Q1, R2: no request fails, and every acknowledged write is there', async () => {
    const random = testRandom('kill -9 of a remote server');
    const book = new Book(SIZE / BLOCK_BYTES);
    await start();
    const volume = await open(60_000);
    let finished = false;
    const worker = async (): Promise<void> => {
      while (!finished) await step(volume, book, random);
    };
    const load = Promise.all(Array.from({ length: 32 }, worker));
    load.catch(() => undefined); // looked at below
    for (let round = 0; round < ROUNDS; round++) {
      const before = book.acknowledged;
      await Promise.race([load, sleep(100 + random.below(300))]);
      await eventually('some load', () => (book.acknowledged > before ? true : undefined));
      expect((await server?.kill())?.signal).toBe('SIGKILL');
      await start();
    }
    finished = true;
    await load;
    expect(book.unanswered).toBe(0);
    await volume.close();
    expect((await book.check(folder.file('disk.img'))).wrong, `seed ${random.seed}`).toEqual([]);
    await server?.stop();
  });

  test('V5: a server away for longer is an error, and comes back', async () => {
    await start();
    const volume = await open(300);
    const block = Buffer.alloc(BLOCK_BYTES, 5);
    await volume.write(0, block, 0, BLOCK_BYTES, false);
    await server?.kill();
    expect(await outcomeOf(volume.write(BLOCK_BYTES, block, 0, BLOCK_BYTES, false))).toBe('io');
    expect(volume.state).toBe('failed');
    await start();
    await eventually('the volume is back', () => (volume.state === 'connected' ? true : undefined));
    await volume.flush();
    const target = Buffer.alloc(BLOCK_BYTES);
    await volume.read(0, target, 0, BLOCK_BYTES);
    expect(target.equals(block)).toBe(true);
    await volume.close();
    expect((await server?.stop())?.code).toBe(0);
  });

  test('N5: a server that is told to stop and started again loses nothing either', async () => {
    await start();
    const volume = await open(60_000);
    const block = Buffer.alloc(BLOCK_BYTES, 9);
    let finished = false;
    let writes = 0;
    const load = (async () => {
      for (; !finished; writes++)
        await volume.write((writes % 1000) * BLOCK_BYTES, block, 0, BLOCK_BYTES, false);
    })();
    for (let round = 0; round < 3; round++) {
      const before = writes;
      await eventually('some load', () => (writes > before + 10 ? true : undefined));
      await server?.stop();
      await start();
    }
    finished = true;
    await load;
    await volume.close();
    await server?.stop();
  });
});
