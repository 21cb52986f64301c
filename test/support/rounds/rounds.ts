/**
 * Rounds of faults, while two hosts write to volumes with synchronous copies:
 *
 *   db    two segments, two copies: fio, pass after pass over all blocks, each verified; its connection must never end
 *   book  two segments, three copies: a host that connects again when its gateway, or its worker, is killed, and knows of every
 *         block what was answered last, over all rounds
 *
 * After each round every pair has to become duplex again; then nobody writes, and the files of all pairs are compared.
 */

import { mkdirSync, writeFileSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { SegmentView } from '../../../src/control-protocol/directory-api.ts';
import { openRemoteVolume, type RemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import type { Book } from '../book.ts';
import { startLoad } from '../cluster/load.ts';
import { type Cluster, type RoleHandle, startCluster } from '../cluster.ts';
import { allDuplex, expectEqualFiles, showVolume } from '../copies.ts';
import { fioPass } from '../fio.ts';
import { silentLog } from '../log.ts';
import { startNetwork } from '../network.ts';
import { isRunning } from '../process.ts';
import type { SeededRandom } from '../random.ts';
import { eventually } from '../tools.ts';
import { DelayVolume, seededDelays } from '../volumes/delay-volume.ts';
import type { Fault, Scene } from './faults.ts';

export interface RoundsOptions {
  readonly plan: readonly Fault[];
  readonly random: SeededRandom;
  /** How long a process stands still, and a link loses packets. */
  readonly stopMs: number;
  readonly cutMs: number;
  /** Takes a line for each round. */
  readonly tell: (line: string) => void;
}

const DB_MIB = 16;
const BOOK_MIB = 8;
const WRITES_PER_SECOND = 1000;
const STORAGE = ['east-1', 'east-2', 'west-1', 'west-2'];
const STEADY = 'east-gw';
const OTHER = 'west-gw';

export async function runRounds(options: RoundsOptions): Promise<void> {
  const network = await startNetwork(['directory', STEADY, OTHER, ...STORAGE]);
  const cluster = await startCluster(
    {
      storage: Object.fromEntries(STORAGE.map((name) => [name, {}])),
      gateways: { [STEADY]: {}, [OTHER]: { workers: 2 } },
    },
    { place: network.host },
  );
  const logs = new Logs(cluster);
  try {
    const volumes = await makeVolumes(cluster);
    const scene: Scene = {
      cluster,
      network,
      random: options.random,
      volumes,
      storage: STORAGE,
      steadyGateway: STEADY,
      gateway: OTHER,
      stopMs: options.stopMs,
      cutMs: options.cutMs,
      losing: (role) => logs.keep(role),
    };
    await new Rounds(scene, options, logs).run();
  } catch (error) {
    const ended = logs.ended().join(', ') || 'none';
    const told = `seed ${options.random.seed}; roles that have ended: ${ended}; logs of all: ${logs.save()}`;
    throw new Error(`${error instanceof Error ? error.message : error} (${told})`, { cause: error });
  } finally {
    await cluster.end();
    await network.end();
  }
}

async function makeVolumes(cluster: Cluster): Promise<string[]> {
  const halves = (mib: number) => ['--segment', `east-1:${mib / 2}MiB`, '--segment', 'east-2'];
  const two = ['--copy', 'west-1'];
  const three = [...two, '--copy', 'west-2'];
  await cluster.volary('volume', 'create', 'db', '--size', `${DB_MIB}MiB`, ...halves(DB_MIB), ...two);
  await cluster.volary('volume', 'create', 'book', '--size', `${BOOK_MIB}MiB`, ...halves(BOOK_MIB), ...three);
  for (const volume of ['db', 'book']) await allDuplex(cluster, volume);
  return ['db', 'book'];
}

class Rounds {
  readonly #scene: Scene;
  readonly #options: RoundsOptions;
  readonly #logs: Logs;
  #book: Book | undefined;
  #passes = 0;

  constructor(scene: Scene, options: RoundsOptions, logs: Logs) {
    this.#scene = scene;
    this.#options = options;
    this.#logs = logs;
  }

  async run(): Promise<void> {
    const { plan, tell } = this.#options;
    const host = await this.#openBook();
    try {
      for (const [index, fault] of plan.entries()) {
        const place = `round ${index + 1} of ${plan.length}: ${fault.name}`;
        tell(
          `${place}: ${await this.#round(fault, host).catch((error: unknown) => {
            throw new Error(`${place}: ${error instanceof Error ? error.message : error}`, { cause: error });
          })}`,
        );
      }
    } finally {
      await host.close();
    }
  }

  async #openBook(): Promise<RemoteVolume> {
    const { hostname, port } = new URL(this.#scene.cluster.gateway(OTHER).uri.replace('nbd:', 'http:'));
    return openRemoteVolume({
      address: { host: hostname, port: Number(port) },
      exportName: 'book',
      connections: 2,
      reconnectMs: 60_000,
      log: silentLog,
    });
  }

  /** Resolves with what has happened, and figures. */
  async #round(fault: Fault, host: RemoteVolume): Promise<string> {
    const { cluster, random, network } = this.#scene;
    const [db] = (await showVolume(cluster, 'db')).segments;
    const faultOver = Promise.withResolvers<void>();
    const passes = this.#passesUntil(faultOver.promise);
    const slow = new DelayVolume(host, seededDelays(random.below(2 ** 30), 10));
    const load = startLoad(slow, random, 4, this.#book);
    this.#book = load.book;

    await Promise.race([this.#isWritten(db), passes]);
    await sleep(random.below(1000));
    const happened = fault.run(this.#scene).finally(() => network.mend());
    happened.catch(() => undefined); // looked at below
    // What a host finds comes first, also when it keeps the rest from happening.
    const hostsFail = Promise.all([passes, load.done]);
    await Promise.race([happened, hostsFail.then(() => happened)]);
    const over = performance.now();
    const check = (): void => this.#logs.expectAllRun();
    const duplex = Promise.all(this.#scene.volumes.map((volume) => allDuplex(cluster, volume, check)));
    duplex.catch(() => undefined); // looked at below
    await Promise.race([duplex, hostsFail.then(() => duplex)]);
    const duplexMs = Math.round(performance.now() - over);
    faultOver.resolve();
    const stalls = await passes;
    await load.finish();

    let compared = 0;
    for (const volume of this.#scene.volumes) {
      compared += await expectEqualFiles(await allDuplex(cluster, volume));
    }
    const longest = Math.round(Math.max(...stalls));
    return (
      `${await happened}. Longest request of fio ${longest} ms; ${stalls.length} passes verified; ` +
      `all duplex ${duplexMs} ms later; ${compared} pairs of files are equal`
    );
  }

  /** fio is connected, and the copies of a segment are written again and again. */
  async #isWritten(segment: SegmentView | undefined): Promise<void> {
    const { manage } = this.#scene.cluster.gateway(STEADY);
    const files = (segment?.copies ?? []).map(({ file }) => file ?? '');
    let [lastMs, changes] = [0, -1];
    await eventually('fio writes', async () => {
      await sleep(80);
      const hosts = (await (await fetch(`${manage}/volumes/db/hosts`)).json()) as { connections: number };
      if (hosts.connections === 0) return undefined;
      const found = await Promise.all(files.map((file) => stat(file)));
      const nowMs = Math.max(...found.map(({ mtimeMs }) => mtimeMs));
      changes = nowMs > lastMs ? changes + 1 : 0;
      lastMs = nowMs;
      return changes >= 4 ? true : undefined;
    });
  }

  /** One pass of fio after another; the longest request of each. */
  async #passesUntil(end: Promise<void>): Promise<number[]> {
    const { cluster } = this.#scene;
    let isOver = false;
    void end.then(() => {
      isOver = true;
    });
    const stalls: number[] = [];
    while (!isOver) {
      this.#passes += 1;
      stalls.push(
        await fioPass({
          uri: cluster.uri('db', STEADY),
          sizeMiB: DB_MIB,
          writesPerSecond: WRITES_PER_SECOND,
          seed: this.#passes,
          cwd: cluster.folder,
        }),
      );
    }
    return stalls;
  }
}

/** What the roles have logged, those that were killed among them. */
class Logs {
  readonly #cluster: Cluster;
  readonly #kept = new Map<string, string>();

  constructor(cluster: Cluster) {
    this.#cluster = cluster;
  }

  keep(role: RoleHandle): void {
    this.#kept.set(role.name, `${this.#kept.get(role.name) ?? ''}${role.process().stderr()}`);
  }

  /** Of the roles that have ended, the names. */
  ended(): string[] {
    return this.#roles()
      .filter((role) => !isRunning(role.pid()))
      .map(({ name }) => name);
  }

  /** @throws when a role has ended by itself */
  expectAllRun(): void {
    const ended = this.ended();
    if (ended.length > 0) throw new Error(`${ended.join(' and ')} has ended by itself`);
  }

  #roles(): RoleHandle[] {
    return [
      this.#cluster.directory,
      ...[STEADY, OTHER].map((name) => this.#cluster.gateway(name)),
      ...STORAGE.map((name) => this.#cluster.storage(name)),
    ];
  }

  /** Into a folder that stays. */
  save(): string {
    const folder = `${this.#cluster.folder}-logs`;
    mkdirSync(folder, { recursive: true });
    for (const role of this.#roles()) {
      this.keep(role);
      writeFileSync(join(folder, `${role.name}.log`), this.#kept.get(role.name) ?? '');
    }
    return folder;
  }
}
