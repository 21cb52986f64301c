/**
 * `bin/volary serve` as a child process: started, waited for, stopped or killed. The tests that use it see
 * the server exactly as a user does.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { projectRoot } from './tools.ts';

export interface StartOptions {
  /** Added to this process's environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Instead of bin/volary: a program and its first arguments (`setpriv …`, `strace …`) that end in running it. */
  readonly command?: readonly string[];
  readonly readyTimeoutMs?: number;
}

export interface ServeExit {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

export interface RunningServer {
  readonly process: ChildProcess;
  /** As printed by the ready line, in the order of `--listen`. */
  readonly uris: readonly string[];
  /** SIGTERM, then waits for the end. A server that has ended already just tells how. */
  stop(): Promise<ServeExit>;
  /** SIGKILL, then waits for the end. */
  kill(): Promise<ServeExit>;
  /** Resolves when the process has ended, for whatever reason. */
  readonly exit: Promise<ServeExit>;
  /** Everything that it has printed on stderr so far. */
  stderr(): string;
}

export const volaryCommand = join(projectRoot, 'bin/volary');

// A test that fails half-way must not leave its server running.
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts `bin/volary serve ARGS --json`. Rejects, with what it printed on stderr, when it ends before it is ready. */
export function startServe(args: readonly string[], options: StartOptions = {}): Promise<RunningServer> {
  const [command, ...first] = options.command ?? [volaryCommand];
  if (command === undefined) throw new Error('an empty command');
  const child = spawn(command, [...first, 'serve', ...args, '--json'], {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  running.add(child);
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const exit = new Promise<ServeExit>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code, signal) => {
      running.delete(child);
      resolve({ code, signal });
    });
  });
  const signalAndWait = (signal: NodeJS.Signals): Promise<ServeExit> => {
    child.kill(signal);
    return exit;
  };
  return new Promise((resolve, reject) => {
    const timeoutMs = options.readyTimeoutMs ?? 60_000;
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`volary serve ${args.join(' ')}: not ready within ${timeoutMs} ms\n${stderr}`));
    }, timeoutMs);
    createInterface({ input: child.stdout }).on('line', (line) => {
      const message = JSON.parse(line) as { ready?: boolean; uris?: string[] };
      if (message.ready !== true || message.uris === undefined) return;
      clearTimeout(timer);
      resolve({
        process: child,
        uris: message.uris,
        stop: () => signalAndWait('SIGTERM'),
        kill: () => signalAndWait('SIGKILL'),
        exit,
        stderr: () => stderr,
      });
    });
    exit.then(({ code, signal }) => {
      clearTimeout(timer);
      reject(
        new Error(
          `volary serve ${args.join(' ')}: ended before ready (code ${code}, signal ${signal})\n${stderr}`,
        ),
      );
    }, reject);
  });
}

/** The port of an `nbd://HOST:PORT` URI. */
export function portOf(uri: string): number {
  return Number(new URL(uri).port);
}
