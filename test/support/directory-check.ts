/** What has to hold between the catalog and the storage systems when nothing is under way. */

import { expect } from 'vitest';
import type { DirectoryClient } from '../../src/control-protocol/directory-client.ts';
import { type StorageStandIn, until } from './directory-lab.ts';

/** Waits until no operation is under way and no real volume is left to be deleted. */
export async function settled(directory: DirectoryClient): Promise<void> {
  await until(async () => {
    const { operations } = await directory.status();
    return operations.length === 0 && (await figure(directory, 'garbage_real_volumes')) === 0;
  });
}

/** A figure of the directory's metrics. */
export async function figure(directory: DirectoryClient, name: string): Promise<number> {
  const metrics = await (await fetch(`${directory.url}/metrics`)).text();
  const value = new RegExp(`^volary_directory_${name} (\\d+)$`, 'm').exec(metrics)?.[1];
  if (value === undefined) throw new Error(`there is no figure ${name}`);
  return Number(value);
}

/** All volumes are ready, and the real volumes that exist are theirs, of the right sizes: none is missing, none is left over. */
export async function expectNothingLeaked(
  directory: DirectoryClient,
  storage: readonly StorageStandIn[],
): Promise<void> {
  const summaries = await directory.volumes();
  const wanted: Record<string, Record<string, number>> = {};
  for (const { name } of storage) wanted[name] = {};
  for (const { name } of summaries) {
    const volume = await directory.volume(name);
    expect(volume).toMatchObject({ state: 'ready', operation: null });
    for (const { length, copies } of volume.segments) {
      for (const { storage, realVolume, file } of copies) {
        (wanted[storage] as Record<string, number>)[realVolume] = length;
        expect(file).toBe(`/srv/${storage}/${realVolume}.img`);
      }
    }
  }
  expect(Object.fromEntries(storage.map(({ name, sizes }) => [name, sizes]))).toEqual(wanted);
  for (const view of await directory.storageSystems()) {
    const bytes = Object.values(wanted[view.name] ?? {}).reduce((sum, size) => sum + size, 0);
    expect(view).toMatchObject({ provisionedBytes: bytes, freeBytes: view.capacityBytes - bytes });
  }
}

/** Every member has the role that the record says, in its epoch, and all say that they have been told. */
export async function expectToldAll(
  directory: DirectoryClient,
  storage: readonly StorageStandIn[],
): Promise<void> {
  await until(async () => (await figure(directory, 'members_untold')) === 0);
  for (const { name } of await directory.volumes()) {
    const { segments } = await directory.volumeRecord(name);
    for (const segment of segments.filter(({ isGrouped }) => isGrouped)) {
      for (const { storage: at, realVolume, role } of segment.copies) {
        const member = storage.find((each) => each.name === at)?.members.get(realVolume);
        expect(member).toMatchObject({ role, epoch: segment.epoch, config: { epoch: segment.epoch } });
      }
    }
  }
}
