/**
 * A request that waits for its reply. Role: knows which replies it may get ("Structured reply types", "Request
 * types"), so that the decoder only has to cut the wire into chunks.
 *
 * Invariants: content never overlaps, nor lies outside the request, nor behind an error at the same place; a
 * reply without an error covers the whole of a read and tells of every context asked for; what a server can make
 * a request remember is bounded (`PIECES_MAX`).
 */

import { Command, CommandFlag } from './constants.ts';
import { ProtocolError, requireThat } from './errors.ts';

/** More separate runs of content, or error offsets, than any server that means well sends for one request. */
const PIECES_MAX = 1024;

export interface PendingRequestOptions {
  readonly cookie: number;
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** For BLOCK_STATUS: the contexts asked for; all that were selected unless the request names some. */
  readonly contextIds?: readonly number[];
}

const NONE: never[] = [];

/** May be extended with what its owner wants to keep beside it. */
export class PendingRequest {
  readonly cookie: number;
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
  /** An error has come: the reply is no success, whatever else may follow. */
  failed = false;

  /** Sorted, separate runs of content: start, end, start, end, … */
  readonly #runs: number[];
  #contentChunks = 0;
  #errorOffsets: number[] | undefined;
  /** Of a block status: those that have not come. */
  readonly #contextsLeft: Set<number> | undefined;
  /** Bytes told of in the status chunk under way; undefined between chunks. */
  #statusSum: number | undefined;

  constructor({ cookie, command, flags, offset, length, contextIds }: PendingRequestOptions) {
    requireThat(Number.isSafeInteger(cookie) && cookie >= 0, 'a cookie must be a safe integer');
    requireThat(Number.isSafeInteger(offset + length), 'the range of a request must be safe integers');
    this.cookie = cookie;
    this.command = command;
    this.flags = flags;
    this.offset = offset;
    this.length = length;
    this.#runs = command === Command.read ? [] : NONE;
    this.#contextsLeft = command === Command.blockStatus ? new Set(contextIds) : undefined;
  }

  /** A content chunk has begun: data or a hole. Throws ProtocolError when it may not be there. */
  takeContent(offset: number, length: number): void {
    if (this.command !== Command.read) throw wrong('content for a request that is no read');
    if (length <= 0) throw wrong('an empty content chunk');
    const end = offset + length;
    if (offset < this.offset || end > this.offset + this.length) throw wrong('content outside the request');
    if (++this.#contentChunks > 1 && (this.flags & CommandFlag.df) !== 0) {
      throw wrong('a second content chunk for a read that must not be fragmented');
    }
    if (this.#errorOffsets?.some((at) => at >= offset && at < end) === true)
      throw wrong('content after its error');
    this.#addRun(offset, end);
  }

  /** An error has come; `offset` is where, when the server says so. */
  takeError(offset: number | undefined): void {
    this.failed = true;
    if (offset === undefined) return;
    if (offset < this.offset || offset >= this.offset + this.length)
      throw wrong('an error outside the request');
    this.#errorOffsets ??= [];
    if (this.#errorOffsets.length === PIECES_MAX) throw new ProtocolError('too-big', 'too many error chunks');
    this.#errorOffsets.push(offset);
  }

  /** A block status chunk has begun. */
  beginStatus(contextId: number, descriptors: number): void {
    if (this.command !== Command.blockStatus) throw wrong('a block status for another request');
    if (this.#contextsLeft?.delete(contextId) !== true) {
      throw wrong(`context ${contextId} came twice, or was not asked for`);
    }
    if ((this.flags & CommandFlag.reqOne) !== 0 && descriptors !== 1) throw wrong('more than one extent');
    this.#statusSum = 0;
  }

  /** The next extent of the status chunk that began last; `last` says that the chunk ends with it. */
  takeExtent(length: number, last: boolean): void {
    requireThat(this.#statusSum !== undefined, 'an extent outside a status chunk');
    if (length <= 0) throw wrong('an empty extent');
    this.#statusSum += length;
    if (!last && this.#statusSum >= this.length) throw wrong('extents beyond the request');
    if ((this.flags & CommandFlag.reqOne) !== 0 && length > this.length) {
      throw wrong('an extent longer than the request');
    }
    if (last) this.#statusSum = undefined;
  }

  /** The reply has ended. Throws ProtocolError when it claims a success that it has not shown. */
  finish(): void {
    if (this.failed) return;
    if (this.command === Command.read && this.length > 0) {
      const whole = this.#runs[0] === this.offset && this.#runs[1] === this.offset + this.length;
      if (!whole) throw wrong('a read that succeeded without all of its data');
    }
    if ((this.#contextsLeft?.size ?? 0) > 0)
      throw wrong('a block status that succeeded without every context');
  }

  #addRun(start: number, end: number): void {
    const runs = this.#runs;
    // The usual server sends in order, so look from the end.
    let at = runs.length;
    while (at > 0 && runs[at - 2]! >= end) at -= 2;
    if (at > 0 && runs[at - 1]! > start) throw wrong('content that overlaps earlier content');
    const joinsBefore = at > 0 && runs[at - 1] === start;
    const joinsAfter = at < runs.length && runs[at] === end;
    if (joinsBefore && joinsAfter) runs.splice(at - 1, 2);
    else if (joinsBefore) runs[at - 1] = end;
    else if (joinsAfter) runs[at] = start;
    else if (runs.length === 2 * PIECES_MAX) throw new ProtocolError('too-big', 'content in too many pieces');
    else runs.splice(at, 0, start, end);
  }
}

function wrong(what: string): ProtocolError {
  return new ProtocolError('bad-message', `the server sent ${what}`);
}
