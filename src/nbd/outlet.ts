/**
 * The outgoing side of one connection. Replies are written into slabs and leave together: `flush` sends what has
 * gathered with one system call, and only what the socket does not take at once goes through the stream's own
 * queue, in order.
 *
 *   idle      nothing queued by the stream: flush sends directly
 *   waiting   the stream holds a rest: everything new gathers here until it has gone out
 *   closed    the socket is gone: everything is dropped
 */

import type { Socket } from 'node:net';
import { sendNow } from '../base/syscalls.ts';
import { HEADROOM, PIECE_BYTES, type Slab, type SlabPool } from './slab-pool.ts';

interface Segment {
  readonly slab: Slab;
  start: number;
  end: number;
}

/** Data up to this size is copied behind other replies; larger data leaves from its own slab. */
export const COPY_BYTES = 16 * 1024;

const nothing = Buffer.alloc(0);

export class Outlet {
  /** TurnLoop's: it will be flushed at the end of the turn. */
  isInTurn = false;
  readonly #socket: Socket;
  readonly #fd: number;
  readonly #pool: SlabPool;
  readonly #onDrained: () => void;
  /** Full segments in order; the last one is still being written to when `#open` is true. */
  readonly #segments: Segment[] = [];
  #open = false;
  #waiting = false;
  #closed = false;
  #pendingBytes = 0;

  /** `onDrained` is called each time the socket has taken a rest that it had refused before. */
  constructor(socket: Socket, fd: number, pool: SlabPool, onDrained: () => void) {
    this.#socket = socket;
    this.#fd = fd;
    this.#pool = pool;
    this.#onDrained = onDrained;
  }

  /** Bytes that have been written here and are not yet with the kernel. */
  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** The socket is gone, although the connection may not have been told yet. */
  get isClosed(): boolean {
    return this.#closed;
  }

  /**
   * Room for `bytes` (at most HEADROOM + SLAB_BYTES_MAX) in one piece. Write at `segment.end` of `segment.slab.buffer`, then
   * `commit` the new end. Nothing may be reserved or appended in between.
   */
  reserve(bytes: number): Segment {
    let last = this.#open ? this.#segments[this.#segments.length - 1] : undefined;
    if (last === undefined || last.slab.buffer.length - last.end < bytes) {
      last = { slab: this.#pool.take(Math.max(bytes - HEADROOM, PIECE_BYTES)), start: 0, end: 0 };
      this.#segments.push(last);
      this.#open = true;
    }
    return last;
  }

  commit(segment: Segment, end: number): void {
    this.#pendingBytes += end - segment.end;
    segment.end = end;
  }

  /** Queues slab.buffer[start, end); the slab belongs to the outlet now. */
  append(slab: Slab, start: number, end: number): void {
    if (end - start <= COPY_BYTES) {
      const segment = this.reserve(end - start);
      slab.buffer.copy(segment.slab.buffer, segment.end, start, end);
      this.commit(segment, segment.end + end - start);
      this.#pool.give(slab);
      return;
    }
    this.#segments.push({ slab, start, end });
    this.#open = false;
    this.#pendingBytes += end - start;
  }

  /** Sends what has gathered, as far as the socket takes it. */
  flush(): void {
    while (!this.#waiting && this.#segments.length > 0) {
      const segment = this.#segments[0] as Segment;
      // A destroyed socket's descriptor is closed already, and its number may be another connection's.
      if (this.#closed || this.#socket.destroyed) {
        this.#closed = true;
        this.#retire(segment);
        continue;
      }
      const length = segment.end - segment.start;
      const sent = length === 0 ? 0 : sendNow(this.#fd, segment.slab.buffer, segment.start, length);
      if (sent === length) this.#retire(segment);
      else this.#leaveToStream(segment, Math.max(sent, 0)); // which waits, or tells the connection of a failure
    }
  }

  /** The socket is gone. What is queued is dropped, and so is what comes. */
  close(): void {
    this.#closed = true;
    if (!this.#waiting) for (const segment of [...this.#segments]) this.#retire(segment);
  }

  /** Lets what the stream still has to send go first. */
  followStream(): void {
    if (this.#socket.writableLength === 0) return;
    this.#waiting = true;
    this.#socket.write(nothing, () => this.#goOn());
  }

  #retire(segment: Segment): void {
    this.#segments.shift();
    if (this.#segments.length === 0) this.#open = false;
    this.#pendingBytes -= segment.end - segment.start;
    this.#pool.give(segment.slab);
  }

  #leaveToStream(segment: Segment, sent: number): void {
    segment.start += sent;
    this.#pendingBytes -= sent;
    if (this.#segments.length === 1) this.#open = false; // the stream reads it: nobody writes behind it
    this.#waiting = true;
    this.#socket.write(segment.slab.buffer.subarray(segment.start, segment.end), (error) => {
      if (error) this.#closed = true;
      this.#retire(segment);
      this.#goOn();
    });
  }

  /** The stream has sent what it had. */
  #goOn(): void {
    this.#waiting = false;
    this.flush();
    if (!this.#waiting) this.#onDrained();
  }
}
