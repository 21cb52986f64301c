/**
 * The directory of a simulated cluster: one segment's record, kept by the real rules (replication/group-rules.ts), told to its members
 * again and again until they have answered, and changed by operations of a person. It can be down, and its record survives that.
 */

import type { CopyRecord, SegmentRecord } from '../../src/control-protocol/catalog.ts';
import type { Fence, GroupConfig } from '../../src/control-protocol/copy-groups.ts';
import type { Epoch, RealVolumeId, VolumeName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import type { MemberId } from '../../src/peer-protocol/messages.ts';
import {
  caughtUp,
  caughtUpWith,
  failedOver,
  groupConfigOf,
  handOverUndone,
  leaseHolds,
  nextEpoch,
  overtaken,
  primaryOf,
  recordPair,
  secondariesOf,
  switched,
  switchTarget,
  wanted,
  withCopy,
  withoutCopy,
} from '../../src/replication/group-rules.ts';
import { VOLUME_BYTES } from './layout.ts';
import type { MemberProcess, Report } from './member-process.ts';
import type { Network } from './network.ts';
import { OlderCatalog } from './older-catalog.ts';
import { recordText, storageOf } from './records.ts';

export const LEASE_MS = 3_000;
const ANSWER_MS = 1_500;
const TELL_AGAIN_MS = 1_000;
const HAND_OVER_MS = 4_000;
/** One request at a time: by then it has been answered, or will not be. */
const RESIZE_AGAIN_MS = 1_500;
const GROW_MS = 3_000;

export interface DirectoryWorld {
  readonly network: Network;
  process(id: MemberId): MemberProcess | undefined;
  trace(who: string, what: () => string): void;
  nextToken(): number;
  /** Before the change is made. */
  changing(from: SegmentRecord, to: SegmentRecord, why: string): void;
  changed(why: string): void;
  isOnline(id: MemberId): boolean;
}

/** What a member says that it knows. */
interface Known {
  readonly epoch: number;
  readonly revision: number;
}

export class Directory {
  readonly #world: DirectoryWorld;
  readonly #fence: Fence;
  readonly #told = new Map<MemberId, number>();
  readonly #answers = new Map<number, (isRefused: boolean, known: Known) => void>();
  readonly #older: OlderCatalog;
  segment: SegmentRecord;
  revision = 1;
  isUp = true;
  /** An operation is under way. */
  isBusy = false;
  #isResizing = false;

  constructor(world: DirectoryWorld, copies: readonly CopyRecord[], fence: Fence) {
    this.#world = world;
    this.#fence = fence;
    this.#older = new OlderCatalog(world.network.scheduler);
    this.segment = {
      offset: 0,
      length: VOLUME_BYTES,
      epoch: 1 as Epoch,
      isHandedOver: true,
      isForced: false,
      isGrouped: true,
      copies: [...copies],
    };
  }

  get primary(): MemberId {
    return primaryOf(this.segment).realVolume;
  }

  secondaries(): CopyRecord[] {
    return secondariesOf(this.segment);
  }

  copy(id: MemberId): CopyRecord | undefined {
    return this.segment.copies.find(({ realVolume }) => realVolume === id);
  }

  config(): GroupConfig {
    const settings = { leaseMs: LEASE_MS, copyBytesPerSecond: 0 };
    const volume = { name: 'volume' as VolumeName, fence: this.#fence };
    const storage = new Map(this.segment.copies.map((copy) => [copy.storage as string, storageOf(copy)]));
    return groupConfigOf(volume, this.segment, storage, this.#toldRevision, settings);
  }

  start(): void {
    this.isUp = true;
    this.#told.clear();
    this.#look();
  }

  /** A storage system has registered (again): it is told its group again. */
  registered(id: MemberId): void {
    this.#told.delete(id);
  }

  get isTold(): boolean {
    return this.segment.copies.every(({ realVolume }) => this.#told.get(realVolume) === this.#toldRevision);
  }

  get #toldRevision(): number {
    return this.revision + (this.segment.revisionsMissed ?? 0);
  }

  // --- what members ask --------------------------------------------------------------------------------------

  report(from: MemberProcess, said: Report, pairRevision: number): void {
    const { network } = this.#world;
    this.#asked(
      from,
      () => {
        const { pair, reason } = said;
        const [primary, member] = [from.id as RealVolumeId, said.member as RealVolumeId];
        const epoch = said.epoch as Epoch;
        const report = { primary, epoch, member, pair, reason, pairRevision };
        if (caughtUpWith(this.segment, report) !== this.segment) {
          this.#change(`${primary} knows more of ${member}`, (segment) => caughtUpWith(segment, report));
          throw new ControlError('conflict', 'the record was older');
        }
        this.#change(`report of ${primary}: ${member} ${pair}`, (segment) => recordPair(segment, report));
        return this.copy(member)?.pairRevision;
      },
      (outcome, known) => {
        if (known !== undefined) from.knowPair(said.member, known);
        const told = outcome === 'done' ? 'recorded' : outcome;
        from.receive(`report ${network.scheduler.random.next()}`, {
          kind: 'reported',
          token: said.token,
          outcome: told,
        });
      },
    );
  }

  renew(from: MemberProcess, token: number, epoch: number, isGivingWay: boolean): void {
    this.#asked(
      from,
      () => {
        if (isGivingWay && leaseHolds(this.segment, from.id as RealVolumeId, epoch)) this.#giveWay();
        if (!leaseHolds(this.segment, from.id as RealVolumeId, epoch))
          throw new ControlError('stale-epoch', 'no lease');
      },
      (outcome) => {
        const told = outcome === 'done' ? 'granted' : outcome;
        if (told === 'granted' && isGivingWay) from.isToldToGoOn = true;
        from.receive(`renew ${token}`, { kind: 'renewed', token, outcome: told });
      },
    );
  }

  #giveWay(): void {
    const other = this.secondaries().find(
      ({ realVolume, pair }) => pair === 'duplex' && this.#world.isOnline(realVolume),
    );
    if (other === undefined) return;
    if (this.#isResizing || this.isOlder) throw new ControlError('unavailable', 'not just now');
    this.#change('giving way', (segment) =>
      failedOver(segment, other.realVolume as RealVolumeId, false, true),
    );
  }

  /** A question over the network: it may get lost, be late, or be answered with nobody hearing it. */
  #asked<T>(
    from: MemberProcess,
    act: () => T,
    answer: (outcome: 'done' | 'stale-epoch' | 'unreachable', result: T | undefined) => void,
  ): void {
    const { network } = this.#world;
    let isOver = false;
    const end = (outcome: 'done' | 'stale-epoch' | 'unreachable', result: T | undefined): void => {
      if (isOver) return;
      isOver = true;
      answer(outcome, result);
    };
    network.scheduler.after(ANSWER_MS, () => end('unreachable', undefined));
    // Once in a while a question is held up for longer than anybody waits for it.
    const heldUpMs = network.scheduler.chance(0.02) ? network.scheduler.between(0, 3 * ANSWER_MS) : 0;
    network.scheduler.after(network.delayMs() + heldUpMs, () => {
      if (!this.isUp || network.isCut(from.id, 'directory')) return;
      const [outcome, result] = attempt(act);
      network.scheduler.after(network.delayMs(), () => {
        if (!network.isCut('directory', from.id)) end(outcome, result);
      });
    });
  }

  // --- operations --------------------------------------------------------------------------------------------

  get #canBegin(): boolean {
    return this.isUp && !this.isBusy && !this.isOlder;
  }

  /** False when the rules do not allow it. */
  operate(why: string, change: (segment: SegmentRecord) => SegmentRecord): boolean {
    return this.#canBegin && attempt(() => this.#change(why, change))[0] === 'done';
  }

  add(copy: CopyRecord): boolean {
    return this.operate(`add ${copy.realVolume}`, (segment) => withCopy(segment, copy));
  }

  remove(id: MemberId): boolean {
    return this.operate(`remove ${id}`, (segment) => withoutCopy(segment, id as RealVolumeId));
  }

  want(id: MemberId, wish: 'following' | 'suspended'): boolean {
    return this.operate(`want ${id} ${wish}`, (segment) => wanted(segment, id as RealVolumeId, wish));
  }

  failover(to: MemberId, force: boolean): boolean {
    const why = `failover to ${to}${force ? ', forced' : ''}`;
    return this.operate(why, (segment) => failedOver(segment, to as RealVolumeId, force));
  }

  /** The primary lets go first; if nobody knows whether it has, it becomes primary again, in an epoch of its own. */
  switch(to: MemberId): boolean {
    const id = to as RealVolumeId;
    if (!this.#canBegin || attempt(() => switchTarget(this.segment, id))[0] !== 'done') return false;
    const [epoch, from] = [nextEpoch(this.segment), this.primary];
    this.isBusy = true;
    let isOver = false;
    const end = (outcome: 'handed-over' | 'refused' | 'unknown'): void => {
      if (isOver) return;
      isOver = true;
      this.isBusy = false;
      if (this.primary !== from || nextEpoch(this.segment) !== epoch) return;
      if (outcome === 'refused') return;
      const isDone =
        outcome === 'handed-over' &&
        attempt(() => this.#change(`switch to ${to}`, (segment) => switched(segment, id)))[0] === 'done';
      if (!isDone) this.#change('undo of a switch', handOverUndone);
    };
    this.#world.network.scheduler.after(HAND_OVER_MS, () => end('unknown'));
    this.#world.trace('directory', () => `hand-over of ${from} to ${to}, epoch ${epoch}`);
    this.#send(
      from,
      (token) => ({ kind: 'hand-over', token, epoch, to }),
      (isRefused) => end(isRefused ? 'refused' : 'handed-over'),
    );
    return true;
  }

  /** Who is smaller than another is so for a while: secondaries grow first, and are cut last. Roles do not change meanwhile. */
  resize(sizeBytes: number): boolean {
    const beforeBytes = this.segment.length;
    if (!this.#canBegin || sizeBytes === beforeBytes) return false;
    [this.isBusy, this.#isResizing] = [true, true];
    const end = (): void => {
      this.#world.trace('directory', () => 'the resize has ended');
      [this.isBusy, this.#isResizing] = [false, false];
    };
    const secondaries = this.secondaries().map(({ realVolume }) => realVolume);
    const all = [this.primary, ...secondaries];
    const change = (): void =>
      this.#change(`resize to ${sizeBytes}`, (segment) => ({ ...segment, length: sizeBytes }));
    if (sizeBytes < beforeBytes) {
      change();
      this.#resizeAll([this.primary], sizeBytes, undefined, () =>
        this.#resizeAll(secondaries, sizeBytes, undefined, end),
      );
      return true;
    }
    const cutBack = (): void => this.#resizeAll(all, beforeBytes, undefined, end);
    this.#resizeAll(secondaries, sizeBytes, GROW_MS, (haveGrown) => {
      if (!haveGrown) return cutBack();
      this.#resizeAll([this.primary], sizeBytes, GROW_MS, (hasGrown) => {
        if (!hasGrown) return cutBack();
        change();
        end();
      });
    });
    return true;
  }

  /** Until all have answered, or for so long. */
  #resizeAll(
    ids: readonly MemberId[],
    sizeBytes: number,
    patienceMs: number | undefined,
    then: (isDone: boolean) => void,
  ): void {
    const { network } = this.#world;
    const { scheduler } = network;
    const untilMs = scheduler.nowMs + (patienceMs ?? Number.POSITIVE_INFINITY);
    const waiting = new Set(ids);
    const ask = (id: MemberId): void => {
      scheduler.after(network.delayMs(), () => {
        if (!this.isUp || network.isCut('directory', id) || scheduler.nowMs >= untilMs) return;
        this.#world.process(id)?.resize(sizeBytes, () => {
          scheduler.after(network.delayMs(), () => {
            if (this.isUp && !network.isCut(id, 'directory')) waiting.delete(id);
          });
        });
      });
    };
    const look = (asksMs: number): void => {
      if (waiting.size === 0 || scheduler.nowMs >= untilMs) {
        then(waiting.size === 0);
        return;
      }
      const isDue = scheduler.nowMs >= asksMs;
      if (isDue) for (const id of waiting) ask(id);
      scheduler.after(10, () => look(isDue ? scheduler.nowMs + RESIZE_AGAIN_MS : asksMs));
    };
    look(scheduler.nowMs);
  }

  // --- an older catalog ----------------------------------------------------------------------------------------

  get isOlder(): boolean {
    return this.#older.isThere;
  }

  putBack(): void {
    if (this.isBusy || !this.isTold) return;
    const past = this.#older.putBack(this.segment);
    if (past === undefined) return;
    this.isUp = false;
    [this.segment, this.revision] = [past.segment, past.revision];
    this.#answers.clear();
    this.#told.clear();
    this.#world.trace(
      'directory',
      () => `OLDER CATALOG: revision ${this.revision}, ${recordText(past.segment)}`,
    );
    const { scheduler } = this.#world.network;
    scheduler.after(scheduler.between(50, 3_000), () => this.start());
  }

  #mendOlder(): void {
    const choice = this.#older.choice(this.segment, (id) => this.#told.get(id) === this.#toldRevision);
    if (choice === undefined) return;
    if (choice !== 'nobody') {
      const { to, newest, truth } = choice;
      const change = (segment: SegmentRecord): SegmentRecord => overtaken(segment, to, newest);
      if (attempt(() => this.#change(`overtaken by ${to}`, change, truth))[0] !== 'done') return;
    }
    this.#world.trace('directory', () => 'the older catalog is mended');
    this.#older.mended();
  }

  // --- telling -----------------------------------------------------------------------------------------------

  answered(from: MemberProcess, token: number, isRefused: boolean): void {
    const { network } = this.#world;
    const { epoch = 0, config } = from.disk.durable ?? {};
    const known = { epoch, revision: config?.revision ?? 0 };
    network.scheduler.after(network.delayMs(), () => {
      if (!this.isUp || network.isCut('directory', from.id) || network.isCut(from.id, 'directory')) return;
      this.#answers.get(token)?.(isRefused, known);
      this.#answers.delete(token);
    });
  }

  #change(why: string, change: (segment: SegmentRecord) => SegmentRecord, from = this.segment): void {
    const next = change(this.segment);
    if (next === this.segment) return;
    this.#world.changing(from, next, why);
    this.#older.remember(this.segment, this.revision);
    this.segment = next;
    this.revision++;
    this.#world.trace('directory', () => `${why}: revision ${this.revision}, ${recordText(next)}`);
    this.#world.changed(why);
    this.#look();
  }

  #look(): void {
    for (const { realVolume } of this.segment.copies) this.tell(realVolume);
  }

  /** Also called now and then for all of them: what was not answered is told again. */
  tell(id: MemberId): void {
    if (!this.isUp || this.#told.get(id) === this.#toldRevision) return;
    const config = this.config();
    this.#send(
      id,
      (token) => ({ kind: 'configure', token, config }),
      (isRefused, known) => {
        if (isRefused) this.#older.refused(id, known.epoch);
        else if (known.epoch === this.segment.epoch && known.revision > this.#toldRevision) {
          this.#change(`${id} knows more`, (segment) => caughtUp(segment, known.revision));
        } else this.#told.set(id, Math.max(config.revision, this.#told.get(id) ?? 0));
      },
    );
  }

  tellAll(): void {
    if (this.isUp) this.#look();
    if (this.isUp && this.isOlder) this.#mendOlder();
    this.#world.network.scheduler.after(TELL_AGAIN_MS, () => this.tellAll());
  }

  #send(
    to: MemberId,
    event: (token: number) => Parameters<MemberProcess['receive']>[1],
    answered: (isRefused: boolean, known: Known) => void,
  ): void {
    const { network } = this.#world;
    const token = this.#world.nextToken();
    this.#answers.set(token, answered);
    network.scheduler.after(network.delayMs(), () => {
      if (network.isCut('directory', to)) return;
      this.#world.process(to)?.receive(`directory ${token}`, event(token));
    });
  }
}

function attempt<T>(act: () => T): ['done', T] | ['stale-epoch' | 'unreachable', undefined] {
  try {
    return ['done', act()];
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    return [error.code === 'stale-epoch' ? 'stale-epoch' : 'unreachable', undefined];
  }
}
