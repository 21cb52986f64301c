/**
 * What of a member outlives its process: files in the page cache, which a power loss takes back to any mixture of what was flushed and what
 * came later, sector by sector; and what is durable when it says so (the member's state, and the marks of the activity log).
 */

import type { MemberId, Range } from '../../src/peer-protocol/messages.ts';
import type { DurableState } from '../../src/replication/effects.ts';
import type { SeededRandom } from '../support/random.ts';
import {
  BLOCK_BYTES,
  blocksOf,
  clip,
  extentRange,
  extentsIn,
  extentsOf,
  rangesOf,
  SECTOR_BYTES,
} from './layout.ts';

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

  /** What is from there on is gone. */
  cut(fromKey: number): void {
    for (const map of [this.#cache, this.#durable]) {
      for (const key of map.keys()) if (key >= fromKey) map.delete(key);
    }
    for (const [unit, changes] of this.#unflushed) {
      this.#unflushed.set(
        unit,
        changes.filter(({ key }) => key < fromKey),
      );
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
  /** Of the real volume, in the table of its storage system; of its file; and of what is kept beside the file. A resize goes through all three. */
  rowBytes: number;
  fileBytes: number;
  folderBytes: number;
  /** Nothing can be written that takes space. */
  isFull = false;
  /** Reading fails now and then. */
  isUnreadable = false;

  constructor(sizeBytes: number) {
    this.rowBytes = sizeBytes;
    this.fileBytes = sizeBytes;
    this.folderBytes = sizeBytes;
  }

  /** What a start does with what a resize has left half-way: the row counts. */
  fit(): void {
    this.resizeFile(this.rowBytes);
    this.resizeFolder(this.fileBytes);
    for (const range of this.unsettled()) for (const extent of extentsOf(range)) this.marks.add(extent);
  }

  resizeFile(sizeBytes: number): void {
    this.fileBytes = sizeBytes;
    this.data.cut(sizeBytes / SECTOR_BYTES);
  }

  resizeFolder(sizeBytes: number): void {
    this.folderBytes = sizeBytes;
    for (const file of this.bits.values()) file.cut(Math.ceil(sizeBytes / BLOCK_BYTES));
    for (const extent of this.marks) if (extent >= extentsIn(sizeBytes)) this.marks.delete(extent);
  }

  setBits(member: MemberId, ranges: readonly Range[], isSet: boolean): void {
    let file = this.bits.get(member);
    if (file === undefined) {
      file = new CachedFile(BITS_UNIT_BLOCKS);
      this.bits.set(member, file);
    }
    for (const block of clip(ranges, this.folderBytes).flatMap(blocksOf)) file.set(block, isSet ? 1 : 0);
  }

  lacks(): Map<MemberId, Range[]> {
    return new Map(
      [...this.bits].map(([member, file]) => [member, clip(rangesOf(file.keys()), this.fileBytes)]),
    );
  }

  /** What may differ from others for all that this member knows after a start: its journal, or what was marked. */
  unsettled(): Range[] {
    const ranges = [...this.journal.values()];
    if (this.hasLostCache) ranges.push(...[...this.marks].sort((a, b) => a - b).map(extentRange));
    return clip(rangesOf(new Set(ranges.flatMap(blocksOf))), this.fileBytes);
  }

  losePower(random: SeededRandom): void {
    this.data.losePower(random);
    for (const file of this.bits.values()) file.losePower(random);
    this.journal.clear();
    this.hasLostCache = true;
  }
}
