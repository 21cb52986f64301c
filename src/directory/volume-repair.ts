/**
 * Taking back what has failed of a volume's real volumes. It is never done by itself: what had been written and not flushed
 * before the failure may be lost, and only who uses the volume can look whether it is (N3).
 */

import type { VolumeRecord } from '../control-protocol/catalog.ts';
import type { RepairView } from '../control-protocol/directory-api.ts';
import { ControlError } from '../model/errors.ts';
import type { Catalog } from './catalog.ts';
import { realVolumesOf } from './operations/workflow.ts';
import type { Peers, StoragePeer } from './peers.ts';
import type { RealVolumeReference } from './records.ts';

export interface RepairOptions {
  readonly catalog: Catalog;
  readonly peers: Peers;
}

type Repaired = RepairView['repaired'][number];
type Found = { readonly kind: 'repaired' | 'remaining' } & Repaired;

/** Storage systems are asked at once, each for one real volume after the other. */
export async function repairVolume(
  volume: VolumeRecord,
  { catalog, peers }: RepairOptions,
): Promise<RepairView> {
  const byStorage = Map.groupBy(realVolumesOf(volume), ({ storage }) => storage);
  const asked = [...byStorage].map(async ([storage, realVolumes]): Promise<Found[]> => {
    const record = catalog.view.storage.get(storage);
    if (record === undefined) return [];
    return repairAt(realVolumes, peers.storage(record));
  });
  const found = (await Promise.all(asked)).flat();
  const of = (kind: Found['kind']): Repaired[] =>
    found.filter((one) => one.kind === kind).map(({ kind: _, ...rest }) => rest);
  const [repaired, remaining] = [of('repaired'), of('remaining')];
  if (repaired.length > 0) await tell(catalog, volume, repaired);
  return { volume: volume.name, repaired, remaining };
}

async function repairAt(realVolumes: readonly RealVolumeReference[], peer: StoragePeer): Promise<Found[]> {
  const found: Found[] = [];
  for (const { storage, realVolume } of realVolumes) {
    try {
      const { reason } = await peer.realVolume(realVolume);
      if (reason === null) continue;
      await peer.changeRealVolume(realVolume, { failure: 'accepted' });
      found.push({ kind: 'repaired', storage, realVolume, reason });
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      found.push({ kind: 'remaining', storage, realVolume, reason: error.message });
      if (error.code === 'unreachable') break; // nor would it answer for the rest
    }
  }
  return found;
}

async function tell(catalog: Catalog, { name }: VolumeRecord, repaired: readonly Repaired[]): Promise<void> {
  const ids = repaired.map(({ realVolume, storage }) => `${realVolume} of storage system ${storage}`);
  await catalog.change((draft) => {
    draft.addEvent({
      kind: 'volume.repaired',
      subject: name,
      text: `volume ${name}: ${ids.join(', ')} had failed, and has been taken back`,
      details: { realVolumes: repaired.map((one) => ({ ...one })) },
    });
  });
}
