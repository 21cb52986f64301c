/**
 * The primary's end of a link: it has said hello, is answered, and then sends operations as far as the secondary's window goes.
 *
 *   greeting -> refused    refusal: the connection is closed
 *   greeting -> open       welcome, difference*, ready
 *   any      -> over       FrameSocket says so
 *
 * Invariants
 *  1. Not more than the window is unacknowledged; what is beyond it waits, in order. What waits is bounded by who asks: hosts' requests
 *     under way, and the copier's; a bound of our own ends the link before memory does.
 *  2. An ack is of an operation that is unacknowledged, and has wholly left: so its payload is the caller's again.
 *  3. What has gathered for the kernel is AHEAD_BYTES and one operation at most: a heartbeat comes behind that, not behind the window.
 */

import type { Socket } from 'node:net';
import { TokenMap } from '../base/token-map.ts';
import { assert } from '../model/errors.ts';
import type { AckRun, Message } from './codec.ts';
import { AHEAD_BYTES, HEADER_BYTES, Limit, VERSION_MAX, VERSION_MIN } from './constants.ts';
import { PeerError } from './errors.ts';
import { type FrameOwner, FrameSocket } from './frame-socket.ts';
import type { Connected, LinkEvents, PrimaryLink } from './links.ts';
import type {
  Difference,
  Hello,
  OperationMessage,
  PrimaryMessage,
  Range,
  SecondaryMessage,
  Welcome,
} from './messages.ts';
import { operationBytes, SPOKEN } from './payloads.ts';
import { Waiting } from './waiting.ts';

interface Sent {
  readonly bytes: number;
  /** Where it ends in all that was ever sent. */
  readonly end: number;
}

export class PrimaryEnd implements PrimaryLink, FrameOwner {
  readonly #frames: FrameSocket;
  readonly #answered: (outcome: Connected | PeerError) => void;
  #welcome: (Welcome & { readonly version: number }) | undefined;
  readonly #unsettled: Range[] = [];
  readonly #alone: Range[] = [];
  #differences = 0;
  #isGreeting = true;
  #events: LinkEvents<SecondaryMessage> | undefined;
  #batch: SecondaryMessage[] = [];
  #reason: PeerError | undefined;
  // Operations: sent and not acknowledged, and not sent yet.
  readonly #sent = new TokenMap<Sent>();
  #sentBytes = 0;
  readonly #waiting = new Waiting<OperationMessage>();
  #lastSeq = 0;
  #lastSent = 0;
  #confirmed = 0;
  #heartbeats = 0;
  #isFenced = false;
  /** By this side: what has come is not handed over any more. */
  #isGivenUp = false;

  /** `answered` is called once: with the secondary's answer, or with what came in its place. */
  constructor(socket: Socket, fd: number, hello: Hello, answered: (outcome: Connected | PeerError) => void) {
    this.#answered = answered;
    this.#frames = new FrameSocket(socket, fd, 'answer', this);
    this.#frames.put({ ...hello, versions: SPOKEN });
  }

  get isOpen(): boolean {
    return this.#frames.isOpen;
  }

  get unacknowledged(): { operations: number; bytes: number } {
    return { operations: this.#sent.size, bytes: this.#sentBytes };
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  start(events: LinkEvents<SecondaryMessage>): void {
    assert(this.#events === undefined, 'a link is started once');
    this.#events = events;
    process.nextTick(() => {
      this.#handOver();
      if (this.#reason !== undefined) events.onClosed(this.#reason);
    });
  }

  flush(): void {
    this.#frames.flush();
  }

  close(): void {
    this.#isGivenUp = true;
    this.#frames.close();
  }

  destroy(): void {
    this.#isGivenUp = true;
    this.#frames.destroy();
  }

  fail(reason: PeerError): void {
    this.#frames.fail(reason);
  }

  /** That many bytes have been received. */
  received(bytes: number): void {
    this.#frames.take(bytes);
  }

  // --- sending ---------------------------------------------------------------------------------------------

  send(message: PrimaryMessage): void {
    if (!this.#frames.isOpen) return;
    this.#confirmed = Math.max(this.#confirmed, message.confirmed);
    if (message.kind === 'heartbeat') {
      this.#heartbeats += 1;
      this.#frames.put(message, this.#confirmedSent());
      return;
    }
    assert(message.seq === this.#lastSeq + 1, 'operations are numbered without gaps');
    this.#lastSeq = message.seq;
    const bytes = operationBytes(message);
    if (this.#waiting.length === 0 && this.#hasRoom(bytes)) this.#launch(message, bytes);
    else if (this.#waiting.length < Limit.waitingOperations) this.#waiting.push(message);
    else this.#frames.fail(new PeerError('overrun', 'too many operations wait for the peer'));
  }

  /** An operation may be settled while it still waits here for the window: a peer hears that only of what it has been sent. */
  #confirmedSent(): number {
    return Math.min(this.#confirmed, this.#lastSent);
  }

  #hasRoom(bytes: number): boolean {
    if (this.#frames.putBytes - this.#frames.takenBytes >= AHEAD_BYTES) return false;
    const window = this.#welcome as Welcome;
    return this.#sent.size < window.operationsMax && this.#sentBytes + bytes <= window.bytesMax;
  }

  #launch(message: OperationMessage, bytes: number): void {
    this.#frames.put(message, this.#confirmedSent());
    this.#lastSent = message.seq;
    this.#sent.add(message.seq, { bytes, end: this.#frames.putBytes });
    this.#sentBytes += bytes;
  }

  #launchWaiting(): void {
    for (;;) {
      const next = this.#waiting.first;
      if (next === undefined) return;
      const bytes = operationBytes(next);
      if (!this.#hasRoom(bytes)) return;
      this.#waiting.shift();
      this.#launch(next, bytes);
    }
  }

  // --- receiving -------------------------------------------------------------------------------------------

  admit(): void {
    if (this.#isFenced) throw new PeerError('bad-message', 'a message after the end of the session');
  }

  take(message: Message): void {
    switch (message.kind) {
      case 'ack':
        this.#acknowledgedAll(message);
        break;
      case 'heartbeat-ack':
        if (this.#heartbeats === 0) throw new PeerError('bad-message', 'an answer to no heartbeat');
        this.#heartbeats -= 1;
        if (message.received > this.#lastSent) {
          throw new PeerError('bad-message', `operation ${message.received} has come before it was sent`);
        }
        this.#batch.push(message);
        break;
      case 'receiving':
        if (this.#sent.size === 0) throw new PeerError('bad-message', 'nothing is being sent to be received');
        this.#batch.push(message);
        break;
      case 'fenced':
        this.#isFenced = true;
        this.#batch.push(message);
        break;
      case 'welcome':
        this.#welcomed(message);
        break;
      case 'refusal':
        if (this.#welcome !== undefined) throw new PeerError('bad-message', 'refused after a welcome');
        this.#answer({ kind: 'refused', refusal: message });
        this.#frames.destroy();
        break;
      case 'difference':
        this.#differs(message);
        break;
      case 'ready':
        this.#ready();
        break;
      default:
        assert(false, `a decoder for a primary let ${message.kind} through`);
    }
  }

  /** The first that is not unacknowledged ends it, whatever number is claimed. */
  #acknowledgedAll({ seq: last, count, result }: AckRun): void {
    for (let seq = last - count + 1; seq <= last; seq++) {
      this.#acknowledged(seq);
      this.#batch.push({ kind: 'ack', seq, result });
    }
  }

  #acknowledged(seq: number): void {
    const sent = this.#sent.get(seq);
    if (sent === undefined) throw new PeerError('bad-message', `operation ${seq} is not unacknowledged`);
    if (sent.end > this.#frames.takenBytes) {
      throw new PeerError('bad-message', `operation ${seq} is acknowledged before it was sent`);
    }
    this.#sent.take(seq);
    this.#sentBytes -= sent.bytes;
  }

  #welcomed(message: Welcome & { readonly version: number }): void {
    if (this.#welcome !== undefined) throw new PeerError('bad-message', 'welcome came twice');
    if (message.version < VERSION_MIN || message.version > VERSION_MAX) {
      throw new PeerError('version', `the peer wants to speak version ${message.version}`);
    }
    this.#welcome = message;
  }

  #differs({ cause, ranges }: Difference): void {
    if (this.#welcome === undefined) throw new PeerError('bad-message', 'a difference before a welcome');
    this.#differences += 1;
    if (this.#differences > Limit.differences) throw new PeerError('too-big', 'too many differences');
    const known = cause === 'alone' ? this.#alone : this.#unsettled;
    for (const range of ranges) known.push(range);
  }

  #ready(): void {
    const welcome = this.#welcome;
    if (welcome === undefined) throw new PeerError('bad-message', 'ready before a welcome');
    const { version, operationsMax, bytesMax, hasLostCache } = welcome;
    this.#frames.agree(version, bytesMax + operationsMax * HEADER_BYTES);
    this.#frames.decoder.phase = 'from-secondary';
    this.#answer({
      kind: 'connected',
      link: this,
      welcome: { kind: 'welcome', operationsMax, bytesMax, hasLostCache },
      unsettled: this.#unsettled,
      alone: this.#alone,
    });
  }

  #answer(outcome: Connected | PeerError): void {
    if (!this.#isGreeting) return;
    this.#isGreeting = false;
    this.#answered(outcome);
  }

  batchEnds(): void {
    this.#launchWaiting();
    this.#handOver();
  }

  kernelTakes(): void {
    this.#launchWaiting();
  }

  leaves(): void {}

  #handOver(): void {
    if (this.#events === undefined || this.#batch.length === 0 || this.#isGivenUp) return;
    const batch = this.#batch;
    this.#batch = [];
    this.#events.onMessages(batch);
  }

  ended(reason: PeerError): void {
    this.#reason = reason;
    this.#sent.clear();
    this.#sentBytes = 0;
    this.#waiting.clear();
    this.#answer(reason);
    this.#events?.onClosed(reason);
  }
}
