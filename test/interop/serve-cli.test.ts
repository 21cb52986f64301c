/** `volary serve` as a person or a script meets it: what it serves, what it prints, how it starts and ends. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, statSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { Command } from '../../src/nbd-server-protocol/constants.ts';
import { NbdClient } from '../support/client.ts';
import { freePort } from '../support/ports.ts';
import { anyPort, exportUri, IMAGE_BYTES, imageFolder, sizeOf, start } from '../support/serve-cases.ts';
import { type RunningServer, volaryCommand } from '../support/server.ts';
import { eventually, projectRoot, requireTool, run, runOk } from '../support/tools.ts';
import { requestMessage } from '../support/wire.ts';

const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
const qemuIo = requireTool('qemu-io', 'qemu-utils');
const folder = imageFolder();

describe('what it serves', () => {
  test('files and a folder: every export under its file name, the first as the default', async () => {
    mkdirSync(folder().file('images'));
    for (const name of ['b.img', 'a.img', '.hidden']) {
      writeFileSync(folder().file(`images/${name}`), 'x'.repeat(name.length * 512));
    }
    const server = await start([folder().file('images'), folder().file('good.img'), ...anyPort]);
    const { exports } = JSON.parse(
      (await runOk(nbdinfo, ['--list', '--json', exportUri(server)])).stdout,
    ) as {
      exports: { 'export-name': string; 'export-size': number }[];
    };
    const sizes = Object.fromEntries(exports.map((shown) => [shown['export-name'], shown['export-size']]));
    expect(sizes).toMatchObject({ 'a.img': 2560, 'b.img': 2560, 'good.img': IMAGE_BYTES });
    expect(Object.keys(sizes)).not.toContain('.hidden');
    expect(await sizeOf(exportUri(server))).toBe(2560);
    await server.stop();
  });

  test('--size makes a sparse file of that size, and a second time takes it as it is', async () => {
    for (const round of [1, 2]) {
      const server = await start([folder().file('made.img'), '--size', '3GiB', ...anyPort]);
      expect(await sizeOf(exportUri(server, 'made.img')), `round ${round}`).toBe(3 * 2 ** 30);
      expect(await server.stop()).toEqual({ code: 0, signal: null });
    }
    expect(statSync(folder().file('made.img')).blocks * 512).toBeLessThan(IMAGE_BYTES);
  });

  test('--name gives another name; the file name is none then', async () => {
    const server = await start([folder().file('good.img'), '--name', 'my disk', ...anyPort]);
    expect(await sizeOf(exportUri(server, 'my%20disk'))).toBe(IMAGE_BYTES);
    expect((await run(nbdinfo, ['--size', exportUri(server, 'good.img')])).code).not.toBe(0);
    await server.stop();
  });

  test('S5: a file that somebody cuts short is told in the log; other exports go on', async () => {
    writeFileSync(folder().file('victim.img'), 'x'.repeat(IMAGE_BYTES));
    const server = await start([folder().file('victim.img'), folder().file('good.img'), ...anyPort]);
    truncateSync(folder().file('victim.img'), 4096);
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
  const request = requestMessage('simple', { type: Command.read, offset: 0, length: IMAGE_BYTES });
  for (let index = 0; index < 200; index++) client.wire.send(request);
  return client;
}

describe('how it starts and ends', () => {
  test('without --json, the ready line names every address, on stdout alone', async () => {
    const uri = `nbd+unix:///?socket=${folder().file('r.sock')}`;
    const port = await freePort();
    const args = [folder().file('good.img'), '--listen', `nbd://127.0.0.1:${port}`, '--listen', uri];
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
    const server = await start([folder().file('good.img'), ...anyPort]);
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
    const server = await start([folder().file('good.img'), ...anyPort]);
    const greedy = await greedyClient(server);
    server.process.kill('SIGTERM');
    await eventually('the first signal', () => (/"stopping"/.test(server.stderr()) ? true : undefined));
    await new Promise((wake) => setTimeout(wake, 500)); // sooner, it would pass for the same signal
    server.process.kill('SIGTERM');
    expect(await server.exit).toEqual({ code: 143, signal: null });
    greedy.wire.destroy();
  });

  test('Ctrl-C under npm arrives twice, and is one wish', async () => {
    const server = await start([folder().file('good.img'), ...anyPort]);
    const greedy = await greedyClient(server);
    server.process.kill('SIGINT');
    await eventually('the signal', () => (/"stopping"/.test(server.stderr()) ? true : undefined));
    server.process.kill('SIGINT');
    greedy.wire.destroy();
    expect(await server.exit).toEqual({ code: 0, signal: null });
  });

  test('nobody reads its stdout and its stderr: it serves on', async () => {
    const port = await freePort();
    const args = ['serve', folder().file('good.img'), '--listen', `nbd://127.0.0.1:${port}`, '--json'];
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
    expect(await sizeOf(uri)).toBe(IMAGE_BYTES);
    child.kill('SIGTERM');
    const [code] = await once(child, 'exit');
    expect(code).toBe(0);
  });

  test('works from any folder and through a symbolic link, as one process', async () => {
    symlinkSync(volaryCommand, folder().file('volary-link'));
    const server = await start(['good.img', ...anyPort], {
      command: [folder().file('volary-link')],
      cwd: folder().path,
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
    mkdirSync(folder().file('checkout/bin'), { recursive: true });
    await runOk('cp', [volaryCommand, folder().file('checkout/bin/volary')]);
    const { code, stderr } = await run(folder().file('checkout/bin/volary'), ['--version']);
    expect(code).toBe(1);
    expect(stderr).toMatch(/^error: not-installed: .*npm install\n$/);
  });

  test('the thread pool is large, unless somebody says otherwise', async () => {
    for (const [given, expected] of [
      [undefined, '64'],
      ['7', '7'],
    ] as const) {
      const server = await start([folder().file('good.img'), ...anyPort], {
        env: { UV_THREADPOOL_SIZE: given },
      });
      const environment = (await runOk('cat', [`/proc/${server.process.pid}/environ`])).stdout.split('\0');
      expect(environment).toContain(`UV_THREADPOOL_SIZE=${expected}`);
      await server.stop();
    }
  });
});
