/** strace on a running server: to see which system calls it makes, and to make them fail. */

import { spawn } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { eventually, requireTool } from './tools.ts';

export interface Strace {
  /** All that was traced so far. */
  log(): Promise<string>;
  /** Lets go of the process, which then runs on as if nothing had happened. */
  detach(): Promise<void>;
}

/** Attaches to every thread of a process, present and future. */
export async function attachStrace(pid: number, logPath: string, args: readonly string[]): Promise<Strace> {
  const strace = requireTool('strace', 'strace');
  const child = spawn(strace, ['-f', '-o', logPath, ...args, '-p', `${pid}`], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let printed = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await eventually(`strace attaches to ${pid}`, () => {
    if (child.exitCode !== null) throw new Error(`strace ended: ${printed}`);
    return printed.includes('attached') || undefined;
  });
  return {
    log: () => readFile(logPath, 'utf8'),
    detach: async () => {
      child.kill('SIGINT');
      await ended;
    },
  };
}

/**
 * Does something to the first call, the second and so on, until there are no more: `attempt` starts a program that meets its end
 * at that call, and says what became of it. Two are under way at once, so one number beyond the last may be tried, too.
 */
export async function forEachCall(
  attempt: (nth: number) => Promise<'was killed' | 'went to its end'>,
): Promise<void> {
  let next = 1;
  let isOver = false;
  const lane = async (): Promise<void> => {
    while (!isOver) if ((await attempt(next++)) === 'went to its end') isOver = true;
  };
  await Promise.all([lane(), lane()]);
}
