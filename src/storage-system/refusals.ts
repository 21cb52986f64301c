/**
 * What the directory has refused, which may be for ever: the same is asked ever more rarely, and a person is told, once.
 *
 * Invariants
 *  1. Something else that is asked about the same subject is asked at once, and so is the same after it was taken.
 *  2. One refusal is none: what is told of a change, and the change, may cross. The second in a row is told.
 */

import type { ControlError, ControlErrorCode } from '../model/errors.ts';
import type { Log } from '../model/log.ts';

const PAUSE_MS = 400;
const PAUSE_MAX_MS = 5_000;
/** Subjects that are remembered; the oldest is forgotten. */
const SUBJECTS_MAX = 10_000;

interface Refusal {
  readonly asked: string;
  readonly code: ControlErrorCode;
  readonly count: number;
  readonly pauseMs: number;
  readonly untilMs: number;
}

export class Refusals {
  readonly #log: Log;
  readonly #nowMs: () => number;
  readonly #refused = new Map<string, Refusal>();

  constructor(log: Log, nowMs = () => performance.now()) {
    this.#log = log;
    this.#nowMs = nowMs;
  }

  /** Not to be asked now: it would be refused again. */
  isPaused(subject: string, asked: string): boolean {
    const known = this.#refused.get(subject);
    return known?.asked === asked && this.#nowMs() < known.untilMs;
  }

  /** `about` is for the log. */
  refused(subject: string, asked: string, { code, message }: ControlError, about: object): void {
    const before = this.#refused.get(subject);
    const known = before?.asked === asked && before.code === code ? before : undefined;
    const count = (known?.count ?? 0) + 1;
    const pauseMs = count < 2 ? 0 : Math.min(Math.max(PAUSE_MS, 2 * (known?.pauseMs ?? 0)), PAUSE_MAX_MS);
    this.#refused.delete(subject);
    this.#refused.set(subject, { asked, code, count, pauseMs, untilMs: this.#nowMs() + pauseMs });
    const [oldest] = this.#refused.keys();
    if (this.#refused.size > SUBJECTS_MAX && oldest !== undefined) this.#refused.delete(oldest);
    if (count === 2) {
      this.#log.warn(
        { ...about, code, error: message },
        'the directory refuses what it is told of a copy group',
      );
    }
  }

  taken(subject: string): void {
    this.#refused.delete(subject);
  }
}
