/**
 * Whether a connection's reads are worth trying at once. A try that misses is not free: the kernel starts the disk's
 * work from within it, on the event loop, while other clients wait. So a connection that has missed a few times in a
 * row has its reads done on the thread pool untried, all but a few, which find out when that has changed.
 */

const MISSES_IN_A_ROW = 4;
const TRY_ONE_OF = 16;

export class MissStreak {
  #misses = 0;

  /** A read is to be done: try it at once? */
  mayHit(): boolean {
    if (this.#misses < MISSES_IN_A_ROW) return true;
    this.#misses += 1;
    return this.#misses % TRY_ONE_OF === 0;
  }

  hit(): void {
    this.#misses = 0;
  }

  missed(): void {
    this.#misses += 1;
  }

  /** Reads are being done untried. */
  get isOn(): boolean {
    return this.#misses >= MISSES_IN_A_ROW;
  }
}
