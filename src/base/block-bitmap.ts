/**
 * BlockBitmap: one bit for each block of a volume, for instance for what another member may lack.
 *
 * A volume is cut into chunks of 32,768 blocks (128 MiB with blocks of 4 KiB). Only a chunk with some bits set and others not has memory
 * for them (4 KiB); one of which all are set costs a small object, and one without any costs nothing.
 *
 * Invariants
 * 1. `#chunks` has a chunk exactly when a bit of it is set, and `#order` has the numbers of these, ascending.
 * 2. `words` is undefined exactly when all blocks of the chunk are set, of which the last chunk of a volume may have fewer.
 * 3. No bit is set behind the volume's last block. `#count` is the sum of the chunks' counts.
 *
 * Setting errs on the side of more, clearing on the side of less: a block that a range only touches is set by `set` and not cleared by
 * `clear`. What of a range is behind the volume's end is ignored.
 */

import { clearBits, countBits, findBit, maskOf, setBits, WORD_BITS } from './bits.ts';
import type { Range } from './range.ts';

const CHUNK_BLOCKS = 32_768;
const CHUNK_WORDS = CHUNK_BLOCKS / WORD_BITS;

interface Chunk {
  count: number;
  words: Uint32Array | undefined;
}

export class BlockBitmap {
  readonly blockBytes: number;
  #sizeBytes: number;
  #blocks: number;
  #count = 0;
  readonly #chunks = new Map<number, Chunk>();
  #order: number[] = [];

  constructor(sizeBytes: number, blockBytes = 4096) {
    if (!Number.isSafeInteger(blockBytes) || blockBytes <= 0) {
      throw new RangeError(`blocks of ${blockBytes} bytes`);
    }
    this.blockBytes = blockBytes;
    this.#sizeBytes = checkedSize(sizeBytes);
    this.#blocks = Math.ceil(sizeBytes / blockBytes);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** Bytes of the blocks that are set; the last block of the volume counts as long as it is. */
  get countBytes(): number {
    const bytes = this.#count * this.blockBytes;
    if (this.#count === 0 || !this.#hasBlock(this.#blocks - 1)) return bytes;
    return bytes - (this.#blocks * this.blockBytes - this.#sizeBytes);
  }

  get isEmpty(): boolean {
    return this.#count === 0;
  }

  /** Sets every block that the range touches. */
  set(range: Range): void {
    const start = Math.floor(range.offset / this.blockBytes);
    this.#change(start, this.#endOfTouched(range), true);
  }

  /** Clears the blocks that are inside the range as a whole. */
  clear(range: Range): void {
    if (this.#count === 0) return;
    const end = range.offset + range.length;
    const start = Math.ceil(range.offset / this.blockBytes);
    this.#change(start, end >= this.#sizeBytes ? this.#blocks : Math.floor(end / this.blockBytes), false);
  }

  setAll(): void {
    this.#change(0, this.#blocks, true);
  }

  /** Whether a block that the range touches is set. */
  has(range: Range): boolean {
    if (this.#count === 0) return false;
    const start = Math.floor(range.offset / this.blockBytes);
    const end = this.#endOfTouched(range);
    return start < end && this.#firstSet(start, end) < end;
  }

  /**
   * The first blocks that are set, one behind the other, at or behind the block in which `fromOffset` is: `maxBytes` at most, but one block
   * at least. Undefined when there is none up to the end: going on from the start is the caller's.
   */
  nextRun(fromOffset: number, maxBytes: number): Range | undefined {
    if (this.#count === 0 || fromOffset >= this.#sizeBytes) return undefined;
    const start = this.#firstSet(Math.floor(fromOffset / this.blockBytes), this.#blocks);
    if (start === this.#blocks) return undefined;
    const blocksMax = Math.max(1, Math.floor(maxBytes / this.blockBytes));
    const end = this.#firstClear(start + 1, Math.min(this.#blocks, start + blocksMax));
    const offset = start * this.blockBytes;
    return { offset, length: Math.min(end * this.blockBytes, this.#sizeBytes) - offset };
  }

  /** All that is set, ascending, with something between any two. Not to be changed meanwhile. */
  *ranges(): Generator<Range> {
    let next = 0;
    for (;;) {
      const run = this.nextRun(next, Number.POSITIVE_INFINITY);
      if (run === undefined) return;
      yield run;
      next = run.offset + run.length;
    }
  }

  /** Sets what is set in `other`, as far as it is inside this volume. */
  merge(other: BlockBitmap): void {
    if (other.blockBytes !== this.blockBytes) throw new RangeError('bitmaps of different blocks');
    for (const number of other.#order) {
      const start = number * CHUNK_BLOCKS;
      const { words } = other.#chunks.get(number) as Chunk;
      if (words === undefined) {
        const end = Math.min(start + CHUNK_BLOCKS, other.#blocks);
        this.#change(start, Math.min(end, this.#blocks), true);
      } else {
        this.#mergeWords(number, words);
      }
    }
  }

  /** Blocks that come with the new size are not set; those that go are forgotten. */
  resize(sizeBytes: number): void {
    const blocks = Math.ceil(checkedSize(sizeBytes) / this.blockBytes);
    if (blocks < this.#blocks) this.#change(blocks, this.#blocks, false);
    else this.#writeOutLastChunk(blocks);
    this.#blocks = blocks;
    this.#sizeBytes = sizeBytes;
    const last = Math.floor(blocks / CHUNK_BLOCKS);
    const chunk = this.#chunks.get(last);
    if (chunk !== undefined && chunk.count === this.#chunkBlocks(last)) chunk.words = undefined;
  }

  // ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────

  #endOfTouched(range: Range): number {
    if (range.length === 0 || range.offset >= this.#sizeBytes) return 0;
    return Math.min(this.#blocks, Math.ceil((range.offset + range.length) / this.blockBytes));
  }

  #chunkBlocks(number: number): number {
    return Math.min(CHUNK_BLOCKS, this.#blocks - number * CHUNK_BLOCKS);
  }

  #hasBlock(block: number): boolean {
    return this.#firstSet(block, block + 1) === block;
  }

  /** The first block in [start, end) that is set, or `end`. */
  #firstSet(start: number, end: number): number {
    const first = Math.floor(start / CHUNK_BLOCKS);
    for (let at = this.#placeOf(first); at < this.#order.length; at++) {
      const number = this.#order[at] as number;
      const base = number * CHUNK_BLOCKS;
      if (base >= end) return end;
      const from = Math.max(start - base, 0);
      const to = Math.min(end - base, CHUNK_BLOCKS);
      const { words } = this.#chunks.get(number) as Chunk;
      const found = words === undefined ? from : findBit(words, from, to, 0);
      if (found < Math.min(to, this.#chunkBlocks(number))) return base + found;
    }
    return end;
  }

  /** The first block in [start, end) that is not set, or `end`. */
  #firstClear(start: number, end: number): number {
    for (let block = start; block < end; ) {
      const number = Math.floor(block / CHUNK_BLOCKS);
      const base = number * CHUNK_BLOCKS;
      const chunk = this.#chunks.get(number);
      if (chunk === undefined) return block;
      const to = Math.min(end - base, CHUNK_BLOCKS);
      if (chunk.words !== undefined) {
        const found = findBit(chunk.words, block - base, to, -1);
        if (found < to) return base + found;
      }
      block = base + to;
    }
    return end;
  }

  #change(start: number, end: number, isSet: boolean): void {
    for (let block = start; block < end; ) {
      const number = Math.floor(block / CHUNK_BLOCKS);
      const base = number * CHUNK_BLOCKS;
      const to = Math.min(end - base, CHUNK_BLOCKS);
      if (isSet) this.#setInChunk(number, block - base, to);
      else this.#clearInChunk(number, block - base, to);
      block = base + to;
    }
  }

  #setInChunk(number: number, from: number, to: number): void {
    const blocks = this.#chunkBlocks(number);
    const isWhole = to - from === blocks;
    const chunk = this.#chunks.get(number) ?? this.#addChunk(number, isWhole);
    if (chunk.count === blocks) return;
    const added =
      isWhole || chunk.words === undefined ? blocks - chunk.count : setBits(chunk.words, from, to);
    this.#account(number, chunk, added);
  }

  #clearInChunk(number: number, from: number, to: number): void {
    const chunk = this.#chunks.get(number);
    if (chunk === undefined) return;
    if (to - from >= this.#chunkBlocks(number)) {
      this.#account(number, chunk, -chunk.count);
      return;
    }
    chunk.words ??= filledWords(this.#chunkBlocks(number));
    this.#account(number, chunk, -clearBits(chunk.words, from, to));
  }

  /** The chunk has `added` bits more than before. */
  #account(number: number, chunk: Chunk, added: number): void {
    chunk.count += added;
    this.#count += added;
    if (chunk.count === 0) this.#removeChunk(number);
    else if (chunk.count === this.#chunkBlocks(number)) chunk.words = undefined;
  }

  #mergeWords(number: number, words: Uint32Array): void {
    const blocks = this.#chunkBlocks(number);
    if (blocks <= 0) return;
    const chunk = this.#chunks.get(number) ?? this.#addChunk(number, false);
    if (chunk.words === undefined) return;
    let added = 0;
    const end = Math.ceil(blocks / WORD_BITS);
    for (let at = 0; at < end; at++) {
      const before = chunk.words[at] as number;
      const inside = at === end - 1 ? maskOf(at * WORD_BITS, blocks, at) : -1;
      const more = (words[at] as number) & inside & ~before;
      if (more === 0) continue;
      chunk.words[at] = before | more;
      added += countBits(more);
    }
    this.#account(number, chunk, added);
  }

  /** Before the volume grows: all set of a shorter chunk is not all set of a longer one. */
  #writeOutLastChunk(blocks: number): void {
    if (blocks === this.#blocks || this.#blocks % CHUNK_BLOCKS === 0) return;
    const number = Math.floor(this.#blocks / CHUNK_BLOCKS);
    const chunk = this.#chunks.get(number);
    if (chunk !== undefined) chunk.words ??= filledWords(this.#chunkBlocks(number));
  }

  // ── chunks ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Where in `#order` the chunk is, or would be. */
  #placeOf(number: number): number {
    const order = this.#order;
    let [low, high] = [0, order.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((order[middle] as number) < number) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Of count 0; bits are to be set at once, all of them when it has no words. */
  #addChunk(number: number, isWhole: boolean): Chunk {
    const chunk: Chunk = { count: 0, words: isWhole ? undefined : new Uint32Array(CHUNK_WORDS) };
    this.#chunks.set(number, chunk);
    const last = this.#order.at(-1);
    if (last === undefined || last < number) this.#order.push(number);
    else this.#order.splice(this.#placeOf(number), 0, number);
    return chunk;
  }

  #removeChunk(number: number): void {
    this.#chunks.delete(number);
    if (this.#order.at(-1) === number) this.#order.pop();
    else this.#order.splice(this.#placeOf(number), 1);
  }
}

function checkedSize(sizeBytes: number): number {
  if (!Number.isSafeInteger(sizeBytes) || sizeBytes < 0)
    throw new RangeError(`a volume of ${sizeBytes} bytes`);
  return sizeBytes;
}

function filledWords(blocks: number): Uint32Array {
  const words = new Uint32Array(CHUNK_WORDS);
  setBits(words, 0, blocks);
  return words;
}
