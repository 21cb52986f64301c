/** nbdkit as a client: its nbd plugin in front of the server, plain and below filters. */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { layoutOf, makeSparse, sameContent } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { eventually, requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const MiB = 1024 * 1024;
const SIZE = 64 * MiB;

describe('nbdkit nbd plugin', () => {
  const nbdkit = requireTool('nbdkit', 'nbdkit');
  const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
  const nbdcopy = requireTool('nbdcopy', 'libnbd-bin');
  let folder: TemporaryFolder;
  let server: RunningServer;
  let proxies: ChildProcess[] = [];

  beforeAll(async () => {
    folder = await temporaryFolder();
    await makeSparse(folder.file('source.img'), SIZE, [
      { offset: 2 * MiB, length: 6 * MiB },
      { offset: 40 * MiB, length: MiB },
    ]);
    await makeSparse(folder.file('target.img'), SIZE, [{ offset: 0, length: MiB }]);
    server = await startServe([
      folder.file('source.img'),
      folder.file('target.img'),
      '--listen',
      'nbd://127.0.0.1:0',
      '--listen',
      `nbd+unix:///?socket=${folder.file('server.sock')}`,
    ]);
  });

  afterEach(async () => {
    for (const proxy of proxies) {
      const ended = new Promise((resolve) => proxy.once('exit', resolve));
      if (proxy.exitCode === null && proxy.kill()) await ended;
    }
    proxies = [];
  });

  afterAll(async () => {
    await server?.stop();
    await folder?.remove();
  });

  /** Starts nbdkit with its nbd plugin and returns the proxy's URI. */
  async function proxy(name: string, ...args: string[]): Promise<string> {
    const path = folder.file(`${name}.sock`);
    const child = spawn(nbdkit, ['--foreground', '--unix', path, ...args], {
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let printed = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      printed += text;
    });
    proxies.push(child);
    await eventually(`nbdkit ${args.join(' ')} listens`, () => {
      if (child.exitCode !== null) throw new Error(`nbdkit ended: ${printed}`);
      return existsSync(path) || undefined;
    });
    return `nbd+unix:///?socket=${path}`;
  }

  async function copyThrough(uri: string): Promise<void> {
    await runOk(nbdcopy, ['--flush', '--connections=4', folder.file('source.img'), uri]);
    await sameContent(folder.file('source.img'), folder.file('target.img'));
    await runOk(nbdcopy, ['--connections=4', uri, folder.file('out.img')]);
    await sameContent(folder.file('source.img'), folder.file('out.img'));
  }

  test('over TCP: capabilities and holes come through', async () => {
    const uri = await proxy('tcp', 'nbd', `uri=${server.uris[0]}/target.img`);
    const { stdout } = await runOk(nbdinfo, ['--json', uri]);
    expect(JSON.parse(stdout)).toMatchObject({
      exports: [
        {
          can_multi_conn: true,
          can_fua: true,
          can_trim: true,
          can_zero: true,
          can_fast_zero: true,
          can_cache: true,
        },
      ],
    });
    await copyThrough(uri);
    expect(await layoutOf(folder.file('target.img'))).toEqual(await layoutOf(folder.file('source.img')));
  });

  test('over a unix socket, one shared connection for all clients', async () => {
    const path = folder.file('server.sock');
    const uri = await proxy('unix', 'nbd', `socket=${path}`, 'export=target.img', 'shared=true');
    await copyThrough(uri);
  });

  test('export names passed through', async () => {
    const uri = await proxy('dynamic', 'nbd', `socket=${folder.file('server.sock')}`, 'dynamic-export=true');
    const named = uri.replace('nbd+unix:///', 'nbd+unix:///source.img');
    expect((await runOk(nbdinfo, ['--size', named])).stdout.trim()).toBe(`${SIZE}`);
    const { stdout } = await runOk(nbdinfo, ['--list', '--json', uri]);
    const { exports } = JSON.parse(stdout) as { exports: { 'export-name': string }[] };
    expect(exports.map((entry) => entry['export-name'])).toEqual(['source.img', 'target.img']);
  });

  test.each([
    ['blocksize', ['blocksize', 'minblock=4096', 'maxlen=65536']],
    ['readahead', ['readahead']],
    ['cache', ['cache', 'cache=writeback']],
    ['retry', ['retry']],
  ])('below the %s filter', async (name, [filter, ...parameters]) => {
    const uri = await proxy(
      name,
      `--filter=${filter}`,
      'nbd',
      `uri=${server.uris[0]}/target.img`,
      ...parameters,
    );
    await copyThrough(uri);
  });
});
