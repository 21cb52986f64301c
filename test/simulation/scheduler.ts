/**
 * The only clock of a simulated cluster: what is to happen stands in one queue, in order of virtual time. Nothing of a run depends on
 * real time, so that a seed brings the same run again.
 */

import type { SeededRandom } from '../support/random.ts';

interface Entry {
  readonly atMs: number;
  readonly order: number;
  readonly action: () => void;
}

export class Scheduler {
  readonly random: SeededRandom;
  nowMs = 0;
  #heap: Entry[] = [];
  #order = 0;
  #executed = 0;

  constructor(random: SeededRandom) {
    this.random = random;
  }

  get executed(): number {
    return this.#executed;
  }

  after(delayMs: number, action: () => void): void {
    const entry = { atMs: this.nowMs + Math.max(0, delayMs), order: this.#order++, action };
    const heap = this.#heap;
    let index = heap.length;
    heap.push(entry);
    while (index > 0) {
      const parent = (index - 1) >> 1;
      if (!isBefore(entry, heap[parent]!)) break;
      heap[index] = heap[parent]!;
      index = parent;
    }
    heap[index] = entry;
  }

  /** Executes what comes next; false when there is nothing, or nothing until `untilMs`, and the clock says `untilMs` then. */
  step(untilMs: number): boolean {
    const first = this.#heap[0];
    if (first === undefined || first.atMs > untilMs) {
      this.nowMs = untilMs;
      return false;
    }
    this.#removeFirst();
    this.nowMs = first.atMs;
    this.#executed++;
    first.action();
    return true;
  }

  // Odds and ends of chance, so that no caller has to do arithmetic.

  chance(probability: number): boolean {
    return this.random.next() < probability;
  }

  /** In [from, to). */
  between(from: number, to: number): number {
    return from + this.random.next() * (to - from);
  }

  pick<T>(list: readonly T[]): T | undefined {
    return list[this.random.below(list.length)];
  }

  #removeFirst(): void {
    const heap = this.#heap;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1]!, heap[child]!)) child++;
      if (!isBefore(heap[child]!, last)) break;
      heap[index] = heap[child]!;
      index = child;
    }
    heap[index] = last;
  }
}

function isBefore(one: Entry, other: Entry): boolean {
  return one.atMs < other.atMs || (one.atMs === other.atMs && one.order < other.order);
}
