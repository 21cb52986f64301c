/** A directory with three storage systems that bring copies up as they are told. */

import type { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { RealVolumeId, StorageName, VolumeName } from '../../../src/control-protocol/names.ts';
import type { DirectoryParts } from '../../../src/directory/service.ts';
import { MiB, until } from '../../support/directory-lab.ts';
import { makeLab } from './lab.ts';

export const V = VolumeName.parse('v');
export const named = (name: string): StorageName => StorageName.parse(name);
export const [A, B, C] = [named('a'), named('b'), named('c')];

/** Storage systems a and b in the east, c in the west; they copy. */
export async function makeCopyLab(parts: Partial<DirectoryParts> = {}) {
  const lab = await makeLab(parts);
  const [a, b, c] = [
    await lab.storage('a', 64 * MiB),
    await lab.storage('b', 64 * MiB),
    await lab.storage('c', 64 * MiB, 'west'),
  ] as const;
  for (const each of [a, b, c]) each.copies = true;
  return { ...lab, all: [a, b, c], a, b, c };
}

/** As `a primary, b duplex`, of the first segment. */
export async function standing(directory: DirectoryClient, at = 0): Promise<string> {
  const segment = (await directory.volumeRecord(V)).segments[at];
  return (segment?.copies ?? [])
    .map(({ storage, role, pair }) => `${storage} ${role === 'primary' ? role : pair}`)
    .join(', ');
}

export async function becomes(directory: DirectoryClient, wanted: string, at = 0): Promise<void> {
  await until(async () => (await standing(directory, at)) === wanted);
}

export async function realVolumeAt(directory: DirectoryClient, storage: string): Promise<RealVolumeId> {
  const [segment] = (await directory.volumeRecord(V)).segments;
  const copy = segment?.copies.find((each) => each.storage === storage);
  return RealVolumeId.parse(copy?.realVolume);
}
