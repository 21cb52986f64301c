/** `volary up` as a person or a script meets it: what it prints, what it refuses, how it ends, what `npm start` does. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { makeSparse, sameContent } from '../support/layout.ts';
import { takePorts } from '../support/ports.ts';
import { isRunning, processesWith } from '../support/process.ts';
import { expectFailure } from '../support/serve-cases.ts';
import {
  eventually,
  projectRoot,
  requireTool,
  run,
  runOk,
  type TemporaryFolder,
  temporaryFolder,
} from '../support/tools.ts';
import { pidsOf, startUp, topologyText, type UpCluster } from '../support/up.ts';
import { startVolary, volaryCommand } from '../support/volary-process.ts';

requireTool('nbdinfo', 'libnbd-bin');
const nbdcopy = requireTool('nbdcopy', 'libnbd-bin');

const shape = {
  storage: { 'east-1': {}, 'west-1': { capacity: '1GiB' } },
  gateways: { 'east-gw': {}, 'west-gw': { workers: 2 } },
};

let folder: TemporaryFolder;
let topology: Topology;
let args: string[];
let clusters: UpCluster[];

interface Topology {
  directory: { listen: string };
  storage: Record<string, { listen: string; peer: string; manage: string }>;
  gateways: Record<string, { listen: string; manage: string }>;
}

async function setUp(): Promise<void> {
  folder = await temporaryFolder();
  clusters = [];
  const text = await topologyText(shape);
  topology = JSON.parse(text) as Topology;
  args = withTopology(text);
}

async function tearDown(): Promise<void> {
  for (const { up } of clusters) await up.stop();
  await folder.remove();
}

function withTopology(text: string): string[] {
  writeFileSync(folder.file('topology.yaml'), text);
  return ['--topology', folder.file('topology.yaml'), '--data', folder.file('data')];
}

async function start(env: Readonly<Record<string, string>> = {}): Promise<UpCluster> {
  const cluster = await startUp(args, { env });
  clusters.push(cluster);
  return cluster;
}

/** What is told of the roles goes to stderr, too; only the last line of it is the failure. */
async function failed(code: string, sentence: RegExp): Promise<void> {
  const result = await run(volaryCommand, ['up', ...args, '--json'], {
    env: { VOLARY_LOG_LEVEL: 'silent' },
  });
  expectFailure(result, code, sentence);
}

// One cluster for all of them, the last of which ends it.
describe('ready', () => {
  let cluster: UpCluster;

  beforeAll(async () => {
    await setUp();
    // Settings that are meant for one role alone: none of them reaches any.
    const env = {
      VOLARY_NAME: 'x',
      VOLARY_DATA: folder.file('x'),
      VOLARY_CAPACITY: '1',
      VOLARY_WORKERS: 'no',
    };
    cluster = await start(env);
  });
  afterAll(tearDown);

  test('the document is the one of CONTRACT.md; every role is a process of its own', () => {
    const { ready, up } = cluster;
    const member = (name: string, own: { listen: string; manage: string }) => ({
      uri: own.listen,
      site: name.split('-')[0],
      pid: expect.any(Number),
      manage: own.manage,
    });
    expect(ready).toEqual({
      ready: true,
      directory: topology.directory.listen,
      directoryPid: expect.any(Number),
      log: folder.file('data/supervisor/log'),
      gateways: Object.fromEntries(
        Object.entries(topology.gateways).map(([name, own]) => [name, member(name, own)]),
      ),
      storage: Object.fromEntries(
        Object.entries(topology.storage).map(([name, own]) => [
          name,
          { ...member(name, own), peer: own.peer, data: folder.file(`data/${name}`) },
        ]),
      ),
    });
    const pids = [up.pid, ...pidsOf(ready)];
    expect(new Set(pids).size).toBe(6);
    expect(pids.filter(isRunning)).toHaveLength(6);
    expect(readdirSync(folder.file('data')).sort()).toEqual(
      ['directory', 'east-1', 'east-gw', 'supervisor', 'west-1', 'west-gw'].sort(),
    );
  });

  test('each role answers on its management address; the directory knows them all', async () => {
    const { ready, client } = cluster;
    const addresses = [ready.directory, ...[ready.storage, ready.gateways].flatMap(managedBy)];
    for (const address of addresses) {
      for (const path of ['/healthz', '/readyz', '/metrics']) {
        expect((await fetch(address + path)).status, address + path).toBe(200);
      }
    }
    const status = await client.status();
    expect(status.health).toBe('ok');
    expect(status.storage.map(({ name }) => name).sort()).toEqual(['east-1', 'west-1']);
    expect(status.gateways.map(({ name }) => name).sort()).toEqual(['east-gw', 'west-gw']);
  });

  test('the same threads and the same compiled code for all', () => {
    const { ready } = cluster;
    for (const pid of pidsOf(ready)) {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      expect(environment).toContain('UV_THREADPOOL_SIZE=64');
      expect(environment.join('\n')).toMatch(/^NODE_COMPILE_CACHE=./m);
    }
  });

  test('settings that are meant for one role alone do not reach them', () => {
    expect(existsSync(folder.file('x'))).toBe(false);
  });

  test('a second one in the same folder is refused; the first goes on', async () => {
    await failed('locked', /data\/supervisor is in use by process \d+: stop that one first/);
    expect(pidsOf(cluster.ready).every(isRunning)).toBe(true);
  });

  test('one log has the lines of all, each with its role', async () => {
    const { ready, up } = cluster;
    await up.stop();
    const log = readFileSync(folder.file('data/supervisor/log'), 'utf8').trim().split('\n');
    const roles = new Set(log.map((line) => (JSON.parse(line) as { role: string }).role));
    const names = [...Object.keys(ready.gateways), ...Object.keys(ready.storage)];
    expect([...roles].sort()).toEqual(['directory', 'supervisor', ...names].sort());
  });
});

describe('again', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  test('the data is there again the second time', async () => {
    const first = await start();
    const cluster = await first.client.cluster();
    await first.volary('volume', 'create', 'demo', '--size', '8MiB', '--wait');
    await makeSparse(folder.file('written'), 8 * 2 ** 20, [{ offset: 2 ** 20, length: 2 ** 20 }]);
    await runOk(nbdcopy, ['--flush', folder.file('written'), first.uri('demo')]);
    await first.up.stop();
    const second = await start();
    expect((await second.client.cluster()).clusterId).toBe(cluster.clusterId);
    expect(second.uri('demo')).toBe(first.uri('demo'));
    await runOk(nbdcopy, [second.uri('demo', 'west-gw'), folder.file('read')]);
    await sameContent(folder.file('written'), folder.file('read'));
  });
});

function managedBy(members: Readonly<Record<string, { manage: string }>>): string[] {
  return Object.values(members).map(({ manage }) => manage);
}

describe('what it refuses', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  const refused = async (more: readonly string[], code: string, sentence: RegExp, status = 1) =>
    expectFailure(await run(volaryCommand, ['up', ...more, '--json']), code, sentence, status);

  test('a port in use: named, with what it is for and what to do; nothing is left running', async () => {
    const port = Number(new URL(topology.storage['west-1']?.peer.replace(/^/, 'http://') ?? '').port);
    const other = createServer().listen(port, '127.0.0.1');
    await once(other, 'listening');
    const sentence = new RegExp(
      `^port ${port} is in use \\(127\\.0\\.0\\.1:${port}, for storage\\.west-1\\.peer\\): stop what .*--topology`,
    );
    await failed('address-in-use', sentence);
    other.close();
    await start(); // the folder is free again, and so are the other ports
  });

  test('a role that cannot start says why, with its name; nothing is left running', async () => {
    const { up } = await start();
    await up.stop();
    writeFileSync(
      folder.file('data/west-1/identity.json'),
      readFileSync(folder.file('data/east-1/identity.json')),
    );
    await failed('wrong-data-folder', /^west-1: .*east-1/);
    expect(processesWith(`--data=${folder.path}/`)).toEqual([]);
  });

  test('what a role of a cluster before still holds is waited for', async () => {
    const { up } = await start();
    await up.stop();
    const [listen, peer, manage] = (await takePorts(3)).map((port) => `127.0.0.1:${port}`);
    const flags = ['--name', 'east-1', '--site', 'east', '--data', folder.file('data/east-1')];
    const left = await startVolary(
      [
        'run',
        'storage',
        ...flags,
        '--listen',
        `nbd://${listen}`,
        '--peer',
        `${peer}`,
        '--manage',
        `http://${manage}`,
      ],
      { env: { VOLARY_DIRECTORY: topology.directory.listen } },
    );
    const starting = start();
    await eventually('the other is in the way', () =>
      /"code":"locked"/.test(readFileSync(folder.file('data/supervisor/log'), 'utf8')) ? true : undefined,
    );
    await left.stop();
    expect((await starting).ready.storage['east-1']?.pid).not.toBe(left.pid);
  });

  test.each([
    ['an unknown key', '{"storages": {}}', /topology\.yaml: directory: /],
    [
      'a path for a name',
      undefined,
      /topology\.yaml: storage\.\.\.\/x: the name of a storage system has 1 to 63/,
    ],
    ['broken YAML', 'directory: [', /topology\.yaml is no YAML/],
  ])('a topology with %s', async (_, text, sentence) => {
    const storage = { '../x': topology.storage['east-1'] };
    await refused(
      withTopology(text ?? JSON.stringify({ ...topology, storage })),
      'bad-argument',
      sentence,
      2,
    );
  });

  test('a topology that is not there', async () => {
    await refused(['--topology', folder.file('none.yaml')], 'not-found', /there is no file .*none\.yaml/, 2);
  });
});

describe('how it ends', () => {
  beforeEach(setUp);
  afterEach(tearDown);

  test.each(['SIGTERM', 'SIGINT'] as const)(
    '%s: gateways, directory, storage systems; exit 0',
    async (signal) => {
      const { ready, up } = await start();
      up.process.kill(signal);
      expect(await up.exit).toEqual({ code: 0, signal: null });
      expect(pidsOf(ready).filter(isRunning)).toEqual([]);
      const ended = up.log().filter(({ state }) => state === 'ended');
      expect(
        ended.map(({ role }) =>
          String(role)
            .replace(/^.*-gw$/, 'gateway')
            .replace(/^.*-1$/, 'storage'),
        ),
      ).toEqual(['gateway', 'gateway', 'directory', 'storage', 'storage']);
      expect(ended.map(({ end }) => end)).toEqual(
        Array.from({ length: 5 }, () => ({ code: 0, signal: null })),
      );
    },
  );

  test('a signal before it is ready: nothing is left running', async () => {
    const child = spawn(volaryCommand, ['up', ...args, '--json'], { stdio: ['ignore', 'pipe', 'pipe'] });
    const [first] = (await once(child.stderr, 'data')) as [Buffer]; // the first role is ready
    expect(String(first)).toMatch(/"state":"ready"/);
    child.kill('SIGTERM');
    expect(await once(child, 'close')).toEqual([0, null]);
    expect(processesWith(`--data=${folder.path}/`)).toEqual([]);
  });

  test('npm start: tells what to type next, and it works; Ctrl-C, which reaches everybody in the terminal, ends it', async () => {
    const child = spawn('npm', ['start', '--silent', '--', ...args], {
      cwd: projectRoot,
      detached: true, // a process group, as in a terminal
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let screen = '';
    const typed: string[] = [];
    child.stdout.setEncoding('utf8');
    for await (const text of child.stdout) {
      screen += text;
      if (!screen.includes('Ctrl-C')) continue;
      for (const command of commandsOf(screen)) {
        const { code, stderr } = await run('bash', ['-c', command], { cwd: projectRoot });
        expect(code, `${command}\n${stderr}`).toBe(/--watch|--follow/.test(command) ? STOPPED_BY_TIMEOUT : 0);
        typed.push(/create|show|status|events|nbdinfo/.exec(command)?.[0] ?? command);
      }
      process.kill(-Number(child.pid), 'SIGINT');
    }
    expect(typed).toEqual(['create', 'show', 'status', 'events', 'nbdinfo']);
    expect(screen).toMatch(new RegExp(`^ready ${topology.directory.listen}\n`));
    expect(processesWith(`--data=${folder.path}/`)).toEqual([]);
  });
});

const STOPPED_BY_TIMEOUT = 124;

/** What the screen tells to type, less what asks for the superuser; what goes on for ever is stopped. */
function commandsOf(screen: string): string[] {
  const lines = screen.split('\n').map((line) => line.trim().split(/ {3}/, 1).join());
  const settings = lines.filter((line) => line.startsWith('export '));
  const commands = lines.filter((line) => /^(?:\S*bin\/volary|nbdinfo) /.test(line));
  return commands.map((command) => {
    const endless = /--watch|--follow/.test(command) ? 'timeout --signal=INT 3 ' : '';
    return [...settings, `${endless}${command}`].join('\n');
  });
}
