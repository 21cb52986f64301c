/** What the tests of verbs share: a directory, and `volary` as a process that asks it. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterEach, beforeEach, expect } from 'vitest';
import { DirectoryDouble } from './directory-double.ts';
import { expectFailure } from './serve-cases.ts';
import { volaryCommand } from './server.ts';
import { type RunResult, run } from './tools.ts';

export const GiB = 2 ** 30;

/** Gives each test of a file a directory of its own, with nothing in it but storage systems. */
export function freshDirectory(): () => DirectoryDouble {
  let directory: DirectoryDouble;
  beforeEach(async () => {
    directory = new DirectoryDouble();
    await directory.start();
  });
  afterEach(() => directory.stop());
  return () => directory;
}

export function volary(url: string, args: readonly string[]): Promise<RunResult> {
  return run(volaryCommand, args, { env: { VOLARY_DIRECTORY: url } });
}

/** The document that it prints with --json; it must succeed and say nothing else. */
export async function document<T>(url: string, args: readonly string[]): Promise<T> {
  const { code, stdout, stderr } = await volary(url, [...args, '--json']);
  expect({ code, stderr }, args.join(' ')).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^[^\n]+\n$/);
  return JSON.parse(stdout) as T;
}

export async function expectRefusal(
  url: string,
  args: readonly string[],
  code: string,
  sentence: RegExp,
  status?: number,
): Promise<void> {
  expectFailure(await volary(url, [...args, '--json']), code, sentence, status);
}

export interface Running {
  readonly process: ChildProcess;
  stdout(): string;
  /** Whole lines so far. */
  lines(): string[];
  /** SIGINT, as Ctrl-C; resolves with the exit status. */
  interrupt(): Promise<number | null>;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** A verb that goes on until it is interrupted. */
export function startVerb(url: string, args: readonly string[], command = [volaryCommand]): Running {
  const [program = '', ...first] = command;
  const env = { ...process.env, VOLARY_DIRECTORY: url };
  const child = spawn(program, [...first, ...args], { env, stdio: ['ignore', 'pipe', 'inherit'] });
  running.add(child);
  child.on('close', () => running.delete(child));
  let stdout = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
  });
  return {
    process: child,
    stdout: () => stdout,
    lines: () => stdout.split('\n').slice(0, -1),
    interrupt: async () => {
      const ended = once(child, 'close');
      child.kill('SIGINT');
      const [code] = (await ended) as [number | null];
      return code;
    },
  };
}
