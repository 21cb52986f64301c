/**
 * Running other programs from tests. A tool that is not there is a failure that names the Debian package,
 * never a skipped test.
 */

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join, resolve } from 'node:path';

/** The checkout's root. */
export const projectRoot = resolve(import.meta.dirname, '../..');

export interface RunOptions {
  readonly cwd?: string;
  /** Added to this process's environment; `undefined` takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Written to the program's stdin, which is then closed. */
  readonly input?: string | Buffer;
  /** Kills the program (SIGKILL) and rejects. Default 60,000. */
  readonly timeoutMs?: number;
}

export interface RunResult {
  /** Exit status; -1 when a signal ended it. */
  readonly code: number;
  readonly signal: NodeJS.Signals | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. Rejects only when it cannot be started or takes too long. */
export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const timeoutMs = options.timeoutMs ?? 60_000;
  return new Promise((resolveRun, reject) => {
    const child = spawn(command, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    let stdout = '';
    let stderr = '';
    let timedOut = false;
    const timer = setTimeout(() => {
      timedOut = true;
      child.kill('SIGKILL');
    }, timeoutMs);
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr += text;
    });
    // A program may end without reading its input; its exit status is what counts then.
    child.stdin.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'EPIPE') reject(error);
    });
    child.stdin.end(options.input);
    child.on('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (timedOut) {
        const line = [command, ...args].join(' ');
        reject(
          new Error(`still running after ${timeoutMs} ms: ${line}\nstdout: ${stdout}\nstderr: ${stderr}`),
        );
        return;
      }
      resolveRun({ code: code ?? -1, signal, stdout, stderr });
    });
  });
}

/** Runs a program that must succeed; the failure carries all that it printed. Resolves with its result. */
export async function runOk(
  command: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<RunResult> {
  const result = await run(command, args, options);
  if (result.code !== 0) {
    throw new Error(
      `exit ${result.code} (signal ${result.signal}): ${[command, ...args].join(' ')}\n${result.stdout}${result.stderr}`,
    );
  }
  return result;
}

/** The path of a program of a Debian package; throws, naming the package, when it is not installed. */
export function requireTool(name: string, debianPackage: string): string {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin', '/sbin'];
  for (const folder of folders) {
    const path = join(folder, name);
    if (existsSync(path)) return path;
  }
  throw new Error(`${name} is not installed: apt-get install ${debianPackage}`);
}

export interface TemporaryFolder {
  readonly path: string;
  /** A path inside the folder. */
  file(name: string): string;
  remove(): Promise<void>;
}

/** A new folder under `parent`: the system's temporary folder. */
export async function temporaryFolder(parent: string = tmpdir()): Promise<TemporaryFolder> {
  const path = await mkdtemp(join(parent, 'volary-test-'));
  return {
    path,
    file: (name) => join(path, name),
    remove: () => rm(path, { recursive: true, force: true, maxRetries: 3 }),
  };
}

/** Asks again and again until the answer is not undefined; rejects, saying what was waited for, after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  ask: () => T | undefined | Promise<T | undefined>,
  timeoutMs = 30_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (performance.now() > deadline) throw new Error(`not within ${timeoutMs} ms: ${what}`);
    await new Promise((wake) => setTimeout(wake, 20));
  }
}
