/**
 * What holds in a simulated cluster at any moment (looked at now and then), and when all is quiet.
 *
 *  promotable   what the record calls duplex, and its primary, hold every write that was answered
 *  difference   blocks that differ between two members are known to differ (I6)
 *  one epoch    nobody but one member answers in an epoch; a primary of before does not serve reads when a newer one has answered writes
 *  quiet        what is duplex is equal, and who is wanted is duplex
 *  copied       what is copied is in proportion to what differed
 */

import type { MemberId, Range } from '../../src/peer-protocol/messages.ts';
import type { DurableState } from '../../src/replication/effects.ts';
import type { Directory } from './directory.ts';
import type { History } from './history.ts';
import { BLOCK_BYTES, blockOf, blocksOf, HOT_SECTORS, SECTOR_BYTES } from './layout.ts';
import type { MemberDisk } from './member-disk.ts';

/** What the oracles see of a member, whether its process lives or not. */
export interface MemberLook {
  readonly id: MemberId;
  readonly disk: MemberDisk;
  /** It has lost what was not flushed, and has not been made whole since. */
  readonly isTainted: boolean;
}

/** Blocks in which the two may differ, as far as they know themselves. */
export function knownDifferences(one: MemberLook, other: MemberLook): ReadonlySet<number> | 'everything' {
  const [ours, theirs] = [one.disk.durable, other.disk.durable];
  if (ours === undefined || theirs === undefined) return 'everything';
  // Who has not heard of the other takes it for one that lacks everything, as soon as it does.
  if (!knows(ours, other) || !knows(theirs, one)) return 'everything';
  if (ours.lacksAll.includes(other.id) || theirs.lacksAll.includes(one.id)) return 'everything';
  const known = new Set<number>([
    ...toldAlone(one, ours, other, theirs),
    ...toldAlone(other, theirs, one, ours),
  ]);
  for (const { disk } of [one, other]) {
    for (const range of disk.unsettled()) for (const block of blocksOf(range)) known.add(block);
  }
  return known;
}

/** Who was primary, or equal to one, tells, besides, what those lack that may have been primary since; it may not have heard of them yet. */
function toldAlone({ disk }: MemberLook, of: DurableState, to: MemberLook, by: DurableState): number[] {
  const isBehind = of.epoch < by.epoch;
  const members = new Set<MemberId>([to.id]);
  if (of.role === 'secondary' || isBehind) for (const member of of.mayBeInStep) members.add(member);
  if (of.role === 'secondary' && isBehind) {
    const isNext = by.config.epoch === of.epoch + 1;
    for (const member of isNext ? [by.config.primary] : disk.bits.keys()) members.add(member);
  }
  return [...members].flatMap((member) => [...(disk.bits.get(member)?.keys() ?? [])]);
}

function knows({ config }: DurableState, { id }: MemberLook): boolean {
  return config.members.some(({ realVolume }) => realVolume === id);
}

/** As far as both go, and the volume: while it is resized some are longer. */
function differingBlocks(one: MemberDisk, other: MemberDisk, sizeBytes: number): Set<number> {
  const blocks = new Set<number>();
  const end = Math.min(one.fileBytes, other.fileBytes, sizeBytes) / SECTOR_BYTES;
  for (const key of [...one.data.keys(), ...other.data.keys()]) {
    if (key < end && one.data.get(key) !== other.data.get(key)) blocks.add(blockOf(key));
  }
  return blocks;
}

export class Oracles {
  readonly #history: History;
  readonly #directory: () => Directory;
  readonly #member: (id: MemberId) => MemberLook | undefined;
  readonly #violation: (text: string) => Error;
  readonly #servers = new Map<number, MemberId>();
  #newestAnswered = 0;
  #newestBy = '';
  copiedBytes = 0;
  copyableBytes = 0;

  constructor(
    history: History,
    directory: () => Directory,
    member: (id: MemberId) => MemberLook | undefined,
    violation: (text: string) => Error,
  ) {
    this.#history = history;
    this.#directory = directory;
    this.#member = member;
    this.#violation = violation;
  }

  /** `isForsaken`: the epoch of a primary that does not know yet that another was forced. */
  served(by: MemberId, epoch: number, kind: string, isForsaken: boolean): void {
    const other = this.#servers.get(epoch);
    this.#servers.set(epoch, by);
    if (other !== undefined && other !== by) {
      throw this.#violation(`one epoch: ${other} and ${by} have both answered in epoch ${epoch}`);
    }
    if (kind === 'admitted') return;
    if (kind !== 'read') {
      if (epoch > this.#newestAnswered) [this.#newestAnswered, this.#newestBy] = [epoch, by];
    } else if (epoch < this.#newestAnswered && !isForsaken) {
      throw this.#violation(
        `lease: ${by} serves a read in epoch ${epoch}, and ${this.#newestBy} has answered in epoch ${this.#newestAnswered}`,
      );
    }
  }

  look(nowMs: number): void {
    if (this.#directory().isOlder) return;
    this.#lookAtPromotable(nowMs);
    this.#lookAtDifferences();
  }

  #lookAtPromotable(nowMs: number): void {
    const { copies, length } = this.#directory().segment;
    const sectors = HOT_SECTORS.filter((sector) => (sector + 1) * SECTOR_BYTES <= length);
    for (const { realVolume, role, pair } of copies) {
      const member = this.#member(realVolume);
      if (member === undefined || member.isTainted || (role === 'secondary' && pair !== 'duplex')) continue;
      for (const sector of sectors) {
        const objection = this.#history.objection(sector, member.disk.data.get(sector), nowMs);
        if (objection !== undefined) {
          throw this.#violation(
            `promotable: ${realVolume} is ${role === 'primary' ? role : pair}, and ${objection}`,
          );
        }
      }
    }
  }

  #lookAtDifferences(): void {
    const { segment } = this.#directory();
    const members = segment.copies.flatMap(({ realVolume }) => this.#member(realVolume) ?? []);
    for (const one of members) {
      const { durable } = one.disk;
      if (durable === undefined || durable.epoch !== segment.epoch) continue;
      const copy = segment.copies.find(({ realVolume }) => realVolume === one.id);
      if (durable.role === 'secondary' && !(durable.isEqual && copy?.pair === 'duplex')) continue;
      for (const other of members) {
        if (other === one || !durable.config.members.some(({ realVolume }) => realVolume === other.id))
          continue;
        this.#lookAtPair(one, other);
      }
    }
  }

  #lookAtPair(one: MemberLook, other: MemberLook): void {
    const differing = differingBlocks(one.disk, other.disk, this.#directory().segment.length);
    if (differing.size === 0) return;
    const known = knownDifferences(one, other);
    if (known === 'everything') return;
    for (const block of differing) {
      if (known.has(block)) continue;
      throw this.#violation(
        `difference: ${one.id} and ${other.id} differ in block ${block}, and neither knows`,
      );
    }
  }

  /**
   * A pair is about to be made equal: what differs may be copied. Also what was in flight at either of them, or all that was marked at one that has lost its
   * cache, and what the member tells (`told`), though they may differ in everything for other reasons: a primary cannot know which of that it has already.
   */
  linked(from: MemberId, to: MemberId, told: readonly Range[]): void {
    const [source, target] = [this.#member(from), this.#member(to)];
    if (source === undefined || target === undefined) {
      // It has been taken away meanwhile, and its primary has not heard.
      for (const range of told) this.copyableBytes += range.length;
      return;
    }
    const known = knownDifferences(source, target);
    if (known !== 'everything') {
      this.copyableBytes += known.size * BLOCK_BYTES;
      return;
    }
    const blocks = new Set([...source.disk.data.keys(), ...target.disk.data.keys()].map(blockOf));
    for (const block of source.disk.bits.get(to)?.keys() ?? []) blocks.add(block);
    const ranges = [...told, ...source.disk.unsettled(), ...target.disk.unsettled()];
    for (const range of ranges) for (const block of blocksOf(range)) blocks.add(block);
    this.copyableBytes += blocks.size * BLOCK_BYTES;
  }

  /** Nothing happens any more. Undefined, or what is still to be done. */
  unsettledYet(): string | undefined {
    const directory = this.#directory();
    for (const { realVolume, pair, reason, wanted } of directory.secondaries()) {
      if (wanted === 'following' && pair !== 'duplex') return `${realVolume} is ${pair} (${reason})`;
    }
    if (directory.isBusy) return 'an operation is under way';
    if (directory.isOlder) return 'an older catalog is not mended';
    return directory.isTold ? undefined : 'members have not answered what they were told';
  }

  lookWhenQuiet(nowMs: number): void {
    const directory = this.#directory();
    this.look(nowMs);
    const primary = this.#member(directory.primary);
    for (const { realVolume, pair } of directory.secondaries()) {
      const member = this.#member(realVolume);
      if (pair !== 'duplex' || primary === undefined || member === undefined) continue;
      const [block] = differingBlocks(primary.disk, member.disk, directory.segment.length);
      if (block !== undefined) {
        throw this.#violation(
          `quiet: ${realVolume} is duplex, and differs from ${primary.id} in block ${block}`,
        );
      }
    }
    if (this.copiedBytes > this.copyableBytes) {
      throw this.#violation(
        `copied: ${this.copiedBytes} bytes, and only ${this.copyableBytes} differed or were new`,
      );
    }
  }
}
