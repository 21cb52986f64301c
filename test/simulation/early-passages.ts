/**
 * Passages as runs of an earlier era have them: nothing in one is late, and none outlives what its hosts wait for.
 */

import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { Connection, HostRequest } from './door.ts';
import type { MemberProcess } from './member-process.ts';
import type { Network } from './network.ts';

interface Passage {
  readonly connection: Connection;
  readonly source: MemberProcess;
  readonly target: MemberProcess;
  readonly waiting: Set<HostRequest>;
}

/** Until a member notices that the other cannot be reached any more. */
const NOTICE_MS = 500;

export class EarlyPassages {
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
    if (target === undefined || !this.#isReachable(from, to)) {
      scheduler.after(this.#network.delayMs(), () => request.reply('shutdown', []));
      return;
    }
    const key = `${from}>${to}@${epoch}`;
    let passage = this.#passages.get(key);
    if (passage === undefined) {
      const connection = { name: `passage ${key}`, epoch, isPassage: false, isOpen: true };
      passage = { connection, source, target, waiting: new Set() };
      this.#passages.set(key, passage);
    }
    this.#send(passage, request);
  }

  /** A process has ended, and with it the connections that it had. */
  died(process: MemberProcess): void {
    for (const passage of this.#passages.values()) {
      if (passage.source === process || passage.target === process) this.#break(passage);
    }
  }

  #send(passage: Passage, request: HostRequest): void {
    const { connection, source, target, waiting } = passage;
    const { scheduler } = this.#network;
    waiting.add(request);
    scheduler.after(this.#network.delayMs(), () => {
      if (!connection.isOpen) return;
      if (!this.#isReachable(source.id, target.id)) {
        scheduler.after(NOTICE_MS, () => this.#break(passage));
        return;
      }
      target.door.request({
        ...request,
        connection,
        reply: (error, values) => {
          scheduler.after(this.#network.delayMs(), () => {
            if (!this.#isReachable(source.id, target.id)) this.#break(passage);
            // Who is told so goes elsewhere with all that it has sent: nothing of it may come later.
            else if (error === 'shutdown') this.#break(passage);
            else if (source.isAlive && waiting.delete(request)) request.reply(error, values);
          });
        },
      });
    });
  }

  #break(passage: Passage): void {
    const { connection, source, target, waiting } = passage;
    if (!connection.isOpen) return;
    connection.isOpen = false;
    for (const [key, other] of this.#passages) if (other === passage) this.#passages.delete(key);
    if (target.isAlive) target.door.closed(connection);
    for (const request of waiting) if (source.isAlive) request.reply('shutdown', []);
    waiting.clear();
  }

  #isReachable(one: MemberId, other: MemberId): boolean {
    return !this.#network.isCut(one, other) && !this.#network.isCut(other, one);
  }
}
