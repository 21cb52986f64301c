/**
 * Secondary: what a member does while it is not primary: it takes sessions, one at a time.
 *
 * Invariant (I9): a hello is welcomed only when nothing that was begun earlier is being applied. Until then it waits; a later one takes its place.
 */

import type { MemberId, PrimaryMessage } from '../peer-protocol/messages.ts';
import type { Token } from './effects.ts';
import { Session } from './session.ts';
import type { Keep } from './writes.ts';

export class Secondary {
  readonly #keep: Keep;
  #session: Session | undefined;
  #waiting: { readonly session: Token; readonly source: MemberId } | undefined;

  constructor(keep: Keep) {
    this.#keep = keep;
  }

  get source(): MemberId | undefined {
    return this.#waiting?.source ?? this.#session?.source;
  }

  /** Its epoch, source and size are right. */
  hello(session: Token, source: MemberId): void {
    this.#session?.end();
    this.#session = undefined;
    this.#refuseWaiting();
    this.#waiting = { session, source };
  }

  ended(session: Token): void {
    if (this.#waiting?.session === session) this.#waiting = undefined;
    if (this.#session?.id !== session) return;
    this.#session.isOver = true;
    this.#session = undefined;
  }

  message(session: Token, message: PrimaryMessage): void {
    if (this.#session?.id !== session) return;
    this.#session.receive(message);
    if (this.#session.isOver) this.#session = undefined;
  }

  /** At the end of every step. */
  run(): void {
    if (this.#waiting === undefined || !this.#keep.journal.isIdle) return;
    const { session, source } = this.#waiting;
    this.#waiting = undefined;
    this.#session = new Session(session, source, this.#keep);
  }

  /** There is a newer epoch: what belongs to older ones ends. */
  fence(epoch: number): void {
    this.#refuseWaiting();
    const session = this.#session;
    if (session === undefined) return;
    const { core, journal } = this.#keep;
    if (journal.isIdle) {
      core.emit({ kind: 'reply', session: session.id, message: { kind: 'fenced', epoch } });
    }
    session.end();
    this.#session = undefined;
  }

  /** This member's file has another size. */
  resized(beforeBytes: number, sizeBytes: number): void {
    if (sizeBytes < beforeBytes) this.#session?.cut();
    else if (sizeBytes > beforeBytes && this.#session?.isCut === true) {
      this.#session.end();
      this.#session = undefined;
    }
  }

  #refuseWaiting(): void {
    if (this.#waiting === undefined) return;
    const { core } = this.#keep;
    const { epoch } = core.durable;
    core.emit({ kind: 'refuse', session: this.#waiting.session, code: 'busy', epoch });
    this.#waiting = undefined;
  }
}
