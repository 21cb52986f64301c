/** nbdinfo: what an administrator asks first. */

import { open } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { layoutOf, makeSparse } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { requireTool, run, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 256 * MiB;

interface MapEntry {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

describe('nbdinfo', () => {
  const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
  let folder: TemporaryFolder;
  let server: RunningServer;
  let uri: string;

  beforeAll(async () => {
    folder = await temporaryFolder();
    await makeSparse(folder.file('disk.img'), SIZE, [
      { offset: 0, length: 64 * KiB },
      { offset: 3 * MiB, length: 5 * MiB },
      { offset: 100 * MiB + 4 * KiB, length: 4 * KiB },
      { offset: SIZE - MiB, length: MiB },
    ]);
    await makeSparse(folder.file('hole.img'), 8 * MiB, []);
    await makeSparse(folder.file('fragments.img'), 128 * MiB, fragments(128 * MiB));
    const files = ['disk.img', 'hole.img', 'fragments.img'].map((name) => folder.file(name));
    server = await startServe([...files, '--listen', 'nbd://127.0.0.1:0']);
    uri = server.uris[0] as string;
  });

  afterAll(async () => {
    await server?.stop();
    await folder?.remove();
  });

  async function mapOf(name: string): Promise<MapEntry[]> {
    const { stdout } = await runOk(nbdinfo, ['--json', '--map', `${uri}/${name}`]);
    return JSON.parse(stdout) as MapEntry[];
  }

  test('--size and --json tell the size, for each export and for the default one', async () => {
    expect((await runOk(nbdinfo, ['--size', uri])).stdout.trim()).toBe(`${SIZE}`);
    expect((await runOk(nbdinfo, ['--size', `${uri}/hole.img`])).stdout.trim()).toBe(`${8 * MiB}`);
    const { stdout } = await runOk(nbdinfo, ['--json', `${uri}/disk.img`]);
    const answer = JSON.parse(stdout) as {
      protocol: string;
      structured: boolean;
      exports: Record<string, unknown>[];
    };
    expect(answer.protocol).toBe('newstyle-fixed');
    expect(answer.structured).toBe(true);
    expect(answer.exports).toHaveLength(1);
    expect(answer.exports[0]).toMatchObject({
      'export-name': 'disk.img',
      contexts: ['base:allocation'],
      is_read_only: false,
      is_rotational: false,
      can_cache: true,
      can_df: true,
      can_fast_zero: true,
      can_flush: true,
      can_fua: true,
      can_multi_conn: true,
      can_trim: true,
      can_zero: true,
      'export-size': SIZE,
      block_size_minimum: 1,
    });
  });

  test('--list names every export, the default one first', async () => {
    const { stdout } = await runOk(nbdinfo, ['--list', '--json', uri]);
    const answer = JSON.parse(stdout) as { exports: { 'export-name': string; 'export-size': number }[] };
    expect(answer.exports.map((entry) => [entry['export-name'], entry['export-size']])).toEqual([
      ['disk.img', SIZE],
      ['hole.img', 8 * MiB],
      ['fragments.img', 128 * MiB],
    ]);
  });

  test.each([
    'cache',
    'connect',
    'df',
    'fast-zero',
    'flush',
    'fua',
    'multi-conn',
    'read',
    'trim',
    'write',
    'zero',
  ])('--can %s', async (what) => {
    await runOk(nbdinfo, ['--can', what, uri]);
  });

  test('--is read-only and --is rotational are false', async () => {
    for (const what of ['read-only', 'rotational'])
      expect((await run(nbdinfo, ['--is', what, uri])).code, what).toBe(2);
  });

  test('an export that is not there is an error of that name, not an empty disk', async () => {
    const result = await run(nbdinfo, [`${uri}/nothing.img`]);
    expect(result.code).toBe(1);
    expect(result.stderr).toContain('nothing.img');
  });

  test.each(['disk.img', 'hole.img', 'fragments.img'])(
    'S1: --map of %s is what the file system says',
    async (name) => {
      const runs = await layoutOf(folder.file(name));
      const expected = runs.map((run) => ({
        offset: run.offset,
        length: run.length,
        type: run.data ? 0 : 3,
      }));
      const entries = await mapOf(name);
      expect(entries.map(({ offset, length, type }) => ({ offset, length, type }))).toEqual(expected);
    },
  );

  test('S1: --map --totals adds up', async () => {
    const runs = await layoutOf(folder.file('disk.img'));
    const data = runs.filter((run) => run.data).reduce((sum, run) => sum + run.length, 0);
    const { stdout } = await runOk(nbdinfo, ['--map', '--totals', '--json', uri]);
    const totals = JSON.parse(stdout) as { size: number; type: number }[];
    expect(totals.find((total) => total.type === 0)?.size).toBe(data);
    expect(totals.find((total) => total.type === 3)?.size).toBe(SIZE - data);
  });

  test('S1: the map follows what is written to the file beside the server', async () => {
    const file = await open(folder.file('hole.img'), 'r+');
    try {
      await file.write(Buffer.alloc(64 * KiB, 1), 0, 64 * KiB, MiB);
      await file.sync();
    } finally {
      await file.close();
    }
    const entries = await mapOf('hole.img');
    expect(entries.map(({ offset, type }) => ({ offset, type }))).toEqual([
      { offset: 0, type: 3 },
      { offset: MiB, type: 0 },
      { offset: MiB + 64 * KiB, type: 3 },
    ]);
  });
});

/** More runs than one block status reply may be expected to hold. */
function fragments(sizeBytes: number): { offset: number; length: number }[] {
  const runs = [];
  for (let offset = 0; offset < sizeBytes; offset += 16 * KiB) runs.push({ offset, length: 4 * KiB });
  return runs;
}
