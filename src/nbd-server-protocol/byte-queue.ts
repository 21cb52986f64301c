/**
 * Bytes received and not yet understood. Role: lets the handshake machines be fed with any cut of the wire.
 * Invariants: what is pushed is copied; never holds more than `bytesMax`; holds no memory when empty.
 * (Not for the transmission phase, which decodes in place.)
 */

import { Buffer } from 'node:buffer';
import { requireThat } from './errors.ts';

const NOTHING = Buffer.alloc(0);
const CAPACITY_MIN = 512;

export class ByteQueue {
  readonly bytesMax: number;
  #bytes: Buffer = NOTHING;
  #start = 0;
  #end = 0;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  /** False, and nothing taken, when the chunk would go over `bytesMax`. */
  push(chunk: Buffer): boolean {
    const length = this.length;
    if (length + chunk.length > this.bytesMax) return false;
    if (this.#end + chunk.length > this.#bytes.length) this.#makeRoom(length + chunk.length);
    chunk.copy(this.#bytes, this.#end);
    this.#end += chunk.length;
    return true;
  }

  /** The next `count` bytes, taken out: a view that is valid until the next push. */
  take(count: number): Buffer {
    requireThat(count <= this.length, 'took more than the queue holds');
    const view = this.#bytes.subarray(this.#start, this.#start + count);
    this.skip(count);
    return view;
  }

  skip(count: number): void {
    requireThat(count <= this.length, 'skipped more than the queue holds');
    this.#start += count;
    if (this.#start === this.#end) this.clear();
  }

  /** Everything, taken out, as a buffer that the caller may keep. */
  drain(): Buffer {
    const rest = Buffer.from(this.#bytes.subarray(this.#start, this.#end));
    this.clear();
    return rest;
  }

  clear(): void {
    this.#bytes = NOTHING;
    this.#start = 0;
    this.#end = 0;
  }

  #makeRoom(needed: number): void {
    let capacity = Math.max(this.#bytes.length, CAPACITY_MIN);
    while (capacity < needed) capacity *= 2;
    const bytes = Buffer.allocUnsafeSlow(capacity);
    this.#end = this.#bytes.copy(bytes, 0, this.#start, this.#end);
    this.#start = 0;
    this.#bytes = bytes;
  }
}
