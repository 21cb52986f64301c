/**
 * Flight: what has been sent in a session, from its sending until all before it is settled.
 *
 * Invariants
 * 1. Numbers are given from 1 on, without gaps.
 * 2. `confirmed` is the highest number up to which everything is settled, and nothing is in doubt: has failed at the primary, and may be there.
 *    It never becomes smaller.
 * 3. The time that a member has for an operation begins when it is known to have come there: until then the link has it.
 */

import type { Work } from './work.ts';

export interface Sent {
  readonly work: Work;
  /** How long the member may take from when it has come there. */
  readonly limitMs: number;
  untilAwakeMs: number;
  isAcked: boolean;
}

const COMPACT = 1024;

export class Flight {
  readonly #sent: (Sent | undefined)[] = [];
  /** The first in #sent that is not confirmed, as far as it has been looked at. */
  #head = 0;
  /** The number of the first in #sent. */
  #firstSeq = 1;
  /** Up to this number all has come there. */
  #arrivedSeq = 0;
  readonly #isInDoubt: (work: Work) => boolean;

  constructor(isInDoubt: (work: Work) => boolean) {
    this.#isInDoubt = isInDoubt;
  }

  get lastSeq(): number {
    return this.#firstSeq + this.#sent.length - 1;
  }

  /** `limitMs`: see Sent. `untilAwakeMs`: when it is to have come there. */
  push(work: Work, limitMs: number, untilAwakeMs: number): number {
    this.#sent.push({ work, limitMs, untilAwakeMs, isAcked: false });
    return this.lastSeq;
  }

  /** All up to `seq` has come there. False: that much was not sent. */
  arrived(seq: number, awakeMs: number): boolean {
    if (seq > this.lastSeq) return false;
    for (let at = this.#arrivedSeq + 1; at <= seq; at++) {
      const sent = this.#sent[at - this.#firstSeq];
      if (sent !== undefined) sent.untilAwakeMs = awakeMs + sent.limitMs;
    }
    this.#arrivedSeq = Math.max(this.#arrivedSeq, seq);
    return true;
  }

  /** Undefined: never sent, or confirmed, or acknowledged before. */
  acked(seq: number, awakeMs: number): Work | undefined {
    this.arrived(seq, awakeMs); // and all before it: a link keeps the order
    const sent = this.#sent[seq - this.#firstSeq];
    if (sent === undefined || sent.isAcked) return undefined;
    sent.isAcked = true;
    return sent.work;
  }

  get confirmed(): number {
    const sent = this.#sent;
    while (this.#head < sent.length) {
      const work = sent[this.#head]?.work;
      if (work?.isSettled !== true || (work.hasFailedHere && this.#isInDoubt(work))) break;
      sent[this.#head] = undefined;
      this.#head += 1;
    }
    const confirmed = this.#firstSeq + this.#head - 1;
    if (this.#head >= COMPACT && this.#head * 2 >= sent.length) {
      sent.splice(0, this.#head);
      this.#firstSeq += this.#head;
      this.#head = 0;
    }
    return confirmed;
  }

  /** Not acknowledged yet, in order. */
  *unacked(): Generator<Work> {
    for (let at = this.#head; at < this.#sent.length; at++) {
      const sent = this.#sent[at];
      if (sent !== undefined && !sent.isAcked) yield sent.work;
    }
  }

  /** Whether something has not been acknowledged in its time. */
  isOverdue(awakeMs: number): boolean {
    for (let at = this.#head; at < this.#sent.length; at++) {
      const sent = this.#sent[at];
      if (sent !== undefined && !sent.isAcked && sent.untilAwakeMs < awakeMs) return true;
    }
    return false;
  }
}
