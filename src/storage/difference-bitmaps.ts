/**
 * DifferenceBitmaps: for each other member of a copy group the blocks that it may lack, in a file each (difference-file.ts).
 *
 * Invariants
 * 1. A change is in the page cache when `set`, `clear` or `forget` returns, and durable after a `flush` that was asked for later.
 * 2. Before an extent's mark is taken out of the activity log, `flush`: until then what power loss may take from here is in marked extents.
 * 3. A bit is cleared here only after the block is durable at the other member: that is the caller's.
 * 4. Who has a bit set never loses it to damage or a full disk: then everything counts as set. Whether a member without a file
 *    lacks nothing, or has lost it, is for the caller to know.
 */

import { unlinkSync } from 'node:fs';
import { join } from 'node:path';
import type { BlockBitmap } from '../base/block-bitmap.ts';
import type { Range } from '../base/range.ts';
import { assert, StoreError } from '../model/errors.ts';
import { DifferenceFile } from './difference-file.ts';
import { storeErrorOf } from './errors.ts';
import { listFiles, syncFolder } from './folder-space.ts';
import { GroupCommit } from './group-commit.ts';

const NAME = /^lacks-(rv-[0-9a-f]{16})$/;
const MEMBER = /^rv-[0-9a-f]{16}$/;

export class DifferenceBitmaps {
  readonly #folder: string;
  readonly #realVolume: string;
  readonly #files = new Map<string, DifferenceFile>();
  readonly #group = new GroupCommit(() => this.#sync());
  #sizeBytes: number;
  /** Removed, and closed when no sync can be using them. */
  #gone: DifferenceFile[] = [];
  #failure: unknown;
  #running: Promise<unknown> = Promise.resolve();
  /** Files have come or gone since the last flush. */
  #isFolderDirty = true;

  private constructor(folder: string, realVolume: string, sizeBytes: number) {
    this.#folder = folder;
    this.#realVolume = realVolume;
    this.#sizeBytes = sizeBytes;
  }

  /** With all that are there. @throws UsageError, StoreError */
  static async open(folder: string, realVolume: string, sizeBytes: number): Promise<DifferenceBitmaps> {
    const bitmaps = new DifferenceBitmaps(folder, realVolume, sizeBytes);
    try {
      for (const name of await listFiles(folder)) {
        const other = NAME.exec(name)?.[1];
        if (other === undefined) continue;
        const file = await DifferenceFile.open(join(folder, name), { realVolume, other }, sizeBytes);
        bitmaps.#files.set(other, file);
      }
    } catch (error) {
      await bitmaps.close();
      throw error;
    }
    return bitmaps;
  }

  /** What each lacks. */
  load(): Map<string, BlockBitmap> {
    return new Map([...this.#files].map(([member, file]) => [member, file.bitmap()]));
  }

  /** Makes the member's file if there is none: with that, no full disk keeps `set` from what it has to do. @throws StoreError */
  add(member: string): void {
    if (!this.#files.has(member)) this.#make(member);
  }

  /** @throws StoreError */
  set(member: string, ranges: readonly Range[]): void {
    const file = this.#files.get(member) ?? this.#make(member);
    file.set(ranges);
  }

  /** @throws StoreError */
  clear(member: string, ranges: readonly Range[]): void {
    this.#files.get(member)?.clear(ranges);
  }

  /** It lacks nothing from now on. @throws StoreError */
  forget(member: string): void {
    const file = this.#files.get(member);
    if (file === undefined) return;
    try {
      unlinkSync(this.#pathOf(member));
    } catch (error) {
      throw storeErrorOf(error, `remove ${this.#pathOf(member)}`);
    }
    this.#files.delete(member);
    this.#isFolderDirty = true;
    this.#gone.push(file);
  }

  /** All that has been changed before is durable when it resolves. @throws StoreError */
  flush(): Promise<void> {
    return this.#group.commit();
  }

  /** @throws StoreError */
  async resize(sizeBytes: number): Promise<void> {
    this.#sizeBytes = sizeBytes;
    for (const file of this.#files.values()) await file.resize(sizeBytes);
  }

  /** Without a flush; one that is waiting fails. */
  async close(): Promise<void> {
    this.#failure ??= new StoreError('io', 'difference bitmaps were closed: open them again');
    await Promise.allSettled([this.#running]); // its outcome is its callers'
    for (const file of [...this.#files.values(), ...this.#gone]) file.close();
    this.#files.clear();
    this.#gone = [];
  }

  #make(member: string): DifferenceFile {
    const pair = { realVolume: this.#realVolume, other: member };
    const file = DifferenceFile.make(this.#pathOf(member), pair, this.#sizeBytes);
    this.#files.set(member, file);
    this.#isFolderDirty = true;
    return file;
  }

  #pathOf(member: string): string {
    assert(MEMBER.test(member), `${JSON.stringify(member)} is no real volume`);
    return join(this.#folder, `lacks-${member}`);
  }

  async #sync(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    for (const file of this.#gone) file.close();
    this.#gone = [];
    const isFolderDirty = this.#isFolderDirty;
    this.#isFolderDirty = false;
    const syncs = [...this.#files.values()].map((file) => file.sync());
    if (isFolderDirty) syncs.push(this.#syncFolder());
    const ended = Promise.allSettled(syncs); // all of them, before the next begin
    this.#running = ended;
    for (const outcome of await ended) {
      if (outcome.status === 'rejected') this.#failure ??= outcome.reason;
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #syncFolder(): Promise<void> {
    try {
      await syncFolder(this.#folder);
    } catch (error) {
      throw storeErrorOf(error, `keep the difference bitmaps in ${this.#folder}`);
    }
  }
}
