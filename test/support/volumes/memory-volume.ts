/**
 * MemoryVolume: a Volume in an ordinary Buffer, with holes of 4 KiB, that does everything at once. Its flush keeps
 * nothing over a power cut, of course; for tests that is as good.
 */

import { assert, VolumeError } from '../../../src/model/errors.ts';
import type { Capabilities, Extent, Volume, WriteZeroesOptions } from '../../../src/model/volume.ts';

const BLOCK = 4096;

export class MemoryVolume implements Volume {
  readonly blockSizes = { minimum: 1, preferred: BLOCK, maximumPayload: 32 * 1024 * 1024 };
  readonly capabilities: Capabilities = {
    write: true,
    flush: true,
    trim: true,
    writeZeroes: true,
    fastZero: true,
    blockStatus: true,
    cache: true,
    resize: true,
  };
  #bytes: Buffer;
  #allocated: Uint8Array; // 1 per block that is no hole
  #closed = false;

  constructor(contents: Buffer) {
    this.#bytes = Buffer.from(contents);
    this.#allocated = new Uint8Array(Math.ceil(contents.length / BLOCK)).fill(1);
  }

  get sizeBytes(): number {
    return this.#bytes.length;
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    this.#check(offset, length);
    this.#bytes.copy(target, start, offset, offset + length);
    return true;
  }

  async read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    this.readNow(offset, target, start, length);
  }

  writeNow(offset: number, source: Buffer, start: number, length: number): boolean {
    this.#check(offset, length);
    source.copy(this.#bytes, offset, start, start + length);
    this.#allocated.fill(1, Math.floor(offset / BLOCK), Math.ceil((offset + length) / BLOCK));
    return true;
  }

  async write(offset: number, source: Buffer, start: number, length: number): Promise<void> {
    this.writeNow(offset, source, start, length);
  }

  async flush(): Promise<void> {
    this.#check(0, 0);
  }

  async trim(offset: number, length: number): Promise<void> {
    this.#zero(offset, length, 0);
  }

  async writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    this.#zero(offset, length, options.noHole ? 1 : 0);
  }

  async cache(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
  }

  async blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    this.#check(offset, length);
    assert(length > 0 && extentsMax > 0, 'block status of nothing');
    const extents: Extent[] = [];
    let from = offset;
    while (from < offset + length && extents.length < extentsMax) {
      const hole = this.#isHole(from);
      let to = from;
      while (to < offset + length && this.#isHole(to) === hole) {
        to = Math.min(offset + length, (Math.floor(to / BLOCK) + 1) * BLOCK);
      }
      extents.push({ length: to - from, hole, zero: hole });
      from = to;
    }
    return extents;
  }

  mayHaveHoles(offset: number, length: number): boolean {
    const last = Math.ceil((offset + length) / BLOCK);
    return this.#allocated.subarray(Math.floor(offset / BLOCK), last).includes(0);
  }

  async resize(sizeBytes: number): Promise<void> {
    this.#check(0, 0);
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, 'a size is a number of bytes');
    const bytes = Buffer.alloc(sizeBytes);
    this.#bytes.copy(bytes);
    const allocated = new Uint8Array(Math.ceil(sizeBytes / BLOCK));
    allocated.set(this.#allocated.subarray(0, allocated.length));
    this.#bytes = bytes;
    this.#allocated = allocated;
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #isHole(position: number): boolean {
    return this.#allocated[Math.floor(position / BLOCK)] === 0;
  }

  /** Blocks that lie inside the range altogether become holes (0), or all that it touches allocated (1). */
  #zero(offset: number, length: number, allocated: 0 | 1): void {
    this.#check(offset, length);
    const end = offset + length;
    this.#bytes.fill(0, offset, end);
    if (allocated === 1) this.#allocated.fill(1, Math.floor(offset / BLOCK), Math.ceil(end / BLOCK));
    else
      this.#allocated.fill(
        0,
        Math.ceil(offset / BLOCK),
        Math.max(Math.ceil(offset / BLOCK), Math.floor(end / BLOCK)),
      );
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new VolumeError('shutdown', 'the volume is being closed');
    assert(offset >= 0 && length >= 0, 'no range');
    if (offset + length > this.sizeBytes) throw new VolumeError('invalid', 'outside the volume');
  }
}
