/**
 * Tells the members of copy groups what the catalog says of them, again and again until they have answered.
 *
 *  1. What is told is the catalog as it is when it is sent: changes in quick succession are told once, and those that do not concern
 *     a member not at all.
 *  2. Of one storage system, as many members are told at a time as MEMBERS_AT_ONCE says, and none twice at the same time. One that does not
 *     answer keeps no other waiting.
 *  3. Whatever may have changed what a member is to know has it told: its volume's record, the address of a storage system of its
 *     group; and everything is told to a storage system that comes back, and by a directory that has been started.
 */

import { createHash } from 'node:crypto';
import { pause } from '../base/pause.ts';
import type { RealVolumeId, StorageName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Catalog } from './catalog.ts';
import { type GroupConfigs, isTold, placeOf } from './group-configs.ts';
import type { NewerEpochs } from './newer-epochs.ts';
import { mendOlderRecord } from './older-records.ts';
import type { RetryLimits } from './operations/perform.ts';
import type { Peers } from './peers.ts';
import type { RecordChange } from './records.ts';

const MEMBERS_AT_ONCE = 8;
/** Members that are gone, and remembered until there are more than so many. */
const KNOWN_SPARE = 100;

export interface TellerOptions {
  readonly catalog: Catalog;
  readonly peers: Peers;
  readonly configs: GroupConfigs;
  readonly newerEpochs: NewerEpochs;
  readonly limits: Pick<RetryLimits, 'backoffMinMs' | 'backoffMaxMs'>;
  readonly log: Log;
}

/** Of one storage system. */
interface Desk {
  /** To be told now, and not being told. */
  readonly due: Set<RealVolumeId>;
  /** After a while: they have not taken it. */
  readonly later: Set<RealVolumeId>;
  readonly telling: Set<RealVolumeId>;
  /** What they have answered, but for its revision, and has not changed since. */
  readonly known: Map<RealVolumeId, string>;
  backoffMs: number;
  isWaiting: boolean;
}

export class Teller {
  readonly #options: TellerOptions;
  readonly #stopListening: () => void;
  readonly #stopped = new AbortController();
  readonly #desks = new Map<StorageName, Desk>();

  constructor(options: TellerOptions) {
    this.#options = options;
    this.#stopListening = options.catalog.onCommit((changes) => {
      for (const change of changes) this.#hear(change);
    });
  }

  /** Members that have not answered what they are to know. */
  get untold(): number {
    let sum = 0;
    for (const { due, later, telling } of this.#desks.values()) {
      sum += new Set([...due, ...later, ...telling]).size;
    }
    return sum;
  }

  /** Everybody, everything. */
  start(): void {
    for (const name of this.#options.catalog.view.volumes.keys()) this.#tellVolume(name);
  }

  stop(): void {
    this.#stopListening();
    this.#stopped.abort();
  }

  #hear({ table, id, record }: RecordChange): void {
    if (record === null) return;
    if (table === 'volumes') this.#tellVolume(id);
    else if (table === 'storage') this.#tellThoseWith(id as StorageName, 'all');
    else if (table === 'presence' && id.startsWith('storage/')) {
      this.#tellThoseWith(id.slice('storage/'.length) as StorageName, 'own');
    }
  }

  #tellVolume(name: string): void {
    const volume = this.#options.catalog.view.volumes.get(name);
    for (const segment of volume?.segments ?? []) {
      if (volume === undefined || !isTold(volume, segment)) continue;
      for (const { storage, realVolume } of segment.copies) this.#tell(storage, realVolume);
    }
  }

  /** `own`: its members; `all`: everybody in a group with one of them. */
  #tellThoseWith(storage: StorageName, who: 'own' | 'all'): void {
    for (const volume of this.#options.catalog.view.volumes.values()) {
      for (const segment of volume.segments) {
        if (!isTold(volume, segment) || !segment.copies.some((copy) => copy.storage === storage)) continue;
        for (const copy of segment.copies) {
          if (copy.storage === storage) this.#desks.get(storage)?.known.delete(copy.realVolume);
          if (who === 'all' || copy.storage === storage) this.#tell(copy.storage, copy.realVolume);
        }
      }
    }
  }

  #tell(storage: StorageName, realVolume: RealVolumeId): void {
    let desk = this.#desks.get(storage);
    if (desk === undefined) {
      const backoffMs = this.#options.limits.backoffMinMs;
      desk = {
        ...{ due: new Set(), later: new Set(), telling: new Set(), known: new Map() },
        ...{ backoffMs, isWaiting: false },
      };
      this.#desks.set(storage, desk);
    }
    const known = desk.known.get(realVolume);
    if (known !== undefined && known === this.#contentFor(realVolume)) return;
    desk.known.delete(realVolume);
    desk.later.delete(realVolume);
    desk.due.add(realVolume);
    this.#work(storage, desk);
  }

  #work(storage: StorageName, desk: Desk): void {
    for (const realVolume of desk.due) {
      if (desk.telling.size >= MEMBERS_AT_ONCE || this.#stopped.signal.aborted) return;
      if (desk.telling.has(realVolume)) continue;
      desk.due.delete(realVolume);
      desk.telling.add(realVolume);
      const content = this.#contentFor(realVolume);
      this.#tellNow(storage, realVolume).then((isTaken) => {
        desk.telling.delete(realVolume);
        if (isTaken && content !== undefined && !desk.due.has(realVolume)) {
          desk.known.set(realVolume, content);
          this.#forgetThoseGone(storage, desk);
        }
        if (isTaken) desk.backoffMs = this.#options.limits.backoffMinMs;
        else if (!desk.due.has(realVolume)) desk.later.add(realVolume);
        if (desk.later.size > 0) this.#workLater(storage, desk);
        this.#work(storage, desk);
      });
    }
  }

  #forgetThoseGone(storage: StorageName, { known }: Desk): void {
    const { view } = this.#options.catalog;
    if (known.size <= 2 * view.realVolumesAt(storage) + KNOWN_SPARE) return;
    for (const realVolume of known.keys())
      if (view.ownerOf(realVolume) === undefined) known.delete(realVolume);
  }

  #workLater(storage: StorageName, desk: Desk): void {
    if (desk.isWaiting) return;
    desk.isWaiting = true;
    const { backoffMaxMs } = this.#options.limits;
    pause(desk.backoffMs, this.#stopped.signal).then(() => {
      desk.isWaiting = false;
      desk.backoffMs = Math.min(2 * desk.backoffMs, backoffMaxMs);
      for (const realVolume of desk.later) desk.due.add(realVolume);
      desk.later.clear();
      this.#work(storage, desk);
    });
  }

  #contentFor(realVolume: RealVolumeId): string | undefined {
    const config = this.#options.configs.of(realVolume);
    if (config === undefined) return undefined;
    const { revision: _, ...content } = config;
    return createHash('sha256').update(JSON.stringify(content)).digest('base64');
  }

  /** Whether there is nothing more to be told of this. */
  async #tellNow(storage: StorageName, realVolume: RealVolumeId): Promise<boolean> {
    const { catalog, peers, configs, newerEpochs, log } = this.#options;
    const config = configs.of(realVolume);
    const record = catalog.view.storage.get(storage);
    if (config === undefined || record === undefined) return true;
    try {
      const view = await peers.storage(record).configureGroup(realVolume, config);
      newerEpochs.taken(realVolume);
      return await mendOlderRecord(realVolume, view, this.#options);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      if (placeOf(catalog.view, realVolume) === undefined) return true;
      const { epoch, revision } = config;
      log.debug({ storage, realVolume, epoch, revision, error: error.message }, 'a member is not told yet');
      if (error.code === 'stale-epoch') await newerEpochs.refused(realVolume);
      return false;
    }
  }
}
