/** Random reads, writes, zeroes and flushes on a Volume, with a book of what must be there. */

import type { Volume } from '../../../src/model/volume.ts';
import { BLOCK_BYTES, Book, bytesOf } from '../book.ts';
import type { SeededRandom } from '../random.ts';
import { eventually } from '../tools.ts';

/** At once, when all is read in the end. */
const READ_BLOCKS = 64;

export interface Load {
  readonly book: Book;
  /** Rejects with the first request that has failed, or has read what it should not. */
  readonly done: Promise<unknown>;
  /** Waits until something more has been acknowledged. */
  progress(): Promise<void>;
  /** Takes no new requests; resolves when all have been answered, and everything is as the book says. */
  finish(): Promise<void>;
}

/** `book`: of an earlier load on the same volume, that has finished. */
export function startLoad(
  volume: Volume,
  random: SeededRandom,
  workers = 16,
  book = new Book(volume.sizeBytes / BLOCK_BYTES),
): Load {
  let finished = false;
  // All requests together change half of the volume at most: there is always something left to change.
  const blocksMax = Math.max(1, Math.min(64, Math.floor(book.blocks / workers / 2)));
  const work = async (): Promise<void> => {
    while (!finished) await step(volume, book, random, blocksMax);
  };
  const done = Promise.all(Array.from({ length: workers }, work));
  done.catch(() => undefined); // looked at below
  return {
    book,
    done,
    progress: async () => {
      const before = book.acknowledged;
      const some = eventually('some load', () => (book.acknowledged > before + 20 ? true : undefined));
      await Promise.race([some, done]);
    },
    finish: async () => {
      finished = true;
      await done;
      for (let block = 0; block < book.blocks; block += READ_BLOCKS) {
        const count = Math.min(READ_BLOCKS, book.blocks - block);
        await check(volume, book, { block, count, stamp: 0 });
      }
    },
  };
}

/** One request whose effect is in the book; rejects when it fails, or reads other bytes than it should. */
async function step(volume: Volume, book: Book, random: SeededRandom, blocksMax: number): Promise<void> {
  const dice = random.below(100);
  if (dice < 5) return volume.flush();
  const claim = book.claim(random, dice < 30 ? blocksMax : Math.min(4, blocksMax), dice >= 90);
  const [offset, length] = [claim.block * BLOCK_BYTES, claim.count * BLOCK_BYTES];
  if (dice < 20) {
    await check(volume, book, claim);
    book.release(claim);
    return;
  }
  const fua = dice % 10 === 0;
  if (claim.stamp === 0) await volume.writeZeroes(offset, length, { fua, noHole: false, fast: false });
  else await volume.write(offset, bytesOf(claim), 0, length, fua);
  book.acknowledge(claim);
}

async function check(volume: Volume, book: Book, claim: Parameters<Book['before']>[0]): Promise<void> {
  const length = claim.count * BLOCK_BYTES;
  const target = Buffer.alloc(length);
  await volume.read(claim.block * BLOCK_BYTES, target, 0, length);
  if (!target.equals(book.before(claim))) throw new Error(`blocks from ${claim.block} read as others`);
}
