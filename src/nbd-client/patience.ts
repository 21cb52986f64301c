/**
 * How long an operation waits that was lost with its connection: until reconnectMs after it was lost first, or a part of that more.
 */

import type { Operation } from './operation.ts';

/** A connection that is silent, and an operation that was lost, may take a part of reconnectMs more: one of so many. */
export const WATCHES = 4;

export class Patience {
  readonly #reconnectMs: number;
  readonly #runOut: () => void;
  #timer: NodeJS.Timeout | undefined;

  /** `runOut` is called when it has, with an operation that was watched. */
  constructor(reconnectMs: number, runOut: () => void) {
    this.#reconnectMs = reconnectMs;
    this.#runOut = runOut;
  }

  /** What was lost well before `nowMs` for the first time has less time left than a loss at `nowMs` gives. */
  watch(waiting: readonly Operation[], nowMs: number): void {
    let firstMs = nowMs;
    for (const { lostAtMs } of waiting) firstMs = Math.min(firstMs, lostAtMs ?? nowMs);
    if (nowMs - firstMs < this.#reconnectMs / WATCHES) return;
    clearTimeout(this.#timer);
    const waitMs = Math.ceil(firstMs + this.#reconnectMs - performance.now());
    this.#timer = setTimeout(this.#runOut, Math.max(0, waitMs));
  }

  hasRunOut({ lostAtMs }: Operation): boolean {
    return lostAtMs !== undefined && performance.now() - lostAtMs >= this.#reconnectMs;
  }

  end(): void {
    clearTimeout(this.#timer);
  }
}
