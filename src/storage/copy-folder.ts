/**
 * CopyFolder: what a storage system keeps of one real volume that is a member of a copy group.
 *
 *     DATA/copies/rv-ID/activity, unsettled   activity-log.ts
 *     DATA/copies/rv-ID/lacks-rv-OTHER        difference-bitmaps.ts
 *
 * Invariants
 * 1. No mark is taken away before the bitmaps have been flushed. That the volume has been, too, is the caller's.
 * 2. When a flush of the bitmaps fails, the next process is told that the cache is lost, since what they had is.
 * 3. The data folder's lock keeps other processes from the folder; one CopyFolder at a time is open for a real volume.
 */

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { BlockBitmap } from '../base/block-bitmap.ts';
import type { Range } from '../base/range.ts';
import { assert } from '../model/errors.ts';
import type { ActivityLog } from './activity-log.ts';
import { DifferenceBitmaps } from './difference-bitmaps.ts';
import { storeErrorOf } from './errors.ts';
import { prepareFolder, syncFolder } from './folder-space.ts';
import { type ActivityLogOptions, openActivityLog } from './open-activity-log.ts';
import type { Slot } from './unsettled-journal.ts';

const REAL_VOLUME = /^rv-[0-9a-f]{16}$/;

export interface OpenedCopyFolder {
  readonly folder: CopyFolder;
  /** Ascending, apart, inside the volume. Told again by every open, until `settleEarlier`. */
  readonly unsettled: readonly Range[];
  /** The extents (of EXTENT_BYTES) that are marked, ascending: those of `unsettled`, and others that the process before had marked. */
  readonly marked: readonly number[];
  /** The machine has lost its page cache, or a file was damaged: `unsettled` is all that had not been flushed, too. */
  readonly hasLostCache: boolean;
  /** What other members lack, of those that have a file. The caller's from now on. */
  readonly lacks: ReadonlyMap<string, BlockBitmap>;
}

/** Opens the folder of a real volume, or makes it, below the folder `copies`. @throws UsageError, StoreError */
export async function openCopyFolder(copies: string, options: ActivityLogOptions): Promise<OpenedCopyFolder> {
  const { realVolume, sizeBytes } = options;
  if (options.isNew) await removeCopyFolder(copies, realVolume);
  const path = pathOf(copies, realVolume);
  await prepareFolder(path);
  const bitmaps = await DifferenceBitmaps.open(path, realVolume, sizeBytes);
  try {
    const { log, ...found } = await openActivityLog(path, options);
    return { folder: new CopyFolder(log, bitmaps), ...found, lacks: bitmaps.load() };
  } catch (error) {
    await bitmaps.close();
    throw error;
  }
}

/** Removes it durably; one that is not there is removed already. It is not open. @throws StoreError */
export async function removeCopyFolder(copies: string, realVolume: string): Promise<void> {
  const path = pathOf(copies, realVolume);
  try {
    await rm(path, { recursive: true, force: true });
    await syncFolder(copies);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return; // not even `copies` is there
    throw storeErrorOf(error, `remove ${path}`);
  }
}

/** The real volumes that have a folder below `copies`, sorted. @throws StoreError */
export async function listCopyFolders(copies: string): Promise<string[]> {
  try {
    const entries = await readdir(copies, { withFileTypes: true });
    const folders = entries.filter((entry) => entry.isDirectory() && REAL_VOLUME.test(entry.name));
    return folders.map(({ name }) => name).sort();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw storeErrorOf(error, `list the folders of ${copies}`);
  }
}

function pathOf(copies: string, realVolume: string): string {
  assert(REAL_VOLUME.test(realVolume), `${JSON.stringify(realVolume)} is no real volume`);
  return join(copies, realVolume);
}

/** Every method may throw, or reject with, a StoreError. */
export class CopyFolder {
  readonly #log: ActivityLog;
  readonly #bitmaps: DifferenceBitmaps;

  constructor(log: ActivityLog, bitmaps: DifferenceBitmaps) {
    this.#log = log;
    this.#bitmaps = bitmaps;
  }

  /** The extents are marked durably when it resolves. Those that were marked at the open have to be named, too: it costs nothing. */
  mark(extents: readonly number[]): Promise<void> {
    return this.#log.mark(extents);
  }

  /** The volume has been flushed since the last operation in these extents was settled. What was `unsettled` at the open stays marked. */
  async unmark(extents: readonly number[]): Promise<void> {
    await this.flush();
    await this.#log.unmark(extents);
  }

  /** An operation is about to be applied, in marked extents: not before `writeJournal`, and not at all when it throws. */
  begin(range: Range): Slot {
    return this.#log.begin(range);
  }

  /** These are settled: their ranges need not be known after a crash. Each slot once; in the journal from the next `writeJournal` on. */
  settle(slots: readonly Slot[]): void {
    this.#log.settle(slots);
  }

  /** All that has begun, or was settled, since the last time is in the journal when it returns. When it throws, nothing of it may be applied. */
  writeJournal(): void {
    this.#log.writeJournal();
  }

  /**
   * What was `unsettled` when the folder was opened is settled, or in the bitmaps; and the volume has been flushed since. From now on there is no
   * lost cache any more.
   */
  async settleEarlier(): Promise<void> {
    await this.flush();
    await this.#log.settleEarlier();
  }

  /** A flush of the volume has failed: what was written may be gone. The next open says so. */
  loseCache(): void {
    this.#log.loseCache();
  }

  /** Makes the member's bitmap if there is none, so that a full disk later is no obstacle. */
  addMember(member: string): void {
    this.#bitmaps.add(member);
  }

  /** The member may lack these; in the page cache when it returns. */
  setBits(member: string, ranges: readonly Range[]): void {
    this.#bitmaps.set(member, ranges);
  }

  /** The member has these, durably. */
  clearBits(member: string, ranges: readonly Range[]): void {
    this.#bitmaps.clear(member, ranges);
  }

  forgetMember(member: string): void {
    this.#bitmaps.forget(member);
  }

  /** The bitmaps, as they are now, are durable when it resolves. */
  async flush(): Promise<void> {
    try {
      await this.#bitmaps.flush();
    } catch (error) {
      this.#log.loseCache();
      throw error;
    }
  }

  /** Larger: before anything is written there. Smaller: when nothing is under way there any more. */
  async resize(sizeBytes: number): Promise<void> {
    await this.#bitmaps.resize(sizeBytes);
    await this.#log.resize(sizeBytes);
  }

  /** The volume has been flushed, and nothing is under way. Closed also when it throws, but then not clean. */
  async close(): Promise<void> {
    try {
      await this.flush();
      await this.#log.close();
    } finally {
      await this.abandon();
    }
  }

  /** Closes it as a crash would: for a volume that could not be flushed. */
  async abandon(): Promise<void> {
    await this.#log.abandon();
    await this.#bitmaps.close();
  }
}
