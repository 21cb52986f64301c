/** Times as people write them: `500ms`, `10s`, `5m`. */

import { UsageError } from './errors.ts';

const MILLISECONDS_OF: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
/** The longest that a timer of Node can wait. */
const DURATION_MS_MAX = 2 ** 31 - 1;

/** Milliseconds of `text`: a whole number with ms, s, m or h. A number alone is refused: seconds to some, ms to others. */
export function parseDuration(text: string): number {
  const [, digits = '', unit = ''] = /^(\d+)(ms|s|m|h)$/.exec(text) ?? [];
  const durationMs = Number(digits) * (MILLISECONDS_OF[unit] ?? Number.NaN);
  if (!(durationMs <= DURATION_MS_MAX)) {
    throw new UsageError(
      'bad-argument',
      `"${text}" is no time: give a whole number with ms, s, m or h, such as 500ms or 30s, up to 24 days`,
    );
  }
  return durationMs;
}
