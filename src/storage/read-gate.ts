/**
 * How many reads of one file the thread pool works on at a time: as many as keep the disk busy, and no more. More
 * threads than that only take the processors away from the event loop, and so from every other client.
 *
 * By Little's law that is the rate that the event loop can keep up with, times the time that the disk takes. The
 * shortest of the latest reads tells it: the others have waited for processors as well.
 */

import { Gate } from './gate.ts';

/** Reads per millisecond that one event loop hands to the pool and takes back. */
const READS_PER_MS = 20;
const AT_ONCE_MIN = 4;
/** One file must not take the pool from all others. */
const AT_ONCE_MAX = 16;
/** Reads that the shortest is found among. */
const WINDOW = 64;

export class ReadGate {
  readonly #gate = new Gate(AT_ONCE_MIN);
  #seen = 0;
  #shortestMs = Number.POSITIVE_INFINITY;

  /** Runs `read` when its turn has come. */
  run<T>(read: () => Promise<T>): Promise<T> {
    return this.#gate.run(async () => {
      const startedMs = performance.now();
      try {
        return await read();
      } finally {
        this.#learn(performance.now() - startedMs);
      }
    });
  }

  #learn(tookMs: number): void {
    this.#shortestMs = Math.min(this.#shortestMs, tookMs);
    this.#seen += 1;
    if (this.#seen < WINDOW) return;
    const enough = Math.ceil(this.#shortestMs * READS_PER_MS);
    this.#gate.atOnce = Math.min(AT_ONCE_MAX, Math.max(AT_ONCE_MIN, enough));
    this.#seen = 0;
    this.#shortestMs = Number.POSITIVE_INFINITY;
  }
}
