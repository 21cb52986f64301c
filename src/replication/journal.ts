/**
 * Journal: what this member has begun to apply and does not know to be settled, of this process and of before.
 *
 * Invariants
 * 1. A journaled operation is here, and in the driver's journal, from before it is applied until it is settled.
 * 2. `before` is what the start has told; it stays until `forget`.
 */

import { TokenMap } from '../base/token-map.ts';
import { EXTENT_BYTES } from '../model/copy-granularity.ts';
import { assert } from '../model/errors.ts';
import type { Range } from '../peer-protocol/messages.ts';
import type { Core } from './core.ts';
import type { Token } from './effects.ts';
import type { Marks } from './marks.ts';
import type { Work } from './work.ts';

const SETTLED_BATCH = 64;

export class Journal {
  readonly #core: Core;
  readonly #marks: Marks;
  readonly #work = new TokenMap<Work>();
  #applying = 0;
  #settled: Token[] = [];
  #before: readonly Range[] = [];
  hasLostCache = false;
  #hasBefore = false;

  constructor(core: Core, marks: Marks) {
    this.#core = core;
    this.#marks = marks;
  }

  start(before: readonly Range[], hasLostCache: boolean): void {
    this.#before = before;
    this.hasLostCache = hasLostCache;
    this.#hasBefore = before.length > 0 || hasLostCache;
    this.#marks.hold(before);
  }

  /** The member's file has another size: what was unsettled behind its end is not there any more, nor when it grows again. */
  resize(sizeBytes: number): void {
    const kept = this.#before
      .filter(({ offset }) => offset < sizeBytes)
      .map(({ offset, length }) => ({ offset, length: Math.min(length, sizeBytes - offset) }));
    this.#marks.hold(kept);
    this.#marks.release(this.#before);
    this.#before = kept;
  }

  /** Nothing is being applied. */
  get isIdle(): boolean {
    return this.#applying === 0;
  }

  get isEmpty(): boolean {
    return this.#work.size === 0 && !this.#hasBefore;
  }

  apply(work: Work, isJournaled: boolean): void {
    const { operation, token } = work;
    assert(operation !== undefined, 'there is something to apply');
    work.isApplying = true;
    work.isJournaled = isJournaled;
    this.#work.add(token, work);
    this.#applying += 1;
    this.#core.emit({ kind: 'apply', token, operation, isJournaled });
  }

  applied(token: Token): Work {
    const work = this.#work.get(token);
    assert(work?.isApplying === true, 'what has been applied was being applied');
    work.isApplying = false;
    work.operation = undefined;
    this.#applying -= 1;
    return work;
  }

  settle(work: Work): void {
    assert(!work.isApplying, 'what is settled has been applied');
    work.isSettled = true;
    this.#work.take(work.token);
    this.#marks.leave(work);
    if (!work.isJournaled) return;
    this.#settled.push(work.token);
    if (this.#settled.length >= SETTLED_BATCH) this.tellSettled();
  }

  /** What is settled has been told. */
  get isTold(): boolean {
    return this.#settled.length === 0;
  }

  tellSettled(): void {
    if (this.#settled.length === 0) return;
    this.#core.emit({ kind: 'settle', tokens: this.#settled });
    this.#settled = [];
  }

  /** Everything that is unsettled. */
  ranges(): Range[] {
    const ranges = [...this.#before];
    for (const { offset, length, kind } of this.#work.values()) {
      if (kind === 'change') ranges.push({ offset, length });
    }
    return ranges;
  }

  /** A flush has failed: what is in marked extents may be lost, as with the machine's memory. */
  loseCache(): void {
    const extents = this.#marks.extents().map((extent) => ({
      offset: extent * EXTENT_BYTES,
      length: EXTENT_BYTES,
    }));
    this.#marks.hold(extents);
    this.#before = [...this.#before, ...extents];
    this.hasLostCache = true;
    this.#hasBefore = true;
  }

  /** What is unsettled now, to be forgotten later as one. */
  snapshot(): Work[] {
    return this.#work.values();
  }

  /** These, and all from before the start, are known elsewhere now, or are equal everywhere. */
  forget(works: readonly Work[]): void {
    for (const work of works) if (!work.isSettled) this.settle(work);
    this.tellSettled();
    if (!this.#hasBefore) return;
    this.#marks.release(this.#before);
    this.#before = [];
    this.hasLostCache = false;
    this.#hasBefore = false;
    this.#core.emit({ kind: 'forget-unsettled' });
  }
}
