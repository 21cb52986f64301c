/**
 * What a directory does about copy groups, with the real rules for a record (replication/group-rules.ts) and nothing else: records pairs,
 * grants leases, and tells members their groups until they have answered.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import {
  type CopyRecord,
  SegmentRecord,
  type StorageRecord,
  type VolumeRecord,
} from '../../src/control-protocol/catalog.ts';
import type {
  DiscardReport,
  GroupConfig,
  GroupView,
  HandOver,
  LeaseAnswer,
  LeaseRequest,
  PairReport,
  Recorded,
} from '../../src/control-protocol/copy-groups.ts';
import { type RealVolumeId, StorageName, VolumeName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import {
  failedOver,
  groupConfigOf,
  handOverUndone,
  leaseHolds,
  nextEpoch,
  primaryOf,
  recordPair,
  switched,
  switchTarget,
  withCopy,
  withoutCopy,
} from '../../src/replication/group-rules.ts';
import type { GroupApi } from '../../src/storage-system/group-directory.ts';
import { KEY } from './storage-system.ts';

export const VOLUME = VolumeName.parse('data');
const RETRY_MS = 50;

/** How members are reached. */
export interface Members {
  configure(copy: CopyRecord, config: GroupConfig): Promise<GroupView>;
  handOver(copy: CopyRecord, body: HandOver): Promise<GroupView>;
}

export interface DeskOptions {
  readonly members: Members;
  readonly storage: ReadonlyMap<string, StorageRecord>;
  readonly leaseMs?: number;
  readonly fence?: VolumeRecord['fence'];
}

export interface Copy {
  readonly storage: string;
  readonly realVolume: RealVolumeId;
}

export class GroupDesk implements GroupApi {
  readonly discards: DiscardReport[] = [];
  readonly leases: LeaseRequest[] = [];
  readonly reports: PairReport[] = [];
  /** Nothing is answered. */
  isAway = false;
  revision = 1;
  readonly options: DeskOptions;
  readonly #groups = new Map<RealVolumeId, DeskGroup>();
  readonly stopped = new AbortController();
  readonly #telling = new Set<Promise<void>>();

  constructor(options: DeskOptions) {
    this.options = options;
  }

  /** The copy group of these, the first of which is its primary. All others are new. */
  async make(copies: readonly Copy[], sizeBytes: number): Promise<DeskGroup> {
    const [primary, ...others] = copies.map((copy) => newCopyOf(copy));
    let segment = SegmentRecord.parse({
      ...{ offset: 0, length: sizeBytes, epoch: 1, isHandedOver: true, isGrouped: true },
      copies: [{ ...primary, role: 'primary', pair: 'simplex', mode: 'normal' }],
    });
    for (const other of others) segment = withCopy(segment, other);
    const group = new DeskGroup(this, segment);
    for (const { realVolume } of copies) this.#groups.set(realVolume, group);
    if (others.length > 0) await group.tell();
    return group;
  }

  /** A copy more, which lacks everything. */
  add(group: DeskGroup, copy: Copy): void {
    this.#groups.set(copy.realVolume, group);
    group.change((segment) => withCopy(segment, newCopyOf(copy)));
  }

  async stop(): Promise<void> {
    this.stopped.abort();
    await Promise.all(this.#telling);
  }

  /** Goes on until it has been answered, or there is something newer to be told. */
  tellSoon(telling: Promise<void>): void {
    const told = telling.finally(() => this.#telling.delete(told));
    this.#telling.add(told);
  }

  /** A storage system has other addresses: everybody is told. */
  moved(): void {
    for (const group of new Set(this.#groups.values())) group.change((segment) => segment);
  }

  async reportPair(report: PairReport): Promise<Recorded> {
    this.#refuseAway();
    this.reports.push(report);
    const group = this.#groupOf(report.primary);
    const after = recordPair(group.segment, report);
    if (after !== group.segment) group.change(() => after);
    const copy = after.copies.find(({ realVolume }) => realVolume === report.member);
    return { revision: this.revision, pairRevision: copy?.pairRevision ?? 0 };
  }

  async renewLeases(request: LeaseRequest): Promise<LeaseAnswer> {
    this.#refuseAway();
    this.leases.push(request);
    for (const realVolume of request.givingWay) this.#groupOf(realVolume).giveWay(realVolume);
    const verdict = ({ realVolume, epoch }: LeaseRequest['leases'][number]) =>
      leaseHolds(this.#groupOf(realVolume).segment, realVolume, epoch) ? 'granted' : 'over';
    return { answers: request.leases.map(verdict) };
  }

  async reportDiscard(report: DiscardReport): Promise<void> {
    this.discards.push(report);
  }

  #groupOf(realVolume: RealVolumeId): DeskGroup {
    const group = this.#groups.get(realVolume);
    if (group === undefined) throw new ControlError('not-found', `${realVolume} is of no group`);
    return group;
  }

  #refuseAway(): void {
    if (this.isAway) throw new ControlError('unavailable', 'it is away');
  }
}

export class DeskGroup {
  segment: SegmentRecord;
  readonly #desk: GroupDesk;

  constructor(desk: GroupDesk, segment: SegmentRecord) {
    this.#desk = desk;
    this.segment = segment;
  }

  get primary(): CopyRecord {
    return primaryOf(this.segment);
  }

  copy(member: RealVolumeId): CopyRecord {
    const copy = this.segment.copies.find(({ realVolume }) => realVolume === member);
    if (copy === undefined) throw new Error(`${member} is not of the group`);
    return copy;
  }

  /** Changes the record, and tells everybody, also when this has returned. */
  change(change: (segment: SegmentRecord) => SegmentRecord): void {
    this.segment = change(this.segment);
    this.#desk.revision += 1;
    for (const copy of this.segment.copies) this.#desk.tellSoon(this.#tellUntilAnswered(copy, this.segment));
  }

  /** All of them, now; rejects when one does not answer. */
  tell(): Promise<GroupView[]> {
    this.#desk.revision += 1;
    return Promise.all(this.segment.copies.map((copy) => this.#tell(copy)));
  }

  /** A hand-over that does not come about is undone. */
  async switchTo(member: RealVolumeId): Promise<void> {
    switchTarget(this.segment, member);
    const { members } = this.#desk.options;
    try {
      await members.handOver(this.primary, { epoch: nextEpoch(this.segment), to: member });
    } catch (error) {
      this.change(handOverUndone);
      throw error;
    }
    this.change((segment) => switched(segment, member));
  }

  failOver(member: RealVolumeId, force = false): void {
    this.change((segment) => failedOver(segment, member, force));
  }

  /** A primary has lost its page cache: who is in step takes over. */
  giveWay(member: RealVolumeId): void {
    if (this.primary.realVolume !== member) return;
    const successor = this.segment.copies.find(({ role, pair }) => role === 'secondary' && pair === 'duplex');
    if (successor !== undefined)
      this.change((segment) => failedOver(segment, successor.realVolume, false, true));
  }

  remove(member: RealVolumeId): void {
    this.change((segment) => withoutCopy(segment, member));
  }

  #tell(copy: CopyRecord): Promise<GroupView> {
    const { leaseMs = 1_000, fence = 'never', storage, members } = this.#desk.options;
    const settings = { leaseMs, copyBytesPerSecond: 0 };
    const config = groupConfigOf(
      { name: VOLUME, fence },
      this.segment,
      storage,
      this.#desk.revision,
      settings,
    );
    return members.configure(copy, config);
  }

  async #tellUntilAnswered(copy: CopyRecord, segment: SegmentRecord): Promise<void> {
    while (!this.#desk.stopped.signal.aborted && this.segment === segment) {
      try {
        await this.#tell(copy);
        return;
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
        await sleep(RETRY_MS);
      }
    }
  }
}

function newCopyOf({ storage, realVolume }: Copy) {
  return { storage: StorageName.parse(storage), realVolume, realOffset: 0, accessKey: KEY, file: null };
}
