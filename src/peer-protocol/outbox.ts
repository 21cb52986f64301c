/**
 * The sending side of a link. Frames gather, and leave together at `flush`, or at the end of the turn of the event loop: straight to the kernel,
 * and only what that does not take at once goes through the stream, in order.
 *
 *   idle      the stream holds nothing: what has gathered is sent at the end of the turn, or when it is much
 *   waiting   the stream holds a rest: everything new gathers here until that has gone
 *   closed    the socket is gone, or nothing more is to be sent: what comes is dropped
 *
 * Invariants
 *  1. Payloads over COPY_BYTES leave from where they are; `takenBytes` tells how far the kernel has come.
 *  2. Not more than `untakenBytesMax` gather: who lets that happen is told, by `put` returning false.
 */

import type { Socket } from 'node:net';
import { sendNow } from '../base/syscalls.ts';
import { encodeFrame, type Message } from './codec.ts';
import { HANDSHAKE_VERSION, HEADER_BYTES } from './constants.ts';
import { Header } from './header.ts';

/** Payloads up to this size are copied behind their headers: that costs less than a further system call. */
const COPY_BYTES = 16 * 1024;
const BATCH_BYTES = 128 * 1024;

interface Segment {
  readonly buffer: Buffer;
  readonly start: number;
  readonly end: number;
}

export interface OutboxOwner {
  /** What has gathered leaves now: more may be put, to leave with it. */
  leaves(): void;
  /** From the event loop: the stream has got rid of what it held. */
  kernelTakes(): void;
}

const header = new Header();

export class Outbox {
  version = HANDSHAKE_VERSION;
  untakenBytesMax: number;
  readonly #socket: Socket;
  readonly #fd: number;
  /** Whole, in order; what has gathered in #batch from #from to #to comes behind them. */
  #segments: Segment[] = [];
  #batch: Buffer | undefined;
  #from = 0;
  #to = 0;
  #isScheduled = false;
  #isWaiting = false;
  #isClosed = false;
  #putBytes = 0;
  #takenBytes = 0;
  readonly #owner: OutboxOwner;
  #whenEmpty: (() => void) | undefined;

  constructor(socket: Socket, fd: number, untakenBytesMax: number, owner: OutboxOwner) {
    this.#socket = socket;
    this.#fd = fd;
    this.#owner = owner;
    this.untakenBytesMax = untakenBytesMax;
  }

  /** Bytes that have been put here, ever, and how many of them the kernel has taken. */
  get putBytes(): number {
    return this.#putBytes;
  }

  get takenBytes(): number {
    return this.#takenBytes;
  }

  /** False when the peer takes too little. */
  put(message: Message, confirmed: number): boolean {
    if (this.#isClosed) return true;
    const payload = encodeFrame(message, this.version, confirmed, header);
    const copied = payload.length <= COPY_BYTES ? payload.length : 0;
    const batch = this.#room(HEADER_BYTES + copied);
    header.bytes.copy(batch, this.#to);
    this.#to += HEADER_BYTES;
    if (copied > 0) {
      payload.copy(batch, this.#to);
      this.#to += copied;
    } else if (payload.length > 0) {
      this.#cutBatch();
      this.#segments.push({ buffer: payload, start: 0, end: payload.length });
    }
    this.#putBytes += HEADER_BYTES + payload.length;
    const untaken = this.#putBytes - this.#takenBytes;
    if (untaken >= BATCH_BYTES && !this.#isWaiting) this.#flush();
    else this.schedule();
    return untaken <= this.untakenBytesMax;
  }

  /** Does not wait for the end of the turn. */
  flush(): void {
    this.#owner.leaves();
    if (!this.#isWaiting && this.#segments.length + this.#to - this.#from > 0) this.#flush();
  }

  /** Calls back once everything is with the kernel; nothing may be put any more. */
  end(whenEmpty: () => void): void {
    this.#whenEmpty = whenEmpty;
    this.schedule();
  }

  close(): void {
    this.#isClosed = true;
    this.#whenEmpty = undefined;
    this.#segments = [];
    this.#batch = undefined;
    this.#from = 0;
    this.#to = 0;
  }

  #room(bytes: number): Buffer {
    if (this.#to + bytes > BATCH_BYTES && !this.#isWaiting) this.#flush(); // it is used again when all of it goes
    if (this.#batch === undefined || this.#to + bytes > BATCH_BYTES) {
      this.#cutBatch();
      this.#batch = Buffer.allocUnsafeSlow(BATCH_BYTES);
      this.#from = 0;
      this.#to = 0;
    }
    return this.#batch;
  }

  #cutBatch(): void {
    if (this.#batch === undefined || this.#from === this.#to) return;
    this.#segments.push({ buffer: this.#batch, start: this.#from, end: this.#to });
    this.#from = this.#to;
  }

  /** What gathers leaves at the end of the turn. */
  schedule(): void {
    if (this.#isScheduled || this.#isWaiting) return;
    this.#isScheduled = true;
    setImmediate(this.#turnEnds);
  }

  readonly #turnEnds = (): void => {
    this.#owner.leaves();
    this.#isScheduled = false;
    if (!this.#isWaiting) this.#flush(); // also when there is nothing: whoever waits for the end is told
  };

  #flush(): void {
    this.#cutBatch();
    const segments = this.#segments;
    this.#segments = [];
    for (const [i, { buffer, start, end }] of segments.entries()) {
      // A destroyed socket's descriptor is closed already, and its number may be another connection's.
      if (this.#isClosed || this.#socket.destroyed) {
        this.close();
        return;
      }
      const sent = Math.max(0, sendNow(this.#fd, buffer, start, end - start, i + 1 < segments.length));
      this.#takenBytes += sent;
      if (sent < end - start) {
        this.#leaveToStream(buffer.subarray(start + sent, end), segments.slice(i + 1));
        return;
      }
    }
    this.#from = 0;
    this.#to = 0;
    this.#tellWhenEmpty();
  }

  /** The stream waits until the socket takes more, or tells the link of a failure. */
  #leaveToStream(rest: Buffer, behind: Segment[]): void {
    this.#segments = behind;
    this.#isWaiting = true;
    this.#socket.write(rest, (error) => {
      this.#isWaiting = false;
      if (error || this.#isClosed) this.close();
      else {
        this.#takenBytes += rest.length;
        this.#owner.leaves();
        this.#flush();
        this.#owner.kernelTakes();
      }
    });
  }

  #tellWhenEmpty(): void {
    const tell = this.#whenEmpty;
    this.#whenEmpty = undefined;
    tell?.();
  }
}
