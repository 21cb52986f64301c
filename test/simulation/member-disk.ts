/**
 * What of a member outlives its process: files in the page cache, which a power loss takes back to any mixture of what was flushed and what
 * came later, sector by sector; and what is durable when it says so (the member's state, and the marks of the activity log).
 */

import type { MemberId, Range } from '../../src/peer-protocol/messages.ts';
import type { DurableState } from '../../src/replication/effects.ts';
import type { SeededRandom } from '../support/random.ts';
import { blocksOf, extentRange, rangesOf } from './layout.ts';

interface Change {
  readonly version: number;
  readonly key: number;
  readonly value: number;
}

/** A file of numbers, 0 where nothing was written. Keys of one unit are torn together: a unit becomes durable as of one moment. */
export class CachedFile {
  readonly #unitKeys: number;
  #cache = new Map<number, number>();
  #durable = new Map<number, number>();
  #unflushed = new Map<number, Change[]>();
  #version = 0;

  constructor(unitKeys: number) {
    this.#unitKeys = unitKeys;
  }

  get(key: number): number {
    return this.#cache.get(key) ?? 0;
  }

  keys(): Iterable<number> {
    return this.#cache.keys();
  }

  set(key: number, value: number): void {
    if (this.get(key) === value) return;
    put(this.#cache, key, value);
    const unit = Math.floor(key / this.#unitKeys);
    const change = { version: ++this.#version, key, value };
    const changes = this.#unflushed.get(unit);
    if (changes === undefined) this.#unflushed.set(unit, [change]);
    else changes.push(change);
  }

  /** What has been written until now is durable once `endFlush` is called with the number returned. */
  beginFlush(): number {
    return this.#version;
  }

  endFlush(version: number): void {
    for (const [unit, changes] of this.#unflushed) {
      const later = changes.filter((change) => change.version > version);
      for (const change of changes.slice(0, changes.length - later.length))
        put(this.#durable, change.key, change.value);
      if (later.length === 0) this.#unflushed.delete(unit);
      else this.#unflushed.set(unit, later);
    }
  }

  losePower(random: SeededRandom): void {
    for (const changes of this.#unflushed.values()) {
      // Most often nothing of it or all of it was written back: the mixtures in between are for chance.
      const kept =
        random.below(3) === 0 ? random.below(changes.length + 1) : random.below(2) * changes.length;
      for (const change of changes.slice(0, kept)) put(this.#durable, change.key, change.value);
    }
    this.#unflushed.clear();
    this.#cache = new Map(this.#durable);
  }
}

function put(map: Map<number, number>, key: number, value: number): void {
  if (value === 0) map.delete(key);
  else map.set(key, value);
}

/** Bits whose sector holds the bits of this many blocks: fewer than in the real file, so that more is torn. */
const BITS_UNIT_BLOCKS = 8;

export class MemberDisk {
  readonly data = new CachedFile(1);
  readonly bits = new Map<MemberId, CachedFile>();
  readonly marks = new Set<number>();
  durable: DurableState | undefined;
  /** Journal of unsettled ranges: in the page cache, and gone with it. */
  journal = new Map<string, Range>();
  /** Since it last was known to be as it should be. */
  hasLostCache = false;

  /** Returns how many blocks had another bit before. */
  setBits(member: MemberId, ranges: readonly Range[], isSet: boolean): number {
    let file = this.bits.get(member);
    if (file === undefined) {
      file = new CachedFile(BITS_UNIT_BLOCKS);
      this.bits.set(member, file);
    }
    let changed = 0;
    const value = isSet ? 1 : 0;
    for (const block of ranges.flatMap(blocksOf)) {
      if (file.get(block) === value) continue;
      file.set(block, value);
      changed++;
    }
    return changed;
  }

  lacks(): Map<MemberId, Range[]> {
    return new Map([...this.bits].map(([member, file]) => [member, rangesOf(file.keys())]));
  }

  /** What may differ from others for all that this member knows after a start: its journal, or what was marked. */
  unsettled(): Range[] {
    const ranges = [...this.journal.values()];
    if (this.hasLostCache) ranges.push(...[...this.marks].sort((a, b) => a - b).map(extentRange));
    return rangesOf(new Set(ranges.flatMap(blocksOf)));
  }

  losePower(random: SeededRandom): void {
    this.data.losePower(random);
    for (const file of this.bits.values()) file.losePower(random);
    this.journal.clear();
    this.hasLostCache = true;
  }
}
