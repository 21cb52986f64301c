/**
 * Where received payloads are, of all links together: one that is idle keeps nothing. Fresh memory costs page faults and collections, so
 * large pieces are used again once they are given back; small ones are parts of one piece, which is gone when all of them are.
 */

import { Limit } from './constants.ts';

const SMALL_MAX = 32 * 1024;
const SHARED_BYTES = 256 * 1024;
/** Large pieces have the size of a power of two, from twice the largest small one. */
const SIZES = [...powersOfTwo(2 * SMALL_MAX, Limit.payloadBytes)];
/** Kept for use again; what is above is left to the collector. */
const RETAINED_BYTES_MAX = 32 * 1024 * 1024;

export class PayloadMemory {
  readonly #free: Buffer[][] = SIZES.map(() => []);
  #retainedBytes = 0;
  #shared = Buffer.alloc(0);
  #sharedFrom = 0;

  get retainedBytes(): number {
    return this.#retainedBytes;
  }

  /** Memory of that size (at most Limit.payloadBytes). Its content is arbitrary. */
  take(bytes: number): Buffer {
    if (bytes <= SMALL_MAX) return this.#takeSmall(bytes);
    const index = SIZES.findIndex((size) => size >= bytes);
    const piece = this.#free[index]?.pop();
    if (piece === undefined) return Buffer.allocUnsafeSlow(SIZES[index] as number).subarray(0, bytes);
    this.#retainedBytes -= piece.length;
    return piece.subarray(0, bytes);
  }

  /** Nobody may use it any more. */
  give(payload: Buffer): void {
    if (payload.length <= SMALL_MAX) return;
    const piece = Buffer.from(payload.buffer);
    if (this.#retainedBytes + piece.length > RETAINED_BYTES_MAX) return;
    this.#retainedBytes += piece.length;
    this.#free[SIZES.indexOf(piece.length)]?.push(piece);
  }

  #takeSmall(bytes: number): Buffer {
    if (this.#sharedFrom + bytes > this.#shared.length) {
      this.#shared = Buffer.allocUnsafeSlow(SHARED_BYTES);
      this.#sharedFrom = 0;
    }
    this.#sharedFrom += bytes;
    return this.#shared.subarray(this.#sharedFrom - bytes, this.#sharedFrom);
  }
}

function* powersOfTwo(from: number, to: number): Generator<number> {
  for (let size = from; size <= to; size *= 2) yield size;
}

export const payloadMemory = new PayloadMemory();
