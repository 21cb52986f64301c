/**
 * The process's log: one JSON object a line on stderr, written before the call returns, so that the last line
 * before a crash is there. stdout belongs to what a command was asked for.
 */

import { destination, type LevelWithSilent, type Logger, pino, stdTimeFunctions } from 'pino';
import { UsageError } from '../model/errors.ts';

const LEVELS: readonly LevelWithSilent[] = ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'];

/** A disk that is full of logs, or nobody who reads them, is no reason to let go of clients. */
function loseTheLine(): void {}

export function createLogger(environment: NodeJS.ProcessEnv): Logger {
  const asked = environment.VOLARY_LOG_LEVEL ?? 'info';
  const level = LEVELS.find((known) => known === asked);
  if (level === undefined) {
    throw new UsageError('bad-argument', `VOLARY_LOG_LEVEL is "${asked}": give one of ${LEVELS.join(', ')}`);
  }
  const stderr = destination({ fd: 2, sync: true });
  stderr.on('error', loseTheLine);
  return pino(
    {
      level,
      base: null, // the process id and the host's name are for whoever collects the lines
      timestamp: stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
    },
    stderr,
  );
}
