/**
 * A `bin/volary` command that stays (`serve`, `run ROLE`, `up`) as a child process: started, waited for, stopped or killed.
 * The tests that use it see it exactly as a user does.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { projectRoot } from './tools.ts';

export const volaryCommand = join(projectRoot, 'bin/volary');

export interface StartOptions {
  /** Added to this process's environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Instead of bin/volary: a program and its first arguments (`setpriv …`, `strace …`) that end in running it. */
  readonly command?: readonly string[];
  readonly readyTimeoutMs?: number;
}

export interface Exit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface VolaryProcess {
  readonly process: ChildProcess;
  readonly pid: number;
  /** What it printed when it was ready. */
  readonly ready: Readonly<Record<string, unknown>>;
  /** SIGTERM, then waits for the end. One that has ended already just tells how. */
  stop(): Promise<Exit>;
  /** SIGKILL, then waits for the end. */
  kill(): Promise<Exit>;
  /** Resolves when the process has ended, for whatever reason. */
  readonly exit: Promise<Exit>;
  /** Everything that it has printed on stderr so far. */
  stderr(): string;
  /** The lines of stderr that are JSON: its log. */
  log(): Record<string, unknown>[];
}

// A test that fails half-way must not leave its processes running.
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts `bin/volary ARGS --json`. Rejects, with what it printed on stderr, when it ends before it is ready. */
export function startVolary(args: readonly string[], options: StartOptions = {}): Promise<VolaryProcess> {
  const [command, ...first] = options.command ?? [volaryCommand];
  if (command === undefined) throw new Error('an empty command');
  const child = spawn(command, [...first, ...args, '--json'], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const exit = new Promise<Exit>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
  });
  const signalAndWait = (signal: NodeJS.Signals): Promise<Exit> => {
    child.kill(signal);
    return exit;
  };
  const line = `volary ${args.join(' ')}`;
  return new Promise((resolve, reject) => {
    const timeoutMs = options.readyTimeoutMs ?? 60_000;
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${line}: not ready within ${timeoutMs} ms\n${stderr}`));
    }, timeoutMs);
    createInterface({ input: child.stdout }).on('line', (printed) => {
      const ready = JSON.parse(printed) as Record<string, unknown>;
      if (ready.ready !== true) return;
      clearTimeout(timer);
      resolve({
        process: child,
        pid: child.pid ?? Number.NaN,
        ready,
        stop: () => signalAndWait('SIGTERM'),
        kill: () => signalAndWait('SIGKILL'),
        exit,
        stderr: () => stderr,
        log: () => jsonLines(stderr),
      });
    });
    exit.then(({ code, signal }) => {
      clearTimeout(timer);
      reject(new Error(`${line}: ended before ready (code ${code}, signal ${signal})\n${stderr}`));
    }, reject);
  });
}

/** The last line may not be whole yet. */
function jsonLines(text: string): Record<string, unknown>[] {
  return text
    .split('\n')
    .slice(0, -1)
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}
