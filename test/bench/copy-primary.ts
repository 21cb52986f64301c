/**
 * Another copy becomes primary while fio writes: as planned, and after the end of the one before. What a host sees of it is its
 * longest request; an error that it sees is a failure of the bench. Volary alone.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { StorageName, VolumeName } from '../../src/control-protocol/names.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { allDuplex, primaryOf } from '../support/copies.ts';
import type { Bench } from './bench.ts';
import { runFio } from './fio.ts';
import { copyFailover, copySwitch } from './jobs.ts';
import { newFolder, type PlaceName } from './places.ts';

export interface PrimaryResult {
  readonly place: PlaceName;
  readonly job: typeof copySwitch | typeof copyFailover;
  /** The longest request of each run of fio. */
  readonly stallsMs: readonly number[];
}

const volume = VolumeName.parse('bench');
const storage = ['east-1', 'east-2'].map((name) => StorageName.parse(name));
/** fio has written so long before anything happens. */
const beforeMs = 500;
/** Longer than a failover has to take. */
const failoverSeconds = 8;

/** Of 5 rounds: 20 switches. */
const SWITCHES_A_ROUND = 4;

function timesOf({ options }: Bench, job: PrimaryResult['job']): number {
  if (!options.jobs.includes(job)) return 0;
  return options.rounds * (job === copySwitch ? SWITCHES_A_ROUND : 1);
}

export function primarySteps(bench: Bench): number {
  return bench.options.places.length * (timesOf(bench, copySwitch) + timesOf(bench, copyFailover));
}

export async function measurePrimary(bench: Bench): Promise<PrimaryResult[]> {
  const results: PrimaryResult[] = [];
  if (primarySteps(bench) === 0) return results;
  for (const place of bench.options.places) {
    const folder = newFolder(place);
    const shape = { storage: { 'east-1': {}, 'east-2': {} }, gateways: { 'east-gw': {} } };
    let cluster: Cluster | undefined;
    try {
      const started = await startCluster(shape, { parent: folder.path });
      cluster = started;
      const where = ['--segment', 'east-1', '--copy', 'east-2'];
      await started.volary('volume', 'create', volume, '--size', '1GiB', ...where);
      for (const job of [copySwitch, copyFailover] as const) {
        const stallsMs: number[] = [];
        for (let time = 1; time <= timesOf(bench, job); time += 1) {
          const stallMs = await bench.step(`${place}: ${job} ${time}`, () =>
            job === copySwitch ? switchOnce(started, bench.options.seconds) : failOverOnce(started),
          );
          if (stallMs !== undefined) stallsMs.push(stallMs);
        }
        if (stallsMs.length > 0) results.push({ place, job, stallsMs });
      }
    } finally {
      await cluster?.end();
      folder.remove();
    }
  }
  return results;
}

/** The storage system that has the primary, and the other one, when both are equal. */
async function both(cluster: Cluster): Promise<[primary: StorageName, other: StorageName]> {
  const [segment] = (await allDuplex(cluster, volume)).segments;
  if (segment === undefined) throw new Error('a volume without segments');
  const primary = primaryOf(segment).storage;
  const other = storage.find((name) => name !== primary);
  if (other === undefined) throw new Error(`${primary} is not one of two`);
  return [primary, other];
}

/** Writes for so long, meanwhile acts; resolves with the longest request. */
async function whileWriting(cluster: Cluster, seconds: number, act: () => Promise<void>): Promise<number> {
  const section = 'randwrite-d16';
  const variables = { URI: cluster.uri(volume) };
  const fio = runFio({ file: 'speed.fio', sections: [section], seconds, variables, folder: cluster.folder });
  const [jobs] = await Promise.all([fio, sleep(beforeMs).then(act)]);
  const job = jobs.get(section);
  if (job === undefined) throw new Error(`fio has no result for ${section}`);
  return job.longestUs / 1000;
}

async function switchOnce(cluster: Cluster, seconds: number): Promise<number> {
  const [, target] = await both(cluster);
  return whileWriting(cluster, seconds, async () => {
    const { id } = await cluster.client.switchCopy(volume, { storage: target });
    await cluster.client.finished(id);
  });
}

async function failOverOnce(cluster: Cluster): Promise<number> {
  const [primary, target] = await both(cluster);
  const stallMs = await whileWriting(cluster, failoverSeconds, async () => {
    await cluster.storage(primary).kill();
    const { id } = await cluster.client.failOver(volume, { storage: target });
    await cluster.client.finished(id);
  });
  await cluster.storage(primary).start();
  return stallMs;
}
