/**
 * The connections of a RemoteVolume, and what becomes of requests when connections are lost.
 *
 *   connected     -> reconnecting   the last live connection is lost; requests wait
 *   reconnecting  -> connected      a connection is there again; what waits is sent
 *   reconnecting  -> failed         reconnectMs have passed: what waits fails with 'io', and so does what comes
 *   failed        -> connected      a connection is there again
 *   connected, reconnecting, failed -> failed for good   the export has come back with less than was promised
 *                                                       or its user has given up
 *   connected     -> reconnecting   retarget: all connections are given up
 *   any           -> closed         close
 *
 * Before the first connection (`open`) it is reconnecting, and nothing is told of that.
 *
 * Invariants
 *  P1 An operation is in exactly one place: waiting, in flight on one live link, or settled. It is settled once.
 *  P2 What a dead link had in flight waits at the front, in the order in which it was sent. Operations that are under
 *     way at the same time have no order (rule 5 of model/volume.ts), so none is kept between links.
 *  P3 An operation that waits is given up `reconnectMs` after a link was lost with it first, however often it was sent
 *     since, so that a server which breaks the protocol each time it is asked the same is not asked for ever.
 *  P4 Attempts to connect back off until a connection has lived for a while: one that only ever dies costs little. They
 *     go on for as long as there is a volume, whatever its state, and whatever the server says. After a retarget they are
 *     close together for a while: whoever is to serve now may be about to.
 *  P5 There is no link, and no attempt, but to the target of now; and links to one of before that only finish (old-links.ts).
 *  P6 A change that was lost is sent to another target only over links that were got by its `aloneName`, if it has one: then no copy of it
 *     comes there later. So is everything before a first link, since an earlier life may have sent the same.
 */

import { VolumeError } from '../model/errors.ts';
import type { ReceiveArea } from '../nbd-server-protocol/receive-area.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';
import { Backoff, SETTLED_MS } from './backoff.ts';
import { dial, isSameTarget, type RemoteTarget, serverText } from './dial.ts';
import { refusalOf } from './errors.ts';
import { Link, type LinkOwner } from './link.ts';
import { OldLinks } from './old-links.ts';
import { Opening } from './opening.ts';
import { goneError, type Operation } from './operation.ts';
import { Patience, WATCHES } from './patience.ts';
import type { LinkPoolOptions, RemoteState, Verdict } from './pool-options.ts';

/** A place for one connection. */
interface Slot {
  link: Link | undefined;
  giveUp: (() => void) | undefined;
  retryTimer: NodeJS.Timeout | undefined;
  readonly backoff: Backoff;
}

export class LinkPool implements LinkOwner {
  readonly area: ReceiveArea;
  readonly #options: LinkPoolOptions;
  readonly #slots: Slot[] = [];
  #target: RemoteTarget;
  #opening: Opening | undefined;
  /** All links are being dropped: nothing is sent, or dialled, before the last of them is. */
  #retargeting = false;
  readonly #oldLinks = new OldLinks();
  #finishMs = 0;
  /** Of the target of now (P6). */
  #isAlone = true;
  readonly #patience: Patience;
  #waiting: Operation[] = [];
  #underWay = 0;
  #state: RemoteState = 'reconnecting';
  #failedForGood: VolumeError | undefined;
  #lastFailure: Error | undefined;
  #expiry: NodeJS.Timeout | undefined;
  #watch: NodeJS.Timeout | undefined;
  #whenIdle: (() => void) | undefined;

  constructor(options: LinkPoolOptions) {
    this.#options = options;
    this.#target = options.target;
    this.area = options.dialOptions.area;
    this.#patience = new Patience(options.reconnectMs, () => this.#losePatience());
  }

  get state(): RemoteState {
    return this.#state;
  }

  get hasFailedForGood(): boolean {
    return this.#failedForGood !== undefined;
  }

  get liveLinks(): number {
    return this.#slots.filter(({ link }) => link !== undefined).length;
  }

  /** The first connection. Attempts go on for `openMs`; with 0 there is one, or one for each target. */
  open(openMs: number, signal: AbortSignal | undefined): Promise<ClientSession> {
    this.#opening = new Opening({
      openMs,
      signal,
      silence: () => new VolumeError('io', `${this.#serverText} does not answer`),
      failed: () => this.#leaveUnopened(),
    });
    if (!this.#opening.isOver) this.#connect(this.#newSlot());
    return this.#opening.opened;
  }

  /** The export is elsewhere now. Attempts to the older target are given up at once, connections when `finishMs` is over. */
  retarget(target: RemoteTarget, finishMs: number): void {
    if (this.#state === 'closed' || this.#failedForGood !== undefined) return;
    if (isSameTarget(target, this.#target)) return;
    const from = this.#serverText;
    this.#target = target;
    this.#finishMs = finishMs;
    this.#options.log.info({ from, to: this.#serverText }, 'remote volume has moved');
    this.#redial(new Error(`moved from ${from}`));
  }

  /** No link is used any more; new ones are for what waits, and comes. */
  #redial(reason: Error): void {
    const finishMs = this.#finishMs;
    const wasConnected = this.#state === 'connected';
    this.#retargeting = true;
    if (finishMs === 0) this.#oldLinks.drop(reason);
    for (const slot of this.#slots) {
      this.#idle(slot);
      slot.backoff.beEager();
      const { link } = slot;
      if (link?.canMultiConn === true && finishMs > 0) {
        slot.link = undefined;
        this.#oldLinks.keep(link, finishMs);
      } else link?.drop(reason);
    }
    this.#retargeting = false;
    this.#isAlone = this.#opening?.isOver !== true || this.#waiting.some(isLostChange);
    for (const slot of this.#slots) this.#connect(slot);
    if (wasConnected) this.#disconnected(reason);
  }

  /** Up to `connections` altogether; they come when they come. */
  widen(connections: number): void {
    while (this.#slots.length < connections) this.#connect(this.#newSlot());
  }

  submit(operation: Operation): void {
    const refusal = this.#refusalOf(operation);
    if (refusal !== undefined) {
      operation.fail(refusal);
      return;
    }
    this.hold();
    const link = this.#waiting.length === 0 ? this.#linkFor(operation) : undefined;
    if (link === undefined) this.#waiting.push(operation);
    else this.#send(link, operation);
  }

  /** Something of several operations has begun: close waits until it has called `release`. */
  hold(): void {
    this.#underWay += 1;
  }

  release(): void {
    this.#underWay -= 1;
    if (this.#underWay === 0) this.#whenIdle?.();
  }

  /** Waits for what is under way, says goodbye, and leaves nothing behind. */
  async close(): Promise<void> {
    if (this.#underWay > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    this.#enter('closed', undefined);
    clearTimeout(this.#expiry);
    this.#patience.end();
    clearTimeout(this.#watch);
    const leaving: Promise<void>[] = [];
    for (const slot of this.#slots) {
      this.#idle(slot);
      if (slot.link !== undefined) leaving.push(slot.link.leave());
      slot.link = undefined;
    }
    await Promise.all([...leaving, this.#oldLinks.left()]);
  }

  // --- requests --------------------------------------------------------------------------------------------

  #refusalOf(operation: Operation): VolumeError | undefined {
    if (this.#failedForGood !== undefined) return this.#failedForGood;
    if (this.#state === 'failed') return goneError(this.#serverText, this.#lastFailure);
    return this.#options.ledger.refusalOf(operation);
  }

  /** Batches are worth more than an even load, until a connection has much to do. */
  #linkFor(operation: Operation): Link | undefined {
    let best: Link | undefined;
    for (const { link } of this.#slots) {
      if (link?.hasRoomFor(operation) !== true) continue;
      if (link.isLight) return link;
      if (best === undefined || link.inFlight < best.inFlight) best = link;
    }
    return best;
  }

  #send(link: Link, operation: Operation): void {
    this.#options.ledger.sent(operation);
    link.send(operation);
    this.#watch ??= setTimeout(() => this.#lookForSilence(), this.#options.reconnectMs / WATCHES);
  }

  #sendWaiting(): void {
    let sent = 0;
    for (const operation of this.#waiting) {
      const refusal = this.#refusalOf(operation);
      const link = refusal === undefined ? this.#linkFor(operation) : undefined;
      if (refusal !== undefined) this.#settle(operation, refusal);
      else if (link !== undefined) this.#send(link, operation);
      else break;
      sent += 1;
    }
    if (sent > 0) this.#waiting.splice(0, sent);
  }

  answered(operation: Operation, error: VolumeError | undefined): void {
    const { ledger } = this.#options;
    if (error === undefined) ledger.succeeded(operation);
    else ledger.refused(operation, error);
    this.#settle(operation, error);
    if (this.#oldLinks.size > 0) this.#oldLinks.letGo();
    if (this.#waiting.length > 0) this.#sendWaiting();
  }

  #settle(operation: Operation, error: VolumeError | undefined): void {
    if (error === undefined) operation.succeed();
    else operation.fail(error);
    this.release();
  }

  #failWaiting(error: VolumeError): void {
    for (const operation of this.#waiting.splice(0)) this.#settle(operation, error);
  }

  /** Gives up what has waited for too long since it was lost first. */
  #losePatience(): void {
    const waiting: Operation[] = [];
    for (const operation of this.#waiting.splice(0)) {
      if (this.#patience.hasRunOut(operation))
        this.#settle(operation, goneError(this.#serverText, this.#lastFailure));
      else waiting.push(operation);
    }
    this.#waiting = waiting;
    this.#patience.watch(waiting, performance.now());
  }

  // --- connections -----------------------------------------------------------------------------------------

  get #serverText(): string {
    return serverText(this.#target);
  }

  #newSlot(): Slot {
    const slot: Slot = { link: undefined, giveUp: undefined, retryTimer: undefined, backoff: new Backoff() };
    this.#slots.push(slot);
    return slot;
  }

  #connect(slot: Slot): void {
    slot.retryTimer = undefined;
    const dialledMs = performance.now();
    const target = this.#target;
    const exportName = (this.#isAlone ? target.aloneName : undefined) ?? target.exportName;
    slot.giveUp = dial(
      { ...this.#options.dialOptions, ...target, exportName },
      {
        ready: (socket, session, rest) => {
          slot.giveUp = undefined;
          const link = new Link(socket, session, this);
          const verdict = this.#options.judge(session, dialledMs);
          if (verdict.kind === 'use') {
            this.#opening?.succeed(session);
            this.#linked(slot, link, rest);
          } else {
            socket.destroy();
            this.#notUsed(slot, verdict);
          }
          return link;
        },
        failed: (error) => {
          slot.giveUp = undefined;
          this.#attemptFailed(slot, error);
          this.#tellOfRefusal(error); // which may retarget
        },
      },
    );
  }

  #notUsed(slot: Slot, verdict: Exclude<Verdict, { kind: 'use' }>): void {
    if (verdict.kind === 'stale') {
      this.#retry(slot);
      return;
    }
    if (verdict.kind === 'less')
      this.giveUp(new VolumeError('failed', `${this.#serverText}: ${verdict.reason}`));
    else this.#attemptFailed(slot, new VolumeError('io', `${this.#serverText}: ${verdict.reason}`));
    this.#options.onRefused({ code: 'refused', message: verdict.reason });
  }

  #attemptFailed(slot: Slot, error: VolumeError): void {
    this.#lastFailure = error;
    this.#options.log.debug({ error: error.message }, 'no connection to an NBD server');
    this.#retry(slot);
    this.#opening?.attemptFailed(error);
  }

  #leaveUnopened(): void {
    this.#state = 'closed'; // onState has never been told of another
    for (const slot of this.#slots) this.#idle(slot);
  }

  #tellOfRefusal(reason: Error): void {
    const refusal = refusalOf(reason);
    if (refusal !== undefined) this.#options.onRefused(refusal);
  }

  /** No attempt is under way, nor planned. */
  #idle(slot: Slot): void {
    clearTimeout(slot.retryTimer);
    slot.giveUp?.();
    slot.giveUp = undefined;
  }

  #retry(slot: Slot): void {
    slot.retryTimer = setTimeout(() => this.#connect(slot), slot.backoff.next());
  }

  #linked(slot: Slot, link: Link, rest: Buffer): void {
    slot.link = link;
    clearTimeout(this.#expiry);
    this.#expiry = undefined;
    this.#enter('connected', undefined);
    link.receivedWithHandshake(rest);
    if (link.isLive) this.#sendWaiting();
  }

  lost(link: Link, reason: Error, unanswered: Operation[]): void {
    const { ledger, log } = this.#options;
    const slot = this.#slots.find((one) => one.link === link);
    if (slot === undefined && !this.#oldLinks.forget(link)) return;
    if (slot !== undefined) {
      slot.link = undefined;
      if (performance.now() - link.sinceMs >= SETTLED_MS) slot.backoff.reset();
    }
    this.#lastFailure = reason;
    ledger.connectionLost(link.canMultiConn);
    log.debug({ reason: reason.message, inFlight: unanswered.length }, 'lost a connection to an NBD server');
    this.#takeBack(unanswered, reason);
    if (this.#failedForGood !== undefined) {
      this.#failWaiting(this.#failedForGood);
      return;
    }
    if (this.#retargeting) return;
    if (slot !== undefined) this.#retry(slot);
    else if (this.#mustBeAlone) this.#redial(reason);
    if (this.liveLinks > 0) this.#sendWaiting();
    else if (slot !== undefined) this.#disconnected(reason);
    this.#tellOfRefusal(reason);
  }

  /** What an old link has not answered goes elsewhere. */
  get #mustBeAlone(): boolean {
    return !this.#isAlone && this.#target.aloneName !== undefined && this.#waiting.some(isLostChange);
  }

  #takeBack(unanswered: Operation[], reason: Error): void {
    const { reconnectMs } = this.#options;
    const nowMs = performance.now();
    const again: Operation[] = [];
    for (const operation of unanswered) {
      operation.lostAtMs ??= nowMs;
      if (nowMs - operation.lostAtMs < reconnectMs) again.push(operation);
      else this.#settle(operation, goneError(this.#serverText, reason));
    }
    this.#waiting = [...again, ...this.#waiting];
    this.#patience.watch(this.#waiting, nowMs);
  }

  #disconnected(reason: Error): void {
    this.#expiry = setTimeout(() => this.#expire(), this.#options.reconnectMs); // before onState, which may close
    this.#enter('reconnecting', reason);
  }

  #expire(): void {
    this.#enter('failed', this.#lastFailure);
    this.#failWaiting(goneError(this.#serverText, this.#lastFailure));
  }

  /** Fails for good: what waits and what is in flight, now, and whatever comes. */
  giveUp(error: VolumeError): void {
    if (this.#state === 'closed' || this.#failedForGood !== undefined) return;
    this.#failedForGood = error;
    clearTimeout(this.#expiry);
    this.#enter('failed', error);
    for (const slot of this.#slots) {
      this.#idle(slot);
      slot.link?.drop(error);
    }
    this.#oldLinks.drop(error);
    this.#failWaiting(error);
  }

  /** A connection that owes answers and gives no sign for reconnectMs counts as lost. */
  #lookForSilence(): void {
    const { reconnectMs } = this.#options;
    this.#watch = undefined;
    const nowMs = performance.now();
    let owing = false;
    for (const { link } of this.#slots) {
      if (link === undefined || link.inFlight === 0) continue;
      if (nowMs - link.lastSignMs >= reconnectMs) link.drop(new Error('the server has fallen silent'));
      else owing = true;
    }
    if (owing) this.#watch ??= setTimeout(() => this.#lookForSilence(), reconnectMs / WATCHES);
  }

  #enter(state: RemoteState, cause: Error | undefined): void {
    const from = this.#state;
    if (from === state || from === 'closed') return;
    this.#state = state;
    const { log, onState } = this.#options;
    const fields = { server: this.#serverText, from, to: state, cause: cause?.message };
    if (state === 'failed') log.error(fields, 'remote volume');
    else log.info(fields, 'remote volume');
    onState(state);
  }
}

function isLostChange({ lostAtMs, isChange }: Operation): boolean {
  return lostAtMs !== undefined && isChange;
}
