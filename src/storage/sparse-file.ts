/**
 * SparseFile: the Volume that is one raw sparse file. open-sparse-file.ts makes it.
 *
 * Invariants
 *  1. No call that may wait for a disk runs on the event loop. What reads or writes at once has been found to be
 *     in memory: by RWF_NOWAIT, by a file system that lives in memory, or (writes where NOWAIT is refused) because
 *     no page has to be read first and no earlier write was held back.
 *  2. A flush succeeds only when an fdatasync that began after it was asked for succeeded, and the file then still
 *     was as long as the volume. After one that did not, the volume is failed: the kernel forgets a failure once it
 *     has told it, so a later success would be a lie.
 *  3. The file never gets shorter except by resize, and longer only by resize.
 *  4. What can make a hole makes #extents forget its range, before it starts and when it has ended.
 *  5. The descriptor is closed when nothing uses it any more.
 */

import { closeSync, fdatasync, fdatasyncSync, fstatSync, ftruncate } from 'node:fs';
import { promisify } from 'node:util';
import * as sys from '../base/syscalls.ts';
import { assert, VolumeError } from '../model/errors.ts';
import type { BlockSizes, Capabilities, Extent, Volume, WriteZeroesOptions } from '../model/volume.ts';
import { negativeErrnoOf, volumeErrorOf } from './errors.ts';
import { FileExtents } from './file-extents.ts';
import { Gate } from './gate.ts';
import { GroupCommit } from './group-commit.ts';
import { readOnPool, writeOnPool } from './pool-transfer.ts';
import { ReadGate } from './read-gate.ts';

const MIB = 1024 * 1024;
const PAGE_MASK = 4095;

const blockSizes: BlockSizes = { minimum: 1, preferred: 4096, maximumPayload: 32 * MIB };

/** Copying more than this at once would hold up all other requests for a millisecond. */
const NOW_LENGTH_MAX = MIB;

// The kernel holds back who writes faster than the disk (dirty throttling). A write that took this long was held
// back, or had to wait for metadata; the ones after it go to the pool for a while.
const HELD_BACK_MS = 2;
const POOL_WRITES_MS = 1000;
/** The kernel makes the writes of a file one after the other anyway. */
const POOL_WRITES_AT_ONCE = 8;
/** The disk still holds writers back when a write on the pool, wait for a thread and all, takes this long. */
const SLOW_WRITE_MS = 20;

const zeroes = Buffer.alloc(MIB); // never written to

const PUNCH = sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE;
const ZERO = sys.FALLOC_FL_ZERO_RANGE | sys.FALLOC_FL_KEEP_SIZE;

const fdatasyncOnPool = promisify(fdatasync);
const ftruncateOnPool = promisify(ftruncate);
const probe = Buffer.alloc(1);

export interface SparseFileParts {
  /** Open, locked; belongs to the SparseFile from now on. */
  readonly fd: number;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** The file system lives in memory: nothing there waits for a disk. */
  readonly inMemory: boolean;
  /** Called once, when the volume goes to its failed state, with the reason as a sentence. */
  readonly onFailed?: (reason: string) => void;
}

export class SparseFile implements Volume {
  readonly blockSizes = blockSizes;
  readonly capabilities: Capabilities;
  readonly #fd: number;
  readonly #readOnly: boolean;
  readonly #inMemory: boolean;
  readonly #onFailed: ((reason: string) => void) | undefined;
  #sizeBytes: number;
  #failure: string | undefined;
  #closing: Promise<void> | undefined;

  // What the file system can do: true until it has said no.
  #readsNow = true;
  #nowaitWrites = true;
  #punches = true;
  #zeroesRanges = true;

  #poolWritesUntil = 0;
  #changesOnPool = 0;
  readonly #extents: FileExtents;
  readonly #group = new GroupCommit(() => this.#sync());
  readonly #reads = new ReadGate();
  readonly #poolWrites = new Gate(POOL_WRITES_AT_ONCE);
  readonly #underWay = new Set<Promise<unknown>>();
  readonly #writesUnderWay = new Set<Promise<unknown>>();
  #lastResize: Promise<void> = Promise.resolve();

  constructor(parts: SparseFileParts) {
    this.#fd = parts.fd;
    this.#sizeBytes = parts.sizeBytes;
    this.#readOnly = parts.readOnly;
    this.#inMemory = parts.inMemory;
    this.#onFailed = parts.onFailed;
    this.#extents = new FileExtents(parts.fd, (offset) => this.#isCached(offset));
    this.capabilities = this.#findCapabilities();
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get state(): 'ok' | 'failed' {
    return this.#failure === undefined ? 'ok' : 'failed';
  }

  /** Why the volume is failed. */
  get failure(): string | undefined {
    return this.#failure;
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    this.#checkRange(offset, length);
    this.#refuseWhenClosing();
    if (!this.#readsNow || length > NOW_LENGTH_MAX) return false;
    const flags = this.#inMemory ? 0 : sys.RWF_NOWAIT;
    const count = sys.readAt(this.#fd, offset, target, start, length, flags);
    if (count === -sys.EOPNOTSUPP) this.#readsNow = false;
    return count === length; // what went wrong, if anything, comes to light in read()
  }

  async read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    this.#checkRange(offset, length);
    this.#refuseWhenClosing();
    const count = await this.#track(
      this.#reads.run(() => readOnPool(this.#fd, offset, target, start, length)),
    );
    if (count === length) return;
    const end = offset + count;
    if (end >= this.#sizeBytes)
      throw new VolumeError('invalid', 'the volume has become smaller', { offset: end });
    this.#failCutShort(end);
    throw new VolumeError('io', 'the file has been cut short', { offset: end });
  }

  writeNow(offset: number, source: Buffer, start: number, length: number): boolean {
    this.#checkRange(offset, length);
    this.#refuseWhenUnwritable();
    if (length > NOW_LENGTH_MAX) return false;
    if (this.#inMemory)
      return !this.#isLocked() && sys.writeAt(this.#fd, offset, source, start, length, 0) === length;
    const before = performance.now();
    if (before < this.#poolWritesUntil) return false;
    if (this.#nowaitWrites) {
      const count = sys.writeAt(this.#fd, offset, source, start, length, sys.RWF_NOWAIT);
      if (count !== -sys.EOPNOTSUPP) return count === length;
      this.#nowaitWrites = false;
    }
    if (this.#isLocked()) return false;
    // A page that is overwritten in part has to be in memory, or it would be read first.
    if ((offset & PAGE_MASK) !== 0 && !this.#isCached(offset)) return false;
    if (((offset + length) & PAGE_MASK) !== 0 && !this.#isCached(offset + length - 1)) return false;
    const count = sys.writeAt(this.#fd, offset, source, start, length, 0);
    const after = performance.now();
    if (after - before > HELD_BACK_MS) this.#poolWritesUntil = after + POOL_WRITES_MS;
    return count === length;
  }

  async write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    this.#checkRange(offset, length);
    this.#refuseWhenUnwritable();
    await this.#track(this.#writeAndSync(offset, source, start, length, fua));
  }

  async flush(): Promise<void> {
    this.#refuseWhenClosing();
    this.#refuseWhenFailed();
    if (this.#readOnly) return; // nothing has been written through here
    await this.#track(this.#group.commit());
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    this.#checkRange(offset, length);
    this.#refuseWhenUnwritable();
    await this.#track(this.#trimAndSync(offset, length, fua));
  }

  async writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    this.#checkRange(offset, length);
    this.#refuseWhenUnwritable();
    await this.#track(this.#zeroAndSync(offset, length, options));
  }

  async cache(offset: number, length: number): Promise<void> {
    this.#checkRange(offset, length);
    this.#refuseWhenClosing();
    if (length === 0) return; // to the kernel, 0 means "to the end of the file"
    const result = await this.#track(sys.willNeedAsync(this.#fd, offset, length));
    if (result < 0) throw volumeErrorOf(result, 'read ahead', offset);
  }

  async blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    this.#checkRange(offset, length);
    assert(length > 0 && extentsMax > 0, 'block status of nothing');
    this.#refuseWhenClosing();
    return this.#track(this.#findExtents(offset, length, extentsMax));
  }

  mayHaveHoles(offset: number, length: number): boolean {
    return this.#extents.mayHaveHoles(offset, length);
  }

  async resize(sizeBytes: number): Promise<void> {
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, 'a size is a number of bytes');
    this.#refuseWhenUnwritable();
    const turn = this.#lastResize.then(() => this.#resizeNow(sizeBytes));
    this.#lastResize = turn.catch(() => undefined); // who asked for it has the failure; the next one goes on
    await this.#track(turn);
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeWhenIdle();
    return this.#closing;
  }

  async #closeWhenIdle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    try {
      closeSync(this.#fd); // the lock goes with it
    } catch (error) {
      throw volumeErrorOf(negativeErrnoOf(error as NodeJS.ErrnoException), 'close');
    }
  }

  // ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

  async #writeAndSync(
    offset: number,
    source: Buffer,
    start: number,
    length: number,
    fua: boolean,
  ): Promise<void> {
    await this.#writeSlowly(offset, source, start, length);
    if (fua) await this.#group.commit();
  }

  /** In #writesUnderWay while it lasts: a file being made smaller has to wait, or the write would make it longer. */
  async #writeSlowly(offset: number, source: Buffer, start: number, length: number): Promise<void> {
    const writing = this.#poolWrites.run(() => writeOnPool(this.#fd, offset, source, start, length));
    this.#writesUnderWay.add(writing);
    const startedMs = performance.now();
    try {
      await writing;
    } finally {
      this.#writesUnderWay.delete(writing);
      const nowMs = performance.now();
      if (nowMs - startedMs > SLOW_WRITE_MS) this.#poolWritesUntil = nowMs + POOL_WRITES_MS;
    }
  }

  async #trimAndSync(offset: number, length: number, fua: boolean): Promise<void> {
    await this.#punch(offset, length); // where there are no holes, trim has nothing to do
    if (fua) await this.#group.commit();
  }

  async #zeroAndSync(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    const quick = options.noHole
      ? await this.#zeroRange(offset, length)
      : (await this.#punch(offset, length)) || (await this.#zeroRange(offset, length));
    if (!quick) {
      if (options.fast) throw new VolumeError('not-supported', 'zeroes would have to be written', { offset });
      await this.#writeZeroBytes(offset, length);
    }
    if (options.fua) await this.#group.commit();
  }

  /** False when the file system has no holes. */
  async #punch(offset: number, length: number): Promise<boolean> {
    if (!this.#punches) return false;
    this.#punches = await this.#allocate(PUNCH, offset, length, 'punch a hole');
    return this.#punches;
  }

  /** False when the file system cannot zero and keep allocated. */
  async #zeroRange(offset: number, length: number): Promise<boolean> {
    if (!this.#zeroesRanges) return false;
    this.#zeroesRanges = await this.#allocate(ZERO, offset, length, 'zero a range');
    return this.#zeroesRanges;
  }

  async #writeZeroBytes(offset: number, length: number): Promise<void> {
    // All the space first: a full disk is then found before anything has been changed.
    await this.#allocate(sys.FALLOC_FL_KEEP_SIZE, offset, length, 'allocate');
    for (let done = 0; done < length; done += zeroes.length) {
      this.#checkRange(offset, length); // it may have become smaller meanwhile
      await this.#writeSlowly(offset + done, zeroes, 0, Math.min(zeroes.length, length - done));
    }
  }

  /** fallocate. False when the file system does not know the mode. */
  async #allocate(mode: number, offset: number, length: number, attempt: string): Promise<boolean> {
    if (length === 0) return true; // to the kernel an error
    this.#extents.forget(offset, offset + length);
    let result: number;
    this.#changesOnPool += 1;
    try {
      do result = await sys.allocateAsync(this.#fd, mode, offset, length);
      while (result === -sys.EINTR);
    } finally {
      this.#changesOnPool -= 1;
    }
    this.#extents.forget(offset, offset + length);
    if (result < 0 && result !== -sys.EOPNOTSUPP) throw volumeErrorOf(result, attempt, offset);
    return result === 0;
  }

  async #resizeNow(sizeBytes: number): Promise<void> {
    this.#refuseWhenFailed();
    const before = this.#sizeBytes;
    if (sizeBytes < before) {
      this.#sizeBytes = sizeBytes; // no new write beyond it from here on
      await Promise.allSettled(this.#writesUnderWay);
    }
    this.#changesOnPool += 1;
    try {
      await ftruncateOnPool(this.#fd, sizeBytes);
    } catch (error) {
      this.#sizeBytes = before;
      const cause = volumeErrorOf(negativeErrnoOf(error as NodeJS.ErrnoException), 'resize');
      if (sizeBytes <= before || cause.code !== 'no-space') throw cause;
      throw new VolumeError('too-big', `no file can have ${sizeBytes} bytes here`, { cause });
    } finally {
      this.#changesOnPool -= 1;
    }
    this.#sizeBytes = sizeBytes;
    this.#extents.forget(Math.min(before, sizeBytes), Number.MAX_SAFE_INTEGER);
  }

  // ── durability ───────────────────────────────────────────────────────────────────────────────────────────

  async #sync(): Promise<void> {
    this.#refuseWhenFailed();
    try {
      if (this.#inMemory) fdatasyncSync(this.#fd);
      else await fdatasyncOnPool(this.#fd);
    } catch (cause) {
      this.#fail(`fdatasync failed: ${(cause as Error).message}`);
      throw new VolumeError('failed', 'written data may be lost: fdatasync failed', { cause });
    }
    const { size, nlink } = fstatSync(this.#fd); // of an open file: no disk access
    if (nlink === 0)
      this.#fail('the file has been removed: what is written to it is lost when the server ends');
    if (size < this.#sizeBytes) this.#failCutShort(size);
    this.#refuseWhenFailed();
  }

  async #findExtents(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    const extents = await this.#extents.find(offset, length, extentsMax);
    // Behind the end of a file that was cut short, data that is lost looks like a hole.
    if (extents.some(({ hole }) => hole)) this.#refuseWhenCutShort(offset, offset + length);
    return extents;
  }

  /** Fails the volume when the file ends within [offset, end). */
  #refuseWhenCutShort(offset: number, end: number): void {
    const { size } = fstatSync(this.#fd);
    if (size >= Math.min(end, this.#sizeBytes)) return;
    this.#failCutShort(size);
    throw new VolumeError('io', 'the file has been cut short', { offset: Math.max(offset, size) });
  }

  #failCutShort(end: number): void {
    this.#fail(`the file ends at ${end} of ${this.#sizeBytes} bytes: something has cut it short`);
  }

  #fail(reason: string): void {
    if (this.#failure !== undefined) return;
    this.#failure = reason;
    this.#onFailed?.(reason);
  }

  // ── small things ─────────────────────────────────────────────────────────────────────────────────────────

  /**
   * A call on the pool may hold the kernel's lock of the file for long, which a write would wait for. (Writes there hold it
   * as briefly as one here does, but for a slow disk, of which #poolWritesUntil takes care: counting them would keep
   * all writes on the pool, once one is there.)
   */
  #isLocked(): boolean {
    return this.#changesOnPool > 0;
  }

  #isCached(offset: number): boolean {
    if (this.#inMemory) return true;
    return this.#readsNow && sys.readAt(this.#fd, offset, probe, 0, 1, sys.RWF_NOWAIT) === 1;
  }

  #findCapabilities(): Capabilities {
    const write = !this.#readOnly;
    if (write) {
      // A hole behind the end of the file changes nothing, and only a file system that has none refuses it.
      const behind = this.#sizeBytes + 4096 - (this.#sizeBytes & PAGE_MASK);
      this.#punches = sys.allocate(this.#fd, PUNCH, behind, 4096) !== -sys.EOPNOTSUPP;
    }
    const trim = write && this.#punches;
    return {
      write,
      flush: true,
      trim,
      writeZeroes: write,
      fastZero: trim,
      blockStatus: true,
      cache: true,
      resize: write,
    };
  }

  async #track<T>(operation: Promise<T>): Promise<T> {
    this.#underWay.add(operation);
    try {
      return await operation;
    } finally {
      this.#underWay.delete(operation);
    }
  }

  #checkRange(offset: number, length: number): void {
    if (!(offset >= 0 && length >= 0)) assert(false, `[${offset}, ${offset} + ${length}) is no range`);
    if (offset + length <= this.#sizeBytes) return;
    throw new VolumeError('invalid', `the volume ends at ${this.#sizeBytes}`, { offset: this.#sizeBytes });
  }

  #refuseWhenClosing(): void {
    if (this.#closing !== undefined) throw new VolumeError('shutdown', 'the volume is being closed');
  }

  #refuseWhenFailed(): void {
    if (this.#failure !== undefined)
      throw new VolumeError('failed', `the volume has failed: ${this.#failure}`);
  }

  #refuseWhenUnwritable(): void {
    this.#refuseWhenClosing();
    if (this.#readOnly) throw new VolumeError('read-only', 'the volume is read-only');
    this.#refuseWhenFailed();
  }
}
