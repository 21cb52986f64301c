/**
 * When a role that has died is started again: at once almost, and later each time that it does not stay up. Pure.
 */

export const DELAY_MS_MIN = 100;
export const DELAY_MS_MAX = 5_000;
/** Who was up for so long has not died of how it was started. */
export const STEADY_MS = 10_000;

/** The wait before the next start. `lastDelayMs`: before the start of the life that has ended; undefined for the first. */
export function restartDelayMs(lastDelayMs: number | undefined, uptimeMs: number): number {
  if (lastDelayMs === undefined || uptimeMs >= STEADY_MS) return DELAY_MS_MIN;
  return Math.min(lastDelayMs * 2, DELAY_MS_MAX);
}
