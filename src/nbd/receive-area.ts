/**
 * The memory that all connections of a server receive into. One for all: what has arrived is used up before the
 * next read, so it stays in the processor's cache and costs nothing per connection. In front of it is room for
 * what a connection had left over, so that it can be looked at in one piece with what came after it.
 */

import type { Socket } from 'node:net';
import { Socket as NetSocket } from 'node:net';
import { assert } from '../model/errors.ts';
import { PIECE_BYTES } from './slab-pool.ts';

/** The most that a connection may have left over: less than a page of payload, or of a header. */
export const CARRY_BYTES = 8 * 1024;

export class ReceiveArea {
  /** Carry, then what was received; together one piece, so that any payload in it fits into one slab. */
  readonly buffer = Buffer.allocUnsafeSlow(PIECE_BYTES);
  readonly received = this.buffer.subarray(CARRY_BYTES);

  /** Puts `carry` right before what was received; returns where it starts. */
  prepend(carry: Buffer): number {
    assert(carry.length <= CARRY_BYTES, `${carry.length} bytes were left over`);
    carry.copy(this.buffer, CARRY_BYTES - carry.length);
    return CARRY_BYTES - carry.length;
  }
}

interface StreamHandle {
  readonly fd: number;
}

/**
 * Takes over an accepted, paused socket so that it receives into `area`: `onReceived` gets the number of bytes at
 * `area.received`, and returns false to stop reading (`resume` goes on). Node offers this (`onread`) only for
 * sockets that it is told about when they are made; a new Socket around the accepted handle is such a one.
 */
export function takeOver(
  accepted: Socket,
  area: ReceiveArea,
  onReceived: (bytes: number) => boolean,
): { socket: Socket; fd: number } {
  const { _handle: handle } = accepted as unknown as { _handle: StreamHandle };
  const options = {
    handle,
    allowHalfOpen: true,
    onread: { buffer: area.received, callback: onReceived },
  };
  const socket = new NetSocket(options as unknown as ConstructorParameters<typeof NetSocket>[0]);
  return { socket, fd: handle.fd };
}
