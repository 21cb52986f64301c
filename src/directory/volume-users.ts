/**
 * Who uses a volume, as far as can be asked: hosts at gateways that are online; and whoever is connected to its real
 * volumes, which may be a gateway that cannot reach the directory and serves on (V2), or a host with direct access (V6).
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { GatewayRecord, VolumeRecord } from '../control-protocol/catalog.ts';
import type { GatewayName, StorageName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { CatalogView } from './catalog-view.ts';
import { realVolumesOf } from './operations/workflow.ts';
import type { Peers } from './peers.ts';
import type { RealVolumeReference } from './records.ts';

/** How often it is looked whether they have let go: a gateway keeps its connections for a moment after its last host. */
const LOOKS = 20;

export interface AskedOfUsers {
  readonly view: CatalogView;
  readonly peers: Peers;
  /** How long users of the real volumes have to let go of them. */
  readonly letGoMs: number;
}

/** @throws ControlError in-use, unavailable */
export async function refuseWhileUsed(volume: VolumeRecord, asked: AskedOfUsers): Promise<void> {
  const { name } = volume;
  const { view, peers, letGoMs } = asked;
  const hosts = await hostsElsewhere(volume, { view, peers });
  if (hosts.length > 0) {
    throw new ControlError('in-use', `hosts are connected to volume ${name}: ${hosts.join(', ')}`);
  }
  const untilMs = performance.now() + letGoMs;
  for (;;) {
    const users = await connectionsTo(volume, asked);
    if (users.length === 0) return;
    if (performance.now() >= untilMs) {
      const text = `the real volumes of volume ${name} have connections (${users.join(', ')}), of a gateway that is offline, or by direct access: end them, or force it`;
      throw new ControlError('in-use', text);
    }
    await sleep(letGoMs / LOOKS);
  }
}

/** Hosts at the gateways that are online, one excepted. @throws ControlError unavailable */
export async function hostsElsewhere(
  volume: VolumeRecord,
  { view, peers, but }: Pick<AskedOfUsers, 'view' | 'peers'> & { readonly but?: GatewayName },
): Promise<string[]> {
  const gateways = [...view.gateways.values()].filter(
    ({ name }) => name !== but && view.presence.has(`gateway/${name}`),
  );
  return (await Promise.all(gateways.map((one) => hostsAt(one, volume, peers)))).flat();
}

async function hostsAt(gateway: GatewayRecord, { name }: VolumeRecord, peers: Peers): Promise<string[]> {
  try {
    const { connections } = await peers.gateway(gateway).hostsOf(name);
    return connections === 0 ? [] : [`${connections} at gateway ${gateway.name}`];
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    const text = `hosts may be connected to volume ${name}, as ${error.message}: wait until it answers or is offline, or force it`;
    throw new ControlError('unavailable', text, { cause: error });
  }
}

/** At storage systems that are online and answer; the others' real volumes are deleted when they are back. */
async function connectionsTo(volume: VolumeRecord, { view, peers }: AskedOfUsers): Promise<string[]> {
  const byStorage = Map.groupBy(realVolumesOf(volume), ({ storage }) => storage);
  const counts = [...byStorage].map(async ([storage, realVolumes]): Promise<string[]> => {
    const connections = await connectionsAt(storage, realVolumes, { view, peers });
    return connections === 0 ? [] : [`${connections} at storage system ${storage}`];
  });
  return (await Promise.all(counts)).flat();
}

async function connectionsAt(
  storage: StorageName,
  realVolumes: readonly RealVolumeReference[],
  { view, peers }: Pick<AskedOfUsers, 'view' | 'peers'>,
): Promise<number> {
  const record = view.storage.get(storage);
  if (record === undefined || !view.presence.has(`storage/${storage}`)) return 0;
  const peer = peers.storage(record);
  let sum = 0;
  try {
    for (const { realVolume } of realVolumes) sum += (await peer.realVolume(realVolume)).connections;
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
  }
  return sum;
}
