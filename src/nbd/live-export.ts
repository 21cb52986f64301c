/**
 * An export as its connections share it, and the fence between them (SPEC N4).
 *
 * The Linux client sends the requests of a dead connection again on another one. A write of the dead connection
 * that is still under way in the thread pool could then land behind a newer one. So:
 *  1. When a connection dies, its writes under way become orphans.
 *  2. A request that overlaps an orphan waits, on whatever connection, until the orphan has finished.
 */

import type { Volume } from '../model/volume.ts';

/** An effect on the volume that is under way: bytes [offset, end). */
export interface Effect {
  readonly offset: number;
  readonly end: number;
}

/** What a server offers under a name. */
export interface NbdExport {
  /** Canonical name, as LIST shows it. */
  readonly name: string;
  /** For people. */
  readonly description?: string;
  readonly volume: Volume;
  /** Refuse writes although the volume takes them. */
  readonly readOnly?: boolean;
}

export class LiveExport {
  readonly volume: Volume;
  /** Connections in the transmission phase. */
  connections = 0;
  readonly #orphans = new Set<Effect>();
  readonly #waiters = new Set<() => void>();

  constructor(volume: Volume) {
    this.volume = volume;
  }

  /** True when bytes [offset, offset + length) are still being changed for a connection that is gone. */
  isFenced(offset: number, length: number): boolean {
    if (this.#orphans.size === 0) return false;
    for (const orphan of this.#orphans) {
      if (orphan.offset < offset + length && offset < orphan.end) return true;
    }
    return false;
  }

  /** Calls back once, when an orphan has finished. */
  waitForOrphans(callback: () => void): void {
    this.#waiters.add(callback);
  }

  orphan(effect: Effect): void {
    this.#orphans.add(effect);
  }

  /** The effect has finished, orphan or not. */
  finished(effect: Effect): void {
    if (!this.#orphans.delete(effect)) return;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }
}
