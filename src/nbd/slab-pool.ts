/**
 * Slabs: the memory that transfers live in. A few sizes, used again and again: fresh memory costs page faults,
 * and an unbounded variety of sizes cannot be reused. Each slab has HEADROOM bytes in front of its data area, so
 * that a reply header can be put right before data that was read there, and both leave in one piece.
 */

import { assert } from '../model/errors.ts';

/** Room for the largest header of a read reply (40 bytes), rounded up to a cache line. */
export const HEADROOM = 64;
/** What is read or written on the thread pool as one; larger transfers are made of several. */
export const PIECE_BYTES = 256 * 1024;
/** The most data that one slab holds. */
export const SLAB_BYTES_MAX = 1024 * 1024;

const SIZES = [8 * 1024, 64 * 1024, PIECE_BYTES, SLAB_BYTES_MAX] as const;
/** Free memory kept for reuse, per size. What is above is left to the garbage collector. */
const RETAINED_BYTES = 16 * 1024 * 1024;

export interface Slab {
  /** HEADROOM + the data area. */
  readonly buffer: Buffer;
  readonly sizeBytes: number;
}

export class SlabPool {
  readonly #free: Slab[][] = SIZES.map(() => []);

  /** A slab whose data area holds at least `dataBytes` (at most SLAB_BYTES_MAX). Its content is arbitrary. */
  take(dataBytes: number): Slab {
    let index = 0;
    while ((SIZES[index] ?? Number.POSITIVE_INFINITY) < dataBytes) index += 1;
    const free = this.#free[index];
    const size = SIZES[index];
    assert(free !== undefined && size !== undefined, 'a slab is large enough');
    return free.pop() ?? { buffer: Buffer.allocUnsafeSlow(HEADROOM + size), sizeBytes: size };
  }

  /** Gives a slab back; nobody may use it any more. */
  give(slab: Slab): void {
    const free = this.#free[SIZES.indexOf(slab.sizeBytes as (typeof SIZES)[number])];
    assert(free !== undefined, 'the slab is of this pool');
    if ((free.length + 1) * slab.sizeBytes <= RETAINED_BYTES) free.push(slab);
  }
}
