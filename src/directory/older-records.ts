/**
 * A record that is older than its members in the same epoch: an older catalog has been put back, and nobody became primary since. They take
 * nothing of a revision that they have passed, and what the record says of pairs may be wrong: `duplex` of a copy that was
 * suspended since. So the record goes on past them, and no pair is in step until the primary has said so.
 */

import type { GroupView } from '../control-protocol/copy-groups.ts';
import type { RealVolumeId } from '../control-protocol/names.ts';
import { ControlError, StoreError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { caughtUp } from '../replication/group-rules.ts';
import type { Catalog } from './catalog.ts';
import { type GroupConfigs, placeOf } from './group-configs.ts';

/** None comes near by being counted. */
const REVISIONS_MAX = 2 ** 48;

export interface OlderRecordOptions {
  readonly catalog: Catalog;
  readonly configs: GroupConfigs;
  readonly log: Log;
}

/** A member has answered what it was told, and knows `known`. @returns false: its record is older still, and could not be mended */
export async function mendOlderRecord(
  realVolume: RealVolumeId,
  known: Pick<GroupView, 'epoch' | 'revision'>,
  { catalog, configs, log }: OlderRecordOptions,
): Promise<boolean> {
  const { epoch, revision } = known;
  // What was told meanwhile, by others, is in the catalog.
  const isOlder = (): boolean => {
    const now = configs.of(realVolume);
    return now !== undefined && now.epoch === epoch && now.revision < revision && revision <= REVISIONS_MAX;
  };
  if (!isOlder()) return true;
  try {
    await catalog.change((draft) => {
      const place = placeOf(draft.view, realVolume);
      if (place === undefined || !isOlder()) return;
      const { volume, segment } = place;
      const segments = volume.segments.map((each) => (each === segment ? caughtUp(each, revision) : each));
      draft.putVolume({ ...volume, segments });
    });
  } catch (error) {
    if (!(error instanceof StoreError || error instanceof ControlError)) throw error;
    log.error({ realVolume, error: error.message }, 'a record that is older than its members is so still');
    return false;
  }
  log.warn({ realVolume, epoch, revision }, 'the catalog was older than what a member knows of its group');
  return true;
}
