import { setTimeout as sleep } from 'node:timers/promises';

/** Waits for `timeMs`, or less when `signal` ends it: that is no error. */
export async function pause(timeMs: number, signal: AbortSignal): Promise<void> {
  try {
    await sleep(timeMs, undefined, { signal });
  } catch (error) {
    if (!signal.aborted) throw error;
  }
}
