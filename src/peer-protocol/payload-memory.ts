/**
 * Where received payloads are, of all links together: one that is idle keeps nothing. Fresh memory costs page faults and collections, so
 * pieces are used again once they are given back. Those of small payloads are cut from sheets, each of which is gone when all of them
 * are; tiny payloads have no piece of their own.
 */

import { assert } from '../model/errors.ts';
import { Limit } from './constants.ts';

const TINY_MAX = 2048;
const SMALL_MAX = 32 * 1024;
const SHEET_BYTES = 64 * 1024;
/** Pieces have the size of a power of two. */
const SIZES = [...powersOfTwo(2 * TINY_MAX, Limit.payloadBytes)];
const FIRST_POWER = Math.log2(2 * TINY_MAX);
/** Kept for use again; what is above is left to the collector. One small piece keeps its whole sheet. */
const RETAINED_BYTES_MAX = 32 * 1024 * 1024;
const SMALL_RETAINED_BYTES_MAX = 4 * 1024 * 1024;

export class PayloadMemory {
  readonly #free: Buffer[][] = SIZES.map(() => []);
  #retainedBytes = 0;
  #smallRetainedBytes = 0;
  #sheet = Buffer.alloc(0);
  #sheetFrom = 0;

  get retainedBytes(): number {
    return this.#retainedBytes + this.#smallRetainedBytes;
  }

  /** Memory of that size (at most Limit.payloadBytes). Its content is arbitrary. */
  take(bytes: number): Buffer {
    if (bytes <= TINY_MAX) return this.#cut(bytes);
    const index = indexOf(bytes);
    const size = SIZES[index] as number;
    const piece = this.#free[index]?.pop();
    if (piece !== undefined) this.#retain(-size);
    const memory = piece ?? (size <= SMALL_MAX ? this.#cut(size) : Buffer.allocUnsafeSlow(size));
    return bytes === size ? memory : memory.subarray(0, bytes);
  }

  /** Nobody may use it any more. */
  give(payload: Buffer): void {
    if (payload.length <= TINY_MAX) return;
    const index = indexOf(payload.length);
    const size = SIZES[index] as number;
    if (!this.#mayRetain(size)) return;
    this.#retain(size);
    const piece = payload.length === size ? payload : Buffer.from(payload.buffer, payload.byteOffset, size);
    this.#free[index]?.push(piece);
  }

  #mayRetain(size: number): boolean {
    if (size <= SMALL_MAX) return this.#smallRetainedBytes + size <= SMALL_RETAINED_BYTES_MAX;
    return this.#retainedBytes + size <= RETAINED_BYTES_MAX;
  }

  #retain(bytes: number): void {
    if (Math.abs(bytes) <= SMALL_MAX) this.#smallRetainedBytes += bytes;
    else this.#retainedBytes += bytes;
  }

  #cut(bytes: number): Buffer {
    if (this.#sheetFrom + bytes > this.#sheet.length) {
      this.#sheet = Buffer.allocUnsafeSlow(SHEET_BYTES);
      this.#sheetFrom = 0;
    }
    this.#sheetFrom += bytes;
    return this.#sheet.subarray(this.#sheetFrom - bytes, this.#sheetFrom);
  }
}

/** Of the smallest size that is large enough. */
function indexOf(bytes: number): number {
  const index = Math.max(0, 32 - Math.clz32(bytes - 1) - FIRST_POWER);
  if (index >= SIZES.length) assert(false, `no piece holds ${bytes} bytes`);
  return index;
}

function* powersOfTwo(from: number, to: number): Generator<number> {
  for (let size = from; size <= to; size *= 2) yield size;
}

export const payloadMemory = new PayloadMemory();
