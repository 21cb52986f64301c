/** Everything that `volary serve` refuses: each with its code, a sentence that says what to do, and its exit status. */

import { once } from 'node:events';
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { mountTmpfs } from '../support/disk.ts';
import {
  anyPort,
  expectFailure,
  expectRefused,
  exportUri,
  IMAGE_BYTES,
  imageFolder,
  sizeOf,
  start,
} from '../support/serve-cases.ts';
import { volaryCommand } from '../support/server.ts';
import { type RunResult, requireTool, run, runOk } from '../support/tools.ts';

const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
const setpriv = requireTool('setpriv', 'util-linux');
const folder = imageFolder();

describe('files that cannot be served', () => {
  test('a missing file without --size', async () => {
    await expectRefused(
      [folder().file('missing.img')],
      'not-found',
      /missing\.img does not exist: give --size/,
    );
    expect(existsSync(folder().file('missing.img'))).toBe(false);
  });

  test('a missing file in a missing folder', () =>
    expectRefused(
      [folder().file('no/x.img'), '--size', '1MiB'],
      'not-found',
      /folder of .*no\/x\.img does not exist/,
    ));

  test.each(['many', '10GB', '1.5GiB', '-5', '0', '9EiB', ''])(
    '--size "%s", which is no size',
    async (size) => {
      await expectRefused([folder().file('new.img'), `--size=${size}`], 'bad-size', /size|bytes|nothing/, 2);
      expect(existsSync(folder().file('new.img'))).toBe(false);
    },
  );

  test('a file shorter than asked, and one longer', async () => {
    await expectRefused(
      [folder().file('good.img'), '--size', '2MiB'],
      'too-small',
      /has 1048576 bytes, fewer/,
    );
    await expectRefused(
      [folder().file('good.img'), '--size', '1KiB'],
      'bad-size',
      /more than the 1024 asked/,
    );
    expect(statSync(folder().file('good.img')).size).toBe(IMAGE_BYTES);
  });

  test('a device, a pipe and a socket instead of a file', async () => {
    await runOk('mkfifo', [folder().file('pipe')]);
    const listener = createServer().listen(folder().file('a.sock'));
    await once(listener, 'listening');
    try {
      for (const path of ['/dev/null', folder().file('pipe'), folder().file('a.sock')]) {
        await expectRefused([path], 'not-a-file', /device, socket or pipe: give a regular file/);
      }
    } finally {
      listener.close();
    }
  });

  test('two files of one name', async () => {
    mkdirSync(folder().file('other'));
    writeFileSync(folder().file('other/good.img'), 'x');
    const files = [folder().file('good.img'), folder().file('other/good.img')];
    await expectRefused(files, 'duplicate-name', /both be exported as "good\.img"/);
  });

  test('an empty folder', async () => {
    mkdirSync(folder().file('empty'));
    await expectRefused([folder().file('empty')], 'not-found', /has no regular file/);
  });

  test('no permission: to read the file, to write it, to make one, to look into the folder', async () => {
    mkdirSync(folder().file('theirs'), { mode: 0o700 });
    writeFileSync(folder().file('secret.img'), 'x', { mode: 0o600 });
    writeFileSync(folder().file('readable.img'), 'x', { mode: 0o644 });
    const asNobody = async (...args: string[]): Promise<RunResult> =>
      run(setpriv, [
        '--reuid=65534',
        '--regid=65534',
        '--clear-groups',
        volaryCommand,
        'serve',
        ...args,
        '--json',
      ]);
    for (const args of [
      [folder().file('secret.img')],
      [folder().file('readable.img')],
      [folder().file('new.img'), '--size', '1MiB'],
      [folder().file('theirs')],
      [folder().file('theirs/x.img')],
    ]) {
      expectFailure(await asNobody(...args), 'permission-denied', /change its mode, or its owner/);
    }
  });

  test('a read-only file system: refused, with the way out, which works', async () => {
    const mount = await mountTmpfs('size=4m');
    try {
      writeFileSync(`${mount.path}/disk.img`, 'x'.repeat(4096));
      await mount.remount('ro');
      const refused = [`${mount.path}/disk.img`];
      await expectRefused(refused, 'read-only-filesystem', /serve it with --read-only/);
      await expectRefused(
        [`${mount.path}/new.img`, '--size', '1MiB'],
        'read-only-filesystem',
        /read-only file system/,
      );
      const server = await start([`${mount.path}/disk.img`, '--read-only', ...anyPort]);
      await runOk(nbdinfo, ['--is', 'read-only', exportUri(server)]);
      await server.stop();
    } finally {
      await mount.remove();
    }
  });

  test('S5: a second server on the same file is refused; two readers are not', async () => {
    const image = folder().file('good.img');
    const first = await start([image, ...anyPort]);
    await expectRefused([image, ...anyPort], 'locked', /served by another process/);
    await expectRefused([image, '--read-only', ...anyPort], 'locked', /served by another process/);
    expect(await sizeOf(exportUri(first))).toBe(IMAGE_BYTES);
    await first.kill(); // the lock goes with the process, however it ends
    const readers = await Promise.all([1, 2].map(() => start([image, '--read-only', ...anyPort])));
    await expectRefused([image, ...anyPort], 'locked', /served by another process/);
    for (const reader of readers) await reader.stop();
  });
});

describe('addresses that cannot be listened on', () => {
  const serve = (...uris: string[]) => [
    folder().file('good.img'),
    ...uris.flatMap((uri) => ['--listen', uri]),
  ];

  test.each([
    ['127.0.0.1:10809', /is no NBD URI/],
    ['nbds://127.0.0.1:10809', /TLS, which is not there yet/],
    ['nbd://127.0.0.1:10809/disk', /has an export name/],
    ['nbd+unix:///', /socket=PATH/],
  ])('%s', (uri, sentence) => expectRefused(serve(uri), 'bad-uri', sentence, 2));

  test('a port that another program has', async () => {
    const other = createServer().listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as { port: number };
    const sentence = new RegExp(`nbd://127\\.0\\.0\\.1:${port}.*stop it, or give another address`);
    await expectRefused(serve('nbd://127.0.0.1:0', `nbd://127.0.0.1:${port}`), 'address-in-use', sentence);
    other.close();
  });

  test('an address that this machine does not have, and a host that nobody knows', async () => {
    await expectRefused(serve('nbd://192.0.2.1:0'), 'address-unavailable', /does not have that address/);
    await expectRefused(
      serve('nbd://no-such-host.invalid:0'),
      'address-unavailable',
      /no such host|looked up/,
    );
  });

  test('a socket path that is too long, a folder that is not there, a file in the way', async () => {
    const socket = (path: string) => serve(`nbd+unix:///?socket=${path}`);
    await expectRefused(socket(folder().file('s'.repeat(108))), 'bad-uri', /107 is the most/, 2);
    await expectRefused(
      socket(folder().file('no/v.sock')),
      'not-found',
      /folder of the socket .* does not exist/,
    );
    await expectRefused(socket(folder().file('good.img')), 'address-unavailable', /is there and no socket/);
    expect(statSync(folder().file('good.img')).size).toBe(IMAGE_BYTES);
  });

  test('no permission to make a socket', async () => {
    const command = [setpriv, '--reuid=65534', '--regid=65534', '--clear-groups', volaryCommand] as const;
    const [program, ...first] = command;
    const args = [
      'serve',
      ...serve(`nbd+unix:///?socket=${folder().file('n.sock')}`),
      '--read-only',
      '--json',
    ];
    const result = await run(program, [...first, ...args]);
    expectFailure(result, 'permission-denied', /n\.sock: no permission/);
  });

  test('the socket of a living server is refused, that of a killed one is taken over', async () => {
    const uri = `nbd+unix:///?socket=${folder().file('v.sock')}`;
    const first = await start([folder().file('good.img'), '--read-only', '--listen', uri]);
    expect(first.uris).toEqual([uri]);
    await expectRefused(
      [folder().file('good.img'), '--read-only', '--listen', uri],
      'address-in-use',
      /v\.sock: stop it/,
    );
    await first.kill();
    expect(existsSync(folder().file('v.sock'))).toBe(true);
    const second = await start([folder().file('good.img'), '--listen', uri]);
    expect(await sizeOf(uri)).toBe(IMAGE_BYTES);
    await second.stop();
    expect(existsSync(folder().file('v.sock'))).toBe(false);
  });
});

describe('command lines that are wrong: exit 2, one line, and where to read on', () => {
  test.each([
    ['no command', [], /say what to do .*volary --help/],
    ['an unknown command', ['srve', 'x'], /srve.*volary --help/],
    ['no file', ['serve'], /name at least one file or folder.*volary serve --help/],
    ['an unknown option', ['serve', 'x', '--sise', '5'], /sise.*volary serve --help/],
    ['a value that is missing', ['serve', 'x', '--size'], /size.*volary serve --help/],
    ['an option given twice', ['serve', 'x', '--size', '5', '--size', '6'], /--size is given more than once/],
    ['a busy poll that is no number', ['serve', 'x', '--busy-poll', 'long'], /whole number of microseconds/],
  ])('%s', async (_, args, sentence) => {
    expectFailure(await run(volaryCommand, [...args, '--json']), 'bad-argument', sentence, 2);
    const plain = await run(volaryCommand, args);
    expect(plain.code).toBe(2);
    expect(plain.stdout).toBe('');
    expect(plain.stderr).toMatch(sentence);
  });

  test('a name that is too long, or none', async () => {
    for (const name of ['', 'n'.repeat(4097)]) {
      await expectRefused([folder().file('good.img'), `--name=${name}`], 'bad-name', /export name/, 2);
    }
  });

  test('--name with two files', () =>
    expectRefused(
      [folder().file('good.img'), folder().file('b.img'), '--name', 'n'],
      'bad-argument',
      /--name is for one/,
    ));
});
