import { expect, test } from 'vitest';
import { run } from './world.ts';

/** Runs that have found something: what it was is mended, and they stay as long as they play the same. */
const FOUND = [
  [297109297, 'two members were primary after it, and what it had written alone was known of the first only'],
  [297110889, 'a member was copied to before one that may be promoted had the same blocks'],
  [297110133, 'the same, with a change of primary'],
  [297110816, 'the same, after all had lost their power'],
] as const;

for (const [seed, what] of FOUND) {
  test(`what a run has found once is mended: ${what} (${seed})`, () => {
    expect(run({ seed }).violation).toBeUndefined();
  });
}
