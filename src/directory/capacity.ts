/** What of the storage systems' capacity is promised: to volumes, to operations under way, and to what is not deleted yet. */

import type { StorageName } from '../control-protocol/names.ts';
import type { CatalogView } from './catalog-view.ts';
import { realVolumesOf } from './operations/workflow.ts';
import type { Room } from './placement.ts';
import { ResizeInput } from './records.ts';

export function provisionedBytes(view: CatalogView): Map<StorageName, number> {
  const bytes = new Map<StorageName, number>();
  const add = (storage: StorageName, more: number): void => {
    bytes.set(storage, (bytes.get(storage) ?? 0) + more);
  };
  for (const volume of view.volumes.values()) {
    for (const { storage, sizeBytes } of realVolumesOf(volume)) add(storage, sizeBytes);
  }
  for (const { storage, sizeBytes } of view.garbage.values()) add(storage, sizeBytes);
  for (const operation of view.operations.values()) {
    if (operation.finishedAt !== null || operation.kind !== 'resize-volume') continue;
    const { plan } = ResizeInput.parse(operation.input);
    const volume = view.volumes.get(operation.volume);
    if (plan.kind === 'grow' && volume !== undefined) {
      const target = { ...volume, segments: plan.segments };
      for (const { storage, sizeBytes } of realVolumesOf(target)) add(storage, sizeBytes);
      for (const { storage, sizeBytes } of realVolumesOf(volume)) add(storage, -sizeBytes);
    } else if (plan.kind === 'shrink') {
      for (const { storage, sizeBytes } of plan.removed) add(storage, sizeBytes);
      if (plan.cut !== null) add(plan.cut.storage, plan.cut.sizeBytes - plan.cut.toBytes);
    }
  }
  return bytes;
}

/** The storage systems that are online. */
export function roomsOf(view: CatalogView): Room[] {
  const provisioned = provisionedBytes(view);
  return [...view.storage.values()]
    .filter(({ name }) => view.presence.has(`storage/${name}`))
    .map(({ name, capacityBytes }) => ({
      storage: name,
      freeBytes: capacityBytes - (provisioned.get(name) ?? 0),
    }));
}
