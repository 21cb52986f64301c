/**
 * RangeLock: ranges of a volume, each held by one holder at a time, given in the order of arrival.
 *
 * Invariants
 * 1. No two ranges that are held overlap.
 * 2. Who waits, waits for each who came before, is still here (holding or waiting itself) and overlaps, and for nobody else. So nobody is
 *    overtaken by one who overlaps, and whoever waits gets it once those before have gone.
 * 3. A holder has one range. An empty range overlaps nothing.
 *
 * Most ranges are small and far apart: they are found by the 64 KiB buckets that they touch. The few that touch many buckets are in a list
 * of their own, which everybody looks through, as they look through everybody.
 */

import type { Range } from './range.ts';

const BUCKET_BYTES = 65_536;
const NARROW_BUCKETS_MAX = 8;
const SPARE_MAX = 1024;

interface Entry<T> {
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

const NOBODY: readonly never[] = [];

export class RangeLock<T> {
  readonly #entries = new Map<T, Entry<T>>();
  readonly #buckets = new Map<number, Entry<T>[]>();
  readonly #wide: Entry<T>[] = [];
  /** Empty lists, for the next buckets. */
  readonly #spare: Entry<T>[][] = [];
  #searches = 0;

  /** How many hold or wait. */
  get size(): number {
    return this.#entries.size;
  }

  /** True: it is held from now on. False: it waits behind those who came before and overlap, until a `release` names it. */
  acquire(holder: T, range: Range): boolean {
    if (this.#entries.has(holder)) throw new Error('a holder asks for a second range');
    const entry = entryOf(holder, range);
    this.#entries.set(holder, entry);
    if (range.length === 0) return true;
    this.#search(entry, follow);
    this.#place(entry);
    return entry.waitsFor === 0;
  }

  /** The holder has finished, or gives up waiting. Who has got their ranges by that, in order of arrival. */
  release(holder: T): readonly T[] {
    const entry = this.#entries.get(holder);
    if (entry === undefined) throw new Error('released by somebody who does not hold');
    this.#entries.delete(holder);
    if (entry.end > entry.start) this.#displace(entry);
    if (entry.followers === undefined) return NOBODY;
    const lucky: T[] = [];
    for (const follower of entry.followers) {
      follower.waitsFor -= 1;
      // One that has given up is gone, and still in the list.
      if (follower.waitsFor === 0 && this.#entries.get(follower.holder) === follower)
        lucky.push(follower.holder);
    }
    return lucky;
  }

  /** Whether `acquire` would have to wait: somebody holds a part of the range, or waits for it. */
  isHeld(range: Range): boolean {
    if (range.length === 0) return false;
    return this.#search(entryOf(undefined as T, range), undefined);
  }

  // ── who overlaps ─────────────────────────────────────────────────────────────────────────────────────────

  /** Whether anybody overlaps; `visit` is called with each once. */
  #search(entry: Entry<T>, visit: ((entry: Entry<T>, before: Entry<T>) => void) | undefined): boolean {
    this.#searches += 1;
    if (isWide(entry)) {
      let found = false;
      for (const before of this.#entries.values()) {
        if (before === entry || !overlaps(entry, before)) continue;
        found = true;
        visit?.(entry, before);
      }
      return found;
    }
    let found = this.#searchList(this.#wide, entry, visit);
    for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
      const list = this.#buckets.get(bucket);
      if (list !== undefined && this.#searchList(list, entry, visit)) found = true;
    }
    return found;
  }

  #searchList(
    list: readonly Entry<T>[],
    entry: Entry<T>,
    visit: ((entry: Entry<T>, before: Entry<T>) => void) | undefined,
  ): boolean {
    let found = false;
    for (const before of list) {
      if (!overlaps(entry, before) || before.foundBy === this.#searches) continue;
      before.foundBy = this.#searches;
      found = true;
      visit?.(entry, before);
    }
    return found;
  }

  #place(entry: Entry<T>): void {
    if (isWide(entry)) {
      this.#wide.push(entry);
      return;
    }
    for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
      const list = this.#buckets.get(bucket);
      if (list !== undefined) {
        list.push(entry);
        continue;
      }
      const made = this.#spare.pop() ?? [];
      made.push(entry);
      this.#buckets.set(bucket, made);
    }
  }

  #displace(entry: Entry<T>): void {
    if (isWide(entry)) {
      remove(this.#wide, entry);
      return;
    }
    for (let bucket = entry.firstBucket; bucket <= entry.lastBucket; bucket++) {
      const list = this.#buckets.get(bucket) as Entry<T>[];
      remove(list, entry);
      if (list.length > 0) continue;
      this.#buckets.delete(bucket);
      if (this.#spare.length < SPARE_MAX) this.#spare.push(list);
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
