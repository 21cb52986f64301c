/**
 * A whole cluster on one machine: every role of a topology as a process of its own, in one folder, with one log.
 *
 *     FOLDER/supervisor/      lock and identity of the supervisor; `log`: the lines of all roles, each with its `role`
 *     FOLDER/directory/, FOLDER/NAME/ …    the roles' own data folders
 *
 * Invariants:
 *  1. One supervisor a folder.
 *  2. Stopping begins with the hosts: gateways, directory, storage systems; each floor is gone before the next. Storage systems lose their
 *     peers when they stop side by side: that is not to be recorded of copies that are in step.
 *  3. When `stop` has returned, no role runs.
 */

import { join } from 'node:path';
import { SETTING_VARIABLES } from '../control-protocol/settings.ts';
import { ControlError } from '../model/errors.ts';
import { type DataFolder, openDataFolder } from '../storage/data-folder.ts';
import { LogFile } from '../storage/log-file.ts';
import { refusePortsInUse } from './ports.ts';
import { type Change, RoleKeeper } from './role-keeper.ts';
import type { RoleReady } from './role-process.ts';
import { plansOf, type RoleKind, type RolePlan, type Topology } from './topology.ts';

const START_LIMIT_MS = 60_000;
/** For what is in flight at a role that stops. */
const STOP_LIMIT_MS = 15_000;
const PORTS_PATIENCE_MS = 2_000;
const LOG_BYTES_MAX = 16 * 1024 * 1024;

const STOP_ORDER: readonly RoleKind[] = ['gateway', 'directory', 'storage'];

export interface SupervisorOptions {
  readonly folder: string;
  readonly topology: Topology;
  /** Whether a role that has died is started again. */
  readonly restart: boolean;
  /** Program and first arguments that a role's are put behind. */
  readonly command: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  readonly onChange: (role: string, change: Change) => void;
}

export interface GatewayStarted {
  readonly uri: string;
  readonly site: string;
  readonly pid: number;
  readonly manage: string;
}

export interface StorageStarted extends GatewayStarted {
  readonly peer: string;
  readonly data: string;
}

/** What `volary up` tells when all is ready. */
export interface ClusterReady {
  readonly ready: true;
  readonly directory: string;
  readonly directoryPid: number;
  readonly gateways: Readonly<Record<string, GatewayStarted>>;
  readonly storage: Readonly<Record<string, StorageStarted>>;
  readonly log: string;
}

interface Kept {
  readonly plan: RolePlan;
  readonly keeper: RoleKeeper;
}

export class Supervisor {
  readonly #options: SupervisorOptions;
  readonly #stopped = new AbortController();
  #kept: Kept[] = [];
  #folder: DataFolder | undefined;
  #log: LogFile | undefined;

  constructor(options: SupervisorOptions) {
    this.#options = options;
  }

  /** Once. Also when it has failed, `stop` is to be called. @throws VolaryError */
  async start(): Promise<ClusterReady> {
    const { folder, topology } = this.#options;
    this.#folder = await openDataFolder(join(folder, 'supervisor'), { role: 'supervisor', name: 'up' });
    const logPath = this.#folder.file('log');
    this.#log = new LogFile(logPath, LOG_BYTES_MAX);
    await refusePortsInUse(topology, PORTS_PATIENCE_MS);
    this.#refuseWhenStopped();
    const environment = environmentOf(this.#options.environment);
    this.#kept = plansOf(topology, folder).map((plan) => ({
      plan,
      keeper: this.#keeperOf(plan, environment),
    }));
    for (const { keeper } of this.#kept) keeper.start();
    const ready = await this.#allReady();
    this.#refuseWhenStopped();
    return documentOf(ready, logPath);
  }

  /** May be called at any time, and more than once. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    for (const kind of STOP_ORDER) {
      const floor = this.#kept.filter(({ plan }) => plan.kind === kind);
      await Promise.all(floor.map(({ keeper }) => keeper.stop(STOP_LIMIT_MS)));
    }
    this.#log?.close();
    this.#folder?.close();
  }

  #keeperOf(plan: RolePlan, environment: NodeJS.ProcessEnv): RoleKeeper {
    const { command, restart, onChange } = this.#options;
    return new RoleKeeper({
      plan,
      command,
      environment,
      restart,
      onLine: (line) => this.#log?.append(lineOf(plan.name, line)),
      onChange: (change) => {
        this.#log?.append(
          JSON.stringify({ role: 'supervisor', time: new Date(), about: plan.name, ...change }),
        );
        onChange(plan.name, change);
      },
    });
  }

  async #allReady(): Promise<[RolePlan, RoleReady][]> {
    const limit = Promise.withResolvers<never>();
    const timer = setTimeout(() => {
      const late = this.#kept.map(({ plan, keeper }) => `${plan.name} (${keeper.missing})`);
      const text = `not all is ready after ${START_LIMIT_MS / 1000} s: ${late.join(', ')}`;
      limit.reject(new ControlError('unavailable', text));
    }, START_LIMIT_MS);
    try {
      const all = Promise.all(
        this.#kept.map(
          async ({ plan, keeper }): Promise<[RolePlan, RoleReady]> => [plan, await keeper.ready()],
        ),
      );
      return await Promise.race([all, limit.promise]);
    } finally {
      clearTimeout(timer);
    }
  }

  #refuseWhenStopped(): void {
    if (this.#stopped.signal.aborted)
      throw new ControlError('cancelled', 'it was stopped before it was ready');
  }
}

function documentOf(ready: readonly [RolePlan, RoleReady][], log: string): ClusterReady {
  const gateways: Record<string, GatewayStarted> = {};
  const storage: Record<string, StorageStarted> = {};
  let [directory, directoryPid] = ['', Number.NaN];
  for (const [{ kind, name, site, data }, { uri, peer = '', pid, manage }] of ready) {
    if (kind === 'directory') [directory, directoryPid] = [manage, pid];
    else if (kind === 'gateway') gateways[name] = { uri, site, pid, manage };
    else storage[name] = { uri, peer, site, pid, data, manage };
  }
  return { ready: true, directory, directoryPid, gateways, storage, log };
}

/** Settings that are meant for one role, or for a command, would be taken for those of all. */
function environmentOf(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const own = Object.entries(environment).filter(([name]) => !SETTING_VARIABLES.has(name));
  return Object.fromEntries(own);
}

/** A line of a role's log with the role in it; what is no JSON, such as the stack of a crash, becomes a line of its own. */
function lineOf(role: string, line: string): string {
  const name = JSON.stringify(role);
  if (/^\{".*\}$/.test(line)) return `{"role":${name},${line.slice(1)}`;
  return `{"role":${name},"msg":${JSON.stringify(line)}}`;
}
