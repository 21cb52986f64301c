/**
 * A member as its hosts see it: what a storage system's door and its replicated volume do with requests before they come to the rules.
 *
 * 1. A connection belongs to the epoch that it was opened with. What waited for an epoch is not served in a later one.
 * 2. What came over a connection that has died is finished, or dropped, before what comes over a later one is begun (SPEC N4).
 * 3. Passages are taken as long as the rules say so, and until a gateway that connects demands to be alone: it gets its answer when all that
 *    came through them has been answered.
 */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { Effect, Request, RequestError } from '../../src/replication/effects.ts';
import { SECTOR_BYTES } from './layout.ts';
import type { MemberProcess, Surroundings } from './member-process.ts';

/** What a host's next request has in the same place: no sector holds it by right. */
const RUBBISH = 0xee;

/** Deliberate bugs of gateways and doors: a gateway demands nothing; a demand is answered before what is under way has ended. */
export type Flaw = 'undemanded' | 'unawaited';

export type Hosts = 'here' | 'hold' | 'refuse' | { readonly through: MemberId };

/** Of a gateway, or of a member that serves through. */
export interface Connection {
  readonly name: string;
  readonly epoch: number;
  readonly isPassage: boolean;
  isOpen: boolean;
}

/** A gateway connects. */
interface Call {
  readonly connection: Connection;
  readonly isAlone: boolean;
  readonly answer: (isTaken: boolean) => void;
}

export type Served = Extract<Effect, { readonly kind: 'serve' }>;

export interface HostRequest {
  readonly connection: Connection;
  readonly request: Request;
  /** Of a read: what it looks at. */
  readonly sectors: { readonly first: number; readonly end: number };
  /** Called once, or never when the process ends. */
  readonly reply: (error: RequestError | undefined, values: readonly number[]) => void;
}

export interface Passage {
  /** Sends a request on to another member, in the name of this one. */
  through(from: MemberId, to: MemberId, epoch: number, request: HostRequest): void;
  readonly flaws: readonly Flaw[];
  /** They are as they are: what is in them may be late. */
  readonly hasPassages: boolean;
}

export class Door {
  readonly #process: MemberProcess;
  readonly #around: Surroundings;
  readonly #underWay = new Map<number, HostRequest>();
  /** The payloads of those: they are the hosts' again as soon as they are answered. */
  readonly #payloads = new Map<number, Buffer>();
  #waiting: HostRequest[] = [];
  #calls: Call[] = [];
  readonly #taken = new WeakSet<Connection>();
  /** What has not been answered, in order of arrival; earlier eras do without. */
  readonly #inside = new Set<HostRequest>();
  readonly #whole = new WeakSet<HostRequest>();
  #epoch = 0;
  #hosts: Hosts = 'refuse';
  /** From members that connect. */
  #takesPassages = false;
  /** Passages of this epoch, and of those before, have been shut. */
  #shutEpoch = 0;
  /** All doors of this epoch, and of those before, have been shut. */
  #overEpoch = 0;

  constructor(process: MemberProcess, around: Surroundings) {
    this.#process = process;
    this.#around = around;
  }

  get epoch(): number {
    return this.#epoch;
  }

  /** Tokens of what the rules have not answered. */
  writesUnderWay(): number[] {
    return [...this.#payloads.keys()];
  }

  request(request: HostRequest): void {
    this.#waiting.push(request);
    this.look();
  }

  /** A gateway connects; with `isAlone` nothing that came, or comes, through a passage is done from its answer on. */
  connect(call: Call): void {
    this.#calls.push(call);
    this.look();
  }

  serve({ epoch, hosts, takesPassages }: Served): void {
    this.#epoch = epoch;
    this.#hosts = hosts;
    this.#takesPassages = takesPassages;
    if (hosts === 'here' || hosts === 'refuse') this.#overEpoch = epoch - 1;
    this.look();
  }

  admitted(token: number): void {
    const request = this.#underWay.get(token);
    if (request === undefined) throw this.#around.violation(`${this.#process.id} admits nobody's read`);
    this.#around.served(this.#process, request.connection.epoch, 'admitted');
    const { network } = this.#around;
    network.scheduler.after(network.scheduler.between(0, 2), () => {
      if (this.#process.isAlive && this.#underWay.delete(token)) this.#read(request);
    });
  }

  answered(token: number, error: RequestError | undefined): void {
    const request = this.#underWay.get(token);
    if (request === undefined) throw this.#around.violation(`${this.#process.id} answers what nobody asked`);
    this.#underWay.delete(token);
    this.#payloads.get(token)?.fill(RUBBISH);
    this.#payloads.delete(token);
    if (error === undefined)
      this.#around.served(this.#process, request.connection.epoch, request.request.kind);
    const isPassedOn = error === 'shutdown' && typeof this.#hosts === 'object';
    if (isPassedOn) this.#waiting.push(request);
    else request.reply(error, []);
    this.look();
  }

  /** Nothing of it has been done, and `serve` has said where it is to go. */
  forwarded(token: number): void {
    const request = this.#underWay.get(token);
    if (request === undefined) throw this.#around.violation(`${this.#process.id} forwards what nobody asked`);
    this.#underWay.delete(token);
    this.#payloads.get(token)?.fill(RUBBISH);
    this.#payloads.delete(token);
    this.#waiting.push(request);
    this.look();
  }

  closed(connection: Connection): void {
    connection.isOpen = false;
    // What is inside of a storage system goes on; earlier eras drop it.
    if (!this.#around.hasPassages)
      this.#waiting = this.#waiting.filter((request) => request.connection !== connection);
  }

  end(): void {
    this.#waiting = [];
    this.#calls = [];
    this.#payloads.clear();
    this.#underWay.clear();
    this.#inside.clear();
  }

  /** What waits, and can go on now. */
  look(): void {
    if (this.#process.isFrozen || !this.#process.isAlive) return;
    for (const request of this.#waiting.splice(0)) {
      if (!this.#process.isAlive) return;
      if (!this.#around.hasPassages && !request.connection.isOpen) continue;
      this.#place(this.#inside.has(request) ? request : this.#entered(request));
    }
    this.#answerCalls();
  }

  #answerCalls(): void {
    if (this.#process.isFrozen || !this.#process.isAlive) return;
    for (const call of this.#calls.splice(0)) {
      const { connection, isAlone, answer } = call;
      const isTaken = this.#hosts === 'here' && this.#epoch === connection.epoch;
      if (isTaken && isAlone) this.#shutEpoch = this.#epoch;
      const mustWait =
        isAlone && this.#isPassing(connection.epoch) && !this.#around.flaws.includes('unawaited');
      if (!connection.isOpen) continue;
      if (isTaken && mustWait) this.#calls.push(call);
      else {
        if (isTaken) this.#taken.add(connection);
        answer(isTaken);
      }
    }
  }

  #isPassing(epoch: number): boolean {
    for (const { connection } of this.#inside)
      if (connection.isPassage && connection.epoch === epoch) return true;
    return false;
  }

  /** It has come in, unless the door that it came to is shut. */
  #entered(request: HostRequest): HostRequest {
    const { connection, reply } = request;
    if (!this.#around.hasPassages || !this.#isLetIn(connection)) return request;
    const inside: HostRequest = {
      ...request,
      reply: (error, values) => {
        this.#inside.delete(inside);
        reply(error, values);
        this.#answerCalls();
      },
    };
    this.#taken.add(connection);
    this.#inside.add(inside);
    return inside;
  }

  #isLetIn(connection: Connection): boolean {
    const isTaken = this.#taken.has(connection) && connection.epoch > this.#overEpoch;
    if (!connection.isPassage) return isTaken;
    const isNew = this.#hosts === 'here' && this.#takesPassages && connection.epoch === this.#epoch;
    return connection.epoch > this.#shutEpoch && (isTaken || isNew);
  }

  #place(request: HostRequest): void {
    const { epoch } = request.connection;
    const hosts = this.#hosts;
    const isOlder = epoch < this.#epoch;
    if (
      epoch > this.#epoch ||
      hosts === 'refuse' ||
      (isOlder && hosts === 'here') ||
      !this.#isInside(request)
    ) {
      request.reply('shutdown', []);
    } else if (hosts === 'hold' || this.#awaitsTheDead(request)) {
      this.#waiting.push(request);
    } else if (hosts === 'here') {
      if (request.sectors.end * SECTOR_BYTES > this.#process.disk.rowBytes) request.reply('invalid', []);
      else this.#begin(request);
    } else this.#around.through(this.#process.id, hosts.through, this.#epoch, request);
  }

  /** What comes in pieces is not all with the rules as soon as it has come in. */
  #isInPieces(request: HostRequest): boolean {
    const { scheduler } = this.#around.network;
    if (!request.connection.isPassage || this.#whole.has(request)) return false;
    this.#whole.add(request);
    if (scheduler.chance(0.7)) return false;
    scheduler.after(scheduler.between(0, 1_000), () => this.request(request));
    return true;
  }

  #begin(request: HostRequest): void {
    const { scheduler } = this.#around.network;
    if (this.#isInPieces(request)) return;
    if (request.request.kind === 'read' && this.#process.servesNow() && scheduler.chance(0.7)) {
      this.#around.served(this.#process, request.connection.epoch, 'read');
      this.#read(request);
      return;
    }
    const token = this.#around.nextToken();
    this.#underWay.set(token, request);
    let handed = request.request;
    if (handed.kind === 'write') {
      const payload = Buffer.from(handed.payload);
      this.#payloads.set(token, payload);
      handed = { ...handed, payload };
    }
    this.#process.receive(request.connection.name, { kind: 'request', token, request: handed });
  }

  #read(request: HostRequest): void {
    const { first, end } = request.sectors;
    if (end * SECTOR_BYTES > this.#process.disk.fileBytes) {
      request.reply('invalid', []);
      return;
    }
    const values = Array.from({ length: end - first }, (_, index) =>
      this.#process.disk.data.get(first + index),
    );
    request.reply(undefined, values);
  }

  #isInside(request: HostRequest): boolean {
    return !this.#around.hasPassages || this.#inside.has(request);
  }

  /** What came through the same door, over a connection that has died, is to be over. */
  #awaitsTheDead(request: HostRequest): boolean {
    const before = this.#around.hasPassages ? this.#inside : this.#underWay.values();
    for (const other of before) {
      if (other === request) return false;
      const isDead = !other.connection.isOpen && other.request.kind !== 'read';
      if (isDead && isSameDoor(request.connection, other.connection)) return true;
    }
    return false;
  }
}

/** Each epoch has one for gateways, and one for passages; earlier eras have one for all. */
function isSameDoor(one: Connection, other: Connection): boolean {
  return one.isPassage === other.isPassage && one.epoch === other.epoch;
}
