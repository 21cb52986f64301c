/**
 * Flight: what has been sent in a session, from its sending until all before it is settled.
 *
 * Invariants
 * 1. Numbers are given from 1 on, without gaps.
 * 2. `confirmed` is the highest number up to which everything is settled, and nothing is in doubt: has failed at the primary, and may be there.
 *    It never becomes smaller.
 */

import type { Work } from './work.ts';

export interface Sent {
  readonly work: Work;
  readonly untilAwakeMs: number;
  isAcked: boolean;
}

const COMPACT = 1024;

export class Flight {
  readonly #sent: (Sent | undefined)[] = [];
  /** The first in #sent that is not confirmed, as far as it has been looked at. */
  #head = 0;
  /** The number of the first in #sent. */
  #firstSeq = 1;
  readonly #isInDoubt: (work: Work) => boolean;

  constructor(isInDoubt: (work: Work) => boolean) {
    this.#isInDoubt = isInDoubt;
  }

  get lastSeq(): number {
    return this.#firstSeq + this.#sent.length - 1;
  }

  push(work: Work, untilAwakeMs: number): number {
    this.#sent.push({ work, untilAwakeMs, isAcked: false });
    return this.lastSeq;
  }

  /** Undefined: never sent, or confirmed, or acknowledged before. */
  acked(seq: number): Work | undefined {
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
