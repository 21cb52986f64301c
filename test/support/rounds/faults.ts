/**
 * What can happen to a cluster whose volumes have copies, while hosts write. Each fault leaves everything running, and every link
 * whole; what it did is told in words.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { SegmentView } from '../../../src/control-protocol/directory-api.ts';
import type { Cluster, RoleHandle } from '../cluster.ts';
import { primaryOf, promotable, secondariesOf, showVolume } from '../copies.ts';
import type { Network } from '../network.ts';
import { childrenOf } from '../process.ts';
import type { SeededRandom } from '../random.ts';

export interface Scene {
  readonly cluster: Cluster;
  readonly network: Network;
  readonly random: SeededRandom;
  /** The first is the one whose primary and secondary are meant. */
  readonly volumes: readonly string[];
  /** All storage systems. */
  readonly storage: readonly string[];
  /** The gateway of the host that cannot connect again, and of the one that can. */
  readonly steadyGateway: string;
  readonly gateway: string;
  readonly stopMs: number;
  readonly cutMs: number;
  /** Called with each process that is about to be lost, for its log. */
  losing(role: RoleHandle): void;
}

export interface Fault {
  readonly name: string;
  /** Resolves with what it has been done to. */
  run(scene: Scene): Promise<string>;
}

type Victim = 'directory' | 'gateway' | 'worker' | 'primary' | 'secondary';

/** The storage system that has the primary, or a secondary, of the first volume's first segment. */
async function storageOf(scene: Scene, victim: 'primary' | 'secondary'): Promise<string> {
  const [segment] = (await showVolume(scene.cluster, scene.volumes[0] ?? '')).segments;
  if (segment === undefined) throw new Error('a volume without segments');
  if (victim === 'primary') return primaryOf(segment).storage;
  const [secondary] = secondariesOf(segment);
  if (secondary === undefined) throw new Error('a volume without copies');
  return secondary.storage;
}

/** The name of the role that is meant. */
async function named(scene: Scene, victim: Exclude<Victim, 'worker'>): Promise<string> {
  if (victim === 'directory') return 'directory';
  if (victim === 'gateway') return scene.random.below(2) === 0 ? scene.gateway : scene.steadyGateway;
  return storageOf(scene, victim);
}

function roleOf({ cluster, gateway, steadyGateway }: Scene, name: string): RoleHandle {
  if (name === 'directory') return cluster.directory;
  return name === gateway || name === steadyGateway ? cluster.gateway(name) : cluster.storage(name);
}

/** kill -9, and a start after up to two seconds. */
function kill(victim: Exclude<Victim, 'worker'>): Fault {
  return {
    name: `kill ${victim}`,
    run: async (scene) => {
      // A host of the other gateway could not go on.
      const name = victim === 'gateway' ? scene.gateway : await named(scene, victim);
      const role = roleOf(scene, name);
      scene.losing(role);
      await role.kill();
      await sleep(scene.random.below(2000));
      await role.start();
      return name;
    },
  };
}

const killWorker: Fault = {
  name: 'kill worker',
  run: async ({ cluster, gateway, random }) => {
    const workers = childrenOf(cluster.gateway(gateway).pid());
    const worker = workers[random.below(workers.length)];
    if (worker === undefined) throw new Error(`${gateway} has no workers`);
    process.kill(worker, 'SIGKILL');
    await sleep(1000);
    return `${worker}, one of ${workers.length} of ${gateway}`;
  },
};

/** All that keep something are killed in one moment, and started again. */
const killAll: Fault = {
  name: 'kill directory and all storage systems',
  run: async (scene) => {
    const { cluster } = scene;
    const roles = [cluster.directory, ...scene.storage.map((name) => cluster.storage(name))];
    for (const role of roles) scene.losing(role);
    await Promise.all(roles.map((role) => role.kill()));
    // Each waits for the directory; the directory waits for nobody.
    await Promise.all(roles.map((role) => role.start()));
    return roles.map(({ name }) => name).join(', ');
  },
};

/** The one that has what the other lacks is killed while it copies. */
const killBoth: Fault = {
  name: 'kill secondary, and primary when that is back',
  run: async (scene) => {
    const [primary, secondary] = [await storageOf(scene, 'primary'), await storageOf(scene, 'secondary')];
    for (const name of [secondary, primary]) {
      const role = scene.cluster.storage(name);
      scene.losing(role);
      await role.kill();
      await sleep(name === secondary ? 3000 : scene.random.below(1000));
      await role.start();
      await sleep(scene.random.below(300));
    }
    return `${secondary}, then ${primary}`;
  },
};

async function whileStopped(role: RoleHandle, act: () => Promise<void>): Promise<void> {
  const pid = role.pid();
  process.kill(pid, 'SIGSTOP');
  try {
    await act();
  } finally {
    process.kill(pid, 'SIGCONT');
  }
}

function stop(victim: Exclude<Victim, 'worker'>): Fault {
  return {
    name: `stop ${victim}`,
    run: async (scene) => {
      const name = await named(scene, victim);
      await whileStopped(roleOf(scene, name), () => sleep(scene.stopMs));
      return `${name}, ${scene.stopMs} ms`;
    },
  };
}

/** What it sends is lost, or what is sent to it. */
function cutOff(victim: Exclude<Victim, 'worker'>, lost: 'sent' | 'received'): Fault {
  return {
    name: `lose what ${victim} ${lost === 'sent' ? 'sends' : 'is sent'}`,
    run: async (scene) => {
      const name = await named(scene, victim);
      if (lost === 'sent') await scene.network.cut(name);
      else await scene.network.cutOffFromAll(name);
      await sleep(scene.cutMs);
      await scene.network.mend();
      return `${name}, ${scene.cutMs} ms`;
    },
  };
}

/** One direction of the link between two of them. */
function cutLink(from: Exclude<Victim, 'worker'>, to: Exclude<Victim, 'worker'>): Fault {
  return {
    name: `lose what ${from} sends to ${to}`,
    run: async (scene) => {
      const [source, target] = [await named(scene, from), await named(scene, to)];
      await scene.network.cut(source, target);
      await sleep(scene.cutMs);
      await scene.network.mend();
      return `${source} to ${target}, ${scene.cutMs} ms`;
    },
  };
}

/**
 * Storage systems that can take those segments over from their primaries, one after the other: one of those that have a copy of all
 * of them, or, where the segments have come together on one storage system from several, one for each.
 */
function takers(segments: readonly SegmentView[], random: SeededRandom, not?: string): [string, ...string[]] {
  const choices = segments.map((segment) => promotable(segment).filter((name) => name !== not));
  const pick = (names: readonly string[]): string => {
    const name = names[random.below(names.length)];
    if (name === undefined) throw new Error('no copy may become primary');
    return name;
  };
  const [first = [], ...others] = choices;
  const all = first.filter((name) => others.every((names) => names.includes(name)));
  if (all.length > 0) return [pick(all)];
  const [one, ...more] = new Set(choices.map(pick));
  if (one === undefined) throw new Error('no segment is to be taken over');
  return [one, ...more];
}

const copySwitch: Fault = {
  name: 'switch',
  run: async ({ cluster, volumes, random }) => {
    const done: string[] = [];
    for (const volume of volumes) {
      const { segments } = await showVolume(cluster, volume);
      for (const target of takers(segments, random)) {
        await cluster.volary('copy', 'switch', volume, target, '--wait');
        done.push(`${volume} to ${target}`);
      }
    }
    return done.join(', ');
  },
};

/** A switch in whose midst a process is killed: it may fail, and everything goes on. */
function switchAndKill(victim: 'directory' | 'primary' | 'target' | 'gateway'): Fault {
  return {
    name: `switch, and kill ${victim}`,
    run: async (scene) => {
      const { cluster, random } = scene;
      const volume = scene.volumes[random.below(scene.volumes.length)] ?? '';
      const view = await showVolume(cluster, volume);
      const [target] = takers(view.segments, random);
      const [segment] = view.segments;
      if (segment === undefined) throw new Error('a volume without segments');
      const names = {
        directory: 'directory',
        primary: primaryOf(segment).storage,
        target,
        gateway: scene.gateway,
      };
      const role = roleOf(scene, names[victim]);
      const switching = cluster.tryVolary(['copy', 'switch', volume, target, '--wait'], {
        timeoutMs: 120_000,
      });
      // The command takes half a second to start.
      await sleep(400 + random.below(600));
      scene.losing(role);
      await role.kill();
      await sleep(random.below(1000));
      await role.start();
      const { code, stderr } = await switching;
      return `${volume} to ${target}: ${code === 0 ? 'switched' : stderr.trim()}; killed ${role.name}`;
    },
  };
}

/** The primary's storage system is lost in one way or another, and another copy is made primary. */
function failover(how: 'killed' | 'stopped' | 'cut off'): Fault {
  return {
    name: `failover, the primary ${how}`,
    run: async (scene) => {
      const { cluster, network, random } = scene;
      const lost = await storageOf(scene, 'primary');
      const views = await Promise.all(scene.volumes.map((volume) => showVolume(cluster, volume)));
      const act = async (): Promise<string> => {
        const done: string[] = [];
        for (const view of views) {
          const segments = view.segments.filter((segment) => primaryOf(segment).storage === lost);
          if (segments.length === 0) continue;
          for (const target of takers(segments, random, lost)) {
            await cluster.volary('copy', 'failover', view.name, target, '--wait');
            done.push(`${view.name} to ${target}`);
          }
        }
        return `${lost} ${how}: ${done.join(', ')}`;
      };
      const role = cluster.storage(lost);
      if (how === 'killed') {
        scene.losing(role);
        await role.kill();
        const done = await act();
        await role.start();
        return done;
      }
      let done = '';
      if (how === 'stopped') {
        await whileStopped(role, async () => {
          done = await act();
        });
      } else {
        await network.cut(lost);
        done = await act();
        await network.mend();
      }
      return done;
    },
  };
}

const everyone = ['directory', 'gateway', 'primary', 'secondary'] as const;

export const faults: readonly Fault[] = [
  ...everyone.map(kill),
  killWorker,
  killAll,
  killBoth,
  ...everyone.map(stop),
  ...everyone.flatMap((victim) => [cutOff(victim, 'sent'), cutOff(victim, 'received')]),
  cutLink('primary', 'secondary'),
  cutLink('secondary', 'primary'),
  cutLink('primary', 'directory'),
  cutLink('directory', 'primary'),
  cutLink('primary', 'gateway'),
  copySwitch,
  ...(['directory', 'primary', 'target', 'gateway'] as const).map(switchAndKill),
  ...(['killed', 'stopped', 'cut off'] as const).map(failover),
];

export function faultNamed(name: string): Fault {
  const fault = faults.find((one) => one.name === name);
  if (fault === undefined) throw new Error(`no fault ${name}: there are ${faults.map((one) => one.name)}`);
  return fault;
}

/** So many of them: each once in an order of chance, before any comes again. */
export function planOf(count: number, random: SeededRandom): Fault[] {
  const plan: Fault[] = [];
  while (plan.length < count) {
    const left = [...faults];
    while (left.length > 0) plan.push(...left.splice(random.below(left.length), 1));
  }
  return plan.slice(0, count);
}
