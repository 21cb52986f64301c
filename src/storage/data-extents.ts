/**
 * DataExtents: what is known to hold data and no hole, so that the hot path can tell without asking the kernel.
 *
 * Sorted, disjoint, not touching extents [start, end) in one Float64Array. Only a positive answer is kept: a
 * write anywhere keeps it true, and only what can make a hole has to `forget` its range. Who fills it notes
 * `generation` before asking the kernel, and adds nothing when that has changed since: the answer may be older
 * than a hole. A file in more pieces than EXTENTS_MAX starts over: asking again is cheap in small pieces.
 */

const EXTENTS_MAX = 4096; // 64 KiB of memory; most files need a few dozen bytes
const EXTENTS_AT_FIRST = 8;

export class DataExtents {
  #bounds: Float64Array | undefined; // start, end, start, end, …; made with the first extent
  #count = 0;
  #generation = 0;

  get generation(): number {
    return this.#generation;
  }

  covers(start: number, end: number): boolean {
    const bounds = this.#bounds;
    if (bounds === undefined) return false;
    const index = this.#firstEndingAtOrAfter(end);
    return index < this.#count && (bounds[2 * index] as number) <= start;
  }

  add(start: number, end: number): void {
    if (this.#count === EXTENTS_MAX) this.#count = 0;
    const bounds = this.#withRoom();
    const first = this.#firstEndingAtOrAfter(start);
    let after = first;
    let newStart = start;
    let newEnd = end;
    while (after < this.#count && (bounds[2 * after] as number) <= end) {
      newStart = Math.min(newStart, bounds[2 * after] as number);
      newEnd = Math.max(newEnd, bounds[2 * after + 1] as number);
      after += 1;
    }
    bounds.copyWithin(2 * (first + 1), 2 * after, 2 * this.#count);
    this.#count += 1 - (after - first);
    bounds[2 * first] = newStart;
    bounds[2 * first + 1] = newEnd;
  }

  /** The range may have holes from now on. */
  forget(start: number, end: number): void {
    this.#generation += 1;
    const bounds = this.#bounds;
    if (bounds === undefined) return;
    const before = bounds.slice(0, 2 * this.#count);
    this.#count = 0;
    for (let index = 0; index < before.length; index += 2) {
      const from = before[index] as number;
      const to = before[index + 1] as number;
      if (to <= start || from >= end) this.add(from, to);
      else {
        if (from < start) this.add(from, start);
        if (to > end) this.add(end, to);
      }
    }
  }

  /** Index of the first extent with end >= position; #count when there is none. */
  #firstEndingAtOrAfter(position: number): number {
    const bounds = this.#bounds as Float64Array;
    let low = 0;
    let high = this.#count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((bounds[2 * middle + 1] as number) >= position) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #withRoom(): Float64Array {
    const old = this.#bounds;
    if (old !== undefined && 2 * this.#count < old.length) return old;
    // 2 * length bounds = twice the extents
    const grown = new Float64Array(old === undefined ? 2 * EXTENTS_AT_FIRST : 2 * old.length);
    if (old !== undefined) grown.set(old);
    this.#bounds = grown;
    return grown;
  }
}
