/**
 * Deadlines of leases, in memory.
 *
 * A process that was stopped for a while finds its timers due before it has read what came in meanwhile. So what is due is
 * looked at once more after one turn of the event loop, in which waiting reports are taken.
 */

import type { LeaseId } from './catalog-store.ts';

interface Lease {
  readonly ttlMs: number;
  deadlineMs: number;
}

export class Leases {
  readonly #leases = new Map<LeaseId, Lease>();
  readonly #onExpired: (leases: LeaseId[]) => void;
  #timer: NodeJS.Timeout | undefined;
  #immediate: NodeJS.Immediate | undefined;

  /** `onExpired` may put them back with `grant`. */
  constructor(onExpired: (leases: LeaseId[]) => void) {
    this.#onExpired = onExpired;
  }

  grant(lease: LeaseId, ttlMs: number): void {
    this.#leases.set(lease, { ttlMs, deadlineMs: performance.now() + ttlMs });
    this.#schedule();
  }

  keepAlive(id: LeaseId): boolean {
    const lease = this.#leases.get(id);
    if (lease === undefined) return false;
    lease.deadlineMs = performance.now() + lease.ttlMs;
    return true;
  }

  /** undefined: there is no such lease. */
  ttlMsOf(id: LeaseId): number | undefined {
    return this.#leases.get(id)?.ttlMs;
  }

  close(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#immediate);
    this.#leases.clear();
  }

  #schedule(): void {
    clearTimeout(this.#timer);
    if (this.#leases.size === 0) return;
    const nextMs = Math.min(...[...this.#leases.values()].map(({ deadlineMs }) => deadlineMs));
    this.#timer = setTimeout(
      () => {
        this.#immediate = setImmediate(() => this.#expire());
      },
      Math.max(1, Math.ceil(nextMs - performance.now())),
    ).unref();
  }

  #expire(): void {
    const nowMs = performance.now();
    const due = [...this.#leases].filter(([, { deadlineMs }]) => deadlineMs <= nowMs).map(([id]) => id);
    for (const id of due) this.#leases.delete(id);
    if (due.length > 0) this.#onExpired(due);
    this.#schedule();
  }
}
