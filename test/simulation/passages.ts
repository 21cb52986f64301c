/**
 * What members that have handed over do with requests of hosts that have not noticed yet: they send them through to the member that is primary now,
 * over a connection of their own. When that breaks, or takes nothing more, whoever waits is told to look for the primary.
 *
 * What is on its way through a passage may be late, also when the host that had asked, the member that sent it, or the connection has gone: a
 * cut stalls it, and its target hears of the end of a connection after what was sent over it.
 */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { RequestError } from '../../src/replication/effects.ts';
import type { Connection, HostRequest } from './door.ts';
import type { MemberProcess } from './member-process.ts';
import type { Network } from './network.ts';

interface Passage {
  /** As its target sees it. */
  readonly connection: Connection;
  readonly source: MemberProcess;
  readonly target: MemberProcess;
  readonly waiting: Set<HostRequest>;
  /** Its source has given it up. */
  isOver: boolean;
}

/** After a cut, or while somebody stands still, it is tried again so much later. */
const STALL_MS = 50;
/** How long a target may not hear of the end of a connection from a machine that has no power, or is cut off. */
const SILENCE_MS = 6_000;
/** What does not say what has become of the request at the primary. */
const IN_DOUBT: readonly (RequestError | undefined)[] = ['shutdown', 'io', 'failed'];

export class Passages {
  /** What is on its way takes up to so much longer. */
  slowMs = 0;
  readonly #network: Network;
  readonly #process: (id: MemberId) => MemberProcess | undefined;
  readonly #passages = new Map<string, Passage>();

  constructor(network: Network, process: (id: MemberId) => MemberProcess | undefined) {
    this.#network = network;
    this.#process = process;
  }

  through(from: MemberId, to: MemberId, epoch: number, request: HostRequest): void {
    const { scheduler } = this.#network;
    const [source, target] = [this.#process(from), this.#process(to)];
    if (source === undefined) return;
    const key = `${from}>${to}@${epoch}`;
    let passage = this.#passages.get(key);
    if (passage === undefined && target !== undefined) {
      const connection = { name: `passage ${key}`, epoch, isPassage: true, isOpen: true };
      passage = { connection, source, target, waiting: new Set(), isOver: false };
      this.#passages.set(key, passage);
    }
    if (passage === undefined || passage.isOver) {
      scheduler.after(this.#network.delayMs(), () => request.reply('shutdown', []));
    } else this.#send(passage, request);
  }

  /** A process has ended: what it had sent may arrive all the same, and its connections with it. */
  died(process: MemberProcess, hasPower: boolean): void {
    for (const [key, passage] of [...this.#passages]) {
      if (passage.source !== process && passage.target !== process) continue;
      this.#passages.delete(key);
      this.#giveUp(passage, hasPower);
    }
  }

  /** Connections between members break, whatever is in them. */
  breakAll(): void {
    for (const passage of this.#passages.values()) this.#giveUp(passage, true);
    this.#passages.clear();
  }

  #send(passage: Passage, request: HostRequest): void {
    const { connection, source, target, waiting } = passage;
    waiting.add(request);
    this.#after(this.#delayMs(), source.id, target.id, () => {
      if (!connection.isOpen || !target.isAlive) return;
      target.door.request({
        ...request,
        connection,
        reply: (error, values) => {
          this.#after(this.#delayMs(), target.id, source.id, () => {
            if (!source.isAlive || !waiting.delete(request)) return;
            request.reply(IN_DOUBT.includes(error) ? 'shutdown' : error, values);
            if (error === 'shutdown') this.#giveUp(passage, true);
          });
        },
      });
    });
  }

  /** By its source: nothing is sent any more. */
  #giveUp(passage: Passage, isTold: boolean): void {
    const { connection, source, target, waiting } = passage;
    const { scheduler } = this.#network;
    if (passage.isOver) return;
    passage.isOver = true;
    for (const request of waiting) if (source.isAlive) request.reply('shutdown', []);
    waiting.clear();
    const close = (): void => {
      if (!connection.isOpen) return;
      connection.isOpen = false;
      if (target.isAlive) target.door.closed(connection);
    };
    if (isTold) this.#after(this.#delayMs(), source.id, target.id, close);
    scheduler.after(scheduler.between(SILENCE_MS / 2, SILENCE_MS), close);
  }

  #delayMs(): number {
    const { scheduler } = this.#network;
    return this.#network.delayMs() + (this.slowMs > 0 ? scheduler.between(0, this.slowMs) : 0);
  }

  /** What is cut stalls; who stands still sends nothing, and hears nothing. */
  #after(delayMs: number, from: MemberId, to: MemberId, action: () => void): void {
    this.#network.scheduler.after(delayMs, () => {
      const isFrozen = this.#process(to)?.isFrozen === true;
      if (isFrozen || this.#network.isCut(from, to)) this.#after(STALL_MS, from, to, action);
      else action();
    });
  }
}
