/**
 * The books of a client that must not lose anything: what every block held when it was last acknowledged, and which
 * blocks have a change under way whose fate is unknown.
 *
 * Invariants:
 *  1. Every eight bytes that are written carry their block's number and the change's stamp, so that a block tells
 *     whose it is, how old it is, and whether it is a mixture. Stamp 0 stands for zeroes.
 *  2. At most one change of a block is under way at a time: the order of the changes is known.
 *  3. A block without a change under way holds exactly what was acknowledged last. One with a change that was never
 *     answered holds the old or the new, byte by byte.
 */

import { open } from 'node:fs/promises';
import { type NbdClient, outcome } from './client.ts';
import type { SeededRandom } from './random.ts';

export const BLOCK_BYTES = 4096;
const TRIES_MAX = 1_000_000;

export interface Claim {
  readonly block: number;
  readonly count: number;
  readonly stamp: number;
}

function fillBlock(target: Buffer, at: number, block: number, stamp: number): void {
  target.fill(0, at, at + BLOCK_BYTES);
  if (stamp === 0) return;
  target.writeUInt32BE(block, at);
  target.writeUInt32BE(stamp, at + 4);
  for (let done = 8; done < BLOCK_BYTES; done *= 2) target.copyWithin(at + done, at, at + done);
}

/** The bytes that a claim writes. */
export function bytesOf(claim: Claim): Buffer {
  const bytes = Buffer.allocUnsafe(claim.count * BLOCK_BYTES);
  for (let i = 0; i < claim.count; i++) fillBlock(bytes, i * BLOCK_BYTES, claim.block + i, claim.stamp);
  return bytes;
}

export class Book {
  readonly blocks: number;
  acknowledged = 0;
  readonly #held: Uint32Array;
  readonly #underWay = new Map<number, number>();
  #stamp = 0;

  constructor(blocks: number) {
    this.blocks = blocks;
    this.#held = new Uint32Array(blocks);
  }

  /** How many blocks have a change that was not answered. */
  get unanswered(): number {
    return this.#underWay.size;
  }

  /** Takes a run of blocks that nobody is changing, for a new change (or, with `zero`, for zeroes). */
  claim(random: SeededRandom, blocksMax: number, zero = false): Claim {
    for (let tries = 0; tries < TRIES_MAX; tries++) {
      const count = 1 + random.below(blocksMax);
      const block = random.below(this.blocks - count + 1);
      let free = true;
      for (let i = block; i < block + count && free; i++) free = !this.#underWay.has(i);
      if (!free) continue;
      const stamp = zero ? 0 : ++this.#stamp;
      for (let i = block; i < block + count; i++) this.#underWay.set(i, stamp);
      return { block, count, stamp };
    }
    throw new Error(
      `${this.#underWay.size} of ${this.blocks} blocks have a change under way: none is found that has not`,
    );
  }

  acknowledge(claim: Claim): void {
    this.acknowledged++;
    for (let i = claim.block; i < claim.block + claim.count; i++) {
      this.#held[i] = claim.stamp;
      this.#underWay.delete(i);
    }
  }

  /** Gives blocks back that were claimed but not changed. */
  release(claim: Claim): void {
    for (let i = claim.block; i < claim.block + claim.count; i++) this.#underWay.delete(i);
  }

  /** What the claimed blocks held before the claim. */
  before(claim: Claim): Buffer {
    const bytes = Buffer.allocUnsafe(claim.count * BLOCK_BYTES);
    for (let i = 0; i < claim.count; i++)
      fillBlock(bytes, i * BLOCK_BYTES, claim.block + i, this.#held[claim.block + i] as number);
    return bytes;
  }

  /**
   * Compares a whole image with the books. Returns what is wrong, a line for each block (the first few). Blocks
   * with an unanswered change are settled to what they hold; those that hold a mixture are returned in `mixed`,
   * and stay under way until they are written anew.
   */
  async check(path: string): Promise<{ wrong: string[]; mixed: number[] }> {
    const wrong: string[] = [];
    const mixed: number[] = [];
    const file = await open(path, 'r');
    const actual = Buffer.alloc(256 * BLOCK_BYTES);
    const expected = Buffer.alloc(BLOCK_BYTES);
    try {
      for (let block = 0; block < this.blocks; block++) {
        const at = (block % 256) * BLOCK_BYTES;
        if (at === 0) await file.read(actual, 0, actual.length, block * BLOCK_BYTES);
        const found = actual.subarray(at, at + BLOCK_BYTES);
        fillBlock(expected, 0, block, this.#held[block] as number);
        const change = this.#underWay.get(block);
        if (change === undefined) {
          if (!found.equals(expected)) wrong.push(this.#describe(block, found));
          continue;
        }
        const verdict = settle(found, expected, block, change);
        if (verdict === 'neither') wrong.push(this.#describe(block, found));
        if (verdict === 'mixed') mixed.push(block);
        else this.#underWay.delete(block);
        if (verdict === 'new') this.#held[block] = change;
      }
    } finally {
      await file.close();
    }
    return { wrong: wrong.slice(0, 10), mixed };
  }

  /** The whole image has been zeroed: a new start. */
  forget(): void {
    this.#held.fill(0);
    this.#underWay.clear();
  }

  /** Claims a block anew whose content is a mixture. */
  rewrite(block: number): Claim {
    const stamp = ++this.#stamp;
    this.#underWay.set(block, stamp);
    return { block, count: 1, stamp };
  }

  #describe(block: number, found: Buffer): string {
    const change = this.#underWay.get(block);
    return (
      `block ${block}: acknowledged stamp ${this.#held[block]}, under way ${change ?? 'nothing'}, ` +
      `found block ${found.readUInt32BE(0)} stamp ${found.readUInt32BE(4)} … ` +
      `block ${found.readUInt32BE(BLOCK_BYTES - 8)} stamp ${found.readUInt32BE(BLOCK_BYTES - 4)}`
    );
  }
}

function settle(
  found: Buffer,
  before: Buffer,
  block: number,
  change: number,
): 'old' | 'new' | 'mixed' | 'neither' {
  const after = Buffer.alloc(BLOCK_BYTES);
  fillBlock(after, 0, block, change);
  if (found.equals(after)) return 'new';
  if (found.equals(before)) return 'old';
  for (let i = 0; i < BLOCK_BYTES; i++) if (found[i] !== before[i] && found[i] !== after[i]) return 'neither';
  return 'mixed';
}

export interface LoadOptions {
  readonly depth: number;
  readonly blocksMax: number;
  /** Asked before each request; true ends the load. Without it the load goes on until the connection ends. */
  readonly finished?: () => boolean;
}

/**
 * Keeps `depth` requests in flight on a connection and writes the acknowledged ones into the book: writes of one to
 * `blocksMax` blocks, with FUA now and then, zeroes, flushes, and reads that are checked at once. Resolves when the
 * connection has ended or the load is finished; rejects on an error reply or a wrong read.
 */
export async function loadOn(
  client: NbdClient,
  book: Book,
  random: SeededRandom,
  options: LoadOptions,
): Promise<void> {
  const worker = async (): Promise<void> => {
    while (!options.finished?.()) if (!(await step(client, book, random, options.blocksMax))) return;
  };
  await Promise.all(Array.from({ length: options.depth }, worker));
}

/** One request; false when the connection has ended without an answer to it. */
async function step(
  client: NbdClient,
  book: Book,
  random: SeededRandom,
  blocksMax: number,
): Promise<boolean> {
  const dice = random.below(100);
  if (dice < 5) return settled(await outcome(client.flush()), 'a flush');
  const fua = dice % 10 === 0 ? 1 : 0;
  if (dice < 15) return checkedRead(client, book, book.claim(random, blocksMax));
  const claim = book.claim(random, blocksMax, dice < 25);
  const answer =
    claim.stamp === 0
      ? client.writeZeroes(claim.block * BLOCK_BYTES, claim.count * BLOCK_BYTES, fua)
      : client.write(claim.block * BLOCK_BYTES, bytesOf(claim), fua);
  if (!settled(await outcome(answer), `a write of block ${claim.block}`)) return false;
  book.acknowledge(claim);
  return true;
}

async function checkedRead(client: NbdClient, book: Book, claim: Claim): Promise<boolean> {
  const bytes = Buffer.alloc(claim.count * BLOCK_BYTES);
  const read = async (): Promise<number> => {
    const reply = await client.read(claim.block * BLOCK_BYTES, bytes.length);
    reply.data.copy(bytes);
    return reply.error;
  };
  const answered = settled(await outcome(read()), `a read of block ${claim.block}`);
  if (answered && !bytes.equals(book.before(claim)))
    throw new Error(
      `a read of blocks ${claim.block} to ${claim.block + claim.count - 1} returned other data`,
    );
  book.release(claim);
  return answered;
}

function settled(result: number | 'closed', what: string): boolean {
  if (result === 'closed') return false;
  if (result !== 0) throw new Error(`${what} failed with errno ${result}`);
  return true;
}
