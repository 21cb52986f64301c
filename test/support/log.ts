import type { Log } from '../../src/model/log.ts';

/** For tests that do not look at what is logged. */
export const silentLog: Log = {
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
};

export interface LogLine {
  readonly [field: string]: unknown;
  readonly level: string;
  readonly text: string;
}

export function recordingLog(lines: LogLine[]): Log {
  const at = (level: string) => (fields: object, text: string) => {
    lines.push({ ...fields, level, text });
  };
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') };
}
