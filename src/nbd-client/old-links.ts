/**
 * Connections to a target of before that may still answer what they have in flight, since the older server goes on with it
 * (a retarget with `finishMs`). Nothing more is sent on them.
 *
 *   kept -> left   all is answered: it says goodbye
 *   kept -> dead   lost, or dropped: by the end of finishMs, or by a retarget that trusts the older server no longer; what was
 *                  in flight is given back to the pool (LinkOwner.lost), which sends it to the target of now
 */

import type { Link } from './link.ts';

export class OldLinks {
  readonly #timers = new Map<Link, NodeJS.Timeout>();
  readonly #leaving = new Set<Promise<void>>();

  get size(): number {
    return this.#timers.size;
  }

  keep(link: Link, finishMs: number): void {
    const late = new Error(`what it had in hand was not answered within ${finishMs} ms of the move`);
    this.#timers.set(
      link,
      setTimeout(() => link.drop(late), finishMs),
    );
    this.letGo();
  }

  /** Those that owe nothing leave: to be called when something was answered. */
  letGo(): void {
    for (const link of [...this.#timers.keys()]) {
      if (link.inFlight > 0) continue;
      this.forget(link);
      const leaving = link.leave();
      this.#leaving.add(leaving);
      void leaving.then(() => this.#leaving.delete(leaving));
    }
  }

  /** Whether it was one of them. */
  forget(link: Link): boolean {
    clearTimeout(this.#timers.get(link));
    return this.#timers.delete(link);
  }

  drop(reason: Error): void {
    for (const link of [...this.#timers.keys()]) link.drop(reason);
  }

  /** Resolves when those that leave have left. */
  async left(): Promise<void> {
    await Promise.all(this.#leaving);
  }
}
