/**
 * VirtualVolume: what a host sees. A gate, and behind it the concatenation of the segments, each through its path.
 *
 * Invariants
 *  1. Nothing is cached here, and nothing is answered here: a request succeeds when the storage systems have answered it, and
 *     a flush when all of them have. So any number of gateways may serve one volume at the same time.
 *  2. A change of the second information disturbs no request. An address, an epoch, another copy as primary: the path follows,
 *     and sends again what is unanswered. A larger size: new paths are opened first, then all is there at once. Only when bytes
 *     come to be somewhere else (real volumes that are no copies of those before, another offset, a smaller size) are requests
 *     held, until those under way have ended. A path that has failed for good gets a successor.
 *  3. The size never goes beyond what can be reached, and abilities that hosts have been told of are never taken back: a
 *     change that would do so is not made, and tried again.
 *
 * SPEC N4 (a write of a dead host connection must not land behind a newer one), by who sees to it:
 *  4. While such a write is under way here, on whatever path and however often it is sent again, its promise is unsettled: the
 *     NBD server's fence (nbd/live-export.ts) holds what overlaps it. `underWay` is the same count. A retarget or a lost link
 *     settles nothing; only an answer does, or the end of reconnectMs.
 *  5. A write that was sent again may have an older copy at the storage system. No byte of it leaves this process after its
 *     link is dead (the socket is reset); what had arrived is fenced there, until it has finished, by the storage system's own
 *     NBD server. When the path goes to another epoch of the same real volume, the storage system answers the raise of the epoch
 *     only when such writes have finished, and the directory tells of the new target after that. When it goes to another copy:
 *     a. Both records have a real volume in common, so both primaries are of one copy group (replication/SPEC.md).
 *     b. After a hand-over (its I16) the old primary carries out nothing itself, and what it still has in hand goes through it to the
 *        new one. What has to be sent again of that, because the old one does not answer in time (path.ts, 2) or its connection breaks,
 *        goes over connections that demand to be alone (nbd-client/link-pool.ts, P6): the new primary gives them when nothing comes
 *        through others any more, nor will in its epoch. What is late somewhere in between comes to nothing.
 *     c. After a failover nothing of the old epoch is carried out at the new primary once that serves (I9, I10), nor at any copy
 *        that follows it; the old primary answers nothing after its lease (I11), and what it alone has is given up when it
 *        returns (I13). So an older copy of a write lands behind nothing that counts.
 *     d. Answered writes are at every copy that may become primary without force (I2), and a flush at the new primary reaches
 *        all that are in step: it covers what was answered before by the old one. What a forced failover to a copy that was
 *        not in step has lost, and what a power failure of all copies took, nobody can see from here: the directory reports it.
 *  6. The same holds when this process dies with all its writes: the kernel closes its connections. What may be on its way through an old
 *     primary then comes to nothing as well, since a path that is opened is alone (5b) from the beginning.
 *  7. Not promised: a host that gives up a gateway which hangs, and sends again through another gateway while the first is
 *     still connected to the storage system. Its write is then one of two users at the same time, and NBD knows no order
 *     between those. Who wants that has the hanging gateway cut off first (a new epoch), or waits until it has ended.
 *     Nor is (6) for a host with connections through several processes at once, one of which dies within a switch: another that has
 *     followed already, and has nothing of its own to send again, does not demand to be alone.
 */

import { pause } from '../base/pause.ts';
import { assert, VolaryError, VolumeError } from '../model/errors.ts';
import type { BlockSizes, Capabilities, Extent, Volume, WriteZeroesOptions } from '../model/volume.ts';
import { Concatenation } from './concatenation.ts';
import { IoGate } from './io-gate.ts';
import { Path, type PathOptions } from './path.ts';
import type { PlannedSegment, VolumePlan } from './second-information.ts';

export interface VirtualVolumeOptions extends PathOptions {
  /** Has the directory make the volume larger; resolves when it has. Without it hosts cannot ask. @throws VolumeError */
  readonly grow?: (sizeBytes: number) => Promise<void>;
}

type HoldReason = 'remapping';

/** A change that cannot be made is tried again so much later. */
const APPLY_AGAIN_MS = 1_000;
/** How long a resize waits for the second information after the directory has done it. */
const RESIZED_MS_MAX = 10_000;

interface Layout {
  readonly plan: VolumePlan;
  readonly paths: readonly Path[];
  readonly inner: Concatenation;
}

export class VirtualVolume implements Volume {
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;
  readonly #options: VirtualVolumeOptions;
  readonly #gate = new IoGate<HoldReason>();
  #layout: Layout;
  /** That of the layout: read for each request. */
  #inner: Concatenation;
  #sizeBytes: number;
  #wanted: VolumePlan;
  /** Paths that are being opened for a layout to come. */
  readonly #coming = new Map<number, Path>();
  #applying: Promise<void> | undefined;
  readonly #sizeWaiters = new Set<() => void>();
  readonly #stop = new AbortController();
  #closing: Promise<void> | undefined;

  private constructor(layout: Layout, options: VirtualVolumeOptions) {
    this.#options = options;
    this.#layout = layout;
    this.#inner = layout.inner;
    this.#sizeBytes = layout.plan.sizeBytes;
    this.#wanted = layout.plan;
    this.blockSizes = layout.inner.blockSizes;
    const { capabilities } = layout.inner;
    this.capabilities = { ...capabilities, resize: capabilities.write && options.grow !== undefined };
  }

  /**
   * Waits for all paths, up to reconnectMs. `opening` is handed them before, so that they can be made to `follow` what
   * becomes known meanwhile.
   * @throws VolumeError
   */
  static async open(
    plan: VolumePlan,
    options: VirtualVolumeOptions,
    opening: (paths: readonly Path[]) => void,
  ): Promise<VirtualVolume> {
    const paths = plan.segments.map((segment) => new Path(segment, options));
    opening(paths);
    try {
      const inner = await concatenationOf(plan.segments, paths);
      return new VirtualVolume({ plan, paths, inner }, options);
    } catch (error) {
      await Promise.all(paths.map((path) => path.close()));
      throw error;
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get paths(): readonly Path[] {
    return this.#layout.paths;
  }

  /** The next `update` makes a new path in place of one, whether the plan is new or not. */
  get wantsUpdate(): boolean {
    return this.#layout.paths.some((path) => path.isReplaceable);
  }

  /** Requests that wait at the gate. */
  get held(): number {
    return this.#gate.held;
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    this.#refuseWhenClosing();
    return this.#gate.isOpen && this.#inner.readNow(offset, target, start, length);
  }

  read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.read(offset, target, start, length));
    return this.#pass(this.#inner.read(offset, target, start, length));
  }

  writeNow(offset: number, source: Buffer, start: number, length: number): boolean {
    this.#refuseWhenClosing();
    return this.#gate.isOpen && this.#inner.writeNow(offset, source, start, length);
  }

  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.write(offset, source, start, length, fua));
    return this.#pass(this.#inner.write(offset, source, start, length, fua));
  }

  flush(): Promise<void> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.flush());
    return this.#pass(this.#inner.flush());
  }

  trim(offset: number, length: number, fua: boolean): Promise<void> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.trim(offset, length, fua));
    return this.#pass(this.#inner.trim(offset, length, fua));
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.writeZeroes(offset, length, options));
    return this.#pass(this.#inner.writeZeroes(offset, length, options));
  }

  cache(offset: number, length: number): Promise<void> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.cache(offset, length));
    return this.#pass(this.#inner.cache(offset, length));
  }

  blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    if (!this.#gate.isOpen) return this.#later(() => this.#inner.blockStatus(offset, length, extentsMax));
    return this.#pass(this.#inner.blockStatus(offset, length, extentsMax));
  }

  mayHaveHoles(offset: number, length: number): boolean {
    return this.#inner.mayHaveHoles(offset, length);
  }

  /** Asks the directory, and waits until the size is there. */
  async resize(sizeBytes: number): Promise<void> {
    this.#refuseWhenClosing();
    const { grow } = this.#options;
    assert(grow !== undefined, 'this volume cannot be resized');
    if (sizeBytes < this.#sizeBytes) {
      throw new VolumeError('invalid', 'a virtual volume is made smaller only with "volume resize"');
    }
    if (sizeBytes === this.#sizeBytes) return;
    await grow(sizeBytes);
    if (await this.#reaches(sizeBytes)) return;
    throw new VolumeError('io', 'the new size has been made, and is not known here yet');
  }

  /** How the volume is served from now on. */
  update(plan: VolumePlan): void {
    assert(
      plan.createdAt === this.#layout.plan.createdAt,
      'another volume of the same name is another volume',
    );
    follow(this.#layout.paths, plan); // also while closing: what is under way has to end
    if (this.#closing !== undefined) return;
    this.#wanted = plan;
    follow([...this.#coming.values()], plan);
    this.#applying ??= this.#applyAll().finally(() => {
      this.#applying = undefined;
    });
  }

  /** Waits for no storage system any more: what is under way fails, and what comes. Still to be closed. */
  giveUp(reason: string): void {
    for (const path of [...this.#layout.paths, ...this.#coming.values()]) path.giveUp(reason);
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#stop.abort();
    this.#gate.close(new VolumeError('shutdown', 'the volume is being closed'));
    for (const path of this.#coming.values()) await path.close();
    await this.#applying;
    await this.#gate.idle();
    await Promise.all(this.#layout.paths.map((path) => path.close()));
  }

  // --- requests --------------------------------------------------------------------------------------------

  #pass<T>(result: Promise<T>): Promise<T> {
    this.#gate.entered();
    result.then(this.#gate.left, this.#gate.left);
    return result;
  }

  async #later<T>(run: () => Promise<T>): Promise<T> {
    await this.#gate.passage();
    try {
      return await run();
    } finally {
      this.#gate.left();
    }
  }

  #refuseWhenClosing(): void {
    if (this.#closing !== undefined) throw new VolumeError('shutdown', 'the volume is being closed');
  }

  // --- changes ---------------------------------------------------------------------------------------------

  async #applyAll(): Promise<void> {
    while (this.#layout.plan !== this.#wanted && this.#closing === undefined) {
      const plan = this.#wanted;
      try {
        await this.#apply(plan);
      } catch (error) {
        if (!(error instanceof VolaryError)) throw error;
        if (this.#closing !== undefined) return;
        const { log } = this.#options;
        log.warn({ volume: plan.name, error: error.message }, 'a change of a volume cannot be made yet');
        await pause(APPLY_AGAIN_MS, this.#stop.signal);
      }
    }
  }

  async #apply(plan: VolumePlan): Promise<void> {
    const from = this.#layout;
    const paths = plan.segments.map((segment) => this.#pathFor(segment));
    const inner = await concatenationOf(plan.segments, paths);
    if (this.#closing !== undefined || this.#wanted !== plan) return; // the next one takes the paths over
    const shortfall = shortfallOf(this, inner);
    if (shortfall !== undefined) {
      for (const path of this.#coming.values()) void path.close(); // what it has seen first counts for a path: next time new ones
      this.#coming.clear();
      throw new VolumeError('not-supported', `a segment would come ${shortfall}`);
    }
    const isRemap = !isExtension(from, plan, paths);
    if (isRemap) await this.#gate.hold('remapping');
    this.#layout = { plan, paths, inner };
    this.#inner = inner;
    this.#sizeBytes = plan.sizeBytes;
    const left = [...from.paths, ...this.#coming.values()].filter((path) => !paths.includes(path));
    this.#coming.clear();
    if (isRemap) this.#gate.release('remapping');
    const { name, sizeBytes, segments } = plan;
    if (isRemap || from.plan.sizeBytes !== sizeBytes) {
      this.#options.log.info({ volume: name, sizeBytes, segments: segments.length }, 'volume has changed');
    }
    for (const waiter of [...this.#sizeWaiters]) waiter();
    await Promise.all(left.map((path) => path.close()));
  }

  /** The path of the segment at that offset; a new one, where the bytes are somewhere else. */
  #pathFor(segment: PlannedSegment): Path {
    const known = this.#layout.paths.find((path) => isSamePlace(path.segment, segment));
    if (known?.isReplaceable === false) return known;
    const coming = this.#coming.get(segment.offset);
    if (coming?.isReplaceable === false && isSamePlace(coming.segment, segment)) return coming;
    if (coming !== undefined) void coming.close();
    const path = new Path(segment, this.#options);
    this.#coming.set(segment.offset, path);
    path.opened.catch(() => {
      if (this.#coming.get(segment.offset) === path) this.#coming.delete(segment.offset);
    });
    return path;
  }

  async #reaches(sizeBytes: number): Promise<boolean> {
    if (this.#sizeBytes >= sizeBytes) return true;
    return new Promise((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#sizeWaiters.delete(look);
        resolve(this.#sizeBytes >= sizeBytes);
      };
      const look = (): void => {
        if (this.#sizeBytes >= sizeBytes) end();
      };
      const timer = setTimeout(end, RESIZED_MS_MAX);
      this.#sizeWaiters.add(look);
    });
  }
}

/** Has paths lead to where the plan says that their segments are. */
export function follow(paths: readonly Path[], plan: VolumePlan): void {
  for (const path of paths) {
    const segment = plan.segments.find((one) => isSamePlace(path.segment, one));
    if (segment !== undefined) path.follow(segment);
  }
}

async function concatenationOf(
  segments: readonly PlannedSegment[],
  paths: readonly Path[],
): Promise<Concatenation> {
  const volumes = await Promise.all(paths.map((path) => path.opened));
  return new Concatenation(
    segments.map(({ offset, length, realOffset }, index) => {
      const volume = volumes[index];
      assert(volume !== undefined, 'a path for each segment');
      return { offset, length, volume, volumeOffset: realOffset };
    }),
  );
}

/**
 * Requests under way on the one would be right on the other, too: the content is the same when the same copy group is behind
 * both. Its members come and go one at a time, so two records that follow one another have one in common.
 */
function isSamePlace(one: PlannedSegment, other: PlannedSegment): boolean {
  return (
    one.offset === other.offset &&
    one.realOffset === other.realOffset &&
    one.copies.some((realVolume) => other.copies.includes(realVolume))
  );
}

/** All that was there is there still, at the same place: where the paths of before have led it meanwhile. */
function isExtension(from: Layout, to: VolumePlan, paths: readonly Path[]): boolean {
  if (to.sizeBytes < from.plan.sizeBytes) return false;
  return from.plan.segments.every(({ length }, index) => {
    const [before, now] = [from.paths[index], to.segments[index]];
    if (before === undefined || now === undefined || now.length < length) return false;
    return paths[index] === before || isSamePlace(before.segment, now);
  });
}

/** What hosts would miss, in words. */
function shortfallOf(before: Volume, after: Volume): string | undefined {
  const names = Object.keys(before.capabilities) as (keyof Capabilities)[];
  const lost = names.find(
    (name) => name !== 'resize' && before.capabilities[name] && !after.capabilities[name],
  );
  if (lost !== undefined) return `without "${lost}"`;
  return after.blockSizes.minimum > before.blockSizes.minimum ? 'with larger blocks' : undefined;
}
