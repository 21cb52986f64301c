/** What the members of copy groups are to be told, as the catalog is now. */

import type { CopyRecord, SegmentRecord, VolumeRecord } from '../control-protocol/catalog.ts';
import type { GroupConfig } from '../control-protocol/copy-groups.ts';
import type { RealVolumeId } from '../control-protocol/names.ts';
import { type GroupSettings, groupConfigOf } from '../replication/group-rules.ts';
import type { CatalogView } from './catalog-view.ts';
import { keys } from './records.ts';

export interface Place {
  readonly volume: VolumeRecord;
  readonly segment: SegmentRecord;
  readonly copy: CopyRecord;
}

/** undefined: it is no volume's. */
export function placeOf(view: CatalogView, realVolume: RealVolumeId): Place | undefined {
  const volume = view.volumes.get(view.ownerOf(realVolume) ?? '');
  for (const segment of volume?.segments ?? []) {
    const copy = segment.copies.find((each) => each.realVolume === realVolume);
    if (volume !== undefined && copy !== undefined) return { volume, segment, copy };
  }
  return undefined;
}

/** It can be told: there are real volumes, and more than one, or there have been. */
export function isTold({ state }: VolumeRecord, { isGrouped }: SegmentRecord): boolean {
  return isGrouped && (state === 'ready' || state === 'resizing');
}

export class GroupConfigs {
  readonly settings: GroupSettings;
  readonly #view: CatalogView;

  constructor(view: CatalogView, settings: GroupSettings) {
    this.#view = view;
    this.settings = settings;
  }

  /** undefined: there is nothing to be told. */
  of(realVolume: RealVolumeId): GroupConfig | undefined {
    const view = this.#view;
    const place = placeOf(view, realVolume);
    if (place === undefined || !isTold(place.volume, place.segment)) return undefined;
    const { volume, segment } = place;
    const involved = [
      keys.volume(volume.name),
      ...segment.copies.map(({ storage }) => keys.storage(storage)),
    ];
    const revision =
      Math.max(...involved.map((key) => view.revisionOf(key))) + (segment.revisionsMissed ?? 0);
    return groupConfigOf(volume, segment, view.storage, revision, this.settings);
  }
}
