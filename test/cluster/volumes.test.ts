/** A volume's life over real processes and real clients: create, show, write, resize, locate, delete; and names. */

import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VolumeView } from '../../src/control-protocol/directory-api.ts';
import type { VolumeName } from '../../src/control-protocol/names.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { fioVerify } from '../support/fio.ts';
import { eventually, requireTool, run, runOk } from '../support/tools.ts';

const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
const nbdcopy = requireTool('nbdcopy', 'libnbd-bin');
const qemuIo = requireTool('qemu-io', 'qemu-utils');

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster({
    storage: { 'east-1': { capacity: '1GiB' }, 'east-2': { capacity: '1GiB' } },
    gateways: { 'east-gw': {}, 'east-gw2': {} },
  });
});

afterAll(() => cluster?.end());

async function show(name: string): Promise<VolumeView> {
  return VolumeView.parse(await cluster.volary('volume', 'show', name));
}

async function refused(...args: string[]): Promise<{ code: number; error: string; stderr: string }> {
  const { code, stdout, stderr } = await cluster.tryVolary(args);
  expect(code, `${args.join(' ')}: ${stdout}`).not.toBe(0);
  return { code, error: (JSON.parse(stdout) as { error: { code: string } }).error.code, stderr };
}

describe('V1, V7: placement', () => {
  test('without --segment a volume lies on one storage system, the one with most room', async () => {
    await cluster.volary('volume', 'create', 'one', '--size', '300MiB');
    await cluster.volary('volume', 'create', 'two', '--size', '300MiB');
    const [one, two] = [await show('one'), await show('two')];
    expect([one.segments.length, two.segments.length]).toEqual([1, 1]);
    const places = [one, two].map(({ segments }) => segments[0]?.copies[0]?.storage);
    expect(new Set(places)).toEqual(new Set(['east-1', 'east-2']));
  });

  test('it is concatenated only when no storage system has room; what no room is left for is refused', async () => {
    await cluster.volary('volume', 'create', 'wide', '--size', '1GiB');
    const wide = await show('wide');
    expect(wide.segments.length).toBe(2);
    expect(wide.segments.map(({ length }) => length).reduce((sum, length) => sum + length)).toBe(2 ** 30);
    expect(await refused('volume', 'create', 'more', '--size', '1GiB')).toMatchObject({
      code: 1,
      error: 'no-space',
    });
    expect(await refused('volume', 'show', 'more')).toMatchObject({ error: 'not-found' });
    await cluster.volary('volume', 'delete', 'wide');
    for (const name of ['one', 'two']) await cluster.volary('volume', 'delete', name);
  });
});

describe('a volume over two storage systems', () => {
  beforeAll(() =>
    cluster.volary(
      'volume',
      'create',
      'demo',
      '--size',
      '64MiB',
      '--segment',
      'east-1:32MiB',
      '--segment',
      'east-2',
    ),
  );

  test('V1: each file holds its segment and nothing else', async () => {
    const source = join(cluster.folder, 'source.img');
    await runOk('dd', ['if=/dev/urandom', `of=${source}`, 'bs=1M', 'count=64', 'status=none']);
    await runOk(nbdcopy, ['--flush', source, cluster.uri('demo')]);
    const { segments } = await show('demo');
    const bytes = await readFile(source);
    expect(segments.length).toBe(2);
    for (const { offset, length, copies } of segments) {
      const copy = copies[0];
      const file = await readFile(copy?.file ?? '');
      const { realOffset = 0 } = copy ?? {};
      expect(
        file.subarray(realOffset, realOffset + length).equals(bytes.subarray(offset, offset + length)),
      ).toBe(true);
    }
  });

  test('V2: what is written through one gateway is read through another', async () => {
    await runOk(qemuIo, ['-f', 'raw', '-c', 'write -P 5 33550336 8k', cluster.uri('demo')]);
    const read = ['-f', 'raw', '-c', 'read -P 5 33550336 8k', cluster.uri('demo', 'east-gw2')];
    expect((await runOk(qemuIo, read)).stdout).not.toMatch(/verification failed/);
  });

  test('S1: trim across the border makes holes in both files, and block status tells so', async () => {
    const { segments } = await show('demo');
    const blocks = async (): Promise<number[]> =>
      Promise.all(segments.map(async ({ copies }) => (await stat(copies[0]?.file ?? '')).blocks));
    const before = await blocks();
    await runOk(qemuIo, ['-f', 'raw', '-d', 'unmap', '-c', 'discard 16M 32M', cluster.uri('demo')]);
    const after = await blocks();
    for (const index of [0, 1]) expect(after[index]).toBeLessThanOrEqual((before[index] ?? 0) - 16 * 2048);
    const map = JSON.parse((await runOk(nbdinfo, ['--map', '--json', cluster.uri('demo')])).stdout) as {
      offset: number;
      length: number;
      type: number;
    }[];
    expect(map.filter(({ type }) => type === 3)).toEqual([
      expect.objectContaining({ offset: 16 * 2 ** 20, length: 32 * 2 ** 20 }),
    ]);
  });

  test('V6: location tells where a range lies, and a host may use it without the gateway', async () => {
    const pieces = (await cluster.volary('location', 'demo', '--offset', '33550336', '--length', '8192')) as {
      uri: string;
      realOffset: number;
      length: number;
      storage: string;
    }[];
    expect(pieces.map(({ storage, length }) => [storage, length])).toEqual([
      ['east-1', 4096],
      ['east-2', 4096],
    ]);
    for (const [index, { uri, realOffset }] of pieces.entries()) {
      await runOk(qemuIo, ['-f', 'raw', '-c', `write -P ${index + 1} ${realOffset} 4k`, uri]);
    }
    const reads = ['-c', 'read -P 1 33550336 4k', '-c', 'read -P 2 33554432 4k'];
    const { stdout } = await runOk(qemuIo, ['-f', 'raw', ...reads, cluster.uri('demo')]);
    expect(stdout).not.toMatch(/verification failed/);
  });

  test('resize is seen by new connections at once, and by the client that asks for it', async () => {
    await cluster.volary('volume', 'resize', 'demo', '96MiB');
    const size = async (): Promise<number> => {
      const { stdout } = await runOk(nbdinfo, ['--size', cluster.uri('demo')]);
      return Number(stdout);
    };
    await eventually(
      'the gateway knows',
      async () => ((await size()) === 96 * 2 ** 20 ? true : undefined),
      5000,
    );
    await fioVerify({ uri: cluster.uri('demo'), sizeMiB: 96, cwd: cluster.folder });
    expect(await refused('volume', 'resize', 'demo', '64MiB')).toMatchObject({ code: 1 });
    expect(await size()).toBe(96 * 2 ** 20);
  });

  test('a volume that a host uses is not deleted, unless forced; then nothing of it is left', async () => {
    const files = (await show('demo')).segments.map(({ copies }) => copies[0]?.file ?? '');
    const host = run(
      qemuIo,
      ['-f', 'raw', '-c', 'read 0 4k', '-c', 'sleep 6000', '-c', 'read 0 4k', cluster.uri('demo')],
      {
        timeoutMs: 60_000,
      },
    );
    await eventually('the host is there', async () => {
      const { error, stderr } = await refused('volume', 'delete', 'demo').catch(() => ({
        error: '',
        stderr: '',
      }));
      return error === 'in-use' && stderr.includes('east-gw') ? true : undefined;
    });
    await cluster.volary('volume', 'delete', 'demo', '--force');
    expect((await host).code).not.toBe(0);
    for (const file of files) await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' });
    expect((await run(nbdinfo, ['--size', cluster.uri('demo')])).code).not.toBe(0);
  });
});

describe('names', () => {
  const bad = [
    '../x',
    '..',
    '.',
    '/etc/passwd',
    'a/b',
    'x'.repeat(300),
    'a\nb',
    ' ',
    '-x',
    'e\u0301',
    '\u202Ea',
  ];

  test.each(bad)('%j is no name for a volume, and makes nothing', async (name) => {
    const before = await everyFile();
    const result = await cluster.tryVolary(['volume', 'create', '--size', '1MiB', '--', name]);
    expect(result.code).not.toBe(0);
    expect(result.stderr).toMatch(/^error: [a-z-]+: \S/);
    // What a client of its own making sends is refused as well.
    const sent = cluster.client.createVolume({ name: name as VolumeName, sizeBytes: 512 });
    await expect(sent).rejects.toMatchObject({ code: 'bad-request' });
    expect(await everyFile()).toEqual(before);
  });

  test('a zero byte in a name', async () => {
    const name = 'a\0b' as VolumeName;
    await expect(cluster.client.createVolume({ name, sizeBytes: 512 })).rejects.toMatchObject({
      code: 'bad-request',
    });
    await expect(cluster.client.volume(name)).rejects.toMatchObject({ code: 'bad-request' });
  });

  test.each(['データ', 'données.v2', 'Ω-1', '0'])(
    '%s is a good name, from create to delete',
    async (name) => {
      await cluster.volary('volume', 'create', name, '--size', '1MiB');
      const { uris, segments } = await show(name);
      expect(uris).toHaveLength(2);
      for (const uri of uris)
        expect((await runOk(nbdinfo, ['--size', uri])).stdout.trim()).toBe(`${2 ** 20}`);
      expect(segments[0]?.copies[0]?.file).toMatch(/\/rv-[0-9a-f]{16}\.raw$/);
      expect(await refused('volume', 'create', name, '--size', '1MiB')).toMatchObject({
        code: 1,
        error: 'exists',
      });
      await cluster.volary('volume', 'delete', name);
      expect(await refused('volume', 'show', name)).toMatchObject({ code: 1, error: 'not-found' });
    },
  );

  test('export names that are no volumes are refused, and the connection goes on', async () => {
    for (const name of ['%2e%2e/x', 'rv-0123456789abcdef', 'x'.repeat(300), '']) {
      expect((await run(nbdinfo, ['--size', `${cluster.gateway('east-gw').uri}/${name}`])).code).not.toBe(0);
      expect((await run(nbdinfo, ['--size', `${cluster.storage('east-1').uri}/${name}`])).code).not.toBe(0);
    }
  });

  async function everyFile(): Promise<string[]> {
    return (await readdir(cluster.folder, { recursive: true }))
      .filter((path) => !/-(wal|shm|journal)$/.test(path))
      .sort();
  }
});
