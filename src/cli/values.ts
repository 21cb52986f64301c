/** Values of options that are no domain of their own. */

import { VolumeSize } from '../control-protocol/names.ts';
import { UsageError, type UsageErrorCode } from '../model/errors.ts';
import { parseSize } from '../model/size.ts';

const BUSY_POLL_US_MAX = 10_000;

/** yargs makes an array of an option that is given twice: that is a mistake here. */
export function single<Text extends string>(
  option: string,
  given: Text | readonly Text[] | undefined,
): Text | undefined {
  if (given === undefined || typeof given === 'string') return given;
  throw new UsageError('bad-argument', `--${option} is given more than once: give it once`);
}

/** The same, in the form of a value. @throws UsageError */
export function parseSingle<T>(
  option: string,
  given: string | readonly string[] | undefined,
  parse: (text: string) => T,
): T | undefined {
  const text = single(option, given);
  return text === undefined ? undefined : parse(text);
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

/** The part of a zod schema that is used here. */
interface Schema<T> {
  safeParse(
    value: unknown,
  ): { success: true; data: T } | { success: false; error: { issues: readonly { message: string }[] } };
}

const QUOTE_LENGTH_MAX = 60;

/** A value that has the form of `schema`, before anybody is asked. @throws UsageError of that code */
export function parseAs<T>(code: UsageErrorCode, schema: Schema<T>, text: string | number): T {
  const parsed = schema.safeParse(text);
  if (parsed.success) return parsed.data;
  const quote = String(text);
  const shown = quote.length > QUOTE_LENGTH_MAX ? `${quote.slice(0, QUOTE_LENGTH_MAX)}…` : quote;
  throw new UsageError(code, `"${shown}": ${parsed.error.issues[0]?.message ?? 'is not allowed'}`);
}

export function parseCount(option: string, text: string, countMax: number): number {
  const count = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (count <= countMax) return count;
  throw new UsageError(
    'bad-argument',
    `--${option} is "${text}": give a whole number up to ${countMax.toLocaleString('en')}`,
  );
}

/** @throws UsageError `bad-size` */
export function parseVolumeSize(text: string): number {
  return parseAs('bad-size', VolumeSize, parseSize(text));
}

export function parseOffset(text: string): number {
  return /^0+$/.test(text) ? 0 : parseSize(text);
}
