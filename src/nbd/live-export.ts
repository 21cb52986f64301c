/**
 * An export as its connections share it, and the fence between them (SPEC N4).
 *
 * The Linux client sends the requests of a dead connection again on another one. A write of the dead connection
 * that is still under way in the thread pool could then land behind a newer one. So:
 *  1. When a connection dies, its writes under way become orphans.
 *  2. A request that overlaps an orphan waits, on whatever connection, until the orphan has finished.
 *  3. The kernel knows of a death before the event loop comes to it (and a connection that is not read from, because
 *     it is stalled, would not be told at all). So a request that overlaps a write of another connection asks.
 *  4. Input is used only when its connection is alive, or when nobody else has changed anything since it was last
 *     seen to be.
 */

import type { Volume } from '../model/volume.ts';

/** Who changes things: a connection. */
export interface EffectOwner {
  /** How many of the export's changes are its own: LiveExport counts here. */
  ownChanges: number;
  /** The client has closed its side, or the connection has failed, read so far or not. */
  hasGone(): boolean;
}

/** An effect on the volume that is under way: bytes [offset, end). */
export interface Effect {
  readonly offset: number;
  readonly end: number;
  readonly owner: EffectOwner;
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
  #changes = 0;
  readonly #underWay = new Set<Effect>();
  readonly #orphans = new Set<Effect>();
  readonly #waiters = new Set<() => void>();

  constructor(volume: Volume) {
    this.volume = volume;
  }

  /** True when bytes [offset, offset + length) are still being changed for a connection that is gone. */
  isFenced(offset: number, length: number, asker: EffectOwner): boolean {
    if (this.#underWay.size === 0) return false;
    for (const effect of this.#underWay) {
      if (effect.offset >= offset + length || offset >= effect.end) continue;
      if (this.#orphans.has(effect)) return true;
      if (effect.owner === asker || !effect.owner.hasGone()) continue;
      this.#orphans.add(effect);
      return true;
    }
    return false;
  }

  /** A change is made, or begun. */
  changedBy(owner: EffectOwner): void {
    this.#changes += 1;
    owner.ownChanges += 1;
  }

  /** How many changes others than `owner` have made or begun. */
  changesByOthers(owner: EffectOwner): number {
    return this.#changes - owner.ownChanges;
  }

  /** Calls back once, when an orphan has finished; the same callback given twice is one. */
  waitForOrphans(callback: () => void): void {
    this.#waiters.add(callback);
  }

  begun(effect: Effect): void {
    this.#underWay.add(effect);
    this.changedBy(effect.owner);
  }

  orphan(effect: Effect): void {
    this.#orphans.add(effect);
  }

  /** The effect has finished, orphan or not. */
  finished(effect: Effect): void {
    this.#underWay.delete(effect);
    if (!this.#orphans.delete(effect)) return;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }
}
