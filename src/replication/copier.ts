/**
 * Copier: makes a following member equal, in the background: what it lacks, piece by piece, under the range lock (I1).
 *
 *   (lacks everything: zero it -> find what is allocated) -> pieces -> flush -> copying: tell it what others lack -> copied
 *
 * Invariants
 * 1. A block is copied from what is here while its range is locked: nothing is written there meanwhile.
 * 2. Bits are cleared durably only when the member has flushed what it acknowledged (I5).
 * 3. `copied` is taken only when nothing is missing, no piece is under way, and it has flushed since the last of them, and once in the session.
 * 4. While a member lacks everything it does not follow: what is written meanwhile is missing.
 * 5. Nobody is zeroed, or copied to, while another that may be promoted does not know of it (`isPaused`; I7).
 */

import { assert } from '../model/errors.ts';
import type { MemberId, Range } from '../peer-protocol/messages.ts';
import type { Piece } from './effects.ts';
import { WIPE_BYTES } from './limits.ts';
import { CopyProgress, type Link, type Pair } from './pair.ts';
import type { Work } from './work.ts';
import type { Keep, Writes } from './writes.ts';

export interface CopierOptions extends Keep {
  readonly writes: Writes;
  readonly bytesPerSecond: () => number;
  readonly isPaused: (pair: Pair) => boolean;
  /** The member is equal, and knows what others lack (`copying`: it has been told and has acknowledged). */
  readonly copied: (pair: Pair) => void;
  /** Tells the member what others lack, and that it is equal; `then` when it has acknowledged. */
  readonly tellEqual: (pair: Pair, link: Link, then: () => void) => void;
  /** It cannot be copied: what is here cannot be read. */
  readonly failed: (pair: Pair) => void;
  /** It follows from now on. */
  readonly follow: (pair: Pair) => void;
}

export class Copier {
  readonly #options: CopierOptions;
  /** Under way, by member. */
  readonly #pieces = new Map<MemberId, Set<Work>>();
  readonly #budgets = new Map<MemberId, { bytes: number; atMs: number }>();

  constructor(options: CopierOptions) {
    this.#options = options;
  }

  /** A session of a pair that differs, or may, begins. */
  start(pair: Pair): void {
    pair.copy = new CopyProgress();
    this.#budgets.set(pair.member, { bytes: 0, atMs: this.#options.core.awakeMs });
    pair.copy.isWiping = this.#options.core.durable.lacksAll.includes(pair.member);
    this.pump(pair);
  }

  /** The session is over. */
  stop(pair: Pair): void {
    for (const work of this.#pieces.get(pair.member) ?? []) work.isDropped = true;
    this.#pieces.delete(pair.member);
    this.#options.lacks.giveBack(pair.member);
    pair.copy = new CopyProgress();
  }

  /** Does what can be done now. */
  pump(pair: Pair): void {
    const { copy, link } = pair;
    if (link?.isUp === true && copy.isWiping) this.#wipe(pair, copy);
    if (link?.isUp !== true || !pair.isFollowing) return;
    if (pair.state !== 'copying' && pair.state !== 'equalizing') return;
    const { lacks, core } = this.#options;
    const missing = lacks.missing(pair.member);
    while (copy.pieces < core.limits.piecesInFlight && this.#mayStart(pair)) {
      const run = missing.nextRun(copy.nextOffset, core.limits.pieceBytes);
      if (run === undefined) break;
      copy.nextOffset = run.offset + run.length;
      this.#copyPiece(pair, link, run);
    }
    if (copy.pieces > 0 || copy.isFlushing || copy.isTelling) return;
    if (!missing.isEmpty) {
      if (missing.nextRun(copy.nextOffset, 1) !== undefined) return; // the rate does not allow more now
      copy.nextOffset = 0;
      if (this.#mayStart(pair)) this.pump(pair);
      return;
    }
    if (!copy.hasFlushed || lacks.hasUnflushed(pair.member)) this.#flush(pair, link);
    else this.#finish(pair, link);
  }

  // ── pieces ───────────────────────────────────────────────────────────────────────────────────────────────

  #mayStart(pair: Pair): boolean {
    if (this.#options.isPaused(pair)) return false;
    const rate = this.#options.bytesPerSecond();
    if (rate === 0) return true;
    const budget = this.#budgets.get(pair.member);
    assert(budget !== undefined, 'a session has a budget');
    const { awakeMs } = this.#options.core;
    budget.bytes = Math.min(budget.bytes + ((awakeMs - budget.atMs) * rate) / 1000, rate / 5);
    budget.atMs = awakeMs;
    return budget.bytes >= 0;
  }

  #copyPiece(pair: Pair, link: Link, range: Range): void {
    const { core, writes, lacks } = this.#options;
    const work = writes.newCopy(pair.member, range);
    const { copy } = pair;
    copy.pieces += 1;
    let copiedBytes = range.length;
    const budget = this.#budgets.get(pair.member);
    if (budget !== undefined) budget.bytes -= range.length;
    const pieces = this.#pieces.get(pair.member) ?? new Set();
    this.#pieces.set(pair.member, pieces.add(work));
    work.locked = () => {
      // Written meanwhile, as a whole?
      if (!lacks.missing(pair.member).has(range)) {
        copiedBytes = 0;
        writes.release(work);
        return;
      }
      const token = core.rangeRead.ask((read) => this.#read(pair, link, work, read));
      core.emit({ kind: 'read-range', token, range });
    };
    work.done = (isDone) => {
      if (!isDone) return;
      pieces.delete(work);
      copy.pieces -= 1;
      copy.unflushedBytes += copiedBytes;
      pair.copiedBytes += copiedBytes;
      lacks.copied(pair.member, range);
      if (copy.unflushedBytes >= core.limits.flushBytes && !copy.isFlushing) this.#flush(pair, link);
      this.pump(pair);
    };
    writes.lockCopy(work);
  }

  #read(pair: Pair, link: Link, work: Work, pieces: readonly Piece[] | undefined): void {
    const { writes } = this.#options;
    if (work.isDropped) {
      writes.release(work);
      return;
    }
    if (pieces === undefined) {
      this.#options.failed(pair); // drops this work
      writes.release(work);
      return;
    }
    let next = work.offset;
    for (const piece of pieces) {
      assert(piece.offset === next, 'pieces follow one another');
      next += piece.length;
      writes.sendPiece(pair, link, work, piece);
    }
    assert(next === work.offset + work.length, 'pieces cover what was asked for');
    writes.release(work);
  }

  #flush(pair: Pair, link: Link): void {
    const { writes, lacks } = this.#options;
    const { copy } = pair;
    copy.isFlushing = true;
    copy.unflushedBytes = 0;
    lacks.flushing(pair.member);
    const work = writes.newMessage(pair.member, (isDone) => {
      if (!isDone) return;
      copy.isFlushing = false;
      copy.hasFlushed = true;
      lacks.flushed(pair.member);
      this.pump(pair);
    });
    writes.send(pair, link, work, (seq, confirmed) => ({ kind: 'flush', seq, confirmed }));
    writes.release(work);
  }

  #finish(pair: Pair, link: Link): void {
    const { copy } = pair;
    if (pair.state === 'equalizing') {
      this.#options.copied(pair);
      return;
    }
    copy.isTelling = true;
    this.#options.tellEqual(pair, link, () => {
      copy.isTelling = false;
      const { lacks } = this.#options;
      // A write may have failed here meanwhile.
      if (lacks.missing(pair.member).isEmpty && !lacks.hasUnflushed(pair.member)) this.#options.copied(pair);
      else this.pump(pair);
    });
  }

  // ── a member that lacks everything ───────────────────────────────────────────────────────────────────────

  #wipe(pair: Pair, copy: CopyProgress): void {
    const { lacks, core } = this.#options;
    while (copy.pieces < core.limits.piecesInFlight && copy.wipedOffset < lacks.sizeBytes) {
      if (this.#options.isPaused(pair)) return;
      this.#wipeNext(pair, copy);
    }
  }

  #wipeNext(pair: Pair, copy: CopyProgress): void {
    const { link } = pair;
    const { writes, lacks } = this.#options;
    assert(link !== undefined, 'who is zeroed is connected');
    const offset = copy.wipedOffset;
    const length = Math.min(WIPE_BYTES, lacks.sizeBytes - offset);
    copy.wipedOffset += length;
    copy.pieces += 1;
    const work = writes.newMessage(pair.member, (isDone) => {
      if (!isDone) return;
      copy.pieces -= 1;
      this.#wipe(pair, copy);
      if (copy.pieces > 0 || copy.wipedOffset < lacks.sizeBytes) return;
      copy.wipedOffset = Number.POSITIVE_INFINITY; // what grows from now on is zeroes everywhere
      this.#findAllocated(pair, copy);
    });
    writes.sendPiece(pair, link, work, { kind: 'hole', offset, length });
    writes.release(work);
  }

  #findAllocated(pair: Pair, copy: CopyProgress): void {
    const { core, lacks, marks } = this.#options;
    const whole = { offset: 0, length: lacks.sizeBytes };
    const token = core.allocated.ask((ranges) => {
      if (pair.copy !== copy) return;
      lacks.addAll(pair.member, ranges ?? [whole]);
      // The bits have to be on the disk before "lacks everything" is taken back there.
      marks.flush(() => {
        if (pair.copy !== copy) return;
        const lacksAll = core.durable.lacksAll.filter((member) => member !== pair.member);
        core.change({ lacksAll });
        copy.isWiping = false;
        this.#options.follow(pair);
        this.pump(pair);
      });
    });
    core.emit({ kind: 'find-allocated', token });
  }
}
