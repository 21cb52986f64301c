/**
 * A gateway with one host behind it: it writes, reads and flushes, follows the record to whoever is primary, and sends again there what has not been
 * answered. What it is told goes into the history.
 *
 * After a hand-over its path to the primary of before finishes what it has in hand, for a while, beside the new one. What has to be sent again of that,
 * and what an earlier life may have sent, goes over a path that demands to be alone.
 */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { Request, RequestError } from '../../src/replication/effects.ts';
import type { Connection, Flaw } from './door.ts';
import type { History, WriteEntry } from './history.ts';
import { BLOCK_SECTORS, CLUSTER_BLOCKS, CLUSTERS, payloadOf, SECTOR_BYTES } from './layout.ts';
import type { MemberProcess } from './member-process.ts';
import type { Network } from './network.ts';

export interface HostWorld {
  readonly network: Network;
  readonly history: History;
  process(id: MemberId): MemberProcess | undefined;
  trace(who: string, what: () => string): void;
  violation(text: string): Error;
  /** Of the volume, as gateways know it. */
  readonly sizeBytes: number;
  /** Who is primary, by what the directory would say if it could be heard. */
  look(host: string): View | undefined;
  /** When the rules last allowed to lose what had been answered and not flushed. */
  readonly licensedMs: number;
  /** And of which epoch the primary was. */
  readonly licensedEpoch: number;
  /** Answers of this epoch are nothing that can be relied upon: a failover has been forced, and it does not know yet. */
  isForsaken(epoch: number): boolean;
  readonly flaws: readonly Flaw[];
  /** Passages are as they are: what is in them may be late, and gateways know. */
  readonly hasPassages: boolean;
}

interface Task {
  readonly id: number;
  readonly request: Request;
  readonly first: number;
  readonly end: number;
  readonly startedMs: number;
  readonly write: WriteEntry | undefined;
  sentBy: Connection | undefined;
}

interface View {
  readonly epoch: number;
  readonly primary: MemberId;
  /** The primary before serves through what it has in hand. */
  readonly isHandedOver: boolean;
}

interface Answer {
  readonly error: RequestError | undefined;
  readonly values: readonly number[];
  readonly saidMs: number;
}

interface Path {
  readonly member: MemberId;
  readonly process: MemberProcess;
  readonly connection: Connection;
  readonly isAlone: boolean;
  /** It has been answered. */
  isReady: boolean;
}

const LOOK_MS = 60;
/** Something that is always inside. */
const CLUSTER_START = (CLUSTERS[0] ?? 0) * BLOCK_SECTORS;
/** Of a hundred requests, the last are reads. */
const READS_FROM = 75;

export interface HostHabits {
  readonly depth: number;
  readonly thinkMs: number;
}

export class Host {
  readonly name: string;
  readonly #world: HostWorld;
  readonly #habits: HostHabits;
  #tasks = new Map<number, Task>();
  #path: Path | undefined;
  /** Those that only finish what they have in hand. */
  #finishing: Path[] = [];
  /** In this life of the gateway. */
  #hasOpened = false;
  #view: View | undefined;
  #count = 0;
  readonly #arrivals = new WeakMap<MemberProcess, number>();
  #notBeforeMs = 0;
  isWorking = false;

  constructor(name: string, world: HostWorld, habits: HostHabits) {
    this.name = name;
    this.#world = world;
    this.#habits = habits;
    this.#looking();
    this.#working();
  }

  get isIdle(): boolean {
    return this.#tasks.size === 0;
  }

  describe(): string {
    const tasks = [...this.#tasks.values()].map(
      ({ id, request, startedMs }) => `${request.kind} ${id} of ${startedMs.toFixed(0)}`,
    );
    return `${this.name} waits for ${tasks.join(', ')} at ${this.#path?.member ?? 'nobody'}`;
  }

  /** The gateway's process ends, and comes again: nobody sends again what it had not answered. */
  crash(): void {
    this.#world.trace(this.name, () => `CRASH with ${this.#tasks.size} requests`);
    this.breakPaths();
    this.#hasOpened = false;
    if (this.#world.hasPassages && this.#world.network.scheduler.chance(0.5)) {
      // The host sends them again.
      for (const task of this.#tasks.values()) task.sentBy = undefined;
      return;
    }
    for (const { write } of this.#tasks.values()) {
      if (write !== undefined) this.#abandoned.push(write);
    }
    this.#tasks.clear();
  }

  /** All its connections are lost. */
  breakPaths(): void {
    this.#leave(this.#path);
    for (const path of [...this.#finishing]) this.#leave(path);
  }

  readonly #abandoned: WriteEntry[] = [];

  /** Nothing is under way anywhere: what was given up has had its chance. */
  settle(): void {
    for (const write of this.#abandoned.splice(0)) this.#world.history.fail(write, this.#nowMs);
  }

  get #nowMs(): number {
    return this.#world.network.scheduler.nowMs;
  }

  // --- work --------------------------------------------------------------------------------------------------

  #working(): void {
    const { scheduler } = this.#world.network;
    if (this.isWorking && this.#tasks.size < this.#habits.depth) this.#begin(scheduler.random.below(100));
    // Who waits for writes may still read.
    else if (this.isWorking && this.#tasks.size < this.#habits.depth + 2) this.#begin(READS_FROM);
    scheduler.after(scheduler.between(0, this.#habits.thinkMs * 2), () => this.#working());
  }

  #begin(dice: number): void {
    const { scheduler } = this.#world.network;
    const { first, end } = this.#inside(this.#range());
    const fua = scheduler.chance(0.15);
    const range = { offset: first * SECTOR_BYTES, length: (end - first) * SECTOR_BYTES };
    if (dice < 55) {
      const write = this.#world.history.start(first, end, false, this.#nowMs);
      const payload = payloadOf(Array.from({ length: end - first }, () => write.id));
      this.#add({ kind: 'write', ...range, fua, payload }, first, end, write);
    } else if (dice < 60) {
      const write = this.#world.history.start(first, end, true, this.#nowMs);
      this.#add({ kind: 'zero', ...range, fua, noHole: scheduler.chance(0.5) }, first, end, write);
    } else if (dice < 65) {
      const write = this.#world.history.start(first, end, true, this.#nowMs);
      this.#add({ kind: 'trim', ...range, fua }, first, end, write);
    } else if (dice < READS_FROM) this.#add({ kind: 'flush' }, 0, 0, undefined);
    else this.#add({ kind: 'read' }, first, end, undefined);
  }

  /** Most requests are of one block, some of a part of it, some of several. */
  #range(): { first: number; end: number } {
    const { random } = this.#world.network.scheduler;
    const cluster = (CLUSTERS[random.below(CLUSTERS.length)] ?? 0) * BLOCK_SECTORS;
    const kind = random.below(10);
    const block = random.below(CLUSTER_BLOCKS);
    if (kind < 6)
      return { first: cluster + block * BLOCK_SECTORS, end: cluster + (block + 1) * BLOCK_SECTORS };
    if (kind < 8) {
      const first = cluster + block * BLOCK_SECTORS + random.below(BLOCK_SECTORS - 1);
      const end = first + 1 + random.below(3);
      return { first, end: Math.min(end, cluster + CLUSTER_BLOCKS * BLOCK_SECTORS) };
    }
    const last = Math.min(CLUSTER_BLOCKS, block + 2 + random.below(4));
    return { first: cluster + block * BLOCK_SECTORS, end: cluster + last * BLOCK_SECTORS };
  }

  /** What is behind the end is nobody's to ask for. */
  #inside({ first, end }: { first: number; end: number }): { first: number; end: number } {
    const sectors = this.#world.sizeBytes / SECTOR_BYTES;
    if (first >= sectors)
      return { first: CLUSTER_START, end: CLUSTER_START + Math.min(end - first, BLOCK_SECTORS) };
    return { first, end: Math.min(end, sectors) };
  }

  #add(request: Request, first: number, end: number, write: WriteEntry | undefined): void {
    const task = { id: ++this.#count, request, first, end, startedMs: this.#nowMs, write, sentBy: undefined };
    this.#tasks.set(task.id, task);
    this.#world.trace(
      this.name,
      () =>
        `begins ${task.id}: ${request.kind} ${first}..${end} ${write === undefined ? '' : `#${write.id}`}`,
    );
    this.#send(task);
  }

  // --- the path ----------------------------------------------------------------------------------------------

  #looking(): void {
    const { network } = this.#world;
    const view = this.#world.look(this.name);
    if (view !== undefined) {
      // What it hears is as old as its way is long.
      network.scheduler.after(network.delayMs(), () => {
        if (this.#view === undefined || view.epoch > this.#view.epoch) this.#view = view;
      });
    }
    this.#mind();
    network.scheduler.after(network.scheduler.between(LOOK_MS / 2, LOOK_MS * 2), () => this.#looking());
  }

  #mind(): void {
    for (const path of [this.#path, ...this.#finishing])
      if (path?.process.isAlive === false) this.#leave(path);
    const path = this.#path;
    if (path !== undefined && this.#isOld(path)) {
      if (!this.#isDraining(path)) this.#leave(path);
      else if (this.#world.hasPassages) this.#finish(path);
    }
    if (this.#path !== undefined || this.#view === undefined || this.#nowMs < this.#notBeforeMs) return;
    const { epoch, primary } = this.#view;
    const process = this.#world.process(primary);
    const { network } = this.#world;
    if (process === undefined || network.isCut(this.name, primary) || network.isCut(primary, this.name))
      return;
    const connection = { name: `${this.name}/${++this.#count}`, epoch, isPassage: false, isOpen: true };
    const isAlone = !this.#world.flaws.includes('undemanded') && this.#mustBeAlone(epoch);
    this.#path = { member: primary, process, connection, isAlone, isReady: !this.#world.hasPassages };
    if (this.#world.hasPassages) this.#connect(this.#path);
    else this.#sendAll();
  }

  /** Something that was sent to another primary, or in another life, has to be sent again. */
  #mustBeAlone(epoch: number): boolean {
    const isLost = ({ write, sentBy }: Task): boolean =>
      write !== undefined && sentBy !== undefined && sentBy.epoch !== epoch && !this.#isFinishing(sentBy);
    return !this.#hasOpened || [...this.#tasks.values()].some(isLost);
  }

  #connect(path: Path): void {
    const { network } = this.#world;
    const { connection, isAlone } = path;
    this.#world.trace(
      this.name,
      () => `connects to ${path.member} as of ${connection.epoch} ${isAlone ? 'ALONE' : ''}`,
    );
    this.#arrive(path, 0, () => {
      if (!path.process.isAlive) return;
      if (network.isCut(this.name, path.member)) return this.#broken(path);
      path.process.door.connect({
        ...{ connection, isAlone },
        answer: (isTaken) => network.scheduler.after(network.delayMs(), () => this.#connected(path, isTaken)),
      });
    });
  }

  #connected(path: Path, isTaken: boolean): void {
    if (this.#path !== path) return;
    if (this.#world.network.isCut(path.member, this.name)) {
      this.#broken(path);
      return;
    }
    if (!isTaken) {
      this.#refused(path);
      return;
    }
    path.isReady = true;
    this.#hasOpened = true;
    this.#sendAll();
  }

  #refused(path: Path): void {
    const { scheduler } = this.#world.network;
    this.#notBeforeMs = this.#nowMs + scheduler.between(10, 150);
    this.#leave(path);
  }

  #sendAll(): void {
    for (const task of this.#tasks.values()) this.#send(task);
  }

  #isOld({ connection }: Path): boolean {
    return connection.epoch !== this.#view?.epoch;
  }

  /**
   * After a hand-over the primary before answers what it was sent: sending that again before would have it done twice, and the
   * second time perhaps behind something newer.
   */
  #isDraining({ connection }: Path): boolean {
    if (this.#view?.isHandedOver !== true || this.#view.epoch !== connection.epoch + 1) return false;
    return this.#owes(connection);
  }

  #owes(connection: Connection): boolean {
    for (const { sentBy } of this.#tasks.values()) if (sentBy === connection) return true;
    return false;
  }

  #isFinishing(connection: Connection | undefined): boolean {
    return this.#finishing.some((path) => path.connection === connection);
  }

  /** Nothing more is sent over it; what is not answered in time is sent again over another. */
  #finish(path: Path): void {
    const { scheduler } = this.#world.network;
    this.#path = undefined;
    this.#finishing.push(path);
    scheduler.after(scheduler.between(200, 4_000), () => {
      if (this.#finishing.includes(path)) this.#leave(path);
    });
  }

  #leave(path: Path | undefined): void {
    if (path === undefined) return;
    const isFinishing = this.#finishing.includes(path);
    if (this.#path === path) this.#path = undefined;
    this.#finishing = this.#finishing.filter((other) => other !== path);
    const { network } = this.#world;
    const lateMs = network.isCut(this.name, path.member) ? 3_000 : 0;
    this.#arrive(path, lateMs, () => path.process.door.closed(path.connection));
    if (isFinishing && this.#owes(path.connection)) this.#goOn();
  }

  /** What a path of before has not answered goes over the one of now, which may not be alone. */
  #goOn(): void {
    const path = this.#path;
    if (path === undefined || this.#isOld(path)) return;
    if (path.isAlone || !this.#mustBeAlone(path.connection.epoch)) this.#sendAll();
    else if (this.#owes(path.connection)) this.#finish(path);
    else this.#leave(path);
  }

  #send(task: Task): void {
    const path = this.#path;
    if (path?.isReady !== true || this.#isOld(path) || task.sentBy === path.connection) return;
    if (this.#isFinishing(task.sentBy)) return;
    task.sentBy = path.connection;
    const { network } = this.#world;
    this.#arrive(path, 0, () => {
      if (!path.process.isAlive) return;
      if (network.isCut(this.name, path.member)) return this.#broken(path);
      if (!path.connection.isOpen) return;
      path.process.door.request({
        connection: path.connection,
        request: task.request,
        sectors: task,
        reply: (error, values) => {
          const saidMs = this.#nowMs;
          network.scheduler.after(network.delayMs(), () => {
            this.#answered(task, path, { error, values, saidMs });
          });
        },
      });
    });
  }

  /** What this gateway says to one process arrives in its order. */
  #arrive({ process }: Path, delayMs: number, action: () => void): void {
    const { network } = this.#world;
    const nowMs = this.#nowMs;
    const atMs = Math.max(nowMs + delayMs + network.delayMs(), this.#arrivals.get(process) ?? 0);
    this.#arrivals.set(process, atMs);
    network.scheduler.after(atMs - nowMs, action);
  }

  /** A connection that is cut stalls; somebody gives it up after a while. */
  #broken(path: Path): void {
    const { scheduler } = this.#world.network;
    scheduler.after(scheduler.between(500, 3_000), () => {
      if (this.#holds(path)) this.#leave(path);
    });
  }

  #holds(path: Path): boolean {
    return this.#path === path || this.#finishing.includes(path);
  }

  #answered(task: Task, path: Path, answer: Answer): void {
    const { error } = answer;
    if (this.#world.network.isCut(path.member, this.name)) {
      this.#broken(path);
      return;
    }
    if (!this.#holds(path) || this.#tasks.get(task.id) !== task || task.sentBy !== path.connection) return;
    if (error === 'shutdown') {
      this.#refused(path);
      return;
    }
    this.#tasks.delete(task.id);
    if (this.#finishing.includes(path) && !this.#owes(path.connection)) this.#leave(path);
    const text = error ?? (task.request.kind === 'read' ? answer.values.join(' ') : 'done');
    this.#world.trace(this.name, () => `has ${task.id} answered: ${text}`);
    this.#record(task, path, answer);
  }

  #record(task: Task, path: Path, { error, values, saidMs }: Answer): void {
    const { history } = this.#world;
    const isForsaken = this.#world.isForsaken(path.connection.epoch);
    if (error !== undefined || isForsaken) {
      if (task.write !== undefined) history.fail(task.write, this.#nowMs);
      return;
    }
    if (task.write !== undefined) {
      const isDurable = task.request.kind !== 'flush' && task.request.kind !== 'read' && task.request.fua;
      history.answer(task.write, this.#nowMs, isDurable);
      // It may have been lost since, where that is allowed.
      if (saidMs <= this.#world.licensedMs) history.license(sectorsFrom(task), false);
    } else if (task.request.kind === 'flush') history.flushed(task.startedMs);
    else {
      const { licensedMs, licensedEpoch } = this.#world;
      // What was said before what was not flushed could be lost, and by a primary of before that still holds its lease: it may be there no
      // more. That is allowed, and what they have said no evidence.
      const isOfBefore = saidMs <= licensedMs || path.connection.epoch < licensedEpoch;
      for (const [index, value] of values.entries()) {
        const sector = task.first + index;
        const objection = isOfBefore
          ? history.objection(sector, value, task.startedMs)
          : history.read(sector, value, task.startedMs, this.#nowMs);
        if (objection !== undefined) {
          throw this.#world.violation(
            `a read of ${this.name} at ${path.member}, begun at ${task.startedMs.toFixed(1)}: ${objection}`,
          );
        }
      }
    }
  }
}

function sectorsFrom({ first, end }: Task): number[] {
  return Array.from({ length: end - first }, (_, index) => first + index);
}
