/**
 * RangeLock: ranges of a volume, each held by one holder at a time, given in the order of arrival.
 *
 * Invariants
 * 1. No two ranges that are held overlap.
 * 2. Who waits, waits for each who came before, is still here (holding or waiting itself) and overlaps, and for nobody else. So nobody is
 *    overtaken by one who overlaps, and whoever waits gets it once those before have gone.
 * 3. A holder has one range. An empty range overlaps nothing.
 *
 * Most ranges are small and far apart: they are found by the 64 KiB buckets that they touch. Buckets share a fixed number of lists, so that
 * nothing is made or hashed for a range. The few that touch many buckets are in a list of their own, which everybody looks through, as they
 * look through everybody.
 */

import { LooseList, type Placed } from './loose-list.ts';
import type { Range } from './range.ts';

const BUCKET_BYTES = 65_536;
const NARROW_BUCKETS_MAX = 8;
const LISTS = 1024;

/** Who holds a range, or waits for it: RangeLock keeps its entry with it. */
export interface Holder<T> {
  entry: LockEntry<T> | undefined;
}

export interface LockEntry<T> extends Placed {
  readonly holder: T;
  readonly start: number;
  readonly end: number;
  readonly firstBucket: number;
  readonly lastBucket: number;
  /** How many it waits for; 0: it has the range. */
  waitsFor: number;
  /** Who waits for this one, in order of arrival. */
  followers: Entry<T>[] | undefined;
  /** The search that has found it last: it may be found in several buckets. */
  foundBy: number;
}

type Entry<T> = LockEntry<T>;

const NOBODY: readonly never[] = [];

export class RangeLock<T extends Holder<T>> {
  readonly #entries = new LooseList<Entry<T>>();
  /** Of the buckets whose numbers have the same rest. */
  readonly #lists: (Entry<T>[] | undefined)[] = new Array(LISTS).fill(undefined);
  readonly #wide: Entry<T>[] = [];
  #searches = 0;

  /** How many hold or wait. */
  get size(): number {
    return this.#entries.size;
  }

  /** True: it is held from now on. False: it waits behind those who came before and overlap, until a `release` names it. */
  acquire(holder: T, range: Range): boolean {
    if (holder.entry !== undefined) throw new Error('a holder asks for a second range');
    const entry = entryOf(holder, range);
    holder.entry = entry;
    this.#entries.add(entry);
    if (range.length === 0) return true;
    this.#follow(entry);
    this.#place(entry);
    return entry.waitsFor === 0;
  }

  /** The holder has finished, or gives up waiting. Who has got their ranges by that, in order of arrival. */
  release(holder: T): readonly T[] {
    const { entry } = holder;
    if (entry === undefined) throw new Error('released by somebody who does not hold');
    holder.entry = undefined;
    this.#entries.delete(entry);
    if (entry.end > entry.start) this.#displace(entry);
    if (entry.followers === undefined) return NOBODY;
    const lucky: T[] = [];
    for (const follower of entry.followers) {
      follower.waitsFor -= 1;
      // One that has given up is gone, and still in the list.
      if (follower.waitsFor === 0 && follower.holder.entry === follower) lucky.push(follower.holder);
    }
    return lucky;
  }

  // ── who overlaps ─────────────────────────────────────────────────────────────────────────────────────────

  /** Has it wait for all who came before and overlap. */
  #follow(entry: Entry<T>): void {
    if (isWide(entry)) {
      for (const before of this.#entries) {
        if (before !== entry && overlaps(entry, before)) follow(entry, before);
      }
      return;
    }
    this.#searches += 1;
    this.#followIn(this.#wide, entry);
    for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
      const list = this.#lists[bucket % LISTS];
      if (list !== undefined) this.#followIn(list, entry);
    }
  }

  #followIn(list: readonly Entry<T>[], entry: Entry<T>): void {
    for (const before of list) {
      if (!overlaps(entry, before) || before.foundBy === this.#searches) continue;
      before.foundBy = this.#searches;
      follow(entry, before);
    }
  }

  #place(entry: Entry<T>): void {
    if (isWide(entry)) {
      this.#wide.push(entry);
      return;
    }
    for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
      const list = this.#lists[bucket % LISTS];
      if (list === undefined) this.#lists[bucket % LISTS] = [entry];
      else list.push(entry);
    }
  }

  #displace(entry: Entry<T>): void {
    if (isWide(entry)) {
      remove(this.#wide, entry);
      return;
    }
    for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
      remove(this.#lists[bucket % LISTS] as Entry<T>[], entry);
    }
  }
}

function entryOf<T>(holder: T, { offset, length }: Range): Entry<T> {
  if (!(offset >= 0 && length >= 0)) throw new RangeError(`a range from ${offset} of ${length} bytes`);
  const isEmpty = length === 0; // is nowhere
  const end = isEmpty ? -1 : offset + length;
  return {
    holder,
    start: isEmpty ? -1 : offset,
    end,
    firstBucket: Math.floor(offset / BUCKET_BYTES),
    lastBucket: Math.floor((end - 1) / BUCKET_BYTES),
    place: 0,
    waitsFor: 0,
    followers: undefined,
    foundBy: 0,
  };
}

function isWide<T>(entry: Entry<T>): boolean {
  return entry.lastBucket - entry.firstBucket >= NARROW_BUCKETS_MAX;
}

function overlaps<T>(a: Entry<T>, b: Entry<T>): boolean {
  return a.start < b.end && b.start < a.end;
}

function follow<T>(entry: Entry<T>, before: Entry<T>): void {
  entry.waitsFor += 1;
  before.followers ??= [];
  before.followers.push(entry);
}

/** The order within a list does not matter: who waits for whom is known. */
function remove<T>(list: Entry<T>[], entry: Entry<T>): void {
  const at = list.indexOf(entry);
  const last = list.pop() as Entry<T>;
  if (last !== entry) list[at] = last;
}
