/** What of the storage systems' capacity is promised: to volumes, to operations under way, and to what is not deleted yet. */

import type { OperationRecord } from '../control-protocol/catalog.ts';
import type { StorageName } from '../control-protocol/names.ts';
import type { CatalogView } from './catalog-view.ts';
import { realVolumesOf } from './operations/workflow.ts';
import type { Room } from './placement.ts';
import { AddCopyInput, type RealVolumeReference, RemoveCopyInput, ResizeInput } from './records.ts';

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
    if (operation.finishedAt === null) addPromised(view, operation, add);
  }
  return bytes;
}

type Add = (storage: StorageName, more: number) => void;

/** What an operation under way needs beside what the volume's record says. */
function addPromised(view: CatalogView, { kind, input, volume: name }: OperationRecord, add: Add): void {
  const addAll = (references: readonly RealVolumeReference[], sign = 1): void => {
    for (const { storage, sizeBytes } of references) add(storage, sign * sizeBytes);
  };
  const volume = view.volumes.get(name);
  if (volume === undefined) return;
  if (kind === 'add-copy') {
    const { plan } = AddCopyInput.parse(input);
    const made = volume.segments.map((segment, at) => ({
      ...segment,
      copies: plan.copies.slice(at, at + 1),
    }));
    addAll(realVolumesOf({ segments: made }));
  } else if (kind === 'remove-copy') {
    addAll(RemoveCopyInput.parse(input).plan.removed);
  } else if (kind === 'resize-volume') {
    const { plan } = ResizeInput.parse(input);
    if (plan.kind === 'grow') {
      addAll(realVolumesOf(plan));
      addAll(realVolumesOf(volume), -1);
    } else {
      addAll(plan.removed);
      for (const { storage, sizeBytes, toBytes } of plan.cuts) add(storage, sizeBytes - toBytes);
    }
  }
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
