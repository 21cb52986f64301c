/**
 * Pair: a primary with one of its secondaries, as the primary sees it. The table is the whole of what SPEC.md says of its states.
 *
 * Invariants
 * 1. `state` changes by the table alone.
 * 2. There is a link, connecting or up, in every state but `leaving`, or there is a time at which the next is tried.
 * 3. `isFollowing`: every change and every flush that begins now is sent to it.
 * 4. `isBearing`: it has been told, in this session, which members differ, and what they lack; so it is told of every change of that (I4, I7).
 */

import type { SuspendReason } from '../control-protocol/catalog.ts';
import { assert } from '../model/errors.ts';
import type { MemberId, SecondaryMessage } from '../peer-protocol/messages.ts';
import type { Core } from './core.ts';
import type { Token } from './effects.ts';
import { Flight } from './flight.ts';
import type { Work } from './work.ts';

export type PairState =
  | 'suspended'
  | 'connecting'
  | 'copying'
  | 'equalizing'
  | 'joining'
  | 'duplex'
  | 'leaving';

export type PairEvent =
  | 'differs' //  it has answered, or a write has failed here: it lacks something
  | 'equal' //    it has answered, and lacks nothing
  | 'copied' //   it lacks nothing any more, has flushed, and knows what others lack
  | 'recorded' // the record says what this state wants it to say
  | 'lost'; //    not reached, failed, too slow, refused, unwanted, or its cache is lost

export type RecordedState = 'suspended' | 'copying' | 'duplex';

/** `never`: the engine's own mistake. */
export const PAIR_TABLE: Record<PairState, Record<PairEvent, PairState | 'never'>> = {
  suspended: {
    differs: 'copying',
    equal: 'copying',
    copied: 'never',
    recorded: 'suspended',
    lost: 'suspended',
  },
  connecting: {
    differs: 'equalizing',
    equal: 'duplex',
    copied: 'never',
    recorded: 'never',
    lost: 'leaving',
  },
  copying: {
    differs: 'copying',
    equal: 'never',
    copied: 'joining',
    recorded: 'copying',
    lost: 'suspended',
  },
  equalizing: {
    differs: 'equalizing',
    equal: 'never',
    copied: 'duplex',
    recorded: 'equalizing',
    lost: 'leaving',
  },
  joining: {
    differs: 'joining',
    equal: 'never',
    copied: 'never',
    recorded: 'duplex',
    lost: 'leaving',
  },
  duplex: {
    differs: 'equalizing',
    equal: 'never',
    copied: 'never',
    recorded: 'duplex',
    lost: 'leaving',
  },
  leaving: {
    differs: 'leaving',
    equal: 'never',
    copied: 'never',
    recorded: 'suspended',
    lost: 'leaving',
  },
};

/** What the record is to say. */
export const RECORDED_AS: Record<PairState, RecordedState> = {
  suspended: 'suspended',
  connecting: 'duplex',
  copying: 'copying',
  equalizing: 'duplex',
  joining: 'duplex',
  duplex: 'duplex',
  leaving: 'suspended',
};

/** A connection of a primary to a secondary, or the try of one. */
export interface Link {
  readonly session: Token;
  isUp: boolean;
  readonly sinceAwakeMs: number;
  readonly flight: Flight;
  heartbeatAwakeMs: number;
  /** When something was heard from there, whatever it was. */
  heardAwakeMs: number;
  /** Not answered yet; in the order in which they were sent. */
  readonly heartbeats: Heartbeat[];
  /** The last that was answered. */
  answeredToken: Token;
}

export interface Heartbeat {
  readonly token: Token;
  readonly sentMs: number;
  readonly sentAwakeMs: number;
}

type HeartbeatAnswer = Extract<SecondaryMessage, { kind: 'heartbeat-ack' }>;

export class Pair {
  readonly member: MemberId;
  isWanted: boolean;
  state: PairState;
  sinceAwakeMs: number;
  link: Link | undefined;
  /** What the record says, as far as known. */
  recorded: RecordedState | undefined;
  reason: SuspendReason | null = null;
  isReportDue = false;
  isReporting = false;
  /** What the directory has told while a report was on its way. */
  toldMeanwhile: { readonly recorded: RecordedState | undefined } | undefined;
  reportAtMs = 0;

  isFollowing = false;
  isBearing = false;
  isCalledEqual = false;
  /** What it was told last: the members that differ. */
  told = '';
  /** Of a pair that is leaving: the record, and every bearing member, know. */
  isRecorded = false;
  isTold = false;
  /** Of a pair that is leaving: what is not answered yet. */
  blocked: Work[] = [];

  /** It has granted a lease from then on. */
  grantedMs = Number.NEGATIVE_INFINITY;
  retryAtMs = 0;
  retryMs: number;

  copy = new CopyProgress();
  copiedBytes = 0;

  constructor(
    member: MemberId,
    state: PairState,
    isWanted: boolean,
    recorded: RecordedState | undefined,
    awakeMs: number,
    retryMs: number,
  ) {
    this.member = member;
    this.state = state;
    this.isWanted = isWanted;
    this.recorded = recorded;
    this.sinceAwakeMs = awakeMs;
    this.retryMs = retryMs;
  }

  /** A connection is tried again, after twice as long each time. */
  retryLater({ nowMs, limits }: Core): void {
    this.retryAtMs = nowMs + this.retryMs;
    this.retryMs = Math.min(this.retryMs * 2, limits.retryMaxMs);
  }

  /** What the event makes of it; the only place in which `state` changes. */
  take(event: PairEvent, awakeMs: number): PairState {
    const before = this.state;
    const next = PAIR_TABLE[before][event];
    assert(next !== 'never', `a pair that is ${before} is not ${event}`);
    if (next !== before) {
      this.state = next;
      this.sinceAwakeMs = awakeMs;
    }
    return before;
  }

  /** The record may say, now or soon, that it is duplex. */
  get mayBeInStep(): boolean {
    return this.state !== 'suspended' && this.state !== 'copying';
  }

  /** Nothing is to be done for it but heartbeats. */
  get isAtRest(): boolean {
    if (this.isReportDue || this.isReporting) return false;
    return this.state === 'duplex' || (this.state === 'suspended' && !this.isWanted);
  }

  /** It may lack something that the primary has. */
  get isDiffering(): boolean {
    return this.state !== 'duplex' && this.state !== 'joining';
  }
}

/** The background copy of a session. */
export class CopyProgress {
  /** Where the next piece is looked for. */
  nextOffset = 0;
  pieces = 0;
  unflushedBytes = 0;
  isFlushing = false;
  hasFlushed = false;
  isTelling = false;
  /** It lacks everything: it is being zeroed, and what is allocated is being looked for. */
  isWiping = false;
  wipedOffset = 0;
}

/** `isInDoubt`: what has failed at the primary, and the member may have. */
export function newLink(session: Token, awakeMs: number, isInDoubt: (work: Work) => boolean): Link {
  return {
    session,
    isUp: false,
    sinceAwakeMs: awakeMs,
    flight: new Flight(isInDoubt),
    heartbeatAwakeMs: Number.NEGATIVE_INFINITY,
    heardAwakeMs: awakeMs,
    heartbeats: [],
    answeredToken: 0,
  };
}

/** The heartbeat that the message answers; or what is wrong with it. */
export function answered(
  link: Link,
  { token, received }: HeartbeatAnswer,
  awakeMs: number,
): Heartbeat | string {
  const heartbeat = link.heartbeats.shift();
  if (heartbeat === undefined || heartbeat.token !== token) return 'it answers a heartbeat that was not sent';
  if (!link.flight.arrived(received, awakeMs)) return 'it has received what it was not sent';
  return heartbeat;
}

/** How long nothing was heard from there, though it was asked. What is asked may queue behind what hosts write: whoever acknowledges that is there. */
export function silentMs(link: Link, awakeMs: number): number {
  return awakeMs - Math.max(link.heartbeats[0]?.sentAwakeMs ?? awakeMs, link.heardAwakeMs);
}
