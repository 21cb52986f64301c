/** Many runs, and what to do with a failing one: the same for the tests and for `npm run simulate`. */

import { run } from './world.ts';

/** Runs of one test. */
export const PORTION = 50;

/** Of the runs with seeds from `first` on: those that have found something. */
export function failuresOf(first: number, count: number): string[] {
  const failures: string[] = [];
  for (let seed = first; seed < first + count; seed++) {
    const { violation } = run({ seed });
    if (violation !== undefined) failures.push(`VOLARY_SIMULATION_SEED=${seed}: ${violation}`);
  }
  return failures;
}

/** VOLARY_SIMULATION_SEED plays one run again; VOLARY_SIMULATION_TRACE=1 prints all that happens in it. */
export function replayedSeed(): number | undefined {
  const seed = process.env.VOLARY_SIMULATION_SEED;
  return seed === undefined ? undefined : Number(seed);
}

export function replay(seed: number): string[] {
  const { violation, trace } = run({ seed, isTracing: process.env.VOLARY_SIMULATION_TRACE === '1' });
  for (const line of trace) console.log(line);
  return violation === undefined ? [] : [`VOLARY_SIMULATION_SEED=${seed}: ${violation}`];
}
