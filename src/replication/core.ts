/**
 * What the parts of a Replica share within one step: time, what is durable, the effects so far, and questions that wait for an answer.
 */

import { assert } from '../model/errors.ts';
import type { MemberId, Range } from '../peer-protocol/messages.ts';
import type { DurableState, Effect, Output, Piece, Token } from './effects.ts';
import type { ReplicaLimits } from './limits.ts';

export type Reported = 'recorded' | 'stale-epoch' | 'unreachable';
export type Renewed = 'granted' | 'stale-epoch' | 'unreachable';

const NOTHING: Output = { persist: undefined, effects: [] };

/** Questions of one kind: each is answered once. */
class Questions<T> {
  readonly #core: Core;
  readonly #waiting = new Map<Token, (answer: T) => void>();

  constructor(core: Core) {
    this.#core = core;
  }

  ask(then: (answer: T) => void): Token {
    const token = this.#core.newToken();
    this.#waiting.set(token, then);
    return token;
  }

  answer(token: Token, answer: T): void {
    const then = this.#waiting.get(token);
    assert(then !== undefined, 'an answer is one to a question');
    this.#waiting.delete(token);
    then(answer);
  }
}

export class Core {
  readonly id: MemberId;
  readonly limits: ReplicaLimits;
  nowMs = 0;
  /** Time in which this process ran: what others are measured by. */
  awakeMs = 0;
  readonly marked = new Questions<void>(this);
  readonly unmarked = new Questions<void>(this);
  readonly rangeRead = new Questions<readonly Piece[] | undefined>(this);
  readonly allocated = new Questions<readonly Range[] | undefined>(this);
  readonly reported = new Questions<Reported>(this);
  readonly renewed = new Questions<Renewed>(this);
  #started = false;
  /** Most steps have one or two, many none. */
  #effects: Effect[] | undefined;
  #durable: DurableState | undefined;
  #isChanged = false;
  #lastToken = 0;

  constructor(id: MemberId, limits: ReplicaLimits) {
    this.id = id;
    this.limits = limits;
  }

  begin(nowMs: number): void {
    if (this.#started) {
      const passedMs = nowMs - this.nowMs;
      assert(passedMs >= 0, 'the clock goes forward');
      if (passedMs <= this.limits.sleepMs) this.awakeMs += passedMs;
    }
    this.#started = true;
    this.nowMs = nowMs;
  }

  end(): Output {
    const persist = this.#isChanged ? this.#durable : undefined;
    const effects = this.#effects;
    if (persist === undefined && effects === undefined) return NOTHING;
    this.#effects = undefined;
    this.#isChanged = false;
    return { persist, effects: effects ?? NOTHING.effects };
  }

  newToken(): Token {
    this.#lastToken += 1;
    return this.#lastToken;
  }

  emit(effect: Effect): void {
    if (this.#effects === undefined) this.#effects = [effect];
    else this.#effects.push(effect);
  }

  get hasDurable(): boolean {
    return this.#durable !== undefined;
  }

  get durable(): DurableState {
    assert(this.#durable !== undefined, 'the member has been configured');
    return this.#durable;
  }

  /** What was durable at the start. */
  recall(durable: DurableState): void {
    this.#durable = durable;
  }

  /** Durable before any effect of this step. */
  save(durable: DurableState): void {
    this.#durable = durable;
    this.#isChanged = true;
  }

  change(change: Partial<DurableState>): void {
    this.save({ ...this.durable, ...change });
  }
}
