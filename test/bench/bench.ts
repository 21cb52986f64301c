/**
 * What the parts of the bench share: the options, the progress line, the failures. A step that fails is
 * reported at the end and does not take the other measurements along.
 */

import type { BenchOptions } from './options.ts';

export interface Bench {
  readonly options: BenchOptions;
  readonly failures: readonly string[];
  /** Says how many more steps will come. */
  expect(steps: number): void;
  /** One step: a few seconds on one server. Undefined when it failed. */
  step<T>(what: string, work: () => Promise<T>): Promise<T | undefined>;
}

export function newBench(options: BenchOptions): Bench {
  const failures: string[] = [];
  const started = performance.now();
  let expected = 0;
  let done = 0;

  const show = (what: string): void => {
    if (!process.stderr.isTTY) return;
    const left = done === 0 ? '' : `, ${remaining(performance.now() - started, done, expected)} left`;
    process.stderr.write(`\r\x1b[K[${done}/${expected}${left}] ${what}`);
  };

  return {
    options,
    failures,
    expect: (steps) => {
      expected += steps;
    },
    step: async (what, work) => {
      show(what);
      try {
        return await work();
      } catch (error) {
        failures.push(`${what}: ${(error as Error).message}`);
        return undefined;
      } finally {
        done += 1;
        if (done === expected && process.stderr.isTTY) process.stderr.write('\r\x1b[K');
      }
    },
  };
}

function remaining(elapsedMs: number, done: number, expected: number): string {
  const seconds = Math.round(((elapsedMs / done) * (expected - done)) / 1000);
  return seconds < 90 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}

/**
 * The servers in the order of a round: each round starts with another one, so that none always comes right
 * after the same other.
 */
export function inTurn<T>(items: readonly T[], round: number): T[] {
  const first = round % items.length;
  return [...items.slice(first), ...items.slice(0, first)];
}
