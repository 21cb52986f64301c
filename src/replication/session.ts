/**
 * Session: what a secondary does between the hello of its primary and the end of their connection.
 *
 * Invariants
 * 1. Operations come numbered from 1, without gaps; nothing is confirmed that has not been acknowledged. Anything else ends the session.
 * 2. An operation is in the lacks of all members that differ, as far as this one has to know (I4), before it is applied.
 * 3. What was unsettled before the session is forgotten when this member is called equal, after what it was told is on the disk (I7, I8).
 * 4. When it is over it begins nothing any more (I9).
 * 5. What the primary has sent for behind the end before its own file was cut is applied nowhere: while this one is shorter it is nonsense, and before it
 *    grows again the session ends, unless all that comes is known to have been sent later.
 */

import type { MemberId, OperationMessage, PrimaryMessage, Range } from '../peer-protocol/messages.ts';
import type { Operation, RequestError, Token } from './effects.ts';
import { NOWHERE, type Owner, Work } from './work.ts';
import type { Keep } from './writes.ts';

type MembersMessage = Extract<OperationMessage, { kind: 'members' }>;
type LacksMessage = Extract<OperationMessage, { kind: 'lacks' }>;

const COMPACT = 1024;

export class Session implements Owner {
  readonly id: Token;
  readonly source: MemberId;
  readonly #keep: Keep;
  /** From before the session. */
  readonly #old: readonly Work[];
  /** Of this session, from the first that is not confirmed. */
  readonly #works: (Work | undefined)[] = [];
  #head = 0;
  #firstSeq = 1;
  /** Undefined until the first `members`. */
  #differing: readonly MemberId[] | undefined;
  /** Whether it keeps what the members that differ lack. */
  #isBearing = false;
  #isCalledEqual = false;
  #isEqual = false;
  /** Told in this session, with its ranges; or that it lacks everything. */
  readonly #told = new Map<MemberId, 'ranges' | 'everything'>();
  /** Of those, since the last `members`: whether they differ will be said by the next. */
  readonly #toldSince = new Set<MemberId>();
  isOver = false;
  /** The last that had come when the file was cut. */
  #cutSeq: number | undefined;

  constructor(id: Token, source: MemberId, keep: Keep) {
    this.id = id;
    this.source = source;
    this.#keep = keep;
    const { core, journal, lacks } = keep;
    this.#old = journal.snapshot();
    const { lacksAll, config } = core.durable;
    const isKnown = config.members.some(({ realVolume }) => realVolume === source);
    // Who came later than what this one knows: all that anybody lacks of it. Otherwise also what those lack that may have been primary since:
    // they have made the source as themselves, perhaps.
    const of =
      isKnown && !lacksAll.includes(source) ? [source, ...core.durable.mayBeInStep] : lacks.members();
    const alone = [...new Set(of)].flatMap((member) => [...lacks.missing(member).ranges()]);
    const { hasLostCache } = journal;
    core.emit({ kind: 'welcome', session: id, hasLostCache, unsettled: journal.ranges(), alone });
  }

  receive(message: PrimaryMessage): void {
    if (!this.#confirm(message.confirmed)) {
      this.end();
      return;
    }
    if (message.kind === 'heartbeat') {
      const answer = { kind: 'heartbeat-ack', token: message.token, received: this.#lastSeq() } as const;
      this.#keep.core.emit({ kind: 'reply', session: this.id, message: answer });
      return;
    }
    if (message.seq !== this.#lastSeq() + 1 || !this.#receive(message)) this.end();
  }

  /** The file has been cut; the primary's was before. */
  cut(): void {
    this.#cutSeq = this.#firstSeq + this.#works.length - 1;
  }

  /** Something may be on its way that was sent before the primary's file was cut. */
  get isCut(): boolean {
    return this.#cutSeq !== undefined;
  }

  /** It is over, by this member's will. */
  end(): void {
    if (this.isOver) return;
    this.isOver = true;
    this.#keep.core.emit({ kind: 'end-session', session: this.id });
  }

  hot(work: Work): void {
    if (this.isOver) this.#keep.marks.leave(work);
    else this.#keep.journal.apply(work, true);
  }

  applied(work: Work, error: RequestError | undefined): void {
    const { journal } = this.#keep;
    if (work.kind === 'flush') {
      // Nobody knows what it has lost: all that may not have been on the disk.
      if (error !== undefined) journal.loseCache();
      journal.settle(work);
    }
    if (!this.isOver) this.#ack(work, error);
  }

  // ── inside ───────────────────────────────────────────────────────────────────────────────────────────────

  #lastSeq(): number {
    return this.#firstSeq + this.#works.length - 1;
  }

  /** False: it was not acknowledged. */
  #confirm(confirmed: number): boolean {
    // It has heard of what came here after the cut, before it sent this.
    if (this.#cutSeq !== undefined && confirmed > this.#cutSeq) this.#cutSeq = undefined;
    const until = confirmed - this.#firstSeq;
    for (; this.#head <= until; this.#head++) {
      const work = this.#works[this.#head];
      if (work === undefined || work.pending > 0) return false;
      if (!work.isSettled && work.kind === 'change') this.#keep.journal.settle(work);
      this.#works[this.#head] = undefined;
    }
    if (this.#head >= COMPACT && this.#head * 2 >= this.#works.length) {
      this.#works.splice(0, this.#head);
      this.#firstSeq += this.#head;
      this.#head = 0;
    }
    return true;
  }

  /** False: it is nonsense. */
  #receive(message: OperationMessage): boolean {
    const { kind } = message;
    if (kind === 'members')
      return this.#members(message, this.#add('message', NOWHERE, undefined, message.seq));
    if (kind === 'lacks') return this.#lacks(message, this.#add('message', NOWHERE, undefined, message.seq));
    if (this.#differing === undefined) return false;
    const { journal, lacks, marks } = this.#keep;
    if (kind === 'flush') {
      journal.apply(this.#add('flush', NOWHERE, { kind }, message.seq), false);
      return true;
    }
    const { offset, length } = message;
    if (offset < 0 || length <= 0 || offset + length > lacks.sizeBytes) return false;
    const work = this.#add('change', message, operationOf(message), message.seq);
    if (this.#isBearing) for (const member of this.#differing) lacks.add(member, work);
    if (marks.enter(work)) journal.apply(work, true);
    return true;
  }

  #add(kind: Work['kind'], range: Range, operation: Operation | undefined, seq: number): Work {
    const work = new Work(kind, this.#keep.core.newToken(), this, range, operation, seq, undefined);
    work.pending = 1;
    this.#works.push(work);
    return work;
  }

  #ack(work: Work, error: RequestError | undefined): void {
    work.pending = 0;
    const result = error === undefined ? 'done' : error === 'shutdown' ? 'failed' : error;
    const message = { kind: 'ack', seq: work.request, result } as const;
    this.#keep.core.emit({ kind: 'reply', session: this.id, message });
  }

  #lacks({ member, ranges }: LacksMessage, work: Work): boolean {
    const { core, lacks } = this.#keep;
    if (member === core.id) return false;
    this.#told.set(member, ranges === undefined ? 'everything' : 'ranges');
    this.#toldSince.add(member);
    if (ranges !== undefined) {
      lacks.addAll(member, ranges);
    } else if (!core.durable.lacksAll.includes(member)) {
      core.change({ lacksAll: [...core.durable.lacksAll, member] });
    }
    this.#ack(work, undefined);
    return true;
  }

  #members({ differing, isEqual }: MembersMessage, work: Work): boolean {
    const { core, journal, lacks, marks } = this.#keep;
    this.#toldSince.clear();
    const others = differing.filter((member) => member !== core.id);
    if (others.length < differing.length) {
      // It is no more than copied to: what it knows of others will not be complete.
      if (isEqual || this.#isBearing) return false;
      this.#differing = [];
      if (core.durable.isEqual) core.change({ isEqual: false });
      this.#ack(work, undefined);
      return true;
    }
    const before = this.#isBearing ? this.#differing : undefined;
    const more = others.filter((member) => before?.includes(member) !== true);
    // Also what is not applied yet: it waits for its mark.
    const unsettled = more.length > 0 ? [...journal.ranges(), ...this.#changes()] : [];
    for (const member of more) lacks.addAll(member, unsettled);
    this.#differing = others;
    this.#isBearing = true;
    if (isEqual && !this.#isCalledEqual) {
      this.#isCalledEqual = true;
      marks.flush(() => {
        if (this.isOver) return;
        this.#isEqual = true;
        journal.forget(this.#old);
        this.#forgetEqual();
        this.#ack(work, undefined);
      });
      return true;
    }
    if (this.#isEqual) this.#forgetEqual();
    this.#ack(work, undefined);
    return true;
  }

  /** Changes of this session that are not settled. */
  #changes(): Range[] {
    return this.#works.flatMap((work) => (work?.kind === 'change' && !work.isSettled ? [rangeOf(work)] : []));
  }

  /** Who does not differ lacks nothing; of who does, what the primary has told is all. Of others the primary has not heard yet. */
  #forgetEqual(): void {
    const { core, lacks } = this.#keep;
    const differing = [...(this.#differing ?? []), ...this.#toldSince];
    for (const member of lacks.members()) {
      const isKnown = member === this.source || this.#told.has(member);
      if (isKnown && !differing.includes(member)) lacks.forget(member);
    }
    const { lacksAll, isEqual, mayBeInStep } = core.durable;
    const still = lacksAll.filter(
      (member) =>
        member !== this.source &&
        (!this.#told.has(member) || (differing.includes(member) && this.#told.get(member) === 'everything')),
    );
    if (!isEqual || still.length < lacksAll.length || mayBeInStep.length > 0) {
      core.change({ isEqual: true, lacksAll: still, mayBeInStep: [] });
    }
  }
}

function rangeOf({ offset, length }: Range): Range {
  return { offset, length };
}

function operationOf(message: Extract<OperationMessage, Range>): Operation {
  const { kind, offset, length, fua } = message;
  switch (kind) {
    case 'write':
      return { kind, offset, length, fua, payload: message.payload };
    case 'zero':
      return { kind, offset, length, fua, noHole: message.noHole };
    case 'trim':
      return { kind, offset, length, fua };
  }
}
