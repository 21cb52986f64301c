/**
 * Writes: the path of every operation at a primary, from its range to its answer.
 *
 *   begin -> range lock -> extents marked -> sent to all who follow, applied here -> acknowledged by all, or recorded without them -> settled, answered
 *
 * Invariants
 * 1. Work has its range from before anything of it is sent or applied until it is settled (I1).
 * 2. Who does not follow lacks it, in `lacks`, before it is applied (I4).
 * 3. `pending` counts what it waits for: its application here, each acknowledgement, each pair that is leaving and lacks it (I2).
 * 4. Nothing settles within a call that goes through pairs or flights: `run`, at the end of the step, does.
 */

import { LooseList } from '../base/loose-list.ts';
import { RangeLock } from '../base/range-lock.ts';
import type { MemberId, PrimaryMessage, Range } from '../peer-protocol/messages.ts';
import type { Core } from './core.ts';
import type { Operation, Piece, RequestError, Token } from './effects.ts';
import type { Journal } from './journal.ts';
import type { Lacks } from './lacks.ts';
import type { Marks } from './marks.ts';
import type { Link, Pair } from './pair.ts';
import { NOWHERE, type Owner, Work } from './work.ts';

/** What a member keeps, whatever its role. */
export interface Keep {
  readonly core: Core;
  readonly journal: Journal;
  readonly marks: Marks;
  readonly lacks: Lacks;
}

export interface WritesOptions extends Keep {
  /** Of the primary; changed in place. */
  readonly pairs: readonly Pair[];
  readonly answer: (request: Token, error: RequestError | undefined) => void;
  /** Something could not be applied here: all others may have it. */
  readonly failedHere: () => void;
}

export class Writes implements Owner {
  readonly #core: Core;
  readonly #journal: Journal;
  readonly #marks: Marks;
  readonly #lacks: Lacks;
  readonly #options: WritesOptions;
  readonly #pairs: readonly Pair[];
  readonly #lock = new RangeLock<Work>();
  /** Of hosts, until settled. */
  readonly #live = new LooseList<Work>();
  /** To be looked at by `run`: settled, or lucky to have got its range. */
  readonly #ready: Work[] = [];
  #isOver = false;

  constructor(options: WritesOptions) {
    this.#options = options;
    this.#core = options.core;
    this.#journal = options.journal;
    this.#marks = options.marks;
    this.#lacks = options.lacks;
    this.#pairs = options.pairs;
  }

  /** Nothing is under way or waits. */
  get isIdle(): boolean {
    return this.#live.size === 0 && this.#lock.size === 0;
  }

  begin(request: Token, operation: Operation): void {
    const isFlush = operation.kind === 'flush';
    const range = isFlush ? NOWHERE : operation;
    const kind = isFlush ? 'flush' : 'change';
    const work = new Work(kind, this.#core.newToken(), this, range, operation, request, undefined);
    this.#live.add(work);
    if (isFlush) this.#start(work, operation);
    else if (this.#lock.acquire(work, work)) this.#locked(work);
  }

  /** Blocks for one member: `work.locked` is called when it has its range, unless it has been dropped; whoever made it releases it once. */
  newCopy(member: MemberId, range: Range): Work {
    const work = new Work('copy', this.#core.newToken(), this, range, undefined, 0, member);
    work.pending = 1;
    return work;
  }

  lockCopy(work: Work): void {
    if (this.#lock.acquire(work, work)) this.#locked(work);
  }

  hot(work: Work): void {
    if (this.#isOver) this.#marks.leave(work);
    else if (work.isDropped) this.#finish(work);
    else this.#start(work, work.operation as Operation);
  }

  applied(work: Work, error: RequestError | undefined): void {
    if (error !== undefined && work.kind === 'flush') this.#journal.loseCache();
    if (this.#isOver) {
      // What is journaled stays unsettled; the rest is known to be lacked by all others.
      if (!work.isJournaled) this.#journal.settle(work);
      return;
    }
    if (error !== undefined) {
      work.hasFailedHere = true;
      work.error = error;
    }
    this.release(work);
  }

  /** False: nothing with that number is waiting. */
  acked(pair: Pair, link: Link, seq: number): boolean {
    const work = link.flight.acked(seq, this.#core.awakeMs);
    if (work === undefined) return false;
    if (work.kind === 'change' && !work.hasFailedHere) this.#lacks.copied(pair.member, work);
    this.release(work);
    return true;
  }

  /** One thing less that it waits for. */
  release(work: Work): void {
    work.pending -= 1;
    if (work.pending === 0) this.#ready.push(work);
  }

  /** The session is over: nothing of it is waited for, but `isBlocking` changes wait for the record. */
  drop(pair: Pair, link: Link, isBlocking: boolean): void {
    for (const work of link.flight.unacked()) {
      if (work.kind === 'change') this.#lacks.add(pair.member, work);
      if (isBlocking && (work.kind === 'change' || work.kind === 'flush')) {
        pair.blocked.push(work);
        continue;
      }
      if (work.member !== undefined) work.isDropped = true;
      this.release(work);
    }
  }

  /** The record, and all who have to, know that the member lacks things. */
  unblock(pair: Pair): void {
    const blocked = pair.blocked;
    pair.blocked = [];
    for (const work of blocked) this.release(work);
  }

  /** A member is new: what has been begun without it may be missing there. */
  added(pair: Pair): void {
    for (const work of this.#live) {
      if (work.isStarted && work.kind === 'change') this.#lacks.add(pair.member, work);
    }
  }

  /**
   * The fence: what waits for the record, or behind such a thing, fails. What somebody has not acknowledged yet does not fail before that:
   * its payload may not have left, and is the host's again when it is answered.
   */
  failWaiting(pairs: readonly Pair[]): void {
    const blocks = new Map<Work, number>();
    for (const { blocked } of this.#pairs) {
      for (const work of blocked) blocks.set(work, (blocks.get(work) ?? 0) + 1);
    }
    for (const { blocked } of pairs) {
      for (const work of blocked) if (work.pending === blocks.get(work)) this.#answer(work, 'io');
    }
    for (const work of this.#live) {
      if (work.isStarted) continue;
      this.#answer(work, 'io');
      work.isDropped = true;
    }
  }

  /** Something that only has to be acknowledged, by one member, or (`member` undefined) by several. Whoever made it releases it once. */
  newMessage(member: MemberId | undefined, done: (isDone: boolean) => void): Work {
    const work = new Work('message', this.#core.newToken(), this, NOWHERE, undefined, 0, member);
    work.pending = 1;
    work.isStarted = true;
    work.done = done;
    return work;
  }

  /** `make` gets the number of the message, and up to where all is settled. */
  send(pair: Pair, link: Link, work: Work, make: (seq: number, confirmed: number) => PrimaryMessage): void {
    work.pending += 1;
    const seq = this.#push(link, work);
    const message = make(seq, link.flight.confirmed);
    this.#core.emit({ kind: 'send', to: pair.member, session: link.session, message });
  }

  sendPiece(pair: Pair, link: Link, work: Work, piece: Piece): void {
    const { offset, length } = piece;
    this.send(pair, link, work, (seq, confirmed) =>
      piece.kind === 'data'
        ? { kind: 'write', seq, confirmed, offset, length, fua: false, payload: piece.payload }
        : { kind: 'zero', seq, confirmed, offset, length, fua: false, noHole: false },
    );
  }

  /** At the end of every step. */
  run(): void {
    const ready = this.#ready;
    if (ready.length === 0) return;
    for (let at = 0; at < ready.length; at++) {
      const work = ready[at] as Work;
      if (work.pending === 0 && work.isStarted) this.#finish(work);
      else this.#locked(work);
    }
    ready.length = 0;
  }

  /** The role is over: hosts look elsewhere, what is unsettled stays in the journal. */
  abandon(): void {
    this.#isOver = true;
    for (const work of this.#live.all()) {
      this.#answer(work, 'shutdown');
      if (work.isApplying) continue;
      if (!work.isStarted) this.#marks.leave(work);
      else if (!work.isJournaled) this.#journal.settle(work);
    }
    this.#live.clear();
    this.#ready.length = 0;
  }

  // ── one operation ────────────────────────────────────────────────────────────────────────────────────────

  #locked(work: Work): void {
    if (work.kind === 'copy') {
      work.isStarted = true;
      if (work.isDropped) this.release(work);
      else work.locked?.();
    } else if (work.isDropped) {
      this.#finish(work);
    } else if (this.#marks.enter(work)) {
      this.#start(work, work.operation as Operation);
    }
  }

  #start(work: Work, operation: Operation): void {
    work.isStarted = true;
    // The volume has been cut while it waited. Another member may have grown again already.
    if (work.offset + work.length > this.#lacks.sizeBytes) {
      work.error = 'invalid';
      this.#finish(work);
      return;
    }
    work.pending = 1;
    let isJournaled = false;
    for (const pair of this.#pairs) {
      const { link } = pair;
      if (pair.isFollowing && link !== undefined) {
        isJournaled = true;
        this.#sendOperation(pair, link, work, operation);
        continue;
      }
      if (work.kind === 'change') this.#lacks.add(pair.member, work);
      if (pair.state === 'leaving') {
        pair.blocked.push(work);
        work.pending += 1;
      }
    }
    this.#journal.apply(work, isJournaled && work.kind === 'change');
  }

  #sendOperation(pair: Pair, link: Link, work: Work, operation: Operation): void {
    work.pending += 1;
    const seq = this.#push(link, work);
    const confirmed = link.flight.confirmed;
    const message = messageOf(operation, seq, confirmed);
    this.#core.emit({ kind: 'send', to: pair.member, session: link.session, message });
  }

  /** Heartbeats tell soon enough that a member is gone; its disk may take its time for what is more than a write. */
  #push(link: Link, work: Work): number {
    const { awakeMs, limits } = this.#core;
    const isQuick = work.operation?.kind === 'write' && !work.operation.fua;
    return link.flight.push(work, isQuick ? limits.ackMs : limits.slowAckMs, awakeMs + limits.arriveMs);
  }

  #finish(work: Work): void {
    if (work.kind === 'message') {
      work.isSettled = true;
      work.done?.(!work.isDropped);
      return;
    }
    if (work.kind === 'copy') {
      work.isSettled = true;
      work.done?.(!work.isDropped);
      this.#free(work);
      return;
    }
    if (work.hasFailedHere && work.kind === 'change') {
      for (const pair of this.#pairs) this.#lacks.add(pair.member, work);
      this.#options.failedHere();
    }
    this.#journal.settle(work);
    this.#live.delete(work);
    if (work.kind === 'change') this.#free(work);
    this.#answer(work, work.error);
  }

  #free(work: Work): void {
    for (const lucky of this.#lock.release(work)) this.#ready.push(lucky);
  }

  #answer(work: Work, error: RequestError | undefined): void {
    if (work.isAnswered) return;
    work.isAnswered = true;
    this.#options.answer(work.request, error);
  }
}

function messageOf(operation: Operation, seq: number, confirmed: number): PrimaryMessage {
  switch (operation.kind) {
    case 'write': {
      const { offset, length, fua, payload } = operation;
      return { kind: 'write', seq, confirmed, offset, length, fua, payload };
    }
    case 'zero': {
      const { offset, length, fua, noHole } = operation;
      return { kind: 'zero', seq, confirmed, offset, length, fua, noHole };
    }
    case 'trim': {
      const { offset, length, fua } = operation;
      return { kind: 'trim', seq, confirmed, offset, length, fua };
    }
    case 'flush':
      return { kind: 'flush', seq, confirmed };
  }
}
