/**
 * A member as its hosts see it: what a storage system's door and its replicated volume do with requests before they come to the rules.
 *
 * 1. A connection belongs to the epoch that it was opened with. What waited for an epoch is not served in a later one.
 * 2. What came over a connection that has died is finished, or dropped, before what comes over a later one is begun (SPEC N4).
 */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { Request, RequestError } from '../../src/replication/effects.ts';
import { SECTOR_BYTES } from './layout.ts';
import type { MemberProcess, Surroundings } from './member-process.ts';

/** What a host's next request has in the same place: no sector holds it by right. */
const RUBBISH = 0xee;

export type Hosts = 'here' | 'hold' | 'refuse' | { readonly through: MemberId };

/** Of a gateway, or of a member that serves through. */
export interface Connection {
  readonly name: string;
  readonly epoch: number;
  isOpen: boolean;
}

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
}

export class Door {
  readonly #process: MemberProcess;
  readonly #around: Surroundings;
  readonly #underWay = new Map<number, HostRequest>();
  /** The payloads of those: they are the hosts' again as soon as they are answered. */
  readonly #payloads = new Map<number, Buffer>();
  #waiting: HostRequest[] = [];
  #epoch = 0;
  #hosts: Hosts = 'refuse';

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

  serve(epoch: number, hosts: Hosts): void {
    this.#epoch = epoch;
    this.#hosts = hosts;
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
    this.#waiting = this.#waiting.filter((request) => request.connection !== connection);
  }

  end(): void {
    this.#waiting = [];
    this.#payloads.clear();
    this.#underWay.clear();
  }

  /** What waits, and can go on now. */
  look(): void {
    if (this.#process.isFrozen || !this.#process.isAlive) return;
    for (const request of this.#waiting.splice(0)) {
      if (!this.#process.isAlive) return;
      if (request.connection.isOpen) this.#place(request);
    }
  }

  #place(request: HostRequest): void {
    const { epoch } = request.connection;
    const hosts = this.#hosts;
    const isOlder = epoch < this.#epoch;
    if (epoch > this.#epoch || hosts === 'refuse' || (isOlder && hosts === 'here')) {
      request.reply('shutdown', []);
    } else if (hosts === 'hold' || this.#awaitsTheDead()) {
      this.#waiting.push(request);
    } else if (hosts === 'here') {
      if (request.sectors.end * SECTOR_BYTES > this.#process.disk.rowBytes) request.reply('invalid', []);
      else this.#begin(request);
    } else this.#around.through(this.#process.id, hosts.through, this.#epoch, request);
  }

  #begin(request: HostRequest): void {
    const { scheduler } = this.#around.network;
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

  #awaitsTheDead(): boolean {
    for (const { connection, request } of this.#underWay.values()) {
      if (!connection.isOpen && request.kind !== 'read') return true;
    }
    return false;
  }
}
