/**
 * One request of the user of a RemoteVolume, and one attempt to have it done. A connection may be lost with the
 * attempt; the operation then gets another. Everything that a server can make an operation remember is bounded by
 * what was asked for.
 */

import { VolumeError } from '../model/errors.ts';
import type { Extent } from '../model/volume.ts';
import { Command, CommandFlag, Errno, State } from '../nbd-server-protocol/constants.ts';
import { PendingRequest } from '../nbd-server-protocol/pending-request.ts';
import type { StatusDescriptor } from '../nbd-server-protocol/reply-encoder.ts';
import { errorOfReply } from './errors.ts';

export interface Wanted {
  readonly command: number;
  /** CommandFlag bits. */
  readonly flags: number;
  /** RESIZE has the new size here. */
  readonly offset: number;
  readonly length: number;
  /** Where a read goes to, or a write comes from: memory[start, start + length). */
  readonly memory?: Buffer;
  readonly start?: number;
  /** BLOCK_STATUS: how many extents are wanted at most. */
  readonly extentsMax?: number;
}

const NO_MEMORY = Buffer.alloc(0);
const NO_EXTENTS = Object.freeze([] as Extent[]) as Extent[]; // extents are taken for a BLOCK_STATUS alone

export class Operation {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  readonly memory: Buffer;
  readonly start: number;
  /** Of a BLOCK_STATUS. */
  readonly extents: Extent[];
  /** FlushLedger's: which changes had been answered when this flush was sent. */
  changesBefore = 0;
  /** When a connection was lost with it first; it is given up `reconnectMs` later. */
  lostAtMs: number | undefined;
  readonly #extentsMax: number;
  readonly #resolve: () => void;
  readonly #reject: (error: Error) => void;

  constructor(wanted: Wanted, resolve: () => void, reject: (error: Error) => void) {
    this.command = wanted.command;
    this.flags = wanted.flags;
    this.offset = wanted.offset;
    this.length = wanted.length;
    this.memory = wanted.memory ?? NO_MEMORY;
    this.start = wanted.start ?? 0;
    this.#extentsMax = wanted.extentsMax ?? 0;
    this.extents = wanted.command === Command.blockStatus ? [] : NO_EXTENTS;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  /** Bytes that go with it, one way or the other. */
  get payloadBytes(): number {
    return this.memory.length === 0 ? 0 : this.length;
  }

  get isChange(): boolean {
    const { command } = this;
    return command === Command.write || command === Command.trim || command === Command.writeZeroes;
  }

  /** Durable, or failed, when it is answered. */
  get isFua(): boolean {
    return (this.flags & CommandFlag.fua) !== 0;
  }

  succeed(): void {
    this.#resolve();
  }

  fail(error: Error): void {
    this.#reject(error);
  }

  /** More of the answer to BLOCK_STATUS: what goes beyond the range, or is more than was asked for, is left out. */
  takeExtents(from: number, descriptors: readonly StatusDescriptor[]): number {
    let at = from;
    for (const { length, state } of descriptors) {
      const here = Math.min(length, this.length - at);
      if (here <= 0) break;
      const hole = (state & State.hole) !== 0;
      const zero = (state & State.zero) !== 0;
      if (!appendExtent(this.extents, { length: here, hole, zero }, this.#extentsMax)) break;
      at += here;
    }
    return at;
  }
}

/** Adds an extent behind the others, as one with its equal neighbour; false when there is no room for it. */
export function appendExtent(extents: Extent[], extent: Extent, extentsMax: number): boolean {
  const last = extents.at(-1);
  if (last !== undefined && last.hole === extent.hole && last.zero === extent.zero) {
    extents[extents.length - 1] = { ...last, length: last.length + extent.length };
    return true;
  }
  if (extents.length === extentsMax) return false;
  extents.push(extent);
  return true;
}

/** An operation on its way over one connection. */
export class Attempt extends PendingRequest {
  readonly operation: Operation;
  /** How much will have been handed to the socket when this request, with its payload, has been. */
  handedBytes = 0;
  /** The first error that the server told. */
  error: VolumeError | undefined;
  /** The reply has come, and the memory cannot be given back yet. */
  answered = false;
  /** The server refuses because it is shutting down. */
  leaving = false;
  #statusAt = 0;

  constructor(operation: Operation, cookie: number, contextIds: readonly number[]) {
    const { command, flags, offset, length } = operation;
    super({ cookie, command, flags, offset, length, contextIds });
    this.operation = operation;
    if (operation.extents.length > 0) operation.extents.length = 0; // of an attempt before
  }

  refuse(errno: Errno, text: string, offset: number | undefined): void {
    if (errno === Errno.ESHUTDOWN) this.leaving = true;
    this.error ??= errorOfReply(errno, text, offset);
  }

  takeExtents(descriptors: readonly StatusDescriptor[]): void {
    this.#statusAt = this.operation.takeExtents(this.#statusAt, descriptors);
  }
}

/** What becomes of a request that waits for a server that does not come back. */
export function goneError(server: string, cause: unknown): VolumeError {
  const why = cause instanceof Error ? `: ${cause.message}` : '';
  return new VolumeError('io', `${server} cannot be reached${why}`, { cause });
}
