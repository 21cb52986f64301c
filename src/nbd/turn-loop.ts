/**
 * What happens once per turn of the event loop, for all connections of a server: replies that were written
 * outside of a receive leave together, every connection gets its share of work again, and for a moment after the
 * last request, or reply, the loop does not sleep. (Waking an idle core takes longer than answering a small request: at
 * depth 1 that is most of the latency.) It stays awake politely: a client, or a server behind this one, that is woken
 * on the same processor would otherwise wait until the scheduler takes the processor away from here.
 */

import { performance } from 'node:perf_hooks'; // the global of that name is looked for at each call
import { yieldProcessor } from '../base/syscalls.ts';
import type { Outlet } from './outlet.ts';
import type { Transmission } from './transmission.ts';

/** What a client may have done for it in one turn. */
export const SHARE_BYTES = 2 * 1024 * 1024;
/** The same while no other client is connected: to stop and go on has its price. */
const SHARE_ALONE_BYTES = 8 * 1024 * 1024;

/** Replies that clients have not taken: for one of them, and for all together while they are many. */
const OUTLET_BYTES_MAX = 2 * 1024 * 1024;
const ALL_OUTLETS_BYTES = 256 * 1024 * 1024;
const OUTLET_BYTES_MIN = 256 * 1024;

export class TurnLoop {
  /** Connections in the transmission phase. */
  clients = 0;
  readonly #busyPollMs: number;
  #outlets: Outlet[] = [];
  #transmissions: Transmission[] = [];
  #scheduled = false;
  #pollUntilMs = 0;

  /** `busyPollUs`: microseconds that the loop stays awake after a request; 0 lets it sleep at once. */
  constructor(busyPollUs: number) {
    this.#busyPollMs = busyPollUs / 1000;
  }

  /** What one client may leave untaken now. */
  get outletBytesMax(): number {
    const share = ALL_OUTLETS_BYTES / this.clients;
    return Math.floor(Math.max(OUTLET_BYTES_MIN, Math.min(OUTLET_BYTES_MAX, share)));
  }

  /** A request has come in at `nowMs`, and `transmission` has worked on it. */
  worked(transmission: Transmission, nowMs: number): void {
    if (!transmission.isInTurn) {
      transmission.isInTurn = true;
      this.#transmissions.push(transmission);
    }
    this.#pollUntilMs = nowMs + this.#busyPollMs;
    this.#schedule();
  }

  /** Replies are waiting in `outlet`. */
  replied(outlet: Outlet): void {
    if (!outlet.isInTurn) {
      outlet.isInTurn = true;
      this.#outlets.push(outlet);
    }
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(this.#turn);
  }

  readonly #turn = (): void => {
    this.#scheduled = false;
    // newTurn may make a connection go on at once, and so work and reply again: those count for the next turn.
    const shareBytes = this.clients > 1 ? SHARE_BYTES : SHARE_ALONE_BYTES;
    if (this.#transmissions.length > 0) {
      const transmissions = this.#transmissions;
      this.#transmissions = [];
      for (const transmission of transmissions) transmission.isInTurn = false;
      for (const transmission of transmissions) transmission.newTurn(shareBytes);
    }
    const outlets = this.#outlets;
    if (outlets.length > 0) this.#outlets = [];
    for (const outlet of outlets) outlet.isInTurn = false;
    for (const outlet of outlets) outlet.flush();
    // Who gets an answer asks again soon, however long it took: behind a gateway that is most of the way.
    if (outlets.length > 0) this.#pollUntilMs = performance.now() + this.#busyPollMs;
    if (performance.now() < this.#pollUntilMs) {
      yieldProcessor();
      this.#schedule();
    }
  };
}
