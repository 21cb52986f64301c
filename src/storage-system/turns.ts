/** Changes of one real volume take turns; those of different ones do not wait for one another. */

import { ControlError } from '../model/errors.ts';

/** More would mean that somebody asks again and again without waiting for an answer. */
const WAITING_MAX = 16;

export class Turns {
  readonly #lines = new Map<string, { last: Promise<unknown>; length: number }>();

  /** @throws ControlError `unavailable` when too many wait already */
  async run<T>(key: string, operation: () => Promise<T>): Promise<T> {
    const line = this.#lines.get(key) ?? { last: Promise.resolve(), length: 0 };
    if (line.length > WAITING_MAX) {
      throw new ControlError(
        'unavailable',
        `${key} is being changed, and too many wait for that: try again later`,
      );
    }
    this.#lines.set(key, line);
    line.length += 1;
    const turn = line.last.then(operation).finally(() => {
      line.length -= 1;
      if (line.length === 0) this.#lines.delete(key);
    });
    line.last = turn.catch(() => undefined); // its caller has the failure; the next one goes on
    return turn;
  }

  /** Undefined when nothing is under way, otherwise resolves when what is under way now has ended. */
  busy(key: string): Promise<unknown> | undefined {
    return this.#lines.get(key)?.last;
  }

  /** Resolves when nothing is under way. */
  async allDone(): Promise<void> {
    while (this.#lines.size > 0) await Promise.all([...this.#lines.values()].map(({ last }) => last));
  }
}
