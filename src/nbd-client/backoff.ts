/** Pauses between attempts to connect: none, then short ones, then longer ones. */

const MIN_MS = 10;
const MAX_MS = 1000;
/** For so long after a retarget, pauses are at most so long. */
const EAGER_MS = 10_000;
const EAGER_MAX_MS = 50;

/** A connection that has lived for so long was a good one: the next attempt after it needs no pause. */
export const SETTLED_MS = MAX_MS;

export class Backoff {
  #nextMs = 0;
  #eagerUntilMs = 0;

  /** The pause that is due now. */
  next(): number {
    const waitMs = this.#nextMs;
    const maxMs = performance.now() < this.#eagerUntilMs ? EAGER_MAX_MS : MAX_MS;
    this.#nextMs = Math.min(maxMs, Math.max(MIN_MS, waitMs * 2));
    return waitMs;
  }

  reset(): void {
    this.#nextMs = 0;
  }

  /** There is another server to ask, which may be about to be ready. */
  beEager(): void {
    this.#nextMs = 0;
    this.#eagerUntilMs = performance.now() + EAGER_MS;
  }
}
