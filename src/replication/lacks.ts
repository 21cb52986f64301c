/**
 * Lacks: for each other member, the blocks in which it may differ from this one.
 *
 * Invariants
 * 1. What is durable is a superset of `missing`, `copied` and `flushing` together (I5): bits are set at once, and cleared only by `flushed`.
 * 2. `missing` has no block in common with `copied` or `flushing`: who lacks a block anew lacks it.
 */

import { BlockBitmap } from '../base/block-bitmap.ts';
import { BLOCK_BYTES } from '../model/copy-granularity.ts';
import type { MemberId, Range } from '../peer-protocol/messages.ts';
import type { Core } from './core.ts';

interface Lack {
  readonly missing: BlockBitmap;
  /** Acknowledged by the member, and not flushed there. */
  copied: BlockBitmap;
  flushing: BlockBitmap | undefined;
}

/** Ranges in one effect, or one message. */
const RANGES_MAX = 4096;

export class Lacks {
  readonly #core: Core;
  readonly #lacks = new Map<MemberId, Lack>();
  #sizeBytes = 0;

  constructor(core: Core) {
    this.#core = core;
  }

  start(lacks: ReadonlyMap<MemberId, readonly Range[]>): void {
    for (const [member, ranges] of lacks) {
      for (const range of ranges) this.#of(member).missing.set(range);
    }
  }

  /** The size of this member's own file, never what the group is told: nobody lacks what is behind its end. */
  resize(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
    for (const { missing, copied, flushing } of this.#lacks.values()) {
      missing.resize(sizeBytes);
      copied.resize(sizeBytes);
      flushing?.resize(sizeBytes);
    }
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  missing(member: MemberId): BlockBitmap {
    return this.#of(member).missing;
  }

  /** Whether something is not known to be durable at the member. */
  hasUnflushed(member: MemberId): boolean {
    const { copied, flushing } = this.#of(member);
    return !copied.isEmpty || flushing !== undefined;
  }

  /** It lacks this now. */
  add(member: MemberId, range: Range): void {
    if (this.#grow(this.#of(member), range)) {
      this.#core.emit({ kind: 'set-bits', member, ranges: [{ offset: range.offset, length: range.length }] });
    }
  }

  /** Returns how many bytes are new. */
  addAll(member: MemberId, ranges: readonly Range[]): number {
    const lack = this.#of(member);
    const before = lack.missing.countBytes;
    const grown: Range[] = [];
    for (const range of ranges) if (this.#grow(lack, range)) grown.push(range);
    for (let at = 0; at < grown.length; at += RANGES_MAX) {
      this.#core.emit({ kind: 'set-bits', member, ranges: grown.slice(at, at + RANGES_MAX) });
    }
    return lack.missing.countBytes - before;
  }

  /** It has acknowledged this. */
  copied(member: MemberId, range: Range): void {
    const lack = this.#of(member);
    if (lack.missing.isEmpty) return;
    const inner = this.#inner(range);
    const end = inner.offset + inner.length;
    for (let at = inner.offset; at < end; ) {
      const run = lack.missing.nextRun(at, end - at);
      if (run === undefined || run.offset >= end) return;
      const length = Math.min(run.length, end - run.offset);
      const done = { offset: run.offset, length };
      lack.missing.clear(done);
      lack.copied.set(done);
      at = run.offset + length;
    }
  }

  /** A flush of the member begins, `flushed` when it has acknowledged it. */
  flushing(member: MemberId): void {
    const lack = this.#of(member);
    lack.flushing = lack.copied;
    lack.copied = new BlockBitmap(this.#sizeBytes, BLOCK_BYTES);
  }

  flushed(member: MemberId): void {
    const lack = this.#of(member);
    const ranges = [...(lack.flushing?.ranges() ?? [])];
    lack.flushing = undefined;
    for (let at = 0; at < ranges.length; at += RANGES_MAX) {
      this.#core.emit({ kind: 'clear-bits', member, ranges: ranges.slice(at, at + RANGES_MAX) });
    }
  }

  /** The member is lost: what it has not flushed is copied again. */
  giveBack(member: MemberId): void {
    const lack = this.#of(member);
    lack.missing.merge(lack.copied);
    if (lack.flushing !== undefined) lack.missing.merge(lack.flushing);
    lack.copied = new BlockBitmap(this.#sizeBytes, BLOCK_BYTES);
    lack.flushing = undefined;
  }

  /** All ranges that it lacks, in lists that fit into one message. */
  *lists(member: MemberId): Generator<readonly Range[]> {
    let list: Range[] = [];
    for (const range of this.#of(member).missing.ranges()) {
      list.push(range);
      if (list.length < RANGES_MAX) continue;
      yield list;
      list = [];
    }
    yield list;
  }

  forget(member: MemberId): void {
    if (!this.#lacks.delete(member)) return;
    this.#core.emit({ kind: 'forget-member', member });
  }

  members(): MemberId[] {
    return [...this.#lacks.keys()];
  }

  #of(member: MemberId): Lack {
    const known = this.#lacks.get(member);
    if (known !== undefined) return known;
    const made: Lack = {
      missing: new BlockBitmap(this.#sizeBytes, BLOCK_BYTES),
      copied: new BlockBitmap(this.#sizeBytes, BLOCK_BYTES),
      flushing: undefined,
    };
    this.#lacks.set(member, made);
    return made;
  }

  #grow({ missing, copied, flushing }: Lack, range: Range): boolean {
    const before = missing.countBytes;
    missing.set(range);
    if (!copied.isEmpty || flushing !== undefined) {
      const outer = this.#outer(range);
      copied.clear(outer);
      flushing?.clear(outer);
    }
    return missing.countBytes !== before;
  }

  /** The blocks that are inside. */
  #inner({ offset, length }: Range): Range {
    const start = Math.ceil(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const end =
      offset + length >= this.#sizeBytes
        ? this.#sizeBytes
        : Math.floor((offset + length) / BLOCK_BYTES) * BLOCK_BYTES;
    return { offset: start, length: Math.max(0, end - start) };
  }

  /** The blocks that are touched. */
  #outer({ offset, length }: Range): Range {
    const start = Math.floor(offset / BLOCK_BYTES) * BLOCK_BYTES;
    const end = Math.ceil((offset + length) / BLOCK_BYTES) * BLOCK_BYTES;
    return { offset: start, length: end - start };
  }
}
