/**
 * Leases of primaries (replication/SPEC.md I11): a primary whose record says so may serve for another while. And primaries that have
 * lost their page cache (I14): another copy takes over where there is one.
 *
 *  1. What is not granted is over: who asks is no primary any more. So a primary that hands over keeps its lease until the record
 *     has another one, which serves only when it has answered that it does not.
 *  2. A primary that wants to give way is told to go on, by granting, only when no copy in step can take over: at once when there is none,
 *     otherwise when its storage system has not come back for a while. Then an event says what that may cost. Until then nothing is
 *     answered: the whole request is refused as `unavailable`, and asked again.
 *  3. Who asks is the process that was taken last for its storage system (instances.ts): no other keeps a primary alive in its name.
 */

import type { LeaseAnswer, LeaseRequest, LeaseVerdict } from '../control-protocol/copy-groups.ts';
import type { RealVolumeId, VolumeName } from '../control-protocol/names.ts';
import { ControlError, StoreError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { leaseHolds, primaryOf, secondariesOf } from '../replication/group-rules.ts';
import type { Catalog } from './catalog.ts';
import { type CopyRequests, successorsOf } from './copy-requests.ts';
import { type Place, placeOf } from './group-configs.ts';
import { refuseOtherLife } from './instances.ts';

/** How long a storage system with a copy in step may take to come back, after a power cut that has hit all. */
const RETURN_MS = 10_000;

export interface GroupLeasesOptions {
  readonly catalog: Catalog;
  readonly requests: CopyRequests;
  readonly log: Log;
  /** Default 10,000. */
  readonly returnMs?: number;
}

interface Asking {
  readonly epoch: number;
  readonly sinceMs: number;
  goesOn: boolean;
}

export class GroupLeases {
  readonly #options: GroupLeasesOptions;
  /** Primaries that want to give way. */
  readonly #askings = new Map<RealVolumeId, Asking>();

  constructor(options: GroupLeasesOptions) {
    this.#options = options;
  }

  /** One that waits keeps nobody else waiting. @throws ControlError wrong-identity */
  async answer({ asker, leases, givingWay }: LeaseRequest): Promise<LeaseAnswer> {
    if (asker !== undefined) refuseOtherLife(this.#options.catalog.view, asker);
    if (givingWay.length > 0) await this.#giveWay(givingWay);
    const { view } = this.#options.catalog;
    const answers = leases.map(({ realVolume, epoch }): LeaseVerdict => {
      const place = placeOf(view, realVolume);
      if (place === undefined || !leaseHolds(place.segment, realVolume, epoch)) return 'over';
      return this.#waits(realVolume, epoch) ? 'later' : 'granted';
    });
    return { answers };
  }

  #waits(realVolume: RealVolumeId, epoch: number): boolean {
    const asking = this.#askings.get(realVolume);
    return asking !== undefined && asking.epoch === epoch && !asking.goesOn;
  }

  async #giveWay(givingWay: readonly RealVolumeId[]): Promise<void> {
    const { view } = this.#options.catalog;
    const moving = new Map<VolumeName, RealVolumeId[]>();
    for (const realVolume of new Set(givingWay)) {
      const place = placeOf(view, realVolume);
      if (place === undefined || primaryOf(place.segment).realVolume !== realVolume) {
        this.#askings.delete(realVolume);
        continue;
      }
      const asking = this.#asking(realVolume, place);
      if (asking.goesOn) continue;
      if (successorsOf(view, place.segment).length > 0) {
        moving.set(place.volume.name, [...(moving.get(place.volume.name) ?? []), realVolume]);
      } else if (this.#isAlone(place, asking)) {
        asking.goesOn = true;
        await this.#tellRisk(realVolume, place);
      }
    }
    for (const [name, primaries] of moving) await this.#failOver(name, primaries);
  }

  #asking(realVolume: RealVolumeId, { segment: { epoch } }: Place): Asking {
    const known = this.#askings.get(realVolume);
    if (known?.epoch === epoch) return known;
    const asking = { epoch, sinceMs: performance.now(), goesOn: false };
    this.#askings.set(realVolume, asking);
    return asking;
  }

  #isAlone({ segment }: Place, { sinceMs }: Asking): boolean {
    if (!secondariesOf(segment).some(({ pair }) => pair === 'duplex')) return true;
    return performance.now() - sinceMs >= (this.#options.returnMs ?? RETURN_MS);
  }

  async #failOver(name: VolumeName, primaries: readonly RealVolumeId[]): Promise<void> {
    const { requests, log } = this.#options;
    try {
      const { id } = await requests.giveWay(name, primaries);
      log.info({ volume: name, primaries, operation: id }, 'primaries give way');
    } catch (error) {
      // They ask again in a moment.
      if (!(error instanceof ControlError || error instanceof StoreError)) throw error;
      log.warn({ volume: name, primaries, error: error.message }, 'primaries cannot give way yet');
    }
  }

  async #tellRisk(realVolume: RealVolumeId, { volume: { name }, copy, segment }: Place): Promise<void> {
    const { catalog, log } = this.#options;
    try {
      await catalog.change((draft) =>
        draft.addEvent({
          kind: 'copy.cache-lost',
          subject: name,
          text: `storage system ${copy.storage} has lost what it had not flushed of volume ${name}, and no other copy in step is online: writes that were answered and not flushed may be lost`,
          details: { storage: copy.storage, realVolume, epoch: segment.epoch },
        }),
      );
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      log.error({ volume: name, realVolume, error: error.message }, 'a lost cache cannot be told');
    }
  }
}
