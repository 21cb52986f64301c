/** What the tests of `volary serve` share: an image in a folder, servers that never outlive their test, failures. */

import { chmodSync, truncateSync, writeFileSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { type RunningServer, type StartOptions, startServe, volaryCommand } from './server.ts';
import { type RunResult, requireTool, run, runOk, type TemporaryFolder, temporaryFolder } from './tools.ts';

export const IMAGE_BYTES = 2 ** 20;
export const anyPort = ['--listen', 'nbd://127.0.0.1:0'];

// Exports are locked: a server that a failed test has left would fail the next ones too.
const started: RunningServer[] = [];

/** Gives the tests of a file a folder that everybody may read, with `good.img` of 1 MiB; and `start` its clean-up. */
export function imageFolder(): () => TemporaryFolder {
  let folder: TemporaryFolder;
  beforeAll(async () => {
    folder = await temporaryFolder();
    chmodSync(folder.path, 0o755);
    writeFileSync(folder.file('good.img'), '');
    truncateSync(folder.file('good.img'), IMAGE_BYTES);
  });
  afterEach(async () => {
    for (const server of started.splice(0)) await server.kill();
  });
  afterAll(() => folder.remove());
  return () => folder;
}

export async function start(args: readonly string[], options?: StartOptions): Promise<RunningServer> {
  const server = await startServe(args, options);
  started.push(server);
  return server;
}

/** The rule for every failure: one line on stderr, the same as JSON on stdout, exit 1; or 2 for a wrong command line. */
export function expectFailure(result: RunResult, code: string, sentence: RegExp, status = 1): void {
  expect(result.stderr).toMatch(/^error: [^\n]*\n$/);
  const [, toldCode, told] = /^error: ([a-z-]+): (.*)\n$/.exec(result.stderr) ?? [];
  expect(toldCode, result.stderr).toBe(code);
  expect(told).toMatch(sentence);
  expect(JSON.parse(result.stdout)).toEqual({ error: { code, message: told } });
  expect(result.code).toBe(status);
}

export async function expectRefused(
  args: readonly string[],
  code: string,
  sentence: RegExp,
  status?: number,
): Promise<void> {
  expectFailure(await run(volaryCommand, ['serve', ...args, '--json']), code, sentence, status);
}

export function exportUri(server: RunningServer, name = ''): string {
  return `${server.uris[0]}/${name}`;
}

export async function sizeOf(uri: string): Promise<number> {
  return Number((await runOk(requireTool('nbdinfo', 'libnbd-bin'), ['--size', uri])).stdout);
}
