/**
 * Which life of its data folder this process is. A folder that was copied, or put back from a backup, cannot know it: the directory
 * does (directory/instances.ts), from what the folder has kept of its lives. Each start is a new life, and so is each RENEW_MS of a long one,
 * so that a folder that was rolled back to a moment within one life is told from its original, too.
 *
 * Invariants
 * 1. An id is durable here before the directory is told of it. So the one that the directory has taken last is always among those that the
 *    folder knows, though the process may have ended before it heard of that; unless the folder is an older one.
 * 2. Only what the directory has taken counts, in `number`: a folder that is refused does not become newer by being started often.
 * 3. What an older folder has to forget, once it has been taken all the same (claim-name.ts), is durable here before it is claimed as restored.
 * 4. The place is that of the process whose claim was taken last. So with the lock of that place nobody else runs with what
 *    that one had.
 */

import { randomUUID } from 'node:crypto';
import type { Asker } from '../control-protocol/copy-groups.ts';
import type { InstanceClaim } from '../control-protocol/directory-api.ts';
import { StoreError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { FolderPlace } from '../storage/data-folder.ts';

/** What a folder keeps of its lives. */
export interface InstanceState {
  /** Taken by the directory, the latest, and its number there; 0: none. */
  readonly taken: string | null;
  readonly number: number;
  readonly place: FolderPlace;
  /** Later ones, of which no answer has come. */
  readonly tried: readonly string[];
  /** It has been claimed as restored, and may have been taken as such: what its members know of others has not been forgotten yet. */
  readonly isRestoring?: true;
}

export interface InstanceOptions {
  readonly table: {
    instance(): InstanceState | undefined;
    keepInstance(state: InstanceState): void;
  };
  readonly place: FolderPlace;
  readonly log: Log;
  readonly nowMs: () => number;
}

export const RENEW_MS = 60_000;
/** More starts than these in a row without an answer have one id among them. */
export const TRIED_MAX = 8;

export class Instance {
  readonly #options: InstanceOptions;
  #state: InstanceState;
  #id: string;
  #renewedAtMs: number;

  /** @throws StoreError for a folder that has no life yet */
  constructor(options: InstanceOptions) {
    const { table, place, nowMs } = options;
    this.#options = options;
    this.#state = table.instance() ?? { taken: null, number: 0, place, tried: [] };
    this.#id = this.#state.tried.at(-1) ?? this.#state.taken ?? '';
    this.#renewedAtMs = nowMs();
    this.#renew();
  }

  /**
   * Where the folder lies: where it did; elsewhere (`moved`), so that it may be a copy of one that is in use; or nobody knows which.
   */
  get whereabouts(): 'same' | 'moved' | 'unknown' {
    const [before, now] = [this.#state.place, this.#options.place];
    if (before.lock === now.lock) return 'same';
    if (before.file === null || now.file === null) return 'unknown';
    return before.file === now.file ? 'same' : 'moved';
  }

  get isRestoring(): boolean {
    return this.#state.isRestoring === true;
  }

  /** It is about to be claimed as restored. @throws StoreError */
  restoring(): void {
    this.#keepSurely({ ...this.#state, isRestoring: true });
  }

  /** It has been taken, and what was to be forgotten has been. @throws StoreError */
  restored(): void {
    const { isRestoring: _, ...state } = this.#state;
    this.#keepSurely(state);
  }

  /** What the directory is to be told now. */
  claim(): InstanceClaim {
    const { nowMs, place } = this.#options;
    const isDue = nowMs() - this.#renewedAtMs >= RENEW_MS;
    if (isDue && this.#state.taken === this.#id) this.#renew();
    const { taken, tried, number } = this.#state;
    return {
      id: this.#id,
      acknowledged: number,
      follows: [...(taken === null ? [] : [taken]), ...tried].filter((id) => id !== this.#id),
      isSamePlace: this.#state.place.lock === place.lock,
    };
  }

  /** Those that the directory may have taken last. */
  get lives(): Pick<Asker, 'acknowledged' | 'lives'> {
    const { taken, tried, number } = this.#state;
    return { acknowledged: number, lives: [...(taken === null ? [] : [taken]), ...tried] };
  }

  /** The directory has taken what was claimed, as its number `told`. */
  taken({ id, acknowledged }: InstanceClaim, told?: number): void {
    const isKnown = id === this.#state.taken;
    const number = told ?? (isKnown ? this.#state.number : acknowledged + 1);
    if (isKnown && number === this.#state.number) return;
    this.#keep({ ...this.#state, taken: id, number, place: this.#options.place, tried: [] });
  }

  /** Without a new one, when there are too many that have had no answer, or the disk does not take it. */
  #renew(): void {
    const { tried } = this.#state;
    const id = randomUUID();
    this.#renewedAtMs = this.#options.nowMs();
    if (tried.length < TRIED_MAX && this.#keep({ ...this.#state, tried: [...tried, id] })) this.#id = id;
  }

  #keep(state: InstanceState): boolean {
    try {
      this.#keepSurely(state);
      return true;
    } catch (error) {
      if (!(error instanceof StoreError) || this.#id === '') throw error;
      const { log } = this.#options;
      log.warn({ error: error.message }, 'which life of the data folder this is could not be kept');
      return false;
    }
  }

  #keepSurely(state: InstanceState): void {
    this.#options.table.keepInstance(state);
    this.#state = state;
  }
}
