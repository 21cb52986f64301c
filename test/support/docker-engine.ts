/**
 * A Docker engine for one test run: this machine's own dockerd, in namespaces of its own, as root.
 *
 * 1. It meets nothing of the machine's: its network has a loopback of its own, so the ports that compose.yaml
 *    publishes are free whatever else runs here, and another Docker engine is never noticed.
 * 2. It leaves nothing: images, volumes, networks and mounts are in its namespaces and in memory, and the kernel
 *    takes all of them away when the first process in there ends, even by SIGKILL. It ends with the tests, even when
 *    they are killed; only then its logs and empty control groups stay.
 * 3. Programs that use it, the docker command among them, are started inside (`run`).
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { readdir, readFile, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  eventually,
  projectRoot,
  type RunOptions,
  type RunResult,
  requireTool,
  run,
  runOk,
  temporaryFolder,
} from './tools.ts';

export interface DockerEngine {
  /** Runs a program in the engine's network: 127.0.0.1 is where ports are published, process ids are the engine's. */
  run(program: string, args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** The same for one that must succeed. */
  runOk(program: string, args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** The docker command; resolves with what it prints, trimmed. */
  docker(...args: string[]): Promise<string>;
  /** docker-compose, version 1 or 2; resolves with what it prints. */
  compose(args: readonly string[], options?: RunOptions): Promise<string>;
  /** The last lines of the engine's own log. */
  log(): Promise<string>;
  /** Ends the engine and all that runs in it. Fails when anything of it is left. */
  stop(): Promise<void>;
}

const CGROUPS = '/sys/fs/cgroup';

// A test that fails half-way must not leave its engine running.
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts an engine. Needs root; fails with the name of the Debian package that is missing. */
export async function startDockerEngine(): Promise<DockerEngine> {
  requireTool('dockerd', 'docker.io');
  requireTool('docker', 'docker.io');
  requireTool('busybox', 'busybox-static');
  if (process.getuid?.() !== 0) throw new Error('the docker tests start a Docker engine, which needs root');

  const folder = await temporaryFolder();
  const cgroup = `volary-test-${process.pid}-${Date.now()}`;
  const child = spawn(
    requireTool('setpriv', 'util-linux'),
    [
      ...['--pdeathsig', 'KILL', requireTool('unshare', 'util-linux')],
      ...['--mount', '--net', '--pid', '--fork', '--mount-proc', '--kill-child'],
      ...['sh', join(import.meta.dirname, 'docker-engine.sh'), folder.path, `/${cgroup}`],
    ],
    { stdio: ['ignore', 'ignore', 'pipe'] },
  );
  running.add(child);
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints += text;
  });
  const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));

  const log = async () => {
    const parts = await Promise.all(['containerd.log', 'dockerd.log'].map((name) => tail(folder.file(name))));
    return [complaints, ...parts].join('');
  };
  const stop = async () => {
    // The one that unshare waits for: once it has been reaped, all others in there are gone, too.
    const first = isRunning(child) ? await firstProcess(child) : undefined;
    if (first === undefined) child.kill('SIGKILL');
    else process.kill(first, 'SIGKILL');
    await ended;
    running.delete(child);
    await removeCgroups(cgroup);
    await folder.remove();
  };
  try {
    const first = await eventually('the engine has a first process', () => {
      if (!isRunning(child)) throw new Error('unshare has ended');
      return firstProcess(child);
    });
    const engine = await insideOf(first, { log, stop });
    await eventually('dockerd answers', async () => {
      if (!isRunning(child)) throw new Error('it has ended');
      return (await engine.run('docker', ['version'])).code === 0 ? true : undefined;
    });
    return engine;
  } catch (error) {
    const lines = await log();
    await stop();
    throw new Error(`the Docker engine did not start\n${lines}`, { cause: error });
  }
}

async function insideOf(first: number, outside: Pick<DockerEngine, 'log' | 'stop'>): Promise<DockerEngine> {
  const nsenter = requireTool('nsenter', 'util-linux');
  const nothingOfTheUsers = {
    DOCKER_HOST: undefined,
    DOCKER_CONTEXT: undefined,
    DOCKER_CONFIG: '/run/engine',
  };
  const wrapped = (program: string, args: readonly string[], options: RunOptions = {}) =>
    [
      nsenter,
      [
        ...['--target', `${first}`, '--mount', '--net', '--pid', '--'],
        ...['env', `--chdir=${options.cwd ?? projectRoot}`, program, ...args],
      ],
      { ...options, env: { ...nothingOfTheUsers, ...options.env } },
    ] as const;
  const runInside: DockerEngine['runOk'] = (...what) => runOk(...wrapped(...what));
  const [compose, ...composeFirst] = await composeCommand();
  return {
    ...outside,
    run: (...what) => run(...wrapped(...what)),
    runOk: runInside,
    docker: async (...args) => {
      const { stdout } = await runInside('docker', args, { timeoutMs: 120_000 });
      return stdout.trim();
    },
    compose: async (args, options = {}) => {
      const { stdout } = await runInside(compose, [...composeFirst, ...args], {
        timeoutMs: 120_000,
        ...options,
      });
      return stdout;
    },
  };
}

/** docker-compose 1 is a program of Debian's package, 2 an extension of the docker command. */
async function composeCommand(): Promise<readonly [string, ...string[]]> {
  if ((await run('docker', ['compose', 'version'])).code === 0) return ['docker', 'compose'];
  return [requireTool('docker-compose', 'docker-compose')];
}

function isRunning(child: ChildProcess): boolean {
  return child.exitCode === null && child.signalCode === null;
}

/** The process that unshare has started; undefined before it has, and afterwards. */
async function firstProcess(unshare: ChildProcess): Promise<number | undefined> {
  const path = `/proc/${unshare.pid}/task/${unshare.pid}/children`;
  const children = existsSync(path) ? await readFile(path, 'utf8') : '';
  return children === '' ? undefined : Number(children.split(' ')[0]);
}

/** The engine makes a control group for each container, which has no process left; version 1 has one tree a resource. */
async function removeCgroups(name: string): Promise<void> {
  const resources = await readdir(CGROUPS);
  for (const parent of [CGROUPS, ...resources.map((resource) => join(CGROUPS, resource))]) {
    const path = join(parent, name);
    if (existsSync(path)) await removeCgroup(path);
  }
}

async function removeCgroup(path: string): Promise<void> {
  for (const entry of await readdir(path, { withFileTypes: true })) {
    if (entry.isDirectory()) await removeCgroup(join(path, entry.name));
  }
  await rmdir(path);
}

async function tail(path: string): Promise<string> {
  return existsSync(path) ? (await readFile(path, 'utf8')).split('\n').slice(-30).join('\n') : '';
}
