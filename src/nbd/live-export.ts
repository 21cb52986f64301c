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

import { LooseList, type Placed } from '../base/loose-list.ts';
import { assert } from '../model/errors.ts';
import type { Volume } from '../model/volume.ts';
import { PIECE_BYTES, SLAB_BYTES_MAX } from './slab-pool.ts';

/** Who changes things: a connection. */
export interface EffectOwner {
  /** How many of the export's changes are its own: LiveExport counts here. */
  ownChanges: number;
  /** The client has closed its side, or the connection has failed, read so far or not. */
  hasGone(): boolean;
}

/** An effect on the volume that is under way: bytes [offset, end). */
export interface Effect extends Placed {
  readonly offset: number;
  readonly end: number;
  readonly owner: EffectOwner;
  isOrphan: boolean;
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
  /**
   * Each operation is a journey of its own, to another server: what fits into one slab is read with one, payloads are
   * gathered before they are written, and holes are looked for only where they may be worth another.
   */
  readonly distant?: boolean;
  /** What is written goes a way besides that costs the same for much and little: payloads are gathered before they are written. */
  readonly gathers?: boolean;
  /** Is told of the Volume's use. Exports of one Volume have the same. */
  readonly users?: ExportUsers;
}

/**
 * Told when a Volume comes into use and goes out of it, in turns. The calls come from the server and must not fail.
 * Who gives this owns the flush of what has ended: the server has forgotten it. What is in use when the server is
 * stopped is flushed by the server, and ends then.
 */
export interface ExportUsers {
  /** The first connection enters the transmission phase. */
  begun(): void;
  /**
   * The last connection has ended, nothing that was done for one is under way (also no orphaned write), and no other
   * one is about to begin with the Volume that `find` gave it: it may be closed.
   */
  ended(): void;
}

/** A connection, from when `find` has answered it until nothing that was done for it is under way. */
export interface ExportUser {
  /** Closes at once. */
  destroy(reason: string): void;
}

/** To send zeroes costs less than to ask a distant volume whether there are any, below this. */
const DISTANT_HOLE_BYTES_MIN = 2 * 1024 * 1024;

export class LiveExport {
  /** One of its names. */
  readonly name: string;
  readonly volume: Volume;
  /** What is read with one operation. */
  readonly readBytesMax: number;
  /** What is gathered of a payload before it is written; 0: written as it comes. */
  readonly gatherBytes: number;
  readonly #holeBytesMin: number;
  readonly #onUnused: () => void;
  readonly #users = new Set<ExportUser>();
  /** Each waits until the last of its users has left. */
  readonly #departures = new Set<{ readonly staying: Set<ExportUser>; readonly over: () => void }>();
  /** The first that was connected to; its `users` have been told. */
  #begunFor: NbdExport | undefined;
  #connections = 0;
  #changes = 0;
  readonly #underWay = new LooseList<Effect>();
  readonly #waiters = new Set<() => void>();

  /** `onUnused` is called each time the last user has left. */
  constructor({ name, volume, distant, gathers }: NbdExport, onUnused: () => void) {
    this.name = name;
    this.volume = volume;
    this.readBytesMax = distant ? SLAB_BYTES_MAX : PIECE_BYTES;
    this.gatherBytes = distant || gathers ? SLAB_BYTES_MAX : 0;
    this.#holeBytesMin = distant ? DISTANT_HOLE_BYTES_MIN : 0;
    this.#onUnused = onUnused;
  }

  /** Holes are worth asking for. */
  mayHaveHoles(offset: number, length: number): boolean {
    return length >= this.#holeBytesMin && this.volume.mayHaveHoles(offset, length);
  }

  // --- users -----------------------------------------------------------------------------------------------

  /** Connections in the transmission phase. */
  get connections(): number {
    return this.#connections;
  }

  get isUsed(): boolean {
    return this.#users.size > 0;
  }

  /** A connection has been in the transmission phase. */
  get hasBegun(): boolean {
    return this.#begunFor !== undefined;
  }

  /** Somebody wants to know when it has ended, and sees to the flush then. */
  get hasOwner(): boolean {
    return this.#begunFor?.users !== undefined;
  }

  enter(user: ExportUser): void {
    this.#users.add(user);
  }

  leave(user: ExportUser): void {
    if (!this.#users.delete(user)) return;
    for (const departure of this.#departures) {
      departure.staying.delete(user);
      if (departure.staying.size > 0) continue;
      this.#departures.delete(departure);
      departure.over();
    }
    if (this.#users.size === 0) this.#onUnused();
  }

  /** A user enters the transmission phase. */
  connected(nbdExport: NbdExport): void {
    this.#connections += 1;
    if (this.#begunFor !== undefined) return;
    this.#begunFor = nbdExport;
    nbdExport.users?.begun();
  }

  disconnected(): void {
    this.#connections -= 1;
  }

  /** Closes the connections of all users at once; resolves when those have left. Others may have come meanwhile. */
  disconnectAll(reason: string): Promise<void> {
    const staying = new Set(this.#users);
    if (staying.size === 0) return Promise.resolve();
    return new Promise((over) => {
      this.#departures.add({ staying, over });
      for (const user of [...staying]) user.destroy(reason);
    });
  }

  end(): void {
    assert(!this.isUsed, 'an export ends when nobody uses it');
    this.#begunFor?.users?.ended();
  }

  // --- the fence -------------------------------------------------------------------------------------------

  /** True when bytes [offset, offset + length) are still being changed for a connection that is gone. */
  isFenced(offset: number, length: number, asker: EffectOwner): boolean {
    if (this.#underWay.size === 0) return false;
    for (const effect of this.#underWay) {
      if (effect.offset >= offset + length || offset >= effect.end) continue;
      if (effect.isOrphan) return true;
      if (effect.owner === asker || !effect.owner.hasGone()) continue;
      effect.isOrphan = true;
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

  begun(owner: EffectOwner, offset: number, end: number): Effect {
    const effect = { offset, end, owner, isOrphan: false, place: 0 };
    this.#underWay.add(effect);
    this.changedBy(owner);
    return effect;
  }

  /** The owner's client has given up. */
  orphanAllOf(owner: EffectOwner): void {
    for (const effect of this.#underWay) if (effect.owner === owner) effect.isOrphan = true;
  }

  /** The effect has finished, orphan or not. */
  finished(effect: Effect): void {
    this.#underWay.delete(effect);
    if (!effect.isOrphan) return;
    const waiters = [...this.#waiters];
    this.#waiters.clear();
    for (const wake of waiters) wake();
  }
}
