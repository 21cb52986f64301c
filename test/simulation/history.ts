/**
 * What hosts have been told about each sector, and so what may be read there: the first oracle.
 *
 * 1. A write may be seen from when it was started. It may not be seen any more by who begins to read after one was answered that was started
 *    after this one's end. A write that failed or was given up may be seen until then, or never.
 * 2. Who has read a write that was answered has not to see any that had been answered before the reading began.
 * 3. Where the rules allow a loss (`license`), what a flush has covered remains: the writes since then may all be seen again, until one
 *    of them has been.
 */

import { type HOT_SECTORS, SECTOR_BYTES } from './layout.ts';

export interface WriteEntry {
  readonly id: number;
  /** What is in the sector: the write's number, or 0 for zeros. */
  readonly content: number;
  readonly startedMs: number;
  endedMs: number;
  isAnswered: boolean;
}

interface SectorEntry {
  readonly write: WriteEntry;
  supersededMs: number;
  /** A flush that was answered covers what superseded it. */
  isBuried: boolean;
}

const FIRST: WriteEntry = { id: 0, content: 0, startedMs: -1, endedMs: -1, isAnswered: true };

export class History {
  readonly #sectors = new Map<number, SectorEntry[]>();
  readonly #touched = new Map<number, number[]>();
  readonly #open = new Set<WriteEntry>();
  #writes = 0;
  #cutMs = Number.NEGATIVE_INFINITY;

  constructor(sectors: typeof HOT_SECTORS) {
    for (const sector of sectors) {
      this.#sectors.set(sector, [{ write: FIRST, supersededMs: Number.POSITIVE_INFINITY, isBuried: false }]);
    }
  }

  /** Sectors from `first` up to `end` are being written, or zeroed. */
  start(first: number, end: number, isZero: boolean, nowMs: number): WriteEntry {
    const id = ++this.#writes;
    const write: WriteEntry = {
      id,
      content: isZero ? 0 : id,
      startedMs: nowMs,
      endedMs: Number.POSITIVE_INFINITY,
      isAnswered: false,
    };
    const touched: number[] = [];
    for (let sector = first; sector < end; sector++) {
      this.#entries(sector).push({ write, supersededMs: Number.POSITIVE_INFINITY, isBuried: false });
      touched.push(sector);
    }
    this.#touched.set(id, touched);
    this.#open.add(write);
    return write;
  }

  answer(write: WriteEntry, nowMs: number, isDurable: boolean): void {
    write.endedMs = nowMs;
    write.isAnswered = true;
    this.#open.delete(write);
    for (const sector of this.#touched.get(write.id) ?? []) {
      for (const entry of this.#entries(sector)) {
        if (entry.write.endedMs >= write.startedMs) continue;
        entry.supersededMs = Math.min(entry.supersededMs, nowMs);
        if (isDurable) entry.isBuried = true;
      }
    }
  }

  /** These are being cut off: who has begun to read them may see that already. */
  cut(sectors: Iterable<number>, nowMs: number): void {
    this.#cutMs = nowMs;
    const write = { id: ++this.#writes, content: 0, startedMs: nowMs, endedMs: nowMs, isAnswered: false };
    for (const sector of sectors) {
      this.#entries(sector).push({ write, supersededMs: Number.POSITIVE_INFINITY, isBuried: false });
    }
  }

  /** They are there again, as if they had never been written, but for what was still under way when they were cut off. */
  zeroed(sectors: Iterable<number>, nowMs: number): void {
    const write = { id: ++this.#writes, content: 0, startedMs: nowMs, endedMs: nowMs, isAnswered: true };
    for (const sector of sectors) {
      for (const entry of this.#entries(sector)) {
        if (entry.write.endedMs > this.#cutMs) continue;
        entry.supersededMs = Math.min(entry.supersededMs, nowMs);
        entry.isBuried = true;
      }
      this.#entries(sector).push({ write, supersededMs: Number.POSITIVE_INFINITY, isBuried: false });
    }
  }

  fail(write: WriteEntry, nowMs: number): void {
    write.endedMs = nowMs;
    this.#open.delete(write);
  }

  /** All that was answered before `startedMs` is on the disks. */
  flushed(startedMs: number): void {
    for (const entries of this.#sectors.values()) {
      for (const entry of entries) if (entry.supersededMs <= startedMs) entry.isBuried = true;
    }
  }

  /** Undefined when it may be so. */
  objection(sector: number, content: number, sinceMs: number): string | undefined {
    const entries = this.#entries(sector);
    for (let index = entries.length - 1; index >= 0; index--) {
      const entry = entries[index]!;
      if (entry.write.content === content && entry.supersededMs >= sinceMs) return undefined;
    }
    const allowed = entries.filter((entry) => entry.supersededMs >= sinceMs).map(describe);
    const found = entries.filter((entry) => entry.write.content === content).map(describe);
    return `sector ${sector} (block ${Math.floor((sector * SECTOR_BYTES) / 4096)}) holds ${found.join(' ') || content}, and may hold ${allowed.join(' ')}`;
  }

  /** A host has read this, having begun at `startedMs`. */
  read(sector: number, content: number, startedMs: number, nowMs: number): string | undefined {
    const objection = this.objection(sector, content, startedMs);
    if (objection !== undefined) return objection;
    const entries = this.#entries(sector);
    const seen = entries.filter(
      (entry) => entry.write.content === content && entry.supersededMs >= startedMs,
    );
    const [only] = seen;
    if (seen.length !== 1 || only === undefined || !only.write.isAnswered) return undefined;
    for (const entry of entries) {
      if (entry !== only && entry.write.isAnswered && entry.write.endedMs < startedMs) {
        entry.supersededMs = Math.min(entry.supersededMs, nowMs);
      }
    }
    return undefined;
  }

  /** What was written and not flushed may be lost in these sectors; all that ever was there, when not even what was flushed has to remain. */
  license(sectors: Iterable<number>, mayLoseFlushed: boolean): void {
    for (const sector of sectors) {
      for (const entry of this.#entries(sector)) {
        if (mayLoseFlushed) entry.isBuried = false;
        if (!entry.isBuried) entry.supersededMs = Number.POSITIVE_INFINITY;
      }
    }
  }

  sectors(): Iterable<number> {
    return this.#sectors.keys();
  }

  #entries(sector: number): SectorEntry[] {
    const entries = this.#sectors.get(sector);
    if (entries === undefined) throw new Error(`sector ${sector} is none that hosts use`);
    return entries;
  }
}

function describe(entry: SectorEntry): string {
  const { id, content, startedMs, endedMs, isAnswered } = entry.write;
  const end =
    endedMs === Number.POSITIVE_INFINITY ? '' : `${endedMs.toFixed(1)}${isAnswered ? '' : ' failed'}`;
  const fate =
    entry.supersededMs === Number.POSITIVE_INFINITY ? '' : ` gone ${entry.supersededMs.toFixed(1)}`;
  return `#${id}${content === 0 ? ' (zeros)' : ''}[${startedMs.toFixed(1)}..${end}${fate}]`;
}
