/**
 * The memory that all connections of a driver receive into. One for all: what has arrived is used up before the
 * next read, so it stays in the processor's cache and costs nothing per connection. In front of it is room for
 * what a connection had left over, so that it can be looked at in one piece with what came after it.
 */

import { Buffer } from 'node:buffer';
import { requireThat } from './errors.ts';

/** The most that a connection may have left over: less than a page of payload, or of a header. */
export const CARRY_BYTES = 8 * 1024;

export class ReceiveArea {
  /** Carry, then what was received; together one piece. */
  readonly buffer: Buffer;
  readonly received: Buffer;

  constructor(sizeBytes: number) {
    this.buffer = Buffer.allocUnsafeSlow(sizeBytes);
    this.received = this.buffer.subarray(CARRY_BYTES);
  }

  /** Puts `carry` right before what was received; returns where it starts. */
  prepend(carry: Buffer): number {
    requireThat(carry.length <= CARRY_BYTES, `${carry.length} bytes were left over`);
    carry.copy(this.buffer, CARRY_BYTES - carry.length);
    return CARRY_BYTES - carry.length;
  }
}
