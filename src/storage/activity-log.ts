/**
 * ActivityLog: what of a member may be lost or in doubt after a crash, known to the process that comes after it.
 *
 *     DATA/copies/rv-ID/unsettled   unsettled-journal.ts: the exact ranges, in the page cache
 *     DATA/copies/rv-ID/activity    the extents of 4 MiB that may hold something not flushed or not settled, on the disk:
 *       0      8192  header (twin-header.ts), magic "VolaryAL", version 1; its payload:
 *                      0  16  boot id of the machine when the file was opened last
 *                     16   1  state: 1 clean, 2 open, 3 lost
 *                     20   4  bytes of an extent: 4,194,304
 *                     24  24  real volume, ASCII, filled up with zeros
 *                     48   8  sectors of the map
 *       8192  ...    map of marks, sectors of 512 bytes (activity-map.ts)
 *     all little-endian
 *
 * States of the file
 *     clean -> open      opened
 *     open  -> open      opened again in the same boot: the journal says what is unsettled
 *     open  -> lost      opened in another boot, and something was marked; or the caller has found that the page cache is not to be trusted
 *     lost  -> open      settleEarlier: all that was in doubt has been settled or put into the bitmaps, and flushed
 *     open  -> clean     closed, after all else has been flushed
 *
 * Invariants
 * 1. An operation begins (`begin`) only in extents whose marks are durable.
 * 2. The barrier of a mark is the fdatasync that began after its sector was written; callers share it. A mark that has been taken away needs
 *    one again, since the disk may have heard of that.
 * 3. Taking a mark away needs no sync: a mark too many costs only time. But before it the volume and the difference bitmaps have to be
 *    flushed, by flushes that began after the last operation in the extent was settled. That is the caller's.
 * 4. What was unsettled when the file was opened stays so, in every crash that follows, until `settleEarlier`: after a kept cache as ranges in
 *    the journal, with their extents marked; after a lost one as the state `lost`, in which every mark counts, whatever the boot.
 *    Other marks of before stay until then, or until they are taken away.
 * 5. Opening and making replace both files as a whole, journal first. In place only header and sectors are written: a torn header leaves
 *    the one before, a torn sector counts as marked all over, and a file that is not there, or of another volume, as all the volume marked.
 * 6. Clean becomes durable last: the journal's sync, then the map's (marks only where something is unsettled), then the header's. So a
 *    clean log needs no boot id.
 * 7. After a failed sync nothing is promised any more: the kernel tells a failure once.
 */

import { closeSync, fdatasync } from 'node:fs';
import { promisify } from 'node:util';
import { BlockBitmap } from '../base/block-bitmap.ts';
import type { Range } from '../base/range.ts';
import { EXTENT_BYTES } from '../model/copy-granularity.ts';
import { assert, StoreError } from '../model/errors.ts';
import { ACTIVITY_FORMAT, type ActivityState, activityPayload } from './activity-file.ts';
import { type ActivityMap, extentsIn, extentsOf } from './activity-map.ts';
import { GroupCommit } from './group-commit.ts';
import { TWIN_HEADER_BYTES, TwinHeader } from './twin-header.ts';
import type { Slot, UnsettledJournal } from './unsettled-journal.ts';

const SEQUENCE_WHEN_MADE = 2;
const AFTER_ITS_END = 'an activity log is used after its end';

const fdatasyncOnPool = promisify(fdatasync);

export interface ActivityLogParts {
  readonly realVolume: string;
  readonly bootId: string;
  readonly sizeBytes: number;
  /** Both are closed by the log. */
  readonly fd: number;
  readonly journalFd: number;
  readonly map: ActivityMap;
  readonly journal: UnsettledJournal;
  readonly state: ActivityState;
  /** Marks of before; and of those the ones where something is unsettled. */
  readonly earlier: BlockBitmap;
  readonly unsettled: BlockBitmap;
}

export class ActivityLog {
  readonly #realVolume: string;
  readonly #bootId: string;
  readonly #fd: number;
  readonly #journalFd: number;
  readonly #header: TwinHeader;
  readonly #map: ActivityMap;
  readonly #journal: UnsettledJournal;
  readonly #group = new GroupCommit(() => this.#sync());
  #state: ActivityState;
  #sizeBytes: number;
  #failure: StoreError | undefined;
  #isClosed = false;
  #running: Promise<void> = Promise.resolve();

  /** Marks of before, and of those the ones that stay until `settleEarlier`; marks that have been asked for since, and are durable. */
  readonly #earlier: BlockBitmap;
  readonly #unsettled: BlockBitmap;
  readonly #marked = new Set<number>();
  readonly #durable = new Set<number>();
  /** Marks that are in the file, for the next sync; and those of the sync that is running. */
  #written = new Set<number>();
  #syncing = new Set<number>();

  constructor(parts: ActivityLogParts) {
    const { realVolume, bootId, sizeBytes } = parts;
    this.#realVolume = realVolume;
    this.#bootId = bootId;
    this.#fd = parts.fd;
    this.#journalFd = parts.journalFd;
    this.#header = new TwinHeader(ACTIVITY_FORMAT, parts.fd, SEQUENCE_WHEN_MADE);
    this.#map = parts.map;
    this.#journal = parts.journal;
    this.#state = parts.state;
    this.#sizeBytes = sizeBytes;
    this.#earlier = parts.earlier;
    this.#unsettled = parts.unsettled;
  }

  /** Durable when it resolves. Extents that are marked already cost nothing. @throws StoreError: then nothing is promised */
  async mark(extents: readonly number[]): Promise<void> {
    this.#check();
    const fresh: number[] = [];
    for (const extent of extents) {
      assert(extent >= 0, `extent ${extent} is none`);
      if (extent >= extentsOf(this.#sizeBytes)) continue; // cut off while this was on its way: nothing is written there any more
      this.#marked.add(extent);
      if (this.#durable.has(extent)) continue;
      if (this.#earlier.has(rangeOf(extent))) {
        this.#durable.add(extent);
        continue;
      }
      this.#map.set(extent, true);
      fresh.push(extent);
    }
    if (fresh.length === 0) return;
    this.#map.write(this.#fd, TWIN_HEADER_BYTES);
    for (const extent of fresh) this.#written.add(extent);
    await this.#group.commit();
  }

  /** See invariant 3. An extent where something was unsettled when the log was opened stays marked until `settleEarlier`. @throws StoreError */
  async unmark(extents: readonly number[]): Promise<void> {
    this.#check();
    this.#journal.write(); // what was settled there is so in the file before the mark goes
    for (const extent of extents) {
      this.#marked.delete(extent);
      if (this.#unsettled.has(rangeOf(extent))) {
        this.#durable.delete(extent);
      } else {
        this.#earlier.clear(wholeExtent(extent));
        this.#takeAway(extent);
      }
    }
    this.#map.write(this.#fd, TWIN_HEADER_BYTES);
  }

  /** An operation on the range, whose extents are marked, is about to be applied: after `writeJournal`. @throws StoreError: it must not be */
  begin(range: Range): Slot {
    this.#check();
    const end = Math.min(range.offset + range.length, this.#sizeBytes);
    for (let extent = Math.floor(range.offset / EXTENT_BYTES); extent * EXTENT_BYTES < end; extent++) {
      if (!this.#durable.has(extent)) assert(false, `an operation in extent ${extent}, which is not marked`);
    }
    return this.#journal.begin(range);
  }

  /** These operations are settled. Each slot once. @throws StoreError */
  settle(slots: readonly Slot[]): void {
    assert(!this.#isClosed, AFTER_ITS_END);
    this.#journal.settle(slots);
  }

  /** What `begin` and `settle` have changed is in the journal from now on. @throws StoreError */
  writeJournal(): void {
    this.#check();
    this.#journal.write();
  }

  /**
   * What was unsettled when the log was opened is settled, or in the bitmaps of all whom it concerns; and volume and bitmaps have been flushed
   * since. Durable when it resolves; before, it may be told again. @throws StoreError
   */
  async settleEarlier(): Promise<void> {
    this.#check();
    for (const extent of [...extentsIn(this.#earlier)]) {
      this.#earlier.clear(wholeExtent(extent));
      if (!this.#marked.has(extent)) this.#takeAway(extent);
    }
    this.#unsettled.clear({ offset: 0, length: this.#sizeBytes });
    this.#journal.settleEarlier();
    this.#map.write(this.#fd, TWIN_HEADER_BYTES);
    if (this.#state === 'lost') this.#writeHeader('open');
    await this.#group.commit();
  }

  /** A flush of the volume or of a bitmap has failed: whoever opens the log next is told that the cache is lost. @throws StoreError */
  loseCache(): void {
    assert(!this.#isClosed, AFTER_ITS_END);
    if (this.#state !== 'lost') this.#writeHeader('lost');
  }

  /** To the volume's new size: before anything is marked or begun behind the old one; after nothing is behind the new one. @throws StoreError */
  async resize(sizeBytes: number): Promise<void> {
    this.#check();
    const before = extentsOf(this.#sizeBytes);
    for (let extent = extentsOf(sizeBytes); extent < before; extent++) {
      this.#marked.delete(extent);
      this.#takeAway(extent);
    }
    const sectors = this.#map.sectors;
    this.#map.grow(sizeBytes);
    this.#map.write(this.#fd, TWIN_HEADER_BYTES);
    if (this.#map.sectors > sectors) {
      await this.#group.commit(); // the sectors are there before the header speaks of them, and it does before any is needed
      this.#writeHeader(this.#state);
      await this.#group.commit();
    }
    this.#earlier.resize(sizeBytes);
    this.#unsettled.resize(sizeBytes);
    this.#sizeBytes = sizeBytes;
  }

  /**
   * Volume and bitmaps have been flushed, and nothing is under way. The file becomes clean, unless a lost cache is not settled, or more is
   * unsettled than the journal has slots for. @throws StoreError: it is closed, and not clean
   */
  async close(): Promise<void> {
    assert(!this.#isClosed, AFTER_ITS_END);
    try {
      this.#check();
      if (this.#state === 'open' && !this.#journal.hasOverflowed) await this.#leaveClean();
    } finally {
      await this.#end();
    }
  }

  /** Closes it as a crash would, for when there was no flush. */
  async abandon(): Promise<void> {
    if (!this.#isClosed) await this.#end();
  }

  async #leaveClean(): Promise<void> {
    this.#journal.write();
    await this.#syncFile(this.#journalFd);
    const unsettled = new BlockBitmap(this.#sizeBytes, EXTENT_BYTES);
    for (const range of this.#journal.ranges()) unsettled.set(range);
    for (const extent of [...this.#marked, ...extentsIn(this.#earlier)]) {
      if (!unsettled.has(rangeOf(extent))) this.#takeAway(extent);
    }
    this.#map.write(this.#fd, TWIN_HEADER_BYTES);
    await this.#group.commit();
    this.#writeHeader('clean');
    await this.#group.commit();
  }

  async #end(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled([this.#running]); // no descriptor is closed under a sync; its outcome is its callers'
    closeSync(this.#fd);
    closeSync(this.#journalFd);
  }

  #check(): void {
    assert(!this.#isClosed, AFTER_ITS_END);
    if (this.#failure !== undefined) throw this.#failure;
  }

  #takeAway(extent: number): void {
    this.#map.set(extent, false);
    this.#durable.delete(extent);
    this.#written.delete(extent);
    this.#syncing.delete(extent);
  }

  #writeHeader(state: ActivityState): void {
    const [realVolume, bootId] = [this.#realVolume, this.#bootId];
    this.#header.write(activityPayload({ realVolume, bootId, state, sectors: this.#map.sectors }));
    this.#state = state;
  }

  // ── syncs ────────────────────────────────────────────────────────────────────────────────────────────────

  #sync(): Promise<void> {
    this.#syncing = this.#written;
    this.#written = new Set();
    this.#running = this.#syncFile(this.#fd).then(() => {
      for (const extent of this.#syncing) this.#durable.add(extent);
      this.#syncing = new Set();
    });
    return this.#running;
  }

  async #syncFile(fd: number): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#isClosed) throw new StoreError('io', 'an activity log was abandoned: open it again');
    try {
      await fdatasyncOnPool(fd);
    } catch (cause) {
      const text = 'an activity log could not be brought to the disk: look into the disk first';
      this.#failure = new StoreError('io', text, { cause });
      throw this.#failure;
    }
  }
}

function rangeOf(extent: number): Range {
  return { offset: extent * EXTENT_BYTES, length: 1 };
}

function wholeExtent(extent: number): Range {
  return { offset: extent * EXTENT_BYTES, length: EXTENT_BYTES };
}
