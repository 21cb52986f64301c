/** One server, every kind of address, several exports, writable and not. */

import { existsSync } from 'node:fs';
import { networkInterfaces } from 'node:os';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeSparse, sameContent } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { requireTool, run, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const MiB = 1024 * 1024;
const NAMES = ['alpha.img', 'beta.img', 'name with spaces & ümlaut.img'];

// A container may come without IPv6, even on its loopback interface.
const hasIpv6 = Object.values(networkInterfaces()).some((addresses) =>
  addresses?.some(({ address }) => address === '::1'),
);

function withExport(uri: string, name: string): string {
  const url = new URL(uri);
  url.pathname = `/${encodeURIComponent(name)}`;
  return url.href;
}

describe('listeners and exports', () => {
  const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
  const nbdcopy = requireTool('nbdcopy', 'libnbd-bin');
  let folder: TemporaryFolder;
  let server: RunningServer;

  beforeAll(async () => {
    folder = await temporaryFolder();
    for (const [index, name] of NAMES.entries())
      await makeSparse(folder.file(name), (index + 1) * 8 * MiB, [{ offset: index * MiB, length: MiB }]);
    server = await startServe([
      ...NAMES.map((name) => folder.file(name)),
      ...['--listen', 'nbd://127.0.0.1:0'],
      ...(hasIpv6 ? ['--listen', 'nbd://[::1]:0'] : []),
      ...['--listen', `nbd+unix:///?socket=${folder.file('one.sock')}`],
      ...['--listen', `nbd+unix:///?socket=${folder.file('two.sock')}`],
    ]);
  });

  afterAll(async () => {
    await server?.stop();
    await folder?.remove();
  });

  test('every listener answers for every export: IPv4, IPv6, unix sockets', async () => {
    expect(server.uris).toHaveLength(hasIpv6 ? 4 : 3);
    for (const uri of server.uris) {
      for (const [index, name] of NAMES.entries()) {
        const { stdout } = await runOk(nbdinfo, ['--size', withExport(uri, name)]);
        expect(stdout.trim(), `${uri} ${name}`).toBe(`${(index + 1) * 8 * MiB}`);
      }
    }
  });

  test('copies through all listeners at once do not mix', async () => {
    await Promise.all(
      server.uris.flatMap((uri, listener) =>
        NAMES.map(async (name, index) => {
          const copy = folder.file(`copy-${listener}-${index}`);
          await runOk(nbdcopy, [withExport(uri, name), copy]);
          await sameContent(folder.file(name), copy);
        }),
      ),
    );
  });

  test('a write through one listener is read through another', async () => {
    const tcp = server.uris[0] as string;
    const unix = server.uris.at(-1) as string;
    const io = requireTool('qemu-io', 'qemu-utils');
    await runOk(io, ['-f', 'raw', '-c', 'write -P 0x5a 3M 1M', withExport(tcp, 'alpha.img')]);
    const read = await runOk(io, [
      '-f',
      'raw',
      '-r',
      '-c',
      'read -P 0x5a 3M 1M',
      withExport(unix, 'alpha.img'),
    ]);
    expect(read.stdout).not.toContain('failed');
  });

  test('--read-only: says so, refuses to write, and the file stays as it is', async () => {
    await makeSparse(folder.file('fixed.img'), 4 * MiB, [{ offset: 0, length: 4 * MiB }]);
    await runOk('cp', [folder.file('fixed.img'), folder.file('fixed.copy')]);
    const fixed = await startServe([
      folder.file('fixed.img'),
      '--read-only',
      '--listen',
      'nbd://127.0.0.1:0',
    ]);
    try {
      const uri = fixed.uris[0] as string;
      await runOk(nbdinfo, ['--is', 'read-only', uri]);
      for (const what of ['write', 'trim', 'zero'])
        expect((await run(nbdinfo, ['--can', what, uri])).code, what).toBe(2);
      expect((await run(nbdcopy, [folder.file('fixed.copy'), uri])).code).not.toBe(0);
      await runOk(nbdcopy, ['--connections=4', uri, folder.file('fixed.out')]);
      await sameContent(folder.file('fixed.copy'), folder.file('fixed.out'));
    } finally {
      await fixed.stop();
    }
    await sameContent(folder.file('fixed.copy'), folder.file('fixed.img'));
  });

  test('a unix socket is gone after the end, and its path can be used again', async () => {
    const path = folder.file('again.sock');
    const args = [folder.file('again.img'), '--size', '1MiB', '--listen', `nbd+unix:///?socket=${path}`];
    for (let round = 0; round < 2; round++) {
      const again = await startServe(args);
      expect(existsSync(path)).toBe(true);
      await runOk(nbdinfo, ['--size', again.uris[0] as string]);
      await again.stop();
      expect(existsSync(path)).toBe(false);
    }
    // A killed server leaves its socket behind; that must not keep the next one from starting.
    const killed = await startServe(args);
    await killed.kill();
    const next = await startServe(args);
    await runOk(nbdinfo, ['--size', next.uris[0] as string]);
    await next.stop();
  });
});
