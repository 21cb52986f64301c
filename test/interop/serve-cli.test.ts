/** `volary serve` as a person or a script meets it: what it prints, how it ends, and what it says when it cannot. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { Command } from '../../src/nbd-server-protocol/constants.ts';
import { NbdClient } from '../support/client.ts';
import { mountTmpfs } from '../support/disk.ts';
import { type RunningServer, type StartOptions, startServe, volaryCommand } from '../support/server.ts';
import {
  eventually,
  freePort,
  projectRoot,
  type RunOptions,
  type RunResult,
  requireTool,
  run,
  runOk,
  type TemporaryFolder,
  temporaryFolder,
} from '../support/tools.ts';
import { requestMessage } from '../support/wire.ts';

const MiB = 2 ** 20;
const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
const qemuIo = requireTool('qemu-io', 'qemu-utils');
const setpriv = requireTool('setpriv', 'util-linux');
const anyPort = ['--listen', 'nbd://127.0.0.1:0'];

let folder: TemporaryFolder;
beforeAll(async () => {
  folder = await temporaryFolder();
  chmodSync(folder.path, 0o755);
  writeFileSync(folder.file('good.img'), '');
  truncateSync(folder.file('good.img'), MiB);
});
afterAll(() => folder.remove());

// Exports are locked: a server that a failed test has left would fail the next ones too.
const started: RunningServer[] = [];
afterEach(async () => {
  for (const server of started.splice(0)) await server.kill();
});

async function start(args: readonly string[], options?: StartOptions): Promise<RunningServer> {
  const server = await startServe(args, options);
  started.push(server);
  return server;
}

function volary(args: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  return run(volaryCommand, args, options);
}

/** The rule for every failure: one line on stderr, the same as JSON on stdout, exit 1; or 2 for a wrong command line. */
function expectFailure(result: RunResult, code: string, sentence: RegExp, status = 1): void {
  expect(result.stderr).toMatch(/^error: [^\n]*\n$/);
  const [, toldCode, told] = /^error: ([a-z-]+): (.*)\n$/.exec(result.stderr) ?? [];
  expect(toldCode, result.stderr).toBe(code);
  expect(told).toMatch(sentence);
  expect(JSON.parse(result.stdout)).toEqual({ error: { code, message: told } });
  expect(result.code).toBe(status);
}

async function expectRefused(
  args: readonly string[],
  code: string,
  sentence: RegExp,
  status?: number,
): Promise<void> {
  expectFailure(await volary(['serve', ...args, '--json']), code, sentence, status);
}

function exportUri(server: RunningServer, name = ''): string {
  return `${server.uris[0]}/${name}`;
}

async function sizeOf(uri: string): Promise<number> {
  return Number((await runOk(nbdinfo, ['--size', uri])).stdout);
}

describe('files that cannot be served', () => {
  test('a missing file without --size', async () => {
    await expectRefused(
      [folder.file('missing.img')],
      'not-found',
      /missing\.img does not exist: give --size/,
    );
    expect(existsSync(folder.file('missing.img'))).toBe(false);
  });

  test('a missing file in a missing folder', () =>
    expectRefused(
      [folder.file('no/x.img'), '--size', '1MiB'],
      'not-found',
      /folder of .*no\/x\.img does not exist/,
    ));

  test.each(['many', '10GB', '1.5GiB', '-5', '0', '9EiB', ''])(
    '--size "%s", which is no size',
    async (size) => {
      await expectRefused([folder.file('new.img'), `--size=${size}`], 'bad-size', /size|bytes|nothing/, 2);
      expect(existsSync(folder.file('new.img'))).toBe(false);
    },
  );

  test('a file shorter than asked, and one longer', async () => {
    await expectRefused([folder.file('good.img'), '--size', '2MiB'], 'too-small', /has 1048576 bytes, fewer/);
    await expectRefused([folder.file('good.img'), '--size', '1KiB'], 'bad-size', /more than the 1024 asked/);
    expect(statSync(folder.file('good.img')).size).toBe(MiB);
  });

  test('a device, a pipe and a socket instead of a file', async () => {
    await runOk('mkfifo', [folder.file('pipe')]);
    const listener = createServer().listen(folder.file('a.sock'));
    await once(listener, 'listening');
    try {
      for (const path of ['/dev/null', folder.file('pipe'), folder.file('a.sock')]) {
        await expectRefused([path], 'not-a-file', /device, socket or pipe: give a regular file/);
      }
    } finally {
      listener.close();
    }
  });

  test('two files of one name', async () => {
    mkdirSync(folder.file('other'));
    writeFileSync(folder.file('other/good.img'), 'x');
    const files = [folder.file('good.img'), folder.file('other/good.img')];
    await expectRefused(files, 'duplicate-name', /both be exported as "good\.img"/);
  });

  test('an empty folder', async () => {
    mkdirSync(folder.file('empty'));
    await expectRefused([folder.file('empty')], 'not-found', /has no regular file/);
  });

  test('no permission: to read the file, to write it, to make one, to look into the folder', async () => {
    mkdirSync(folder.file('theirs'), { mode: 0o700 });
    writeFileSync(folder.file('secret.img'), 'x', { mode: 0o600 });
    writeFileSync(folder.file('readable.img'), 'x', { mode: 0o644 });
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
      [folder.file('secret.img')],
      [folder.file('readable.img')],
      [folder.file('new.img'), '--size', '1MiB'],
      [folder.file('theirs')],
      [folder.file('theirs/x.img')],
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
    const image = folder.file('good.img');
    const first = await start([image, ...anyPort]);
    await expectRefused([image, ...anyPort], 'locked', /served by another process/);
    await expectRefused([image, '--read-only', ...anyPort], 'locked', /served by another process/);
    expect(await sizeOf(exportUri(first))).toBe(MiB);
    await first.kill(); // the lock goes with the process, however it ends
    const readers = await Promise.all([1, 2].map(() => start([image, '--read-only', ...anyPort])));
    await expectRefused([image, ...anyPort], 'locked', /served by another process/);
    for (const reader of readers) await reader.stop();
  });
});

describe('addresses that cannot be listened on', () => {
  const serve = (...uris: string[]) => [folder.file('good.img'), ...uris.flatMap((uri) => ['--listen', uri])];

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
    await expectRefused(socket(folder.file('s'.repeat(108))), 'bad-uri', /107 is the most/);
    await expectRefused(
      socket(folder.file('no/v.sock')),
      'not-found',
      /folder of the socket .* does not exist/,
    );
    await expectRefused(socket(folder.file('good.img')), 'address-unavailable', /is there and no socket/);
    expect(statSync(folder.file('good.img')).size).toBe(MiB);
  });

  test('no permission to make a socket', async () => {
    const command = [setpriv, '--reuid=65534', '--regid=65534', '--clear-groups', volaryCommand] as const;
    const [program, ...first] = command;
    const args = ['serve', ...serve(`nbd+unix:///?socket=${folder.file('n.sock')}`), '--read-only', '--json'];
    const result = await run(program, [...first, ...args]);
    expectFailure(result, 'permission-denied', /n\.sock: no permission/);
  });

  test('the socket of a living server is refused, that of a killed one is taken over', async () => {
    const uri = `nbd+unix:///?socket=${folder.file('v.sock')}`;
    const first = await start([folder.file('good.img'), '--read-only', '--listen', uri]);
    expect(first.uris).toEqual([uri]);
    await expectRefused(
      [folder.file('good.img'), '--read-only', '--listen', uri],
      'address-in-use',
      /v\.sock: stop it/,
    );
    await first.kill();
    expect(existsSync(folder.file('v.sock'))).toBe(true);
    const second = await start([folder.file('good.img'), '--listen', uri]);
    expect(await sizeOf(uri)).toBe(MiB);
    await second.stop();
    expect(existsSync(folder.file('v.sock'))).toBe(false);
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
    expectFailure(await volary([...args, '--json']), 'bad-argument', sentence, 2);
    const plain = await volary(args);
    expect(plain.code).toBe(2);
    expect(plain.stdout).toBe('');
    expect(plain.stderr).toMatch(sentence);
  });

  test('a name that is too long, or none', async () => {
    for (const name of ['', 'n'.repeat(4097)]) {
      await expectRefused([folder.file('good.img'), `--name=${name}`], 'bad-name', /export name/, 2);
    }
  });

  test('--name with two files', () =>
    expectRefused(
      [folder.file('good.img'), folder.file('b.img'), '--name', 'n'],
      'bad-argument',
      /--name is for one/,
    ));
});

describe('what it serves', () => {
  test('files and a folder: every export under its file name, the first as the default', async () => {
    mkdirSync(folder.file('images'));
    for (const name of ['b.img', 'a.img', '.hidden']) {
      writeFileSync(folder.file(`images/${name}`), 'x'.repeat(name.length * 512));
    }
    const server = await start([folder.file('images'), folder.file('good.img'), ...anyPort]);
    const { exports } = JSON.parse(
      (await runOk(nbdinfo, ['--list', '--json', exportUri(server)])).stdout,
    ) as {
      exports: { 'export-name': string; 'export-size': number }[];
    };
    const sizes = Object.fromEntries(exports.map((shown) => [shown['export-name'], shown['export-size']]));
    expect(sizes).toMatchObject({ 'a.img': 2560, 'b.img': 2560, 'good.img': MiB });
    expect(Object.keys(sizes)).not.toContain('.hidden');
    expect(await sizeOf(exportUri(server))).toBe(2560);
    await server.stop();
  });

  test('--size makes a sparse file of that size, and a second time takes it as it is', async () => {
    for (const round of [1, 2]) {
      const server = await start([folder.file('made.img'), '--size', '3GiB', ...anyPort]);
      expect(await sizeOf(exportUri(server, 'made.img')), `round ${round}`).toBe(3 * 2 ** 30);
      expect(await server.stop()).toEqual({ code: 0, signal: null });
    }
    expect(statSync(folder.file('made.img')).blocks * 512).toBeLessThan(MiB);
  });

  test('--name gives another name; the file name is none then', async () => {
    const server = await start([folder.file('good.img'), '--name', 'my disk', ...anyPort]);
    expect(await sizeOf(exportUri(server, 'my%20disk'))).toBe(MiB);
    expect((await run(nbdinfo, ['--size', exportUri(server, 'good.img')])).code).not.toBe(0);
    await server.stop();
  });

  test('S5: a file that somebody cuts short is told in the log; other exports go on', async () => {
    writeFileSync(folder.file('victim.img'), 'x'.repeat(MiB));
    const server = await start([folder.file('victim.img'), folder.file('good.img'), ...anyPort]);
    truncateSync(folder.file('victim.img'), 4096);
    const io = (name: string, command: string) =>
      run(qemuIo, ['-f', 'raw', '-c', command, exportUri(server, name)]);
    const { stdout, stderr } = await io('victim.img', 'read 512k 4k');
    expect(stdout + stderr).toMatch(/Input\/output error/);
    expect((await io('good.img', 'write 512k 4k')).stdout).toMatch(/wrote 4096/);
    await eventually('the log line', () => (/"export failed"/.test(server.stderr()) ? true : undefined));
    expect((await server.stop()).code, 'not all of it is safe').toBe(1);
  });
});

/** Asks for more than it takes: to answer it takes the server a while. */
async function greedyClient(server: RunningServer): Promise<NbdClient> {
  const client = await NbdClient.open(exportUri(server));
  client.wire.pause();
  const request = requestMessage('simple', { type: Command.read, offset: 0, length: MiB });
  for (let index = 0; index < 200; index++) client.wire.send(request);
  return client;
}

describe('how it starts and ends', () => {
  test('without --json, the ready line names every address, on stdout alone', async () => {
    const uri = `nbd+unix:///?socket=${folder.file('r.sock')}`;
    const port = await freePort();
    const args = [folder.file('good.img'), '--listen', `nbd://127.0.0.1:${port}`, '--listen', uri];
    const child = spawn(volaryCommand, ['serve', ...args], { stdio: ['ignore', 'pipe', 'ignore'] });
    let stdout = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout += text;
    });
    await eventually('the ready line', () => (stdout.includes('\n') ? true : undefined));
    child.kill('SIGTERM');
    const [code] = await once(child, 'close');
    expect(code).toBe(0);
    expect(stdout).toBe(`ready nbd://127.0.0.1:${port} ${uri}\n`);
  });

  test.each(['SIGTERM', 'SIGINT'] as const)('%s: drains and exits 0', async (signal) => {
    const server = await start([folder.file('good.img'), ...anyPort]);
    server.process.kill(signal);
    expect(await server.exit).toEqual({ code: 0, signal: null });
    const messages = server
      .stderr()
      .trim()
      .split('\n')
      .map((line) => (JSON.parse(line) as { msg: string }).msg);
    expect(messages).toEqual(['listening', 'stopping', 'stopped']);
  });

  test('a second signal ends it at once, with a status that is not 0', async () => {
    const server = await start([folder.file('good.img'), ...anyPort]);
    const greedy = await greedyClient(server);
    server.process.kill('SIGTERM');
    await eventually('the first signal', () => (/"stopping"/.test(server.stderr()) ? true : undefined));
    await new Promise((wake) => setTimeout(wake, 500)); // sooner, it would pass for the same signal
    server.process.kill('SIGTERM');
    expect(await server.exit).toEqual({ code: 143, signal: null });
    greedy.wire.destroy();
  });

  test('Ctrl-C under npm arrives twice, and is one wish', async () => {
    const server = await start([folder.file('good.img'), ...anyPort]);
    const greedy = await greedyClient(server);
    server.process.kill('SIGINT');
    await eventually('the signal', () => (/"stopping"/.test(server.stderr()) ? true : undefined));
    server.process.kill('SIGINT');
    greedy.wire.destroy();
    expect(await server.exit).toEqual({ code: 0, signal: null });
  });

  test('nobody reads its stdout and its stderr: it serves on', async () => {
    const port = await freePort();
    const args = ['serve', folder.file('good.img'), '--listen', `nbd://127.0.0.1:${port}`, '--json'];
    const child = spawn(volaryCommand, args, {
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, VOLARY_LOG_LEVEL: 'debug' },
    });
    child.stdout.destroy();
    child.stderr.destroy();
    const uri = `nbd://127.0.0.1:${port}`;
    await eventually('an answer', async () =>
      (await run(nbdinfo, ['--size', uri])).code === 0 ? true : undefined,
    );
    expect(await sizeOf(uri)).toBe(MiB);
    child.kill('SIGTERM');
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
  });

  test('works from any folder and through a symbolic link, as one process', async () => {
    symlinkSync(volaryCommand, folder.file('volary-link'));
    const server = await start(['good.img', ...anyPort], {
      command: [folder.file('volary-link')],
      cwd: folder.path,
    });
    expect((await runOk('ps', ['-o', 'args=', '-p', String(server.process.pid)])).stdout).toMatch(
      /src\/cli\/main\.ts/,
    );
    expect((await server.stop()).code).toBe(0);
  });
});

describe('help', () => {
  test('--help lists the commands, serve --help the options with examples, --version the version', async () => {
    expect((await runOk(volaryCommand, ['--help'])).stdout).toMatch(
      /volary serve[^\n]*Serve raw files over NBD/,
    );
    const { stdout } = await runOk(volaryCommand, ['serve', '--help']);
    for (const option of ['--size', '--name', '--read-only', '--listen', '--busy-poll', '--json']) {
      expect(stdout).toContain(option);
    }
    expect(stdout).toMatch(/Examples:\s+volary serve disk\.img --size 10GiB/);
    const { version } = JSON.parse((await runOk('cat', [`${projectRoot}/package.json`])).stdout) as {
      version: string;
    };
    expect((await runOk(volaryCommand, ['--version'])).stdout).toBe(`${version}\n`);
  });

  test.each(['/bin/bash', '/usr/bin/zsh'])('completion for %s', async (shell) => {
    const { stdout } = await runOk(volaryCommand, ['completion'], { env: { SHELL: shell } });
    expect(stdout).toMatch(shell.endsWith('zsh') ? /#compdef volary/ : /complete .*volary/);
    if (shell === '/bin/bash') await runOk('bash', ['-n'], { input: stdout });
    const offered = (
      await runOk(volaryCommand, ['--get-yargs-completions', 'volary', 's'], { env: { SHELL: shell } })
    ).stdout;
    expect(offered).toMatch(/^serve/m);
  });
});

describe('the Node that it runs on', () => {
  test('no packages installed: says what to do', async () => {
    mkdirSync(folder.file('checkout/bin'), { recursive: true });
    await runOk('cp', [volaryCommand, folder.file('checkout/bin/volary')]);
    const { code, stderr } = await run(folder.file('checkout/bin/volary'), ['--version']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: not-installed: .*npm install\n$/);
  });

  test('the thread pool is large, unless somebody says otherwise', async () => {
    for (const [given, expected] of [
      [undefined, '32'],
      ['7', '7'],
    ] as const) {
      const server = await start([folder.file('good.img'), ...anyPort], {
        env: { UV_THREADPOOL_SIZE: given },
      });
      const environment = (await runOk('cat', [`/proc/${server.process.pid}/environ`])).stdout.split('\0');
      expect(environment).toContain(`UV_THREADPOOL_SIZE=${expected}`);
      await server.stop();
    }
  });
});
