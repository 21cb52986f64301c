/**
 * OpenVolumes: which raw files are open. A storage system may have far more real volumes than descriptors.
 *
 *   closed -> opening -> open -> closing -> closed
 *
 * Invariants
 * 1. A file that has users (connections, or a change under way) is never closed, but for a failure, or to be deleted.
 *    Of the others the most recently used stay open, up to `idleMax`; the rest are flushed and closed.
 * 2. A file is never open twice: who needs it while it is being closed waits, and opens it again.
 * 3. What has been written through a file is flushed before the file is closed; a flush that fails fails the volume.
 */

import { LRUCache } from 'lru-cache';
import type { RealVolumeId } from '../control-protocol/names.ts';
import { VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { SparseFile } from '../storage/sparse-file.ts';
import type { DoorFile } from './epoch-door.ts';

export interface OpenVolumesOptions {
  /** Opens the file of a real volume; rejects with a VolumeError. */
  readonly open: (id: RealVolumeId) => Promise<SparseFile>;
  /** How many files without users stay open. */
  readonly idleMax: number;
  readonly log: Log;
}

type State =
  | { readonly kind: 'closed' }
  | { readonly kind: 'opening'; readonly opened: Promise<SparseFile> }
  | { readonly kind: 'open'; readonly volume: SparseFile }
  | { readonly kind: 'closing'; readonly closed: Promise<void> };

const CLOSED: State = { kind: 'closed' };

export class HeldFile implements DoorFile {
  readonly id: RealVolumeId;
  readonly #owner: OpenVolumes;
  #state: State = CLOSED;
  #users = 0;

  constructor(id: RealVolumeId, owner: OpenVolumes) {
    this.id = id;
    this.#owner = owner;
  }

  get volume(): SparseFile | undefined {
    return this.#state.kind === 'open' ? this.#state.volume : undefined;
  }

  get isIdle(): boolean {
    return this.#state.kind === 'open' && this.#users === 0;
  }

  get isClosed(): boolean {
    return this.#state.kind === 'closed';
  }

  /** Somebody uses it from now on. */
  begin(): void {
    this.#users += 1;
    this.#owner.used(this);
  }

  end(): void {
    this.#users -= 1;
    this.#owner.used(this);
  }

  async open(): Promise<SparseFile> {
    while (this.#state.kind === 'closing') await this.#state.closed;
    const state = this.#state;
    if (state.kind === 'opening') return state.opened;
    if (state.kind === 'open') {
      this.#owner.used(this);
      return state.volume;
    }
    const opened = this.#owner.open(this.id);
    this.#state = { kind: 'opening', opened };
    try {
      const volume = await opened;
      this.#state = { kind: 'open', volume };
      return volume;
    } catch (error) {
      this.#state = CLOSED;
      throw error;
    } finally {
      this.#owner.used(this);
    }
  }

  /** Closes the file, users or not; never fails. `forget`: what has been written to it is of no interest any more. */
  async close(forget = false): Promise<void> {
    if (this.#state.kind === 'opening') await Promise.allSettled([this.#state.opened]);
    if (this.#state.kind === 'closing') await this.#state.closed;
    if (this.#state.kind !== 'open') return;
    const closed = this.#closeNow(this.#state.volume, forget);
    this.#state = { kind: 'closing', closed };
    this.#owner.used(this);
    await closed;
  }

  async #closeNow(volume: SparseFile, forget: boolean): Promise<void> {
    try {
      if (!forget && volume.state === 'ok') await volume.flush();
    } catch (error) {
      this.#owner.couldNotClose(this.id, error); // the volume has said itself that it has failed
    }
    try {
      await volume.close();
    } catch (error) {
      this.#owner.couldNotClose(this.id, error);
    }
    this.#state = CLOSED;
    this.#owner.used(this);
  }
}

export class OpenVolumes {
  readonly #options: OpenVolumesOptions;
  readonly #held = new Map<RealVolumeId, HeldFile>();
  readonly #open = new Set<HeldFile>();
  readonly #idle: LRUCache<HeldFile, true>;

  constructor(options: OpenVolumesOptions) {
    this.#options = options;
    this.#idle = new LRUCache({
      max: options.idleMax,
      // Not `dispose`, which is called half-way: closing asks the cache to forget the file.
      disposeAfter: (_, file, reason) => {
        if (reason === 'evict') void file.close(); // which never fails
      },
    });
  }

  /** How many files are open. */
  get openCount(): number {
    return this.#open.size;
  }

  /** Those that are open now. */
  openIds(): RealVolumeId[] {
    return [...this.#open].map(({ id }) => id);
  }

  /** The file of a real volume, open or not. */
  file(id: RealVolumeId): HeldFile {
    let file = this.#held.get(id);
    if (file === undefined) {
      file = new HeldFile(id, this);
      this.#held.set(id, file);
    }
    return file;
  }

  /** The real volume has gone. */
  forget(id: RealVolumeId): void {
    this.#held.delete(id);
  }

  async closeAll(): Promise<void> {
    while (this.#open.size > 0) await Promise.all([...this.#open].map((file) => file.close()));
  }

  // --- for HeldFile ----------------------------------------------------------------------------------------

  open(id: RealVolumeId): Promise<SparseFile> {
    return this.#options.open(id);
  }

  /** A file's use, or its state, has changed. */
  used(file: HeldFile): void {
    if (file.isClosed) this.#open.delete(file);
    else this.#open.add(file);
    if (!file.isIdle) this.#idle.delete(file);
    else this.#idle.set(file, true); // the most recently used from now on
  }

  couldNotClose(id: RealVolumeId, error: unknown): void {
    if (!(error instanceof VolaryError)) throw error;
    this.#options.log.error(
      { realVolume: id, error: error.message },
      'closing the file of a real volume failed',
    );
  }
}
