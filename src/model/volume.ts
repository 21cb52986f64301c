/**
 * Volume: the one interface between what serves blocks and what keeps them. A sparse file is a Volume, and
 * so is a connection to another NBD server; anything that stands between the two takes and gives Volumes.
 *
 * Rules that every implementation keeps, and test/contract/ checks:
 *  1. `readNow` and `writeNow` are the hot path: they finish at once and return true, or return false when they
 *     would have to wait; they may then have done part of the work, and the caller goes on with `read` or `write`
 *     for the whole. They never keep the buffer. Everything else answers with a promise.
 *  2. A failure is a VolumeError: thrown by the two `Now` operations, the rejection of all others.
 *  3. Offsets and lengths are bytes, non-negative safe integers; the implementation asserts it. What is not inside
 *     `sizeBytes` fails as 'invalid': the caller has checked, but the volume may have become smaller since.
 *  4. A buffer given to `read` or `write` belongs to the Volume until the operation has finished, then to the caller again.
 *  5. Operations on overlapping ranges that run at the same time finish in any order. One that is started after
 *     another has finished sees all its effects.
 *  6. `flush` makes every write that had finished before it was called survive a power cut. After a flush has
 *     failed the volume is failed: writes and flushes fail until it is opened again.
 *  7. What capabilities deny is never called.
 */

export interface BlockSizes {
  /** Smallest addressable length and alignment: a power of 2 up to 65,536. */
  readonly minimum: number;
  /** Efficient length and alignment: a power of 2, at least 512. */
  readonly preferred: number;
  /** Largest read or write in bytes. */
  readonly maximumPayload: number;
}

export interface Capabilities {
  readonly write: boolean;
  /** flush is real, and covers writes of every user of the Volume. Without it there is no FUA and no multi-conn. */
  readonly flush: boolean;
  readonly trim: boolean;
  readonly writeZeroes: boolean;
  /** writeZeroes with `fast` is answered in time or refused with 'not-supported'. */
  readonly fastZero: boolean;
  readonly blockStatus: boolean;
  readonly cache: boolean;
  readonly resize: boolean;
}

/** A run of bytes with one allocation status. `zero` says that it reads as zeroes. */
export interface Extent {
  readonly length: number;
  readonly hole: boolean;
  readonly zero: boolean;
}

export interface WriteZeroesOptions {
  readonly fua: boolean;
  /** Keep (or make) the range allocated: NBD_CMD_FLAG_NO_HOLE. */
  readonly noHole: boolean;
  /** Fail with 'not-supported' rather than be as slow as a write: NBD_CMD_FLAG_FAST_ZERO. */
  readonly fast: boolean;
}

export interface Volume {
  readonly sizeBytes: number;
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;

  /** Fills target[start, start + length) from the volume's bytes at `offset`, now or not at all. */
  readNow(offset: number, target: Buffer, start: number, length: number): boolean;
  read(offset: number, target: Buffer, start: number, length: number): Promise<void>;

  /** Writes source[start, start + length) at `offset`, now or not at all. Durable after the next flush. */
  writeNow(offset: number, source: Buffer, start: number, length: number): boolean;
  /** With `fua` the write is durable when this finishes. */
  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void>;

  flush(): Promise<void>;
  trim(offset: number, length: number, fua: boolean): Promise<void>;
  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void>;
  /** Tells the volume that the range will be read soon. */
  cache(offset: number, length: number): Promise<void>;

  /**
   * The extents from `offset` on, in order, neighbours differing: together at most `length` bytes, at least one
   * extent, at most `extentsMax` of them.
   */
  blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]>;

  /**
   * False when the range is known to hold no hole; a cheap question for the hot path, which asks blockStatus
   * only when this is true. May be true for a range without holes.
   */
  mayHaveHoles(offset: number, length: number): boolean;

  resize(sizeBytes: number): Promise<void>;
  /** Waits for what is under way and lets go of everything. Does not flush. */
  close(): Promise<void>;
}
