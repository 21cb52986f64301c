/**
 * A whole cluster in one process: members with the real rules (replication/), the directory with its real rules, gateways with hosts, disks, a network,
 * and everything that can go wrong with them, all by one seed. `run` plays one seed and says what it has found.
 */

import type { CopyRecord, SegmentRecord } from '../../src/control-protocol/catalog.ts';
import type { Fence } from '../../src/control-protocol/copy-groups.ts';
import type { AccessKey, RealVolumeId, StorageName } from '../../src/control-protocol/names.ts';
import type { MemberId, Range } from '../../src/peer-protocol/messages.ts';
import type { Effect } from '../../src/replication/effects.ts';
import { newCopy, primaryOf } from '../../src/replication/group-rules.ts';
import { DEFAULT_LIMITS } from '../../src/replication/limits.ts';
import { seededRandom } from '../support/random.ts';
import { Directory, type DirectoryWorld } from './directory.ts';
import type { Flaw, HostRequest } from './door.ts';
import { EarlyPassages } from './early-passages.ts';
import { Faults } from './faults.ts';
import { History } from './history.ts';
import { Host, type HostWorld } from './host.ts';
import { BLOCK_BYTES, blockOf, HOT_SECTORS, SECTOR_BYTES, VOLUME_BYTES } from './layout.ts';
import { MemberDisk } from './member-disk.ts';
import { MemberProcess, type ProcessPace, type ReplicaLike, type Surroundings } from './member-process.ts';
import { type Mutant, mutate } from './mutants.ts';
import { Network } from './network.ts';
import { knownDifferences, Oracles } from './oracles.ts';
import { Passages } from './passages.ts';
import { anyLimits, type Limits, makeReplica } from './replicas.ts';
import { Scheduler } from './scheduler.ts';

export interface RunOptions {
  readonly seed: number;
  readonly mutant?: Mutant | undefined;
  readonly isTracing?: boolean;
  /** It plays as in an earlier era of the simulation: the first knew no resizes and full disks, the second no passages that are late. */
  readonly era?: 1 | 2;
  /** With a fault more: an older catalog is put back. */
  readonly hasOlderCatalogs?: boolean;
}

export interface RunResult {
  readonly seed: number;
  /** What was found; undefined: nothing. */
  readonly violation: string | undefined;
  readonly trace: readonly string[];
  readonly events: number;
  readonly statistics: Statistics;
}

export interface Statistics {
  answers: number;
  epochs: number;
  faults: Record<string, number>;
}

export class Violation extends Error {}

interface Member {
  readonly id: MemberId;
  readonly disk: MemberDisk;
  process: MemberProcess | undefined;
  lives: number;
  isTainted: boolean;
  endedMs: number;
}

const LOOK_EVERY_EVENTS = 100;
const QUIET_MS_MAX = 90_000;
const IDLE_MS = 1_500;
/** Shorter than it is, as runs are: with fence `status`, how long a change of the record is waited for. */
const RECORD_MS = 1_000;

export function run(options: RunOptions): RunResult {
  const world = new World(options);
  const violation = world.play();
  return {
    seed: options.seed,
    violation,
    trace: world.lines,
    events: world.scheduler.executed,
    statistics: world.statistics,
  };
}

export class World implements Surroundings, DirectoryWorld, HostWorld {
  readonly scheduler: Scheduler;
  readonly network: Network;
  readonly history = new History(HOT_SECTORS);
  readonly directory: Directory;
  readonly oracles: Oracles;
  readonly hosts: Host[] = [];
  readonly lines: string[] = [];
  readonly statistics: Statistics = { answers: 0, epochs: 0, faults: {} };
  readonly fence: Fence;
  readonly recordMs: number;
  licensedMs = Number.NEGATIVE_INFINITY;
  licensedEpoch = 0;
  readonly #options: RunOptions;
  readonly #members = new Map<MemberId, Member>();
  readonly passages: Passages;
  readonly hasPassages: boolean;
  readonly flaws: readonly Flaw[];
  readonly #early: EarlyPassages;
  readonly #pace: ProcessPace;
  readonly #limits: Limits;
  #ids = 0;
  #tokens = 0;
  /** Whoever answers in an epoch before this one has been forsaken by a person. */
  #forcedEpoch = 0;

  constructor(options: RunOptions) {
    this.#options = options;
    this.scheduler = new Scheduler(seededRandom(options.seed));
    const { scheduler } = this;
    this.network = new Network(scheduler, (id) => this.process(id));
    this.passages = new Passages(this.network, (id) => this.process(id));
    this.#early = new EarlyPassages(this.network, (id) => this.process(id));
    this.hasPassages = options.era === undefined;
    this.flaws = options.mutant?.flaws ?? [];
    this.#pace = {
      stepsDuringPersist: scheduler.chance(0.5),
      diskMs: scheduler.chance(0.2) ? 20 : 1,
      persistMs: scheduler.chance(0.2) ? 100 : 5,
    };
    this.recordMs = options.era === 1 ? DEFAULT_LIMITS.recordMs : RECORD_MS;
    this.#limits = anyLimits(scheduler, this.recordMs);
    this.network.delays.lateChance = scheduler.chance(0.3) ? 0.05 : 0.003;
    const copies = Array.from({ length: 1 + scheduler.random.below(4) }, () => this.makeCopy());
    copies[0] = { ...copies[0]!, role: 'primary', pair: 'simplex', reason: null };
    const fence = scheduler.chance(0.8) ? 'never' : scheduler.chance(0.5) ? 'status' : 'data';
    this.fence = options.mutant?.fence ?? fence;
    this.directory = new Directory(this, copies, this.fence);
    this.oracles = new Oracles(
      this.history,
      () => this.directory,
      (id) => this.#members.get(id),
      (text) => this.violation(text),
    );
  }

  /** Undefined, or what was found. */
  play(): string | undefined {
    try {
      this.#play();
      return undefined;
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      const text = error instanceof Violation ? error.message : `${error.stack ?? error.message}`;
      this.trace('VIOLATION', () => text);
      return text;
    }
  }

  #play(): void {
    const { scheduler } = this;
    for (const { realVolume } of this.directory.segment.copies) this.start(realVolume);
    this.directory.start();
    this.directory.tellAll();
    const hosts = 1 + scheduler.random.below(3);
    const habits = { depth: 1 + scheduler.random.below(6), thinkMs: scheduler.between(10, 80) };
    for (let index = 0; index < hosts; index++) this.hosts.push(new Host(`host${index + 1}`, this, habits));
    const rounds = 1 + scheduler.random.below(3);
    for (let round = 0; round < rounds; round++) this.#round();
  }

  #round(): void {
    const { scheduler } = this;
    this.trace('ROUND', () => 'faults begin');
    for (const host of this.hosts) host.isWorking = true;
    const faults = new Faults(this, this.#options);
    faults.begin();
    this.#runFor(scheduler.between(2_000, 12_000), () => false);
    faults.end();
    this.trace('ROUND', () => 'faults end');
    this.#runFor(scheduler.between(0, 3_000), () => false);
    for (const host of this.hosts) host.isWorking = false;
    this.trace('ROUND', () => 'hosts have stopped');
    const isQuiet = (): boolean =>
      this.hosts.every((host) => host.isIdle) && this.oracles.unsettledYet() === undefined;
    if (!this.#runFor(QUIET_MS_MAX, isQuiet)) {
      const waiting = this.hosts.filter((host) => !host.isIdle).map((host) => host.describe());
      throw this.violation(`hangs: ${[...waiting, this.oracles.unsettledYet() ?? ''].join('; ')}`);
    }
    this.#runFor(IDLE_MS, () => false);
    // A record that says duplex may be one that has not heard yet: with a fence hosts wait for nothing meanwhile.
    const isLeaving = (): boolean => this.process(this.directory.primary)?.isLeaving === true;
    if (isLeaving() && !this.#runFor(QUIET_MS_MAX, () => !isLeaving() && isQuiet())) {
      throw this.violation(
        `hangs: a pair is being left, ${this.oracles.unsettledYet() ?? 'and all else is quiet'}`,
      );
    }
    for (const host of this.hosts) host.settle();
    this.oracles.lookWhenQuiet(scheduler.nowMs);
  }

  #runFor(durationMs: number, isDone: () => boolean): boolean {
    const untilMs = this.scheduler.nowMs + durationMs;
    for (let count = 0; this.scheduler.step(untilMs); count++) {
      if (count % LOOK_EVERY_EVENTS !== 0) continue;
      this.oracles.look(this.scheduler.nowMs);
      if (isDone()) return true;
    }
    return isDone();
  }

  // --- members -----------------------------------------------------------------------------------------------

  get members(): readonly Member[] {
    return [...this.#members.values()];
  }

  makeCopy(): CopyRecord {
    const id = `rv-${(++this.#ids).toString(16).padStart(16, '0')}` as RealVolumeId;
    this.#members.set(id, {
      id,
      disk: new MemberDisk(this.sizeBytes),
      process: undefined,
      lives: 0,
      isTainted: false,
      endedMs: 0,
    });
    return newCopy({
      storage: `storage${this.#ids}` as StorageName,
      realVolume: id,
      realOffset: 0,
      accessKey: '0'.repeat(32) as AccessKey,
      file: null,
    });
  }

  get sizeBytes(): number {
    return this.directory?.segment.length ?? VOLUME_BYTES;
  }

  process(id: MemberId): MemberProcess | undefined {
    const process = this.#members.get(id)?.process;
    return process?.isAlive === true ? process : undefined;
  }

  disk(id: MemberId): MemberDisk | undefined {
    return this.#members.get(id)?.disk;
  }

  start(id: MemberId): void {
    const member = this.#members.get(id);
    if (member === undefined || member.process !== undefined) return;
    this.trace(id, () => 'STARTS');
    const process = new MemberProcess(id, ++member.lives, member.disk, this, this.#pace);
    member.process = process;
    process.onEnd = () => {
      member.process = undefined;
      member.endedMs = this.scheduler.nowMs;
      this.#died(process, true);
    };
    process.begin();
    this.scheduler.after(this.network.delayMs() * 5, () => this.directory.registered(id));
  }

  kill(id: MemberId): void {
    this.trace(id, () => 'KILLED');
    this.process(id)?.end();
  }

  losePower(id: MemberId): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    this.trace(id, () => 'POWER LOST');
    const { process } = member;
    if (process !== undefined) {
      process.onEnd = undefined;
      process.end();
      member.process = undefined;
      member.endedMs = this.scheduler.nowMs;
      this.#died(process, false);
    }
    member.disk.losePower(this.scheduler.random);
    member.isTainted = true;
  }

  /** It has been taken from the record: its storage system deletes it. */
  destroy(id: MemberId): void {
    this.process(id)?.end();
    this.#members.delete(id);
  }

  isOnline(id: MemberId): boolean {
    const member = this.#members.get(id);
    if (member === undefined) return false;
    return member.process !== undefined || this.scheduler.nowMs - member.endedMs < 1_000;
  }

  #died(process: MemberProcess, hasPower: boolean): void {
    this.network.died(process, hasPower);
    this.passages.died(process, hasPower);
    this.#early.died(process);
  }

  // --- what members need -------------------------------------------------------------------------------------

  makeReplica(by: MemberProcess): ReplicaLike {
    const replica = makeReplica(by.id, this.#limits);
    const { mutant } = this.#options;
    return mutant === undefined ? replica : mutate(replica, by, mutant);
  }

  carryOut(by: MemberProcess, effect: Effect, carryOut: (effect: Effect) => void): void {
    const changed = this.#options.mutant?.effect?.(effect, by);
    for (const each of changed ?? [effect]) carryOut(each);
  }

  nextToken(): number {
    return ++this.#tokens;
  }

  trace(who: string, what: () => string): void {
    if (this.#options.isTracing !== true) return;
    const line = `${this.scheduler.nowMs.toFixed(2).padStart(10)} ${who.padEnd(10)} ${what()}`;
    this.lines.push(line.replaceAll(/rv-0+/g, 'm'));
  }

  violation(text: string): Error {
    return new Violation(text.replaceAll(/rv-0+/g, 'm'));
  }

  served(by: MemberProcess, epoch: number, kind: string): void {
    this.statistics.answers++;
    this.goesOn(by);
    this.oracles.served(by.id, epoch, kind, this.isForsaken(epoch));
  }

  goesOn(by: MemberProcess): void {
    const member = this.#members.get(by.id);
    if (member?.isTainted !== true) return;
    if ((member.disk.durable?.mayBeInStep ?? []).length > 0 && !by.isToldToGoOn) {
      throw this.violation(`I14: ${by.id} goes on without what it had not flushed, and others may have it`);
    }
    this.trace(by.id, () => 'goes on without what it had not flushed');
    // To whom it was given by force, nobody has promised that it has flushed what others have.
    this.history.license(HOT_SECTORS, member.disk.durable?.config.isForced === true);
    this.licensedMs = this.scheduler.nowMs;
    this.licensedEpoch = member.disk.durable?.epoch ?? 0;
    this.madeWhole(by.id);
  }

  madeWhole(id: MemberId): void {
    const member = this.#members.get(id);
    if (member === undefined) return;
    member.isTainted = false;
  }

  written(blocks: number): void {
    this.oracles.copyableBytes += blocks * BLOCK_BYTES;
  }

  copied(_by: MemberProcess, range: Range): void {
    this.oracles.copiedBytes += range.length;
  }

  linked(by: MemberProcess, to: MemberId, told: readonly Range[]): void {
    this.oracles.linked(by.id, to, told);
  }

  through(from: MemberId, to: MemberId, epoch: number, request: HostRequest): void {
    (this.hasPassages ? this.passages : this.#early).through(from, to, epoch, request);
  }

  // --- what the directory and the hosts need -----------------------------------------------------------------

  changing(from: SegmentRecord, to: SegmentRecord, why: string): void {
    // What was cut off is not there when it comes again.
    const { nowMs } = this.scheduler;
    if (to.length > from.length) this.history.zeroed(sectorsBetween(from.length, to.length), nowMs);
    else if (to.length < from.length) this.history.cut(sectorsBetween(to.length, from.length), nowMs);
    if (to.epoch === from.epoch) return;
    this.statistics.epochs++;
    const { realVolume } = primaryOf(to);
    const before = primaryOf(from);
    const chosen = from.copies.find((copy) => copy.realVolume === realVolume);
    if (before.realVolume === realVolume || chosen === undefined || chosen.pair === 'duplex') return;
    this.#forcedEpoch = to.epoch;
    const [source, target] = [this.#members.get(before.realVolume), this.#members.get(realVolume)];
    const known =
      source !== undefined && target !== undefined ? knownDifferences(source, target) : 'everything';
    this.trace('directory', () => `${why}: what ${realVolume} lacks may be lost`);
    const sectors = HOT_SECTORS.filter((sector) => known === 'everything' || known.has(blockOf(sector)));
    this.history.license(sectors, true);
  }

  changed(): void {
    this.oracles.look(this.scheduler.nowMs);
  }

  look(host: string): ReturnType<HostWorld['look']> {
    const { directory, network } = this;
    if (!directory.isUp || network.isCut('directory', host) || network.isCut(host, 'directory'))
      return undefined;
    const { epoch, isHandedOver } = directory.segment;
    return { epoch, primary: directory.primary, isHandedOver };
  }

  isForsaken(epoch: number): boolean {
    return epoch < this.#forcedEpoch;
  }
}

function sectorsBetween(fromBytes: number, toBytes: number): number[] {
  return HOT_SECTORS.filter(
    (sector) => sector * SECTOR_BYTES >= fromBytes && (sector + 1) * SECTOR_BYTES <= toBytes,
  );
}
