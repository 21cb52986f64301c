/**
 * SIGTERM and SIGINT: the first asks the service to stop, which may take a while; another ends the process at once,
 * with the status that a shell gives to a process ended by that signal.
 */

import { constants } from 'node:os';

type StopSignal = 'SIGTERM' | 'SIGINT';

/**
 * npm passes Ctrl-C on to a process that the terminal has signalled already: what follows this quickly is the same
 * wish.
 */
const SAME_WISH_MS = 300;

/** Resolves with the first signal. From the call on, signals no longer end the process by themselves. */
export function firstStopSignal(): Promise<StopSignal> {
  return new Promise((resolve) => {
    let askedAtMs: number | undefined;
    const onSignal = (signal: StopSignal): void => {
      const nowMs = performance.now();
      if (askedAtMs === undefined) {
        askedAtMs = nowMs;
        resolve(signal);
      } else if (nowMs - askedAtMs > SAME_WISH_MS) {
        process.exit(128 + constants.signals[signal]);
      }
    };
    process.on('SIGTERM', onSignal);
    process.on('SIGINT', onSignal);
  });
}
