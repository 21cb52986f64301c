/**
 * Members that know a newer epoch than the record does. That is so when an older catalog has been put back, after a switch: nobody is served
 * then, since the members take nothing of an epoch that is over, and the record is not raised by itself. What it says of pairs may
 * be wrong as well, and a person has to say which copy is to go on.
 *
 *  1. It is told once, by an event for each member; and shown for as long as it is so.
 *  2. A member that has handed over to a switch that is under way knows a newer epoch, too: that is no news.
 */

import type { SegmentRecord, VolumeRecord } from '../control-protocol/catalog.ts';
import type { Epoch, RealVolumeId } from '../control-protocol/names.ts';
import { ControlError, StoreError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Catalog, NewEvent } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import { type Place, placeOf } from './group-configs.ts';
import type { Peers } from './peers.ts';

export interface NewerEpochsOptions {
  readonly catalog: Catalog;
  readonly peers: Peers;
  readonly log: Log;
}

/** What members know, by real volume. */
export type KnownEpochs = ReadonlyMap<RealVolumeId, Epoch>;

const KIND = 'copy.newer-epoch';

export class NewerEpochs {
  readonly #options: NewerEpochsOptions;
  readonly #known = new Map<RealVolumeId, Epoch>();

  constructor(options: NewerEpochsOptions) {
    this.#options = options;
  }

  /** The newer epoch that a member of the segment is known to have; undefined: none. */
  of({ epoch, copies }: SegmentRecord, realVolume: RealVolumeId): Epoch | undefined {
    const known = this.#known.get(realVolume);
    const isOne =
      known !== undefined && known > epoch && copies.some((copy) => copy.realVolume === realVolume);
    return isOne ? known : undefined;
  }

  has({ segments }: VolumeRecord): boolean {
    return segments.some((segment) =>
      segment.copies.some(({ realVolume }) => this.of(segment, realVolume) !== undefined),
    );
  }

  /** A member takes what it is told. */
  taken(realVolume: RealVolumeId): void {
    this.#known.delete(realVolume);
  }

  /** A member has refused what it was told: its epoch is over. */
  async refused(realVolume: RealVolumeId): Promise<void> {
    const { catalog, log } = this.#options;
    const place = placeOf(catalog.view, realVolume);
    if (place === undefined || place.volume.operation !== null) return;
    if (this.of(place.segment, realVolume) !== undefined) return;
    const epoch = await this.#epochOf(place);
    const now = placeOf(catalog.view, realVolume);
    if (epoch === undefined || now === undefined || now.volume.operation !== null) return;
    if (epoch <= now.segment.epoch) return;
    try {
      await catalog.change((draft) => {
        const event = newsOf(draft.view, now, epoch);
        if (event !== undefined) draft.addEvent(event);
      });
      this.#known.set(realVolume, epoch);
    } catch (error) {
      if (!(error instanceof StoreError || error instanceof ControlError)) throw error;
      log.error({ realVolume, error: error.message }, 'a newer epoch of a member cannot be told yet');
    }
  }

  /** Asks all members of a volume that are online. */
  async ask({ segments, name }: VolumeRecord): Promise<KnownEpochs> {
    const { view } = this.#options.catalog;
    const places = segments.flatMap(({ copies }) => copies.map((copy) => placeOf(view, copy.realVolume)));
    const known = new Map<RealVolumeId, Epoch>();
    await Promise.all(
      places.map(async (place) => {
        if (place?.volume.name !== name || !view.presence.has(`storage/${place.copy.storage}`)) return;
        const epoch = await this.#epochOf(place);
        if (epoch !== undefined) known.set(place.copy.realVolume, epoch);
      }),
    );
    return known;
  }

  /** undefined: it does not say. */
  async #epochOf({ copy: { storage, realVolume } }: Place): Promise<Epoch | undefined> {
    const { catalog, peers, log } = this.#options;
    const record = catalog.view.storage.get(storage);
    if (record === undefined) return undefined;
    try {
      return (await peers.storage(record).group(realVolume)).epoch;
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      log.debug({ storage, realVolume, error: error.message }, 'a member does not say its epoch');
      return undefined;
    }
  }
}

/** What a person can do. */
export function adviceOn(name: string): string {
  return `volary copy failover ${name} STORAGE --force goes on with the copy that you choose`;
}

function newsOf(view: CatalogView, { volume, segment, copy }: Place, epoch: Epoch): NewEvent | undefined {
  const { storage, realVolume } = copy;
  const isTold = view.events.some(
    ({ kind, details }) => kind === KIND && details.realVolume === realVolume && details.epoch === epoch,
  );
  if (isTold) return undefined;
  return {
    kind: KIND,
    subject: volume.name,
    text: `the copy of volume ${volume.name} on storage system ${storage} knows epoch ${epoch}, and the catalog ${segment.epoch}: is this an older catalog? Nobody is served; ${adviceOn(volume.name)}`,
    details: { storage, realVolume, epoch, recorded: segment.epoch },
  };
}
