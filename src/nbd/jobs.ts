/**
 * Everything of a connection that outlives the receive it came with: jobs under way, what they hold, and the order
 * in which they may speak. Transmission starts jobs; jobs answer through here.
 *
 * Invariants
 *  J1 What a job holds (its place, its bytes, its effect) is given back when it has ended, however it ends.
 *  J2 The pieces of a reply that must not be cut follow each other without another reply in between (`exclusively`).
 *  J3 When the client has given up, every effect under way is an orphan until it has finished (LiveExport).
 */

import { assert } from '../model/errors.ts';
import type { HeaderStyle } from '../nbd-server-protocol/constants.ts';
import { ReplyEncoder } from '../nbd-server-protocol/reply-encoder.ts';
import type { Request, RequestTag } from '../nbd-server-protocol/request-decoder.ts';
import type { NegotiatedSession } from '../nbd-server-protocol/session.ts';
import { type Refusal, refusalOf } from './errno.ts';
import type { Effect, EffectOwner, LiveExport } from './live-export.ts';
import { MissStreak } from './miss-streak.ts';
import type { Outlet } from './outlet.ts';
import type { SlabPool } from './slab-pool.ts';

/** Jobs of one connection at the same time, and the memory that they may hold together. */
const JOBS_MAX = 256;
const JOB_BYTES_MAX = 4 * 1024 * 1024;

export interface JobsContext {
  readonly session: NegotiatedSession;
  readonly live: LiveExport;
  readonly outlet: Outlet;
  readonly pool: SlabPool;
  /** Replies that the client has not taken yet: beyond this no new ones are made. */
  outletBytesMax(): number;
  /** A reply was written outside of a receive: send it when this turn of the event loop ends. */
  replied(): void;
  /** Something was given back that a stalled connection may wait for. */
  freed(): void;
  /** The last job has ended. */
  idle(): void;
  /** The connection cannot be kept in step any more. */
  destroy(reason: string): void;
  /** The client has closed its side, or the connection has failed: as the kernel knows it now. */
  peerHasClosed(): boolean;
}

/** A request that outlives the decoder's view of it. */
export type JobRequest = Omit<Request, 'payloadLength'>;

export function copyRequest(request: Request): JobRequest {
  const { cookieHigh, cookieLow, offsetHigh, offsetLow, command, flags, offset, length } = request;
  return { cookieHigh, cookieLow, offsetHigh, offsetLow, command, flags, offset, length };
}

export class Jobs implements EffectOwner {
  readonly context: JobsContext;
  readonly encoder: ReplyEncoder;
  readonly style: HeaderStyle;
  ownChanges = 0;
  readonly misses = new MissStreak();
  #count = 0;
  #bytes = 0;
  #dead = false;
  /** While a reply must not be cut in two (J2): what the other jobs want to say. */
  #deferred: (() => void)[] | undefined;
  readonly #roomWaiters: (() => void)[] = [];

  constructor(context: JobsContext) {
    this.context = context;
    this.style = context.session.headerStyle;
    this.encoder = new ReplyEncoder(this.style);
  }

  get isIdle(): boolean {
    return this.#count === 0;
  }

  get isDead(): boolean {
    return this.#dead || this.context.outlet.isClosed;
  }

  /** There is room for another job. */
  get hasRoom(): boolean {
    return this.#count < JOBS_MAX && this.#bytes < JOB_BYTES_MAX;
  }

  /** A request may be answered at once: nobody else holds the outlet, and the client takes what it is sent. */
  get mayReplyNow(): boolean {
    return this.#deferred === undefined && this.context.outlet.pendingBytes < this.context.outletBytesMax();
  }

  /**
   * Starts a job that holds `bytes` and changes the `changed` range of the volume. `run` answers the request itself; when it
   * fails and `request` is given, the failure is the answer.
   */
  start(
    bytes: number,
    changed: { readonly offset: number; readonly end: number } | undefined,
    run: () => Promise<void>,
    request?: RequestTag,
  ): void {
    this.startThen(bytes, changed, run, (isDone, error) => {
      if (isDone) return;
      const refusal = refusalOf(error);
      if (request !== undefined) this.reply(() => this.putRefusal(request, refusal));
    });
  }

  /** The same, but for the answer: `then` is told how `run` has ended, while the job still holds what it holds. */
  startThen(
    bytes: number,
    changed: { readonly offset: number; readonly end: number } | undefined,
    run: () => Promise<void>,
    then: (isDone: boolean, error: unknown) => void,
  ): void {
    const { live } = this.context;
    this.#count += 1;
    this.#bytes += bytes;
    const effect = changed === undefined ? undefined : live.begun(this, changed.offset, changed.end);
    run().then(
      () => {
        then(true, undefined);
        this.#ended(bytes, effect);
      },
      (error: unknown) => {
        try {
          then(false, error);
        } finally {
          this.#ended(bytes, effect);
        }
      },
    );
  }

  #ended(bytes: number, effect: Effect | undefined): void {
    this.#count -= 1;
    this.#bytes -= bytes;
    if (effect !== undefined) this.context.live.finished(effect);
    this.context.replied();
    this.context.freed();
    if (this.#count === 0) this.context.idle();
  }

  /** The range is being changed for a client that is gone: `freed` is called when that has ended. */
  isFenced(offset: number, length: number): boolean {
    const { live, freed } = this.context;
    if (!live.isFenced(offset, length, this)) return false;
    live.waitForOrphans(freed);
    return true;
  }

  /** Says something on the connection: now, or when a reply that must not be cut has ended. */
  reply(put: () => void): void {
    if (this.#deferred === undefined) put();
    else this.#deferred.push(put);
  }

  /** Nobody else holds the outlet: `reply` speaks at once. */
  get maySpeak(): boolean {
    return this.#deferred === undefined;
  }

  /** Waits while another reply must not be cut in two: what would be said now had to be kept. */
  async turnToSpeak(): Promise<void> {
    while (this.#deferred !== undefined) {
      await new Promise<void>((resolve) => this.#deferred?.push(resolve));
    }
  }

  /** Only `run` writes to the outlet until it has ended (J2). Another that wants the same waits. */
  async exclusively(run: () => Promise<void>): Promise<void> {
    while (this.#deferred !== undefined) await this.turnToSpeak();
    const deferred: (() => void)[] = [];
    this.#deferred = deferred;
    try {
      await run();
    } finally {
      this.#deferred = undefined;
      for (const put of deferred) put();
      this.context.freed();
    }
  }

  /** Waits until the client has taken enough of what is queued for it, or is gone. */
  async outletRoom(): Promise<void> {
    const { outlet } = this.context;
    outlet.flush();
    while (outlet.pendingBytes >= this.context.outletBytesMax() && !this.isDead) {
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
  }

  /** The socket has taken a rest that it had refused before. */
  drained(): void {
    this.#wakeRoomWaiters();
    this.context.freed();
  }

  hasGone(): boolean {
    return this.#dead || this.context.peerHasClosed();
  }

  /** The client has given up: its effects under way become orphans. Replies may still be wanted. */
  orphanEffects(): void {
    this.context.live.orphanAllOf(this);
  }

  /** The connection is gone: nobody hears of what is under way any more. */
  die(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.orphanEffects();
    this.#wakeRoomWaiters();
  }

  putAck(tag: RequestTag): void {
    const segment = this.context.outlet.reserve(this.encoder.ackBytes);
    this.context.outlet.commit(segment, this.encoder.ack(segment.slab.buffer, segment.end, tag));
  }

  putRefusal(tag: RequestTag, { errno, text, offset }: Refusal): void {
    assert(errno !== 0, 'a refusal has an error value');
    const segment = this.context.outlet.reserve(this.encoder.errorBytes(text));
    const end = this.encoder.error(segment.slab.buffer, segment.end, tag, errno, text, offset);
    this.context.outlet.commit(segment, end);
  }

  #wakeRoomWaiters(): void {
    for (const resolve of this.#roomWaiters.splice(0)) resolve();
  }
}
