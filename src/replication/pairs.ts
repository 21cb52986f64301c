/**
 * Pairs: a primary's connections to its secondaries, and what is reported of them.
 *
 * Invariants
 * 1. At most one report of a pair waits for its answer; the next says what is true then.
 * 2. A pair that is leaving is left when the record says suspended, and every bearing member has been told (I2, I4).
 * 3. A member is durably one that may be in step before the record is asked to say duplex, until after it says suspended (I3).
 */

import { bytesOf } from '../base/range.ts';
import type { SuspendReason } from '../control-protocol/catalog.ts';
import { assert } from '../model/errors.ts';
import type { MemberId, Range, RefusalCode, SecondaryMessage } from '../peer-protocol/messages.ts';
import { Copier } from './copier.ts';
import type { Token } from './effects.ts';
import {
  answered,
  type Link,
  newLink,
  type Pair,
  type PairEvent,
  type PairState,
  RECORDED_AS,
  type RecordedState,
  silentMs,
} from './pair.ts';
import { Telling } from './telling.ts';
import type { Work } from './work.ts';
import type { Keep, Writes } from './writes.ts';

export interface PairsOptions extends Keep {
  readonly pairs: Pair[];
  readonly writes: Writes;
  readonly bytesPerSecond: () => number;
  /** Leases, and what may be served, have to be looked at again. */
  readonly changed: () => void;
  /** False: this epoch is not older than that one. */
  readonly stale: (epoch: number | undefined) => boolean;
}

export class Pairs {
  readonly #options: PairsOptions;
  readonly #pairs: Pair[];
  readonly #writes: Writes;
  readonly #copier: Copier;
  readonly #telling: Telling;
  #isOver = false;
  /** Connections are made: what is unsettled has been put into what others lack (I12). */
  #isOpen = false;
  /** No new pieces: the primary hands over. */
  isPaused = false;

  constructor(options: PairsOptions) {
    this.#options = options;
    this.#pairs = options.pairs;
    this.#writes = options.writes;
    const { core, journal, marks, lacks, writes, bytesPerSecond } = options;
    this.#telling = new Telling({ core, lacks, writes, pairs: this.#pairs });
    this.#copier = new Copier({
      ...{ core, journal, marks, lacks, writes, bytesPerSecond },
      isPaused: (pair) => this.isPaused || (pair.state === 'copying' && this.#isMakingEqual()),
      copied: (pair) => this.#copied(pair),
      tellEqual: (pair, link, then) => this.#telling.knowledge(pair, link, then),
      failed: (pair) => this.lose(pair, 'failed', 'cannot read here'),
      follow: (pair) => {
        pair.isFollowing = true;
      },
    });
  }

  /** A member that may be promoted lacks blocks: whoever got them now would have what nobody knows of when that one is promoted. */
  #isMakingEqual(): boolean {
    return this.#pairs.some(({ mayBeInStep, isDiffering }) => mayBeInStep && isDiffering);
  }

  find(member: MemberId): Pair | undefined {
    return this.#pairs.find((pair) => pair.member === member);
  }

  /** Connects to all who are wanted. */
  open(): void {
    this.#isOpen = true;
    for (const pair of [...this.#pairs]) {
      pair.sinceAwakeMs = this.#options.core.awakeMs;
      if (!pair.isWanted && pair.state === 'connecting') this.lose(pair, 'asked', 'asked for');
      else this.#connectIfDue(pair);
    }
  }

  /** The role is over. */
  close(): void {
    this.#isOver = true;
    for (const { link, member } of this.#pairs) {
      if (link !== undefined) {
        this.#options.core.emit({ kind: 'disconnect', to: member, session: link.session });
      }
    }
  }

  tick(): void {
    const { core } = this.#options;
    for (const pair of this.#pairs) {
      if (this.#isOver) return;
      const { link } = pair;
      if (link?.isUp === true) this.#lookAfter(pair, link);
      else if (link !== undefined && core.awakeMs - link.sinceAwakeMs > core.limits.connectMs) {
        this.#notConnected(pair, 'unreachable', 'no connection in time');
      } else if (
        this.#isOpen &&
        pair.state === 'connecting' &&
        core.awakeMs - pair.sinceAwakeMs > core.limits.connectMs
      ) {
        this.lose(pair, 'unreachable', 'not there in time');
      }
      this.#connectIfDue(pair);
      this.#report(pair);
    }
  }

  // ── what the directory says ──────────────────────────────────────────────────────────────────────────────

  want(pair: Pair, isWanted: boolean): void {
    if (pair.isWanted === isWanted) return;
    pair.isWanted = isWanted;
    if (!isWanted) {
      this.lose(pair, 'asked', 'asked for');
      return;
    }
    pair.retryAtMs = 0;
    pair.retryMs = this.#options.core.limits.retryMs;
    this.#connectIfDue(pair);
  }

  /** What the record says now. It may have changed without a report that is known of: one that was given up can be recorded later. */
  recordSays(pair: Pair, recorded: RecordedState | undefined): void {
    // Which of the two came later, that or the report that is on its way, nobody knows: it counts when that has been answered.
    if (pair.isReporting) {
      pair.toldMeanwhile = { recorded };
      return;
    }
    pair.recorded = recorded;
    const { state } = pair;
    const isOlder = state === 'suspended' && recorded === 'duplex'; // an older catalog was put back
    if (!isOlder && state !== 'duplex' && state !== 'equalizing' && state !== 'copying') return;
    pair.isReportDue = recorded !== RECORDED_AS[state];
    this.#report(pair);
  }

  /** Nobody can take over from a primary that has lost its cache: what those lack that may be in step, nobody knows. */
  giveUpOthers(): void {
    for (const pair of this.#pairs) {
      if (pair.state === 'connecting')
        this.lose(pair, 'unreachable', 'the primary goes on without its cache');
    }
  }

  add(pair: Pair): void {
    this.#pairs.push(pair);
    this.#writes.added(pair);
    this.#telling.added(pair.member);
    this.#connectIfDue(pair);
  }

  remove(pair: Pair): void {
    this.#pairs.splice(this.#pairs.indexOf(pair), 1);
    this.#unlink(pair, false);
    this.#writes.unblock(pair);
    this.#options.lacks.forget(pair.member);
    this.#telling.members(false, () => undefined);
  }

  // ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────

  linkUp(
    member: MemberId,
    session: Token,
    hasLostCache: boolean,
    unsettled: readonly Range[],
    alone: readonly Range[],
  ): void {
    const pair = this.#pairOf(member, session);
    if (pair?.link === undefined || pair.link.isUp) return;
    const { core, lacks } = this.#options;
    pair.link.isUp = true;
    const lacksAll = core.durable.lacksAll.includes(member);
    // Who lacks everything is zeroed first: there is nothing to be merged.
    if (!lacksAll) lacks.addAll(member, unsettled);
    const bytes = lacksAll ? bytesOf(alone) : lacks.addAll(member, alone);
    // A member that knows nothing of this one calls everything its own.
    if (bytes > 0 && bytesOf(alone) < lacks.sizeBytes)
      core.emit({ kind: 'told', what: { kind: 'discarded', member, bytes } });
    if (pair.state === 'connecting' && (hasLostCache || lacksAll)) {
      this.lose(pair, 'failed', hasLostCache ? 'its cache is lost' : 'it lacks everything');
      return;
    }
    const isEqual = !lacksAll && lacks.missing(member).isEmpty;
    this.#transition(pair, isEqual ? 'equal' : 'differs', 'connected');
    if (pair.state === 'copying') this.#telling.isCopying(pair, pair.link);
    else this.#telling.knowledge(pair, pair.link, () => undefined);
    pair.isFollowing = !lacksAll;
    if (pair.state !== 'duplex') this.#copier.start(pair);
    this.heartbeat(pair, pair.link);
    this.#options.changed();
  }

  linkRefused(member: MemberId, session: Token, code: RefusalCode, epoch: number): void {
    const pair = this.#pairOf(member, session);
    if (pair === undefined) return;
    if (this.#options.stale(epoch)) return;
    this.#notConnected(pair, code === 'failed' ? 'failed' : 'refused', `refused: ${code}`);
  }

  linkDown(member: MemberId, session: Token): void {
    const pair = this.#pairOf(member, session);
    if (pair?.link === undefined) return;
    if (pair.link.isUp) this.lose(pair, 'unreachable', 'disconnected');
    else this.#notConnected(pair, 'unreachable', 'not connected');
  }

  message(member: MemberId, session: Token, message: SecondaryMessage): void {
    const pair = this.#pairOf(member, session);
    const link = pair?.link;
    if (pair === undefined || link === undefined) return;
    const { awakeMs } = this.#options.core;
    link.heardAwakeMs = awakeMs;
    switch (message.kind) {
      case 'ack': {
        // What has failed there is not acknowledged: it waits for the record, as all that the member lacks.
        if (message.result !== 'done') this.lose(pair, 'failed', `it could not write: ${message.result}`);
        else if (!this.#writes.acked(pair, link, message.seq)) {
          this.lose(pair, 'failed', 'it acknowledges what it was not sent');
        }
        break;
      }
      case 'heartbeat-ack': {
        const heartbeat = answered(link, message, awakeMs);
        if (typeof heartbeat === 'string') {
          this.lose(pair, 'failed', heartbeat);
          break;
        }
        link.answeredToken = heartbeat.token;
        pair.grantedMs = Math.max(pair.grantedMs, heartbeat.sentMs);
        this.#options.changed();
        break;
      }
      case 'receiving':
        break; // that it was heard is all that it says
      case 'fenced':
        if (!this.#options.stale(message.epoch)) this.lose(pair, 'unreachable', 'it has ended the session');
        break;
    }
  }

  heartbeat(pair: Pair, link: Link): Token {
    const { core } = this.#options;
    const token = core.newToken();
    const { confirmed } = link.flight;
    link.heartbeatAwakeMs = core.awakeMs;
    link.heartbeats.push({ token, sentMs: core.nowMs, sentAwakeMs: core.awakeMs });
    const message = { kind: 'heartbeat', token, confirmed } as const;
    core.emit({ kind: 'send', to: pair.member, session: link.session, message });
    return token;
  }

  /** A write has failed here: who follows may have it. */
  failedHere(): void {
    for (const pair of this.#pairs) {
      if (!pair.isFollowing || this.#options.lacks.missing(pair.member).isEmpty) continue;
      const before = pair.state;
      this.#transition(pair, 'differs', 'a write has failed here');
      if (before === 'duplex') this.#copier.start(pair);
      else this.#copier.pump(pair);
    }
  }

  /** The member is lost: nothing is sent to it any more. */
  lose(pair: Pair, reason: SuspendReason, cause: string): void {
    if (pair.state === 'leaving') {
      pair.reason = reason;
      return;
    }
    const before = this.#transition(pair, 'lost', cause);
    const isLeaving = RECORDED_AS[before] === 'duplex';
    this.#unlink(pair, isLeaving);
    pair.retryLater(this.#options.core);
    if (isLeaving) {
      pair.isRecorded = false;
      pair.isTold = false;
      pair.recorded = undefined;
      this.#telling.members(true, () => {
        pair.isTold = true;
        this.#leave(pair);
      });
    }
    if (isLeaving || before === 'copying' || pair.recorded === 'copying') {
      pair.reason = reason;
      pair.isReportDue = true;
      this.#report(pair);
    }
    this.#options.changed();
  }

  copyOn(): void {
    for (const pair of this.#pairs) this.#copier.pump(pair);
  }

  // ── inside ───────────────────────────────────────────────────────────────────────────────────────────────

  /** Undefined: of a session that is over. */
  #pairOf(member: MemberId, session: Token): Pair | undefined {
    const pair = this.find(member);
    return pair?.link?.session === session ? pair : undefined;
  }

  #transition(pair: Pair, event: PairEvent, cause: string): PairState {
    const { core } = this.#options;
    const wasDiffering = pair.isDiffering;
    const from = pair.take(event, core.awakeMs);
    if (from === pair.state) return from;
    const { member, state: to } = pair;
    core.emit({ kind: 'told', what: { kind: 'pair', member, from, to, cause } });
    if (to === 'duplex') pair.retryMs = core.limits.retryMs; // until then one that fails is tried ever more rarely
    if (wasDiffering !== pair.isDiffering && to !== 'leaving') this.#telling.members(false, () => undefined);
    if (to !== 'leaving' && to !== 'suspended') {
      pair.isReportDue = to === 'joining' || pair.recorded !== RECORDED_AS[to]; // the answer is what it waits for
      if (pair.isReportDue) pair.reason = null;
      this.#report(pair);
    }
    return from;
  }

  #connectIfDue(pair: Pair): void {
    const { core, lacks } = this.#options;
    if (!this.#isOpen || pair.link !== undefined || !pair.isWanted || core.nowMs < pair.retryAtMs) return;
    if (pair.state !== 'suspended' && pair.state !== 'connecting') return;
    const session = core.newToken();
    // Until it holds what is here, who may be promoted keeps such a thing as unsettled.
    const isInDoubt = (work: Work): boolean => pair.mayBeInStep && lacks.missing(pair.member).has(work);
    pair.link = newLink(session, core.awakeMs, isInDoubt);
    const { epoch } = core.durable.config;
    core.emit({ kind: 'connect', to: pair.member, session, epoch });
  }

  #notConnected(pair: Pair, reason: SuspendReason, cause: string): void {
    if (pair.state === 'connecting') {
      pair.reason = reason;
      this.#unlink(pair, false);
      pair.retryAtMs = this.#options.core.nowMs + this.#options.core.limits.retryMs / 2;
    } else {
      this.lose(pair, reason, cause);
    }
  }

  #unlink(pair: Pair, isBlocking: boolean): void {
    const { link } = pair;
    pair.isFollowing = false;
    pair.isBearing = false;
    pair.isCalledEqual = false;
    pair.told = '';
    if (link === undefined) return;
    pair.link = undefined;
    this.#writes.drop(pair, link, isBlocking);
    this.#copier.stop(pair);
    this.#options.core.emit({ kind: 'disconnect', to: pair.member, session: link.session });
  }

  #lookAfter(pair: Pair, link: Link): void {
    const { core } = this.#options;
    if (silentMs(link, core.awakeMs) > core.limits.ackMs || link.flight.isOverdue(core.awakeMs)) {
      this.lose(pair, 'unreachable', 'no answer in time');
      return;
    }
    const everyMs = core.durable.config.leaseMs / 6;
    if (core.awakeMs - link.heartbeatAwakeMs >= everyMs) this.heartbeat(pair, link);
    this.#copier.pump(pair);
  }

  // ── reports ──────────────────────────────────────────────────────────────────────────────────────────────

  #report(pair: Pair): void {
    const { core } = this.#options;
    if (this.#isOver || !pair.isReportDue || pair.isReporting || core.nowMs < pair.reportAtMs) return;
    const said = RECORDED_AS[pair.state];
    const token = core.reported.ask((outcome) => {
      pair.isReporting = false;
      if (this.#isOver || !this.#pairs.includes(pair)) return;
      if (outcome === 'stale-epoch') {
        this.#options.stale(undefined);
      } else if (outcome === 'unreachable') {
        pair.reportAtMs = core.nowMs + core.limits.retryMs;
      } else {
        pair.recorded = said;
        if (RECORDED_AS[pair.state] === said) this.#recorded(pair);
        else this.#report(pair);
      }
      const told = pair.toldMeanwhile;
      pair.toldMeanwhile = undefined;
      if (told !== undefined && !this.#isOver) this.recordSays(pair, told.recorded);
    });
    pair.isReporting = true;
    const { epoch } = core.durable.config;
    const { member, reason } = pair;
    core.emit({
      kind: 'report',
      token,
      epoch,
      member,
      pair: said,
      reason: said === 'suspended' ? (reason ?? 'unreachable') : null,
    });
  }

  #recorded(pair: Pair): void {
    pair.isReportDue = false;
    if (pair.state === 'leaving') {
      pair.isRecorded = true;
      this.#leave(pair);
      return;
    }
    this.#transition(pair, 'recorded', 'recorded');
    if (pair.state === 'duplex' && !this.#options.lacks.missing(pair.member).isEmpty) {
      this.#transition(pair, 'differs', 'a write has failed here');
      this.#copier.start(pair);
    }
    this.#options.changed();
  }

  #leave(pair: Pair): void {
    if (pair.state !== 'leaving' || !pair.isRecorded || !pair.isTold) return;
    const { core } = this.#options;
    this.#transition(pair, 'recorded', 'recorded');
    const mayBeInStep = core.durable.mayBeInStep.filter((member) => member !== pair.member);
    core.change({ mayBeInStep });
    this.#writes.unblock(pair);
    this.#options.changed();
  }

  /** The copier has made it equal. */
  #copied(pair: Pair): void {
    const { core } = this.#options;
    const { link } = pair;
    assert(link !== undefined, 'what is copied is connected');
    if (pair.state === 'copying') core.change({ mayBeInStep: [...core.durable.mayBeInStep, pair.member] });
    const { member, copiedBytes: bytes } = pair;
    core.emit({ kind: 'told', what: { kind: 'copied', member, bytes } });
    const before = this.#transition(pair, 'copied', 'equal');
    if (before === 'equalizing') this.#telling.calledEqual(pair, link);
    this.#options.changed();
  }
}
