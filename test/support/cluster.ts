/**
 * Clusters for tests, made of the real processes on free ports of the loopback interface, with data in a folder of their own:
 *
 *     const cluster = await startCluster({ storage: { 'east-1': {}, 'east-2': {} }, gateways: { 'east-gw': {} } });
 *     await cluster.volary('volume', 'create', 'demo', '--size', '64MiB', '--wait');
 *     await cluster.storage('east-1').kill();
 *     await cluster.storage('east-1').start();
 *     … cluster.uri('demo') …
 *     await cluster.end();
 *
 * Each role runs by itself (`volary run`): what dies stays dead until the test starts it (up.ts has the same under `volary
 * up`). Ports and data folders of a role stay the same for as long as the cluster lives.
 */

import { DirectoryClient } from '../../src/control-protocol/directory-client.ts';
import { takePorts } from './ports.ts';
import { eventually, type RunOptions, type RunResult, run, temporaryFolder } from './tools.ts';
import { type Exit, startVolary, type VolaryProcess, volaryCommand } from './volary-process.ts';

export interface StorageShape {
  /** Default: what stands before the `-` of the name. */
  readonly site?: string;
  readonly capacity?: string;
  /** More flags of `volary run storage`. */
  readonly flags?: readonly string[];
}

export interface GatewayShape {
  readonly site?: string;
  readonly workers?: number;
  /** As `5s`. */
  readonly reconnect?: string;
  readonly flags?: readonly string[];
}

export interface ClusterShape {
  readonly storage: Readonly<Record<string, StorageShape>>;
  readonly gateways: Readonly<Record<string, GatewayShape>>;
}

/** Two storage systems and a gateway, in one site. */
export const smallShape: ClusterShape = {
  storage: { 'east-1': {}, 'east-2': {} },
  gateways: { 'east-gw': {} },
};

/** One role as a process that comes and goes. */
export interface RoleHandle {
  readonly name: string;
  /** Where it answers /readyz. */
  readonly manage: string;
  /** Its data folder. */
  readonly data: string;
  /** Flags that it is started with; a test may change them between two starts. */
  flags: string[];
  /** The process that runs now. Throws when none does. */
  process(): VolaryProcess;
  pid(): number;
  /** Starts it, and waits until it is ready (`ready line`: only until it has said so, when the directory is away). */
  start(until?: 'readyz' | 'ready line'): Promise<VolaryProcess>;
  /** SIGTERM, and waits for the end. */
  stop(): Promise<Exit>;
  /** SIGKILL, and waits for the end. */
  kill(): Promise<Exit>;
  /** kill, then start. */
  restart(): Promise<VolaryProcess>;
}

export interface Cluster {
  /** Everything of it is in there. */
  readonly folder: string;
  readonly directory: RoleHandle & { readonly url: string };
  /** Asks the directory without the command line. */
  readonly client: DirectoryClient;
  storage(name: string): RoleHandle & { readonly uri: string };
  gateway(name: string): RoleHandle & { readonly uri: string };
  /** Of a volume, at that gateway (default: the first). */
  uri(volume: string, gateway?: string): string;
  /** Runs `volary ARGS --json` against this cluster; what it printed. Rejects when it fails. */
  volary(...args: string[]): Promise<unknown>;
  /** The same to its end, however that is. */
  tryVolary(args: readonly string[], options?: RunOptions): Promise<RunResult>;
  /** Kills what runs, and removes the folder. */
  end(): Promise<void>;
}

export interface ClusterOptions {
  /** Where the cluster's folder is made (default: the system's temporary folder). */
  readonly parent?: string;
  /** Added to the environment of every role. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  /** Where each role runs, by its name (`directory` for the directory). Default: here, on 127.0.0.1. */
  readonly place?: (role: string) => RolePlace;
}

export interface RolePlace {
  readonly address: string;
  /** Runs in that place what stands behind it. */
  readonly command: readonly string[];
}

/** Starts all roles at once, and waits until each is ready. */
export async function startCluster(shape = smallShape, options: ClusterOptions = {}): Promise<Cluster> {
  const cluster = await layCluster(shape, options);
  try {
    await Promise.all(rolesOf(cluster, shape).map((role) => role.start()));
    return cluster;
  } catch (error) {
    await cluster.end();
    throw error;
  }
}

/** The same with nothing running yet: the test starts the roles one by one. */
export async function layCluster(shape = smallShape, options: ClusterOptions = {}): Promise<Cluster> {
  const folder = await temporaryFolder(options.parent);
  const addressOf = (role: string): string => options.place?.(role).address ?? '127.0.0.1';
  const [directoryPort = 0] = await takePorts(1);
  const url = `http://${addressOf('directory')}:${directoryPort}`;
  const role = new Role('directory', 'directory', url, folder.file('directory'), ['--listen', url], options);
  const directory = Object.assign(role.handle(), { url });
  const storage = new Map<string, RoleHandle & { uri: string }>();
  for (const [name, { site, capacity, flags = [] }] of Object.entries(shape.storage)) {
    const [nbd, peer, manage] = await takePorts(3);
    const uri = `nbd://${addressOf(name)}:${nbd}`;
    const own = [
      '--listen',
      uri,
      '--peer',
      `${addressOf(name)}:${peer}`,
      ...optional('--capacity', capacity),
      ...flags,
    ];
    storage.set(name, Object.assign(member('storage', name, site, manage, own), { uri }));
  }
  const gateways = new Map<string, RoleHandle & { uri: string }>();
  for (const [name, { site, workers, reconnect, flags = [] }] of Object.entries(shape.gateways)) {
    const [nbd, manage] = await takePorts(2);
    const uri = `nbd://${addressOf(name)}:${nbd}`;
    const own = [
      '--listen',
      uri,
      ...optional('--workers', workers),
      ...optional('--reconnect', reconnect),
      ...flags,
    ];
    gateways.set(name, Object.assign(member('gateway', name, site, manage, own), { uri }));
  }

  function member(
    kind: 'storage' | 'gateway',
    name: string,
    site: string | undefined,
    port: number | undefined,
    own: string[],
  ) {
    const manage = `http://${addressOf(name)}:${port}`;
    const flags = [
      '--name',
      name,
      '--site',
      site ?? siteOf(name),
      '--manage',
      manage,
      '--directory',
      url,
      ...own,
    ];
    return new Role(kind, name, manage, folder.file(name), flags, options).handle();
  }

  const all = [directory, ...storage.values(), ...gateways.values()];
  return {
    folder: folder.path,
    directory,
    storage: (name) => found(storage, name),
    gateway: (name) => found(gateways, name),
    ...commandsFor(url, (name) => found(gateways, name ?? first(gateways)).uri),
    end: async () => {
      await Promise.all(all.map((role) => role.kill()));
      await folder.remove();
    },
  };
}

// --- parts -------------------------------------------------------------------------------------------------

class Role {
  readonly #kind: 'directory' | 'storage' | 'gateway';
  readonly #name: string;
  readonly #manage: string;
  readonly #data: string;
  readonly #flags: string[];
  readonly #options: ClusterOptions;
  #process: VolaryProcess | undefined;

  constructor(
    kind: 'directory' | 'storage' | 'gateway',
    name: string,
    manage: string,
    data: string,
    flags: readonly string[],
    options: ClusterOptions,
  ) {
    this.#kind = kind;
    this.#name = name;
    this.#manage = manage;
    this.#data = data;
    this.#flags = ['--data', data, ...flags];
    this.#options = options;
  }

  handle(): RoleHandle {
    const handle: RoleHandle = {
      name: this.#name,
      manage: this.#manage,
      data: this.#data,
      flags: this.#flags,
      process: () => this.#running(),
      pid: () => this.#running().pid,
      start: (until) => this.#start(handle.flags, until),
      stop: () => this.#running().stop(),
      kill: async () => (await this.#process?.kill()) ?? { code: null, signal: null },
      restart: async () => {
        await handle.kill();
        return handle.start();
      },
    };
    return handle;
  }

  #running(): VolaryProcess {
    if (this.#process === undefined) throw new Error(`${this.#name} was never started`);
    return this.#process;
  }

  async #start(flags: readonly string[], until: 'readyz' | 'ready line' = 'readyz'): Promise<VolaryProcess> {
    const { env = {}, place } = this.#options;
    const command = [...(place?.(this.#name).command ?? []), volaryCommand];
    this.#process = await startVolary(['run', this.#kind, ...flags], { env, command });
    if (until === 'readyz') await answersReady(this.#manage, this.#process);
    return this.#process;
  }
}

async function answersReady(manage: string, { stderr }: VolaryProcess): Promise<void> {
  let last = '';
  try {
    await eventually(`${manage}/readyz`, async () => {
      const response = await fetch(`${manage}/readyz`);
      last = await response.text();
      return response.ok ? true : undefined;
    });
  } catch (error) {
    throw new Error(`${manage}/readyz: ${last}\n${stderr()}`, { cause: error });
  }
}

/** The command line against the cluster of that directory. */
export function commandsFor(url: string, gatewayUri: (name?: string) => string) {
  const tryVolary = (args: readonly string[], options: RunOptions = {}): Promise<RunResult> =>
    run(volaryCommand, [...args, '--json'], { ...options, env: { ...options.env, VOLARY_DIRECTORY: url } });
  return {
    client: new DirectoryClient(url),
    uri: (volume: string, gateway?: string) => `${gatewayUri(gateway)}/${encodeURIComponent(volume)}`,
    tryVolary,
    volary: async (...args: string[]): Promise<unknown> => {
      const { code, stdout, stderr } = await tryVolary(args);
      if (code !== 0) throw new Error(`volary ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
      return stdout === '' ? undefined : JSON.parse(stdout);
    },
  };
}

function rolesOf(cluster: Cluster, shape: ClusterShape): RoleHandle[] {
  return [
    cluster.directory,
    ...Object.keys(shape.storage).map((name) => cluster.storage(name)),
    ...Object.keys(shape.gateways).map((name) => cluster.gateway(name)),
  ];
}

export function siteOf(name: string): string {
  return name.split('-')[0] ?? name;
}

function optional(flag: string, value: string | number | undefined): string[] {
  return value === undefined ? [] : [flag, String(value)];
}

function first(map: ReadonlyMap<string, unknown>): string {
  return map.keys().next().value ?? '';
}

function found<T>(map: ReadonlyMap<string, T>, name: string): T {
  const value = map.get(name);
  if (value === undefined)
    throw new Error(`the cluster has no ${name}: it has ${[...map.keys()].join(', ')}`);
  return value;
}
