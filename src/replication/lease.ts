/**
 * Lease: how long a primary may serve (I11).
 *
 * Invariant: `untilMs` is leaseMs after the sending of a question that the directory has answered, or of one that every member which may be
 * in step has answered, whichever is later. Without such a member nobody can be made primary, and it has no end.
 */

import type { Pair } from './pair.ts';

export class Lease {
  untilMs = Number.NEGATIVE_INFINITY;
  #grantedMs = Number.NEGATIVE_INFINITY;
  readonly #leaseMs: () => number;

  constructor(leaseMs: () => number) {
    this.#leaseMs = leaseMs;
  }

  /** By the directory, asked at `sentMs`. */
  granted(sentMs: number): void {
    this.#grantedMs = Math.max(this.#grantedMs, sentMs);
  }

  /** After something has changed. */
  update(mayBeInStep: readonly Pair[]): void {
    let membersMs = Number.POSITIVE_INFINITY;
    for (const pair of mayBeInStep) membersMs = Math.min(membersMs, pair.grantedMs);
    this.untilMs = Math.max(this.#grantedMs, membersMs) + this.#leaseMs();
  }

  holds(nowMs: number): boolean {
    return nowMs < this.untilMs;
  }
}
