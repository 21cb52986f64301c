/**
 * Makes durable what members must not forget: those that ask in one turn of the event loop together, since each transaction
 * waits for the disk.
 */

import type { RealVolumeId } from '../control-protocol/names.ts';
import { StoreError } from '../model/errors.ts';
import type { DurableState } from '../replication/effects.ts';
import type { RealVolumeTable } from './real-volume-table.ts';

export class MemberKeeper {
  readonly #table: Pick<RealVolumeTable, 'keepMembers'>;
  #states = new Map<RealVolumeId, DurableState>();
  #kept: PromiseWithResolvers<void> | undefined;

  constructor(table: Pick<RealVolumeTable, 'keepMembers'>) {
    this.#table = table;
  }

  /** One at a time for each member. @throws StoreError: nothing of it is durable, or all of it */
  keep(id: RealVolumeId, state: DurableState): Promise<void> {
    this.#states.set(id, state);
    if (this.#kept === undefined) {
      this.#kept = Promise.withResolvers();
      setImmediate(() => this.#keepAll());
    }
    return this.#kept.promise;
  }

  #keepAll(): void {
    const [states, kept] = [this.#states, this.#kept];
    this.#states = new Map();
    this.#kept = undefined;
    try {
      this.#table.keepMembers(states);
      kept?.resolve();
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      kept?.reject(error);
    }
  }
}
