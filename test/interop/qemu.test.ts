/** QEMU's block layer: qemu-img, qemu-io, and qemu-nbd as a client. */

import { stat } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { layoutOf, makeSparse, sameContent } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { requireTool, run, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 128 * MiB;

describe('qemu', () => {
  const img = requireTool('qemu-img', 'qemu-utils');
  const io = requireTool('qemu-io', 'qemu-utils');
  const qemuNbd = requireTool('qemu-nbd', 'qemu-utils');
  let folder: TemporaryFolder;
  let server: RunningServer;
  let uri: string;

  beforeAll(async () => {
    folder = await temporaryFolder();
    await makeSparse(folder.file('source.img'), SIZE, [
      { offset: MiB, length: 3 * MiB },
      { offset: 64 * MiB, length: 10 * MiB },
    ]);
    for (const name of ['scratch.img', 'back.img', 'qcow.img']) await makeSparse(folder.file(name), SIZE, []);
    const files = ['source.img', 'scratch.img', 'back.img', 'qcow.img'].map((name) => folder.file(name));
    server = await startServe([...files, '--listen', 'nbd://127.0.0.1:0']);
    uri = server.uris[0] as string;
  });

  afterAll(async () => {
    await server?.stop();
    await folder?.remove();
  });

  /** Runs qemu-io commands on the scratch export and returns what they print. */
  async function qemuIo(...commands: string[]): Promise<string> {
    const args = commands.flatMap((command) => ['-c', command]);
    return (await runOk(io, ['-f', 'raw', '-t', 'none', ...args, `${uri}/scratch.img`])).stdout;
  }

  test('qemu-img info and qemu-nbd --list see what is exported', async () => {
    const { stdout } = await runOk(img, ['info', '--output=json', `${uri}/source.img`]);
    expect(JSON.parse(stdout)).toMatchObject({ format: 'raw', 'virtual-size': SIZE });
    const { hostname, port } = new URL(uri);
    const listed = (await runOk(qemuNbd, ['--list', '--bind', hostname, '--port', port])).stdout;
    expect(listed).toContain('exports available: 4');
    for (const name of ['source.img', 'scratch.img', 'back.img', 'qcow.img'])
      expect(listed).toContain(`export: '${name}'`);
    expect(listed).toContain(`size:  ${SIZE}`);
    expect(listed).toContain('base:allocation');
  });

  test('S1: qemu-img map is what the file system says', async () => {
    const { stdout } = await runOk(img, ['map', '--output=json', `${uri}/source.img`]);
    const map = JSON.parse(stdout) as { start: number; length: number; data: boolean; zero: boolean }[];
    expect(map.map(({ start, length, data }) => ({ offset: start, length, data }))).toEqual(
      await layoutOf(folder.file('source.img')),
    );
    for (const entry of map) expect(entry.zero).toBe(!entry.data);
  });

  test('convert: out to raw, in from raw, compare says identical', async () => {
    await runOk(img, ['convert', '-O', 'raw', `${uri}/source.img`, folder.file('out.raw')]);
    await sameContent(folder.file('source.img'), folder.file('out.raw'));
    await runOk(img, [
      'convert',
      '-n',
      '-m',
      '8',
      '-W',
      '-O',
      'raw',
      folder.file('out.raw'),
      `${uri}/back.img`,
    ]);
    await sameContent(folder.file('source.img'), folder.file('back.img'));
    expect(await layoutOf(folder.file('back.img'))).toEqual(await layoutOf(folder.file('source.img')));
    const { stdout } = await runOk(img, ['compare', `${uri}/source.img`, `${uri}/back.img`]);
    expect(stdout).toContain('identical');
  });

  test('convert: out to qcow2, and a qcow2 image inside an export', async () => {
    await runOk(img, ['convert', '-O', 'qcow2', `${uri}/source.img`, folder.file('out.qcow2')]);
    await runOk(img, ['compare', folder.file('out.qcow2'), `${uri}/source.img`]);
    await runOk(img, ['create', '-f', 'qcow2', `${uri}/qcow.img`, `${SIZE}`]);
    await runOk(img, ['convert', '-n', '-O', 'qcow2', `${uri}/source.img`, `${uri}/qcow.img`]);
    await runOk(img, ['check', '-f', 'qcow2', `${uri}/qcow.img`]);
    await runOk(img, ['compare', '-F', 'qcow2', `${uri}/source.img`, `${uri}/qcow.img`]);
  });

  test('qemu-io: write, read with pattern, aio, flush, writev, FUA', async () => {
    const printed = await qemuIo(
      'write -P 0xab 1M 2M',
      'read -P 0xab 1M 2M',
      'write -f -P 0xcd 4097 511',
      'read -P 0xcd 4097 511',
      'aio_write -P 0x11 8M 1M',
      'aio_write -P 0x22 9M 1M',
      'aio_write -P 0x33 10M 64k',
      'aio_flush',
      'read -P 0x11 8M 1M',
      'read -P 0x22 9M 1M',
      'aio_read -P 0x33 10M 64k',
      'aio_flush',
      'writev -P 0x44 20M 512 64k 3',
      'flush',
      'read -P 0x44 20M 66051',
    );
    expect(printed).not.toMatch(/failed|error/i);
  });

  test('qemu-io: zeroes kept allocated, zeroes as a hole, discard', async () => {
    await qemuIo('write -P 0xee 32M 24M', 'flush');
    const full = (await stat(folder.file('scratch.img'))).blocks;
    const kept = await qemuIo('write -z 32M 8M', 'read -P 0 32M 8M', 'read -P 0xee 40M 16M');
    expect(kept).not.toMatch(/failed|error/i);
    expect((await stat(folder.file('scratch.img'))).blocks).toBeGreaterThanOrEqual(full - 64);
    const freed = await qemuIo(
      'write -z -u 40M 8M',
      'read -P 0 40M 8M',
      'discard 48M 8M',
      'read -P 0 48M 8M',
    );
    expect(freed).not.toMatch(/failed|error/i);
    expect((await stat(folder.file('scratch.img'))).blocks).toBeLessThanOrEqual(full - (16 * MiB) / 512 + 64);
  });

  test('qemu-io: beyond the end is an error, and nothing else happens', async () => {
    const result = await run(io, ['-f', 'raw', '-c', `write ${SIZE} 4k`, `${uri}/scratch.img`]);
    expect(result.code).not.toBe(0);
    expect((await stat(folder.file('scratch.img'))).size).toBe(SIZE);
  });

  test('qemu-img bench: many requests in flight, with a flush now and then', async () => {
    const args = ['-f', 'raw', '-t', 'none', '-c', '4000', '-d', '64', '-s', '4096'];
    await runOk(img, ['bench', ...args, '-w', '--flush-interval=256', `${uri}/scratch.img`]);
    await runOk(img, ['bench', ...args, `${uri}/scratch.img`]);
  });
});
