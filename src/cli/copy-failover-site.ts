/**
 * `volary copy failover --site SITE`: a site is gone. Every volume with a primary on a storage system there that is offline fails over to
 * the best of its copies that are online: one that is duplex, or (by force) one that lacks least. What cannot be is told, and keeps no other volume waiting.
 */

import type { SegmentView, StorageView, VolumeView } from '../control-protocol/directory-api.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { SiteName, StorageName, VolumeName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { Gate } from '../storage/gate.ts';
import { finish } from './finish.ts';
import type { Output } from './output.ts';

/** Volumes that fail over at a time: each waits for the lease of the primary of before. */
const AT_ONCE = 16;

export interface LostSite {
  readonly directory: DirectoryClient;
  readonly site: SiteName;
  readonly force: boolean;
  readonly output: Output;
}

type Copy = SegmentView['copies'][number];

/** @throws ControlError not-found: there is no such site; failed: some could not be failed over */
export async function failOverSite(lost: LostSite): Promise<void> {
  const { directory, site, output } = lost;
  const there = (await directory.storageSystems()).filter((system) => system.site === site);
  if (there.length === 0) throw new ControlError('not-found', `no storage system is in site ${site}`);
  const volumes = (await directory.volumes()).filter(({ storage }) =>
    there.some(({ name, state }) => state === 'offline' && storage.includes(name)),
  );
  const gate = new Gate(AT_ONCE);
  const outcomes = await Promise.all(volumes.map(({ name }) => gate.run(() => failOver(name, lost))));
  const lostCount = outcomes.filter((outcome) => outcome !== 'not lost').length;
  const failedCount = outcomes.filter((outcome) => outcome === 'failed').length;
  if (failedCount > 0) {
    throw new ControlError('failed', `${failedCount} of ${lostCount} volumes could not be failed over`);
  }
  if (lostCount === 0 && !output.json) {
    output.result({}, `no volume has its primary on a storage system of site ${site} that is offline`);
  }
}

/** One volume, whose segments may go to several storage systems, one after the other. */
async function failOver(volume: VolumeName, lost: LostSite): Promise<'not lost' | 'failed' | 'done'> {
  const { directory, output } = lost;
  const to: StorageName[] = [];
  try {
    for (;;) {
      const [view, systems] = await Promise.all([directory.volume(volume), directory.storageSystems()]);
      const segments = lostSegments(view, lost, systems);
      if (segments.length === 0) break;
      const { storage, isBehind } = bestOf(view, segments, lost, systems);
      await finish(directory, (await directory.failOver(volume, { storage, force: isBehind })).id);
      to.push(storage);
    }
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    const { code, message } = error;
    output.result({ volume, storage: to, error: { code, message } }, `${volume}: ${code}: ${message}`);
    return 'failed';
  }
  if (to.length === 0) return 'not lost';
  output.result({ volume, storage: to }, `${volume}: the primary is on ${to.join(', ')} now`);
  return 'done';
}

function lostSegments(
  { segments }: VolumeView,
  { site }: LostSite,
  systems: readonly StorageView[],
): SegmentView[] {
  const isLost = ({ role, storage }: Copy): boolean =>
    role === 'primary' &&
    systems.some((each) => each.name === storage && each.site === site && each.state === 'offline');
  return segments.filter(({ copies }) => copies.some(isLost));
}

/** Where most of the segments go on, and what is lost is least. @throws ControlError conflict */
function bestOf(
  { name, segments: all }: VolumeView,
  segments: readonly SegmentView[],
  { force }: LostSite,
  systems: readonly StorageView[],
): { storage: StorageName; isBehind: boolean } {
  const candidates = systems
    .filter(({ state }) => state === 'online')
    .map(({ name: storage }) => {
      const copies = segments.flatMap(({ copies, length }) =>
        copies
          .filter((copy) => copy.storage === storage && copy.role === 'secondary')
          .map((copy) => ({ ...copy, lacksAll: copy.pair !== 'duplex' && copy.outOfSyncBytes >= length })),
      );
      return {
        storage,
        segments: copies.length,
        isBehind: copies.some(({ pair }) => pair !== 'duplex'),
        lacksAll: copies.some(({ lacksAll }) => lacksAll),
        lackedBytes: copies.reduce((sum, { outOfSyncBytes }) => sum + outOfSyncBytes, 0),
      };
    })
    .filter((each) => each.segments > 0 && !each.lacksAll)
    .sort(
      (a, b) =>
        Number(a.isBehind) - Number(b.isBehind) || b.segments - a.segments || a.lackedBytes - b.lackedBytes,
    );
  const best = candidates.find(({ isBehind }) => force || !isBehind);
  if (best !== undefined) return best;
  const rather = candidates.length > 0 ? ': --force takes one that is not, and what it lacks is lost' : '';
  const which = all.length > segments.length ? `a part of volume ${name}` : `volume ${name}`;
  throw new ControlError('conflict', `${which} has no copy that is duplex and online${rather}`);
}
