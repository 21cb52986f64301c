/**
 * IoGate: the door in front of a volume's requests. It is open while nobody has a reason to hold them.
 *
 * Invariants
 *  1. A request passes only while the set of reasons is empty; several reasons may come and go independently.
 *  2. `hold` resolves when no request that has passed is under way any more, and the gate has not been opened since.
 *  3. Held requests pass in the order in which they came. There are at most HELD_MAX of them: a host connection has at most 256
 *     requests under way (nbd/jobs.ts), so this is reached only with more than 256 connections that all wait.
 *  4. An open gate costs a look and a count: no promise, no closure.
 */

import { assert, VolumeError } from '../model/errors.ts';

export const HELD_MAX = 65_536;

interface Held {
  readonly pass: () => void;
  readonly refuse: (error: VolumeError) => void;
}

export class IoGate<Reason extends string> {
  readonly #reasons = new Set<Reason>();
  readonly #heldMax: number;
  #held: Held[] = [];
  #underWay = 0;
  #whenIdle: (() => void)[] = [];
  #closed: VolumeError | undefined;

  constructor(heldMax = HELD_MAX) {
    this.#heldMax = heldMax;
  }

  /** Requests may pass: to be asked before each, which then calls `entered`. */
  get isOpen(): boolean {
    return this.#reasons.size === 0 && this.#closed === undefined;
  }

  get underWay(): number {
    return this.#underWay;
  }

  get held(): number {
    return this.#held.length;
  }

  get reasons(): readonly Reason[] {
    return [...this.#reasons];
  }

  /** A request has passed. What it returns must have `left` called when it ends. */
  entered(): void {
    this.#underWay += 1;
  }

  /** As a callback of a promise, without a closure for each. */
  readonly left = (): void => {
    assert(this.#underWay > 0, 'no more requests leave than have entered');
    this.#underWay -= 1;
    if (this.#underWay === 0 && this.#whenIdle.length > 0)
      for (const idle of this.#whenIdle.splice(0)) idle();
  };

  /** Holds what comes from now on; resolves when what has passed before has left. */
  hold(reason: Reason): Promise<void> {
    assert(!this.#reasons.has(reason), `requests are held already: ${reason}`);
    this.#reasons.add(reason);
    return this.idle();
  }

  /** Resolves when nothing that has passed is under way: for good only while the gate is not open. */
  idle(): Promise<void> {
    if (this.#underWay === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  release(reason: Reason): void {
    assert(this.#reasons.delete(reason), `requests are not held: ${reason}`);
    if (this.isOpen) for (const { pass } of this.#held.splice(0)) pass();
  }

  /** Resolves when a request that had to wait may pass: it has entered then. Rejects when the gate is closed, or full. */
  passage(): Promise<void> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    if (this.#reasons.size === 0) {
      this.entered();
      return Promise.resolve();
    }
    if (this.#held.length >= this.#heldMax) {
      return Promise.reject(new VolumeError('io', `${this.#held.length} requests are held already`));
    }
    return new Promise((resolve, reject) => {
      const pass = (): void => {
        this.entered(); // now, not when the promise's callbacks run: a hold that comes between waits for it
        resolve();
      };
      this.#held.push({ pass, refuse: reject });
    });
  }

  /** Nothing passes any more: what is held, and what comes, fails with `error`. */
  close(error: VolumeError): void {
    this.#closed ??= error;
    for (const { refuse } of this.#held.splice(0)) refuse(this.#closed);
  }
}
