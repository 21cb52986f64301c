/** Values of options that are no domain of their own. */

import { UsageError } from '../model/errors.ts';

const BUSY_POLL_US_MAX = 10_000;

/** yargs makes an array of an option that is given twice: that is a mistake here. */
export function parseSingle<T>(
  option: string,
  given: string | readonly string[] | undefined,
  parse: (text: string) => T,
): T | undefined {
  if (given === undefined) return undefined;
  if (typeof given !== 'string') {
    throw new UsageError('bad-argument', `--${option} is given more than once: give it once`);
  }
  return parse(given);
}

/** yargs takes every value of a flag but `true` for false: `--read-only=yes` must not serve for writing. */
export function refuseFlagValues(words: readonly string[], flags: readonly string[]): void {
  for (const word of words) {
    const [name = '', value] = word.split(/=(.*)/s);
    if (value === undefined || value === 'true' || value === 'false') continue;
    if (flags.some((flag) => name === `--${flag}`)) {
      throw new UsageError('bad-argument', `${name} is "${value}": give ${name} alone, or ${name}=false`);
    }
  }
}

export function parseBusyPoll(text: string): number {
  const busyPollUs = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (!(busyPollUs <= BUSY_POLL_US_MAX)) {
    throw new UsageError(
      'bad-argument',
      `--busy-poll is "${text}": give a whole number of microseconds up to ${BUSY_POLL_US_MAX}`,
    );
  }
  return busyPollUs;
}
