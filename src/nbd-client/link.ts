/**
 * One connection in the transmission phase: requests out, replies in. It knows what is in flight, and hands all of it
 * back when it is lost.
 *
 *   live     -> leaving   `leave`: nothing is in flight; DISC is sent, our side ended
 *   live     -> dead      the socket ended, the server broke the protocol or is leaving itself, or `drop`
 *   leaving  -> dead      the socket ended
 *
 * Invariants
 *  1. What one turn of the event loop asks for leaves together; payloads over COPY_BYTES leave from where they are. It goes
 *     straight to the kernel, until that does not take all of it: the rest, and what follows, goes through the stream's queue.
 *  2. The memory of a write is given back when the write is answered and the kernel has taken the bytes: a server that
 *     answers early must not make the socket send what its owner has put there since.
 *  3. A dead TCP connection is reset, so that our kernel forgets what it had not sent: it would come late.
 */

import type { Socket } from 'node:net';
import { performance } from 'node:perf_hooks'; // the global of that name is looked for at each call
import { fileDescriptorOf } from '../base/socket-handle.ts';
import { sendNow } from '../base/syscalls.ts';
import { TokenMap } from '../base/token-map.ts';
import { assert, type VolumeError } from '../model/errors.ts';
import { Command, type Errno, TransmissionFlag } from '../nbd-server-protocol/constants.ts';
import { ProtocolError } from '../nbd-server-protocol/errors.ts';
import { CARRY_BYTES, type ReceiveArea } from '../nbd-server-protocol/receive-area.ts';
import { ReplyDecoder, type ReplySink } from '../nbd-server-protocol/reply-decoder.ts';
import type { StatusDescriptor } from '../nbd-server-protocol/reply-encoder.ts';
import { RequestEncoder } from '../nbd-server-protocol/request-encoder.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';
import type { Receiver } from './dial.ts';
import { Attempt, type Operation } from './operation.ts';

/** Requests in flight on one connection, and their payloads together (one request may be larger). */
const REQUESTS_MAX = 128;
const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;
/** A connection with less than this in flight is given the next request before another is bothered. */
const LIGHT_REQUESTS = 32;
const LIGHT_BYTES = 1024 * 1024;
/** Payloads up to this go behind their header: a copy costs less than a further piece for the socket. */
const COPY_BYTES = 8 * 1024;
const BATCH_BYTES = 64 * 1024;
/** How long the server may take to close its side after we have ended ours. */
const LINGER_MS = 2000;

export interface LinkOwner {
  readonly area: ReceiveArea;
  /** The operation has been answered: with success when there is no error. */
  answered(operation: Operation, error: VolumeError | undefined): void;
  /** The link is dead; `unanswered` is what was in flight, oldest first. */
  lost(link: Link, reason: Error, unanswered: Operation[]): void;
}

export class Link implements Receiver, ReplySink<Attempt> {
  readonly session: ClientSession;
  /** When something was last heard of the server, or taken by the kernel: performance.now(). */
  lastSignMs = performance.now();
  /** When the connection was there: performance.now(). */
  readonly sinceMs = performance.now();
  readonly #owner: LinkOwner;
  readonly #socket: Socket;
  readonly #fd: number;
  readonly #encoder: RequestEncoder;
  readonly #decoder: ReplyDecoder<Attempt>;
  readonly #contextIds: readonly number[];
  readonly #inFlight = new TokenMap<Attempt>();
  #state: 'live' | 'leaving' | 'dead' = 'live';
  #nextCookie = 1;
  #payloadBytes = 0;
  // Requests gather in `batch` from `from` to `to`.
  #batch = Buffer.allocUnsafeSlow(BATCH_BYTES);
  #from = 0;
  #to = 0;
  #sending = false;
  #handedBytes = 0;
  #takenBytes = 0;
  /** Answered before the kernel had taken them (invariant 2). */
  #early: Attempt[] = [];
  readonly #carry = Buffer.allocUnsafeSlow(CARRY_BYTES);
  #carryLength = 0;
  #whenDead: (() => void) | undefined;

  constructor(socket: Socket, session: ClientSession, owner: LinkOwner) {
    this.#socket = socket;
    this.#fd = fileDescriptorOf(socket);
    this.session = session;
    this.#owner = owner;
    this.#encoder = new RequestEncoder(session.headerStyle);
    this.#decoder = new ReplyDecoder(session.headerStyle);
    this.#contextIds = session.contexts.map(({ id }) => id);
  }

  get isLive(): boolean {
    return this.#state === 'live';
  }

  get canMultiConn(): boolean {
    return (this.session.transmissionFlags & TransmissionFlag.canMultiConn) !== 0;
  }

  get inFlight(): number {
    return this.#inFlight.size;
  }

  get isLight(): boolean {
    return this.#inFlight.size < LIGHT_REQUESTS && this.#payloadBytes < LIGHT_BYTES;
  }

  hasRoomFor(operation: Operation): boolean {
    if (this.#state !== 'live' || this.#inFlight.size >= REQUESTS_MAX) return false;
    return this.#payloadBytes === 0 || this.#payloadBytes + operation.payloadBytes <= PAYLOAD_BYTES_MAX;
  }

  // --- sending ---------------------------------------------------------------------------------------------

  send(operation: Operation): void {
    assert(this.#state === 'live', 'requests go over live connections');
    const attempt = new Attempt(operation, this.#nextCookie++, this.#contextIds);
    if (this.#inFlight.size === 0) this.lastSignMs = performance.now();
    this.#inFlight.add(attempt.cookie, attempt);
    this.#payloadBytes += operation.payloadBytes;
    this.#startBatch();
    const payload = operation.command === Command.write ? operation.length : 0;
    const copied = payload <= COPY_BYTES ? payload : 0;
    this.#makeRoom(this.#encoder.headerBytes + copied);
    this.#to = this.#encoder.header(this.#batch, this.#to, attempt);
    if (copied > 0) {
      operation.memory.copy(this.#batch, this.#to, operation.start, operation.start + payload);
      this.#to += payload;
    } else if (payload > 0) {
      this.#handBatch();
      this.#hand(operation.memory, operation.start, operation.start + payload, false);
      attempt.handedBytes = this.#handedBytes;
    }
  }

  #startBatch(): void {
    if (this.#sending) return;
    this.#sending = true;
    process.nextTick(() => this.#endBatch());
  }

  #makeRoom(bytes: number): void {
    if (this.#to + bytes <= BATCH_BYTES) return;
    this.#handBatch();
    this.#batch = Buffer.allocUnsafeSlow(BATCH_BYTES);
    this.#from = 0;
    this.#to = 0;
  }

  #handBatch(): void {
    if (this.#from === this.#to) return;
    const from = this.#from;
    this.#from = this.#to;
    this.#hand(this.#batch, from, this.#to, true);
  }

  /** Sends buffer[start, end); with `more`, something follows in this turn. */
  #hand(buffer: Buffer, start: number, end: number, more: boolean): void {
    this.#handedBytes += end - start;
    const sent = this.#sendNow(buffer, start, end, more);
    if (sent < end - start) this.#socket.write(buffer.subarray(start + sent, end));
  }

  /** How much the kernel has taken at once: nothing while older bytes are waiting. */
  #sendNow(buffer: Buffer, start: number, end: number, more: boolean): number {
    // A destroyed socket's descriptor is closed already, and its number may be another connection's.
    if (this.#socket.destroyed || this.#socket.writableLength > 0) return 0;
    return Math.max(0, sendNow(this.#fd, buffer, start, end - start, more)); // the stream learns of a failure
  }

  #endBatch(): void {
    this.#sending = false;
    if (this.#state === 'dead') return;
    const [from, to] = [this.#from, this.#to];
    this.#from = to;
    this.#handedBytes += to - from;
    const handed = this.#handedBytes;
    const sent = from === to ? 0 : this.#sendNow(this.#batch, from, to, false);
    if (sent === to - from && this.#socket.writableLength === 0) this.#taken(handed);
    else this.#socket.write(this.#batch.subarray(from + sent, to), () => this.#taken(handed));
  }

  /** The kernel has taken everything up to there. */
  #taken(bytes: number): void {
    if (this.#state === 'dead') return;
    this.#takenBytes = bytes;
    this.lastSignMs = performance.now();
    if (bytes === this.#handedBytes && !this.#sending) {
      this.#from = 0;
      this.#to = 0;
    }
    if (this.#early.length === 0) return;
    const early = this.#early;
    this.#early = [];
    for (const attempt of early) this.done(attempt);
  }

  // --- receiving -------------------------------------------------------------------------------------------

  received(bytes: number): void {
    const { area } = this.#owner;
    if (this.#state === 'dead') return;
    this.lastSignMs = performance.now();
    const end = CARRY_BYTES + bytes;
    let start = CARRY_BYTES;
    if (this.#carryLength > 0) start = area.prepend(this.#carry.subarray(0, this.#carryLength));
    this.#carryLength = 0;
    this.#feed(area.buffer, start, end);
  }

  /** What had come behind the handshake. */
  receivedWithHandshake(rest: Buffer): void {
    if (rest.length > 0) this.#feed(rest, 0, rest.length);
  }

  #feed(buffer: Buffer, start: number, end: number): void {
    try {
      const position = this.#decoder.feed(buffer, start, end, this);
      if (position < end && this.isLive) this.#carryLength = buffer.copy(this.#carry, 0, position, end);
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.drop(error);
    }
  }

  find(cookie: number): Attempt | undefined {
    const attempt = this.#inFlight.get(cookie);
    return attempt?.answered === true ? undefined : attempt;
  }

  data({ operation }: Attempt, offset: number, buffer: Buffer, start: number, length: number): number {
    buffer.copy(operation.memory, operation.start + offset - operation.offset, start, start + length);
    return length;
  }

  hole({ operation }: Attempt, offset: number, length: number): void {
    const at = operation.start + offset - operation.offset;
    operation.memory.fill(0, at, at + length);
  }

  status(attempt: Attempt, _contextId: number, extents: readonly StatusDescriptor[]): void {
    attempt.takeExtents(extents);
  }

  error(attempt: Attempt, errno: Errno, text: string, offset: number | undefined): void {
    attempt.refuse(errno, text, offset);
  }

  done(attempt: Attempt): void {
    if (attempt.leaving)
      throw new ProtocolError('shutdown', attempt.error?.message ?? 'the server is leaving');
    if (attempt.handedBytes > this.#takenBytes) {
      attempt.answered = true;
      this.#early.push(attempt);
      return;
    }
    const { operation } = attempt;
    this.#inFlight.take(attempt.cookie);
    this.#payloadBytes -= operation.payloadBytes;
    this.#owner.answered(operation, attempt.error);
  }

  // --- the end ---------------------------------------------------------------------------------------------

  ended(error: Error | undefined): void {
    this.drop(error ?? new ProtocolError('closed', 'the server closed the connection'));
  }

  /** Gives the connection up. */
  drop(reason: Error): void {
    if (this.#state === 'dead') return;
    const wasLive = this.#state === 'live';
    this.#state = 'dead';
    const isTcp = this.#socket.remoteAddress !== undefined;
    if (wasLive && isTcp) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
    const unanswered = this.#inFlight.values().map(({ operation }) => operation);
    this.#inFlight.clear();
    this.#early = [];
    if (wasLive) this.#owner.lost(this, reason, unanswered);
    this.#whenDead?.();
  }

  /** Says goodbye; resolves when the connection is gone. Nothing may be in flight. */
  leave(): Promise<void> {
    assert(this.#state === 'live' && this.#inFlight.size === 0, 'nothing is left behind');
    this.#state = 'leaving';
    const goodbye = Buffer.alloc(this.#encoder.headerBytes);
    const request = { command: Command.disconnect, flags: 0, cookie: this.#nextCookie, offset: 0, length: 0 };
    this.#encoder.header(goodbye, 0, request);
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.drop(new Error('the server does not close')), LINGER_MS);
      this.#whenDead = () => {
        clearTimeout(timer);
        resolve();
      };
      this.#socket.end(goodbye);
    });
  }
}
