/**
 * A thousand volumes on one storage system: how long one takes to be made, shown and deleted, how long the roles take to
 * start with them, and the memory that they hold then. Volary alone: the peers have no such thing.
 */

import { VolumeName } from '../../src/control-protocol/names.ts';
import { type Cluster, type RoleHandle, startCluster } from '../support/cluster.ts';
import type { Bench } from './bench.ts';
import { limits, scale } from './jobs.ts';
import { newFolder, type PlaceName } from './places.ts';
import { residentBytes } from './proc.ts';

export interface RoleStart {
  readonly role: string;
  /** From the start of the program to its being ready. */
  readonly readyMs: number;
  readonly residentBytes: number;
}

export interface ScaleResult {
  readonly place: PlaceName;
  readonly volumes: number;
  readonly createMs: readonly number[];
  readonly showMs: readonly number[];
  readonly deleteMs: readonly number[];
  readonly starts: readonly RoleStart[];
}

export function scaleSteps({ options }: Bench): number {
  return options.jobs.includes(scale) ? options.places.length : 0;
}

export async function measureScale(bench: Bench): Promise<ScaleResult[]> {
  const { options } = bench;
  const results: ScaleResult[] = [];
  if (!options.jobs.includes(scale)) return results;
  for (const place of options.places) {
    const result = await bench.step(`${place}: ${scale}`, () => measurePlace(place));
    if (result !== undefined) results.push(result);
  }
  return results;
}

async function measurePlace(place: PlaceName): Promise<ScaleResult> {
  const folder = newFolder(place);
  const shape = { storage: { 'east-1': { capacity: '2TiB' } }, gateways: { 'east-gw': {} } };
  let cluster: Cluster | undefined;
  try {
    cluster = await startCluster(shape, { parent: folder.path });
    const { client } = cluster;
    const names = Array.from({ length: limits.volumes }, (_, index) => VolumeName.parse(`volume-${index}`));
    const createMs = await timed(names, async (name) => {
      await client.finished((await client.createVolume({ name, sizeBytes: 2 ** 30 })).id);
    });
    const showMs = await timed(names, (name) => client.volume(name));
    const starts: RoleStart[] = [];
    for (const role of [cluster.directory, cluster.storage('east-1'), cluster.gateway('east-gw')]) {
      starts.push(await restarted(role));
    }
    const deleteMs = await timed(names, async (name) => {
      await client.finished((await client.deleteVolume(name, false)).id);
    });
    return { place, volumes: names.length, createMs, showMs, deleteMs, starts };
  } finally {
    await cluster?.end();
    folder.remove();
  }
}

/** One after the other, as a person or a script would. */
async function timed<T>(items: readonly T[], act: (item: T) => Promise<unknown>): Promise<number[]> {
  const taken: number[] = [];
  for (const item of items) {
    const before = performance.now();
    await act(item);
    taken.push(performance.now() - before);
  }
  return taken;
}

async function restarted(role: RoleHandle): Promise<RoleStart> {
  await role.stop();
  const before = performance.now();
  await role.start();
  return {
    role: role.name,
    readyMs: performance.now() - before,
    residentBytes: residentBytes(role.pid()).now,
  };
}
