/** `bin/volary serve` as a child process. */

import { type StartOptions, startVolary, type VolaryProcess } from './volary-process.ts';

export { type StartOptions, volaryCommand } from './volary-process.ts';

export interface RunningServer extends VolaryProcess {
  /** As printed by the ready line, in the order of `--listen`. */
  readonly uris: readonly string[];
}

/** Starts `bin/volary serve ARGS --json`. Rejects, with what it printed on stderr, when it ends before it is ready. */
export async function startServe(
  args: readonly string[],
  options: StartOptions = {},
): Promise<RunningServer> {
  const running = await startVolary(['serve', ...args], options);
  return { ...running, uris: running.ready.uris as string[] };
}

/** The port of an `nbd://HOST:PORT` URI. */
export function portOf(uri: string): number {
  return Number(new URL(uri).port);
}
