/** What a person is told: one sentence that names the place and says what to do. */

import { expect } from 'vitest';
import { VolaryError } from '../../src/model/errors.ts';

/** The code with which the action is refused; fails when it is not, or when the sentence helps nobody. */
export async function refusalOf(action: () => unknown, place: string): Promise<string> {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof VolaryError)) throw error;
    expect(error.message).toMatch(/^[^\n]+: [a-z][^\n]+$/);
    expect(error.message).toContain(place);
    return error.code;
  }
  throw new Error(`${place} was not refused`);
}
