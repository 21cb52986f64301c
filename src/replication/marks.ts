/**
 * Marks: which extents the activity log has to have marked, durably, before something in them is written; and when that may be taken back.
 *
 * Invariants
 * 1. Work is begun only when all of its extents are hot: marked durably, and not being unmarked.
 * 2. An extent is unmarked only while no work in it is unsettled, and after data and bitmaps have been flushed (the driver does).
 * 3. Nothing is marked behind the volume's end. An extent that is cut off has lost its mark: when the volume grows again while something is
 *    unsettled there, it has to be marked again.
 * 4. One `unmark` at a time. About `hotExtentsMax` extents stay marked; more only while work is in them, or until the next tick.
 */

import { EXTENT_BYTES } from '../model/copy-granularity.ts';
import type { Range } from '../peer-protocol/messages.ts';
import type { Core } from './core.ts';
import type { Work } from './work.ts';

interface Extent {
  readonly number: number;
  /** gone: cut off, and its mark with it, while something is unsettled in it. */
  state: 'marking' | 'hot' | 'unmarking' | 'gone';
  /** Cut off while it was being marked. */
  isCutOff: boolean;
  /** Unsettled work in it. */
  active: number;
  usedMs: number;
  waiting: Work[] | undefined;
}

export class Marks {
  readonly #core: Core;
  readonly #extents = new Map<number, Extent>();
  #isUnmarking = false;
  #sweptMs = 0;
  /** The first that is behind the volume's end. */
  #end = Number.POSITIVE_INFINITY;

  constructor(core: Core) {
    this.#core = core;
  }

  /** Marked by an earlier process. */
  start(extents: readonly number[], sizeBytes: number): void {
    this.#end = Math.ceil(sizeBytes / EXTENT_BYTES);
    for (const number of extents) this.#add(number, 'hot');
  }

  /** The driver has taken away the marks behind the new end. */
  resize(sizeBytes: number): void {
    this.#end = Math.ceil(sizeBytes / EXTENT_BYTES);
    for (const extent of this.#extents.values()) {
      if (extent.number < this.#end) continue;
      if (extent.state === 'marking') extent.isCutOff = true;
      else if (extent.state === 'hot') this.#lose(extent);
    }
  }

  extents(): number[] {
    return [...this.#extents.keys()];
  }

  /** Whether it may begin; if not, its owner is told when. */
  enter(work: Work): boolean {
    work.isMarked = true;
    if (work.length === 0) return true;
    const last = Math.floor((work.offset + work.length - 1) / EXTENT_BYTES);
    let cold: number[] | undefined;
    for (let number = Math.floor(work.offset / EXTENT_BYTES); number <= last; number++) {
      let extent = this.#extents.get(number);
      if (extent === undefined || extent.state === 'gone') {
        extent ??= this.#add(number, 'marking');
        extent.state = 'marking';
        cold ??= [];
        cold.push(number);
      }
      extent.active += 1;
      extent.usedMs = this.#core.nowMs;
      if (extent.state === 'hot') continue;
      work.cold += 1;
      extent.waiting ??= [];
      extent.waiting.push(work);
    }
    if (cold !== undefined) this.#mark(cold);
    return work.cold === 0;
  }

  /** It is settled, or will not be begun. */
  leave(work: Work): void {
    if (!work.isMarked) return;
    work.isMarked = false;
    this.#leaveRange(work);
  }

  /** These extents are marked already, and stay so until `release`. */
  hold(ranges: readonly Range[]): void {
    for (const range of ranges) {
      for (const number of extentsOf(range)) {
        const extent = this.#extents.get(number) ?? this.#add(number, 'hot');
        extent.active += 1;
      }
    }
  }

  release(ranges: readonly Range[]): void {
    for (const range of ranges) this.#leaveRange(range);
  }

  /** More are marked than should be. */
  get isFull(): boolean {
    return this.#extents.size > this.#core.limits.hotExtentsMax;
  }

  /** At every tick. */
  sweep(): void {
    const { nowMs, limits } = this.#core;
    const { isFull } = this;
    if (this.#isUnmarking || (!isFull && nowMs - this.#sweptMs < Math.min(limits.idleMs, 1000))) return;
    this.#sweptMs = nowMs;
    const idle: Extent[] = [];
    const unused: Extent[] = [];
    for (const extent of this.#extents.values()) {
      if (extent.active > 0 || extent.state !== 'hot') continue;
      if (nowMs - extent.usedMs >= limits.idleMs) idle.push(extent);
      else if (isFull) unused.push(extent);
    }
    const more = this.#extents.size - idle.length - Math.floor((limits.hotExtentsMax * 3) / 4);
    if (isFull && more > 0) {
      unused.sort((a, b) => a.usedMs - b.usedMs || a.number - b.number);
      idle.push(...unused.slice(0, more));
    }
    if (idle.length > 0) this.#unmark(idle);
  }

  /** `then`: data and bitmaps of this member have been flushed. */
  flush(then: () => void): void {
    const token = this.#core.unmarked.ask(then);
    this.#core.emit({ kind: 'unmark', token, extents: [] });
  }

  #add(number: number, state: Extent['state']): Extent {
    const extent: Extent = {
      number,
      state,
      isCutOff: false,
      active: 0,
      usedMs: this.#core.nowMs,
      waiting: undefined,
    };
    this.#extents.set(number, extent);
    return extent;
  }

  #leaveRange(range: Range): void {
    if (range.length === 0) return;
    const last = Math.floor((range.offset + range.length - 1) / EXTENT_BYTES);
    for (let number = Math.floor(range.offset / EXTENT_BYTES); number <= last; number++) {
      const extent = this.#extents.get(number) as Extent;
      extent.active -= 1;
      if (extent.state === 'gone') this.#lose(extent);
    }
  }

  /** It is not marked any more. */
  #lose(extent: Extent): void {
    extent.state = 'gone';
    if (extent.active === 0) this.#extents.delete(extent.number);
  }

  #mark(extents: readonly number[]): void {
    const token = this.#core.marked.ask(() => this.#marked(extents));
    this.#core.emit({ kind: 'mark', token, extents });
  }

  #marked(extents: readonly number[]): void {
    const hot: Work[] = [];
    const again: number[] = [];
    for (const number of extents) {
      const extent = this.#extents.get(number) as Extent;
      if (extent.isCutOff && number < this.#end && extent.active > 0) {
        again.push(number);
        extent.isCutOff = false;
        continue;
      }
      // Behind the end nothing is marked, and nothing has to be: what waits there fails.
      if (extent.isCutOff || number >= this.#end) this.#lose(extent);
      else extent.state = 'hot';
      extent.isCutOff = false;
      for (const work of extent.waiting ?? []) {
        work.cold -= 1;
        if (work.cold === 0) hot.push(work);
      }
      extent.waiting = undefined;
    }
    if (again.length > 0) this.#mark(again);
    for (const work of hot) work.owner.hot(work);
  }

  #unmark(extents: readonly Extent[]): void {
    this.#isUnmarking = true;
    for (const extent of extents) extent.state = 'unmarking';
    const token = this.#core.unmarked.ask(() => this.#unmarked(extents));
    this.#core.emit({ kind: 'unmark', token, extents: extents.map(({ number }) => number) });
  }

  #unmarked(extents: readonly Extent[]): void {
    this.#isUnmarking = false;
    const wanted: number[] = [];
    for (const extent of extents) {
      if (extent.active === 0) {
        this.#extents.delete(extent.number);
      } else {
        extent.state = 'marking';
        wanted.push(extent.number);
      }
    }
    if (wanted.length > 0) this.#mark(wanted);
  }
}

function extentsOf({ offset, length }: Range): number[] {
  const numbers: number[] = [];
  if (length === 0) return numbers;
  const last = Math.floor((offset + length - 1) / EXTENT_BYTES);
  for (let number = Math.floor(offset / EXTENT_BYTES); number <= last; number++) numbers.push(number);
  return numbers;
}
