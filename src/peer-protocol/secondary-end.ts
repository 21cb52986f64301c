/**
 * The secondary's end of a link: it hears a hello, its owner answers, and then operations come.
 *
 *   silent   -> offered    hello: the owner is asked
 *   offered  -> accepted   `accept`: operations may come
 *   offered  -> over       `refuse`
 *   any      -> over       FrameSocket says so; HELLO_TIMEOUT_MS without a hello
 *
 * Invariants
 *  1. Operations come with their numbers in order, and never more than was granted: checked before memory is taken for them.
 *  2. What was granted is free again when the owner acknowledges; so is the memory of a write's payload.
 *  3. What links hold together is bounded, too (ReceiveBudget): this one does not read while that is used up and it holds some of it. It
 *     says `receiving` meanwhile: what the primary asks is not read, and the primary is not to take it for lost.
 */

import type { Socket } from 'node:net';
import { TokenMap } from '../base/token-map.ts';
import { assert } from '../model/errors.ts';
import type { Message } from './codec.ts';
import { HEADER_BYTES, HELLO_TIMEOUT_MS, Kind, Limit, RANGES_BYTES_MAX, RECEIVING_MS } from './constants.ts';
import { PeerError } from './errors.ts';
import { type FrameOwner, FrameSocket } from './frame-socket.ts';
import type { Answer, HelloHandler, LinkEvents, SecondaryLink } from './links.ts';
import type { Ack, AckResult, Hello, PrimaryMessage, Range, Refusal, SecondaryMessage } from './messages.ts';
import { DIFFERENCE_RANGES_MAX } from './messages.ts';
import { payloadMemory } from './payload-memory.ts';
import { coarsened, operationBytes, SPOKEN, type Versions } from './payloads.ts';
import type { ReceiveBudget } from './receive-budget.ts';

const ANSWER_BYTES_MAX = Limit.differences * (HEADER_BYTES + RANGES_BYTES_MAX) + 2 * HEADER_BYTES;

export interface SecondaryEndOwner {
  readonly onHello: HelloHandler;
  /** A hello has come, or never will. */
  greeted(end: SecondaryEnd): void;
  over(end: SecondaryEnd, reason: PeerError): void;
  readonly budget: ReceiveBudget;
}

export class SecondaryEnd implements SecondaryLink, FrameOwner {
  readonly remote: string;
  readonly #socket: Socket;
  readonly #frames: FrameSocket;
  readonly #owner: SecondaryEndOwner;
  readonly #timer: NodeJS.Timeout;
  #state: 'silent' | 'offered' | 'accepted' = 'silent';
  #hello: Hello | undefined;
  #version = 0;
  #events: LinkEvents<PrimaryMessage> | undefined;
  #batch: PrimaryMessage[] = [];
  // What was granted, and what of it is in use.
  #operationsMax = 0;
  #bytesMax = 0;
  readonly #unacknowledged = new TokenMap<{ readonly bytes: number; readonly payload: Buffer | undefined }>();
  #bytes = 0;
  /** Of writes, those that are coming included. */
  #heldBytes = 0;
  /** While it is held back. */
  #heldBack: NodeJS.Timeout | undefined;
  #lastSeq = 0;
  /** Acknowledgements that have not been put yet. */
  #kept: { kind: 'ack'; seq: number; count: number; readonly result: AckResult } | undefined;
  #heartbeats = 0;
  /** Nothing has been said since then, within what is coming; undefined: nothing is coming, or it has not been looked at since. */
  #quietSinceMs: number | undefined;

  constructor(socket: Socket, fd: number, remote: string, owner: SecondaryEndOwner) {
    this.remote = remote;
    this.#owner = owner;
    this.#socket = socket;
    this.#frames = new FrameSocket(socket, fd, 'hello', this);
    this.#timer = setTimeout(
      () => this.#frames.fail(new PeerError('silent', 'no hello came')),
      HELLO_TIMEOUT_MS,
    );
  }

  get hello(): Hello {
    assert(this.#hello !== undefined, 'a link is offered with its hello');
    return this.#hello;
  }

  get isOpen(): boolean {
    return this.#frames.isOpen;
  }

  flush(): void {
    this.#frames.flush();
  }

  close(): void {
    this.leaves();
    this.#frames.close();
  }

  destroy(): void {
    this.#frames.destroy();
  }

  /** That many bytes have been received. False: no more is to be read now. */
  received(bytes: number): boolean {
    this.#frames.take(bytes);
    const { budget } = this.#owner;
    if (!budget.isFull || this.#bytes === 0 || !this.#frames.isOpen) return true;
    this.#tellReceiving();
    this.#heldBack = setInterval(() => this.#tellReceiving(), RECEIVING_MS);
    budget.wait(this.#resume);
    return false;
  }

  readonly #resume = (): void => {
    clearInterval(this.#heldBack);
    this.#heldBack = undefined;
    this.#socket.resume();
  };

  #free(bytes: number): void {
    const { budget } = this.#owner;
    this.#heldBytes -= bytes;
    budget.free(bytes);
  }

  /** What holds nothing whole is not held back: what fills the budget may be what it has half. */
  #readOn(): void {
    const { budget } = this.#owner;
    if (this.#heldBack === undefined || this.#bytes > 0) return;
    budget.leave(this.#resume);
    this.#resume();
  }

  // --- answering -------------------------------------------------------------------------------------------

  accept({ welcome, unsettled, alone }: Answer): void {
    if (!this.#frames.isOpen) return;
    assert(this.#state === 'offered', 'a hello is answered once');
    const { operationsMax, bytesMax } = welcome;
    assert(
      operationsMax >= 1 && operationsMax <= Limit.windowOperationsMax,
      'a window has room for something',
    );
    assert(bytesMax >= Limit.windowBytesMin && bytesMax <= Limit.windowBytesMax, 'a window holds a write');
    this.#state = 'accepted';
    this.#operationsMax = operationsMax;
    this.#bytesMax = bytesMax;
    this.#frames.agree(this.#version, operationsMax * HEADER_BYTES + ANSWER_BYTES_MAX);
    this.#frames.decoder.phase = 'from-primary';
    this.#frames.put({ kind: 'welcome', ...welcome, version: this.#version });
    this.#putDifferences('unsettled', unsettled);
    this.#putDifferences('alone', alone);
    this.#frames.put({ kind: 'ready' });
  }

  #putDifferences(cause: 'unsettled' | 'alone', ranges: readonly Range[]): void {
    const told = coarsened(ranges, (Limit.differences / 2) * DIFFERENCE_RANGES_MAX);
    for (let at = 0; at < told.length; at += DIFFERENCE_RANGES_MAX) {
      this.#frames.put({ kind: 'difference', cause, ranges: told.slice(at, at + DIFFERENCE_RANGES_MAX) });
    }
  }

  refuse(refusal: Omit<Refusal, 'kind'>): void {
    if (!this.#frames.isOpen) return;
    assert(this.#state === 'offered', 'a hello is answered once');
    this.#frames.put({ kind: 'refusal', ...refusal });
    this.#frames.close();
  }

  send(message: SecondaryMessage): void {
    if (!this.#frames.isOpen) return;
    assert(this.#state === 'accepted', 'messages come after the answer to hello');
    if (message.kind === 'ack') {
      const operation = this.#unacknowledged.take(message.seq);
      assert(operation !== undefined, 'an operation is acknowledged once');
      this.#bytes -= operation.bytes;
      if (operation.payload !== undefined) {
        payloadMemory.give(operation.payload);
        this.#free(operation.bytes);
      }
      this.#readOn();
    } else if (message.kind === 'heartbeat-ack') {
      assert(this.#heartbeats > 0, 'a heartbeat is answered once');
      this.#heartbeats -= 1;
    }
    this.#quietSinceMs = undefined;
    if (message.kind === 'ack') this.#putAck(message);
    else this.#put(message);
  }

  /** Kept back, to be one message with those that follow it. */
  #putAck({ seq, result }: Ack): void {
    const kept = this.#kept;
    if (kept !== undefined && seq === kept.seq + 1 && result === kept.result) {
      kept.seq = seq;
      kept.count += 1;
      return;
    }
    this.leaves();
    this.#kept = { kind: 'ack', seq, count: 1, result };
    this.#frames.keepsBack();
  }

  leaves(): void {
    const kept = this.#kept;
    if (kept === undefined) return;
    this.#kept = undefined;
    this.#frames.put(kept);
  }

  #put(message: Exclude<SecondaryMessage, Ack>): void {
    this.leaves();
    this.#frames.put(message);
  }

  /** Nothing can be answered until what is coming is there, and has been read. */
  #tellReceiving(): void {
    const nowMs = performance.now();
    this.#quietSinceMs ??= nowMs;
    if (nowMs - this.#quietSinceMs < RECEIVING_MS) return;
    this.#put({ kind: 'receiving' });
    this.#quietSinceMs = nowMs;
  }

  // --- receiving -------------------------------------------------------------------------------------------

  admit(kind: number, payloadBytes: number): void {
    if (this.#state === 'offered') throw new PeerError('bad-message', 'a message before the answer to hello');
    if (this.#state === 'silent') return;
    if (kind === Kind.heartbeat) {
      this.#heartbeats += 1;
      if (this.#heartbeats > Limit.untakenHeartbeats) throw new PeerError('overrun', 'too many heartbeats');
    } else if (
      this.#unacknowledged.size >= this.#operationsMax ||
      this.#bytes + payloadBytes > this.#bytesMax
    ) {
      throw new PeerError('overrun', 'more than the window that was granted');
    } else if (kind === Kind.write) {
      this.#heldBytes += payloadBytes;
      this.#owner.budget.hold(payloadBytes);
    }
  }

  take(message: Message): void {
    switch (message.kind) {
      case 'hello':
        this.#greeted(message);
        break;
      case 'heartbeat':
        this.#checkConfirmed(message.confirmed);
        this.#batch.push(message);
        break;
      case 'write':
      case 'zero':
      case 'trim':
      case 'flush':
      case 'members':
      case 'lacks': {
        if (message.seq !== this.#lastSeq + 1) {
          throw new PeerError('bad-message', `operation ${message.seq} after ${this.#lastSeq}`);
        }
        this.#checkConfirmed(message.confirmed);
        this.#lastSeq = message.seq;
        const bytes = operationBytes(message);
        const payload = message.kind === 'write' ? message.payload : undefined;
        this.#unacknowledged.add(message.seq, { bytes, payload });
        this.#bytes += bytes;
        this.#batch.push(message);
        break;
      }
      default:
        assert(false, `a decoder for a secondary let ${message.kind} through`);
    }
  }

  #checkConfirmed(confirmed: number): void {
    if (confirmed <= this.#lastSeq) return;
    throw new PeerError('bad-message', `confirmed up to ${confirmed}, and sent up to ${this.#lastSeq}`);
  }

  #greeted({ versions, ...hello }: Hello & { readonly versions: Versions }): void {
    this.#state = 'offered';
    this.#hello = hello;
    this.#owner.greeted(this);
    clearTimeout(this.#timer);
    this.#version = Math.min(versions.to, SPOKEN.to);
    if (this.#version < versions.from || this.#version < SPOKEN.from) {
      const text = `versions ${SPOKEN.from} to ${SPOKEN.to} are spoken here`;
      this.refuse({ code: 'version', epoch: 0, text });
    } else this.#events = this.#owner.onHello(this);
  }

  batchEnds(): void {
    if (this.#batch.length > 0) {
      const batch = this.#batch;
      this.#batch = [];
      this.#events?.onMessages(batch);
    }
    if (this.#frames.decoder.atBoundary) this.#quietSinceMs = undefined;
    else if (this.#state === 'accepted') this.#tellReceiving();
  }

  kernelTakes(): void {}

  ended(reason: PeerError): void {
    clearTimeout(this.#timer);
    clearInterval(this.#heldBack);
    this.#unacknowledged.clear();
    this.#owner.budget.leave(this.#resume);
    this.#owner.budget.free(this.#heldBytes);
    this.#heldBytes = 0;
    this.#owner.over(this, reason);
    this.#events?.onClosed(reason);
  }
}
