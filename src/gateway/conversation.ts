/**
 * Questions and answers between the primary process of a gateway and a worker, over the channel that Node has made between
 * them. Both are of one version: what comes is not checked.
 *
 * Invariants
 *  1. What one side sends arrives in its order, answers included.
 *  2. Each question is answered once: by the other side, or with an error when the channel closes, or `close` was called: what was sent
 *     behind a socket that a dying process has not taken, Node keeps, and it may tell nobody that the channel has closed.
 */

import type { SendHandle } from 'node:child_process';
import { ControlError, type ControlErrorCode, VolaryError } from '../model/errors.ts';

/** A process's side of the channel: ChildProcess here, `process` there. */
export interface Channel {
  readonly connected: boolean;
  send(message: object, handle: SendHandle | undefined, callback: (error: Error | null) => void): unknown;
  on(event: 'message', callback: (message: unknown, handle: unknown) => void): unknown;
  on(event: 'disconnect', callback: () => void): unknown;
}

type Message =
  | { readonly kind: 'ask'; readonly id: number; readonly topic: string; readonly body: unknown }
  | { readonly kind: 'answer'; readonly id: number; readonly body: unknown }
  | { readonly kind: 'failure'; readonly id: number; readonly code: string; readonly text: string }
  | { readonly kind: 'tell'; readonly topic: string; readonly body: unknown };

/** For each topic what is done; the answer of one that was told is nobody's. */
export type Topics = Readonly<Record<string, (body: never, handle: unknown) => unknown>>;

interface Waiting {
  readonly resolve: (body: unknown) => void;
  readonly reject: (error: Error) => void;
}

export class Conversation {
  readonly #channel: Channel;
  readonly #topics: Topics;
  readonly #waiting = new Map<number, Waiting>();
  #nextId = 1;
  #isClosed = false;

  constructor(channel: Channel, topics: Topics) {
    this.#channel = channel;
    this.#topics = topics;
    channel.on('message', (message, handle) => this.#received(message as Message, handle));
    channel.on('disconnect', () => this.#closed());
  }

  /** @throws ControlError: what the other side has thrown, as far as it is known here; or 'unavailable' */
  ask(topic: string, body: unknown): Promise<unknown> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#send({ kind: 'ask', id, topic, body });
    });
  }

  /** The handle belongs to the other side then. */
  tell(topic: string, body: unknown, handle?: SendHandle): void {
    this.#send({ kind: 'tell', topic, body }, handle);
  }

  /** The other side has ended: whatever has not been answered is not going to be. */
  close(): void {
    this.#isClosed = true;
    this.#closed();
  }

  #send(message: Message, handle?: SendHandle): void {
    if (this.#isClosed || !this.#channel.connected) {
      if (message.kind === 'ask') setImmediate(() => this.#closed());
      return;
    }
    this.#channel.send(message, handle, (error) => {
      if (error !== null) this.#closed();
    });
  }

  #received(message: Message, handle: unknown): void {
    switch (message.kind) {
      case 'answer':
        this.#take(message.id)?.resolve(message.body);
        break;
      case 'failure':
        this.#take(message.id)?.reject(new ControlError(message.code as ControlErrorCode, message.text));
        break;
      case 'tell':
        void this.#run(message.topic, message.body, handle);
        break;
      default:
        void this.#answer(message.id, message.topic, message.body);
    }
  }

  async #answer(id: number, topic: string, body: unknown): Promise<void> {
    try {
      this.#send({ kind: 'answer', id, body: await this.#run(topic, body, undefined) });
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      this.#send({ kind: 'failure', id, code: error.code, text: error.message });
    }
  }

  #run(topic: string, body: unknown, handle: unknown): unknown {
    const run = this.#topics[topic];
    if (run === undefined) throw new Error(`nobody here speaks of ${topic}`);
    return run(body as never, handle);
  }

  #take(id: number): Waiting | undefined {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    return waiting;
  }

  #closed(): void {
    const error = new ControlError('unavailable', 'the process that should answer has ended');
    for (const id of [...this.#waiting.keys()]) this.#take(id)?.reject(error);
  }
}
