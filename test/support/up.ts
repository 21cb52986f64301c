/** A cluster under `volary up`, on free ports, for tests. */

import type { DirectoryClient } from '../../src/control-protocol/directory-client.ts';
import {
  type Cluster,
  type ClusterOptions,
  type ClusterShape,
  commandsFor,
  siteOf,
  smallShape,
} from './cluster.ts';
import { takePorts } from './ports.ts';
import { eventually } from './tools.ts';
import { startVolary, type VolaryProcess } from './volary-process.ts';

interface MemberReady {
  readonly uri: string;
  readonly peer?: string;
  readonly site: string;
  readonly pid: number;
  readonly data?: string;
  readonly manage: string;
}

/** The `ready` document of `volary up`. */
export interface UpReady {
  readonly ready: true;
  readonly directory: string;
  readonly directoryPid: number;
  readonly gateways: Readonly<Record<string, MemberReady>>;
  readonly storage: Readonly<Record<string, MemberReady>>;
}

export interface UpCluster {
  /** The supervisor. */
  readonly up: VolaryProcess;
  readonly ready: UpReady;
  readonly client: DirectoryClient;
  /** Pid of a role by name (`directory` for the directory), as the supervisor's log told it last. */
  pidOf(name: string): number;
  /** SIGKILL to a role; resolves with the new pid when the supervisor has it back, and ready. */
  killAndAwait(name: string): Promise<number>;
  uri(volume: string, gateway?: string): string;
  volary: Cluster['volary'];
  tryVolary: Cluster['tryVolary'];
}

/** Starts `volary up ARGS` and waits until all is ready. */
export async function startUp(args: readonly string[], options: ClusterOptions = {}): Promise<UpCluster> {
  const up = await startVolary(['up', ...args], { env: { ...options.env, VOLARY_LOG_LEVEL: 'info' } });
  const ready = up.ready as unknown as UpReady;
  const pidOf = (name: string): number => {
    const told = up.log().findLast((line) => line.role === name && line.state === 'ready')?.pid;
    if (typeof told !== 'number') throw new Error(`nothing was told of ${name}\n${up.stderr()}`);
    return told;
  };
  return {
    up,
    ready,
    pidOf,
    killAndAwait: async (name) => {
      const old = pidOf(name);
      process.kill(old, 'SIGKILL');
      return eventually(`${name} is back`, () => (pidOf(name) === old ? undefined : pidOf(name)));
    },
    ...commandsFor(ready.directory, (name) => {
      const [first] = Object.keys(ready.gateways);
      const gateway = ready.gateways[name ?? first ?? ''];
      if (gateway === undefined) throw new Error(`no gateway ${name}`);
      return gateway.uri;
    }),
  };
}

/** Of all roles. */
export function pidsOf({ directoryPid, gateways, storage }: UpReady): number[] {
  return [
    directoryPid,
    ...[gateways, storage].flatMap((members) => Object.values(members).map(({ pid }) => pid)),
  ];
}

/** A topology for `volary up --topology`, of that shape, on free ports. JSON is YAML. */
export async function topologyText(shape: ClusterShape = smallShape): Promise<string> {
  const [directoryPort] = await takePorts(1);
  const storage: Record<string, object> = {};
  for (const [name, { site, capacity }] of Object.entries(shape.storage)) {
    const [nbd, peer, manage] = await takePorts(3);
    storage[name] = {
      site: site ?? siteOf(name),
      listen: `nbd://127.0.0.1:${nbd}`,
      peer: `127.0.0.1:${peer}`,
      manage: `http://127.0.0.1:${manage}`,
      ...(capacity === undefined ? {} : { capacity }),
    };
  }
  const gateways: Record<string, object> = {};
  for (const [name, { site, workers, reconnect }] of Object.entries(shape.gateways)) {
    const [nbd, manage] = await takePorts(2);
    gateways[name] = {
      site: site ?? siteOf(name),
      listen: `nbd://127.0.0.1:${nbd}`,
      manage: `http://127.0.0.1:${manage}`,
      ...(workers === undefined ? {} : { workers }),
      ...(reconnect === undefined ? {} : { reconnect }),
    };
  }
  return JSON.stringify(
    { directory: { listen: `http://127.0.0.1:${directoryPort}` }, storage, gateways },
    null,
    2,
  );
}
