/**
 * Doors: the ways to each real volume that are open: one for use, of the epoch that counts, and one for looking.
 *
 * Invariants
 * 1. A real volume has at most one door for use that is not shut; every connection for use has that one, or a shut one.
 * 2. Connections to a shut door are told (ESHUTDOWN) for a while, so that a gateway may find another way; then they are
 *    cut off, whether they have asked or not.
 */

import type { Epoch, RealVolumeId } from '../control-protocol/names.ts';
import type { Volume } from '../model/volume.ts';
import { type DoorFile, EpochDoor } from './epoch-door.ts';
import type { HeldFile } from './open-volumes.ts';
import type { RealVolume } from './real-volume.ts';

/** The NBD server, as far as connections to one Volume go. */
export interface Connections {
  of(volume: Volume): number;
  /** Cuts them off, and resolves when they have gone. */
  cut(volume: Volume, reason: string): Promise<void>;
}

/** Those that are members of copy groups (members.ts). */
export interface Groups {
  /** What is behind the door for use of a member; undefined: its file. */
  behind(id: RealVolumeId): DoorFile | undefined;
  /** The real volume has failed, or is being deleted: the member is used no more. Its doors are shut. */
  ended(id: RealVolumeId, cause: 'failed' | 'leaving'): Promise<void>;
  /** It is to be used again, and may have lost what had not been flushed: notes that, durably. @throws StoreError, UsageError */
  takingBack(id: RealVolumeId): Promise<void>;
  /** It is used again. */
  takenBack(id: RealVolumeId): Promise<void>;
  /** Its file has this size: before anything is written behind the old one. @throws StoreError */
  resized(id: RealVolumeId, sizeBytes: number): Promise<void>;
}

/** How long connections to a shut door get answers. */
const TOLD_MS = 2_000;

type Purpose = 'use' | 'looking';
type Pair = { [purpose in Purpose]?: EpochDoor } & { epoch?: Epoch };

export class Doors {
  readonly #connections: Connections;
  readonly #doors = new Map<RealVolumeId, Pair>();
  /** With the timer that cuts its connections off, once nothing is under way. */
  readonly #shut = new Map<EpochDoor, NodeJS.Timeout | undefined>();

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  /** The door that is there, or a new one, which leads to `behind`; the file is open. */
  door(purpose: Purpose, realVolume: RealVolume, file: HeldFile, behind: DoorFile = file): EpochDoor {
    const pair = this.#doors.get(realVolume.id) ?? {};
    this.#doors.set(realVolume.id, pair);
    pair[purpose] ??= makeDoor(purpose, realVolume, file, behind);
    if (purpose === 'use') pair.epoch ??= realVolume.epoch;
    return pair[purpose];
  }

  /** Of the door for use that is open. */
  epochOf(id: RealVolumeId): Epoch | undefined {
    return this.#doors.get(id)?.epoch;
  }

  /** Nothing is under way through the door for use, if there is one, while `change` runs; it leads to `behind` afterwards. */
  async exchange(id: RealVolumeId, change: () => Promise<void>, behind: () => DoorFile): Promise<void> {
    const door = this.#doors.get(id)?.use;
    await door?.hold();
    try {
      await change();
    } finally {
      door?.leadTo(behind());
    }
  }

  /** How many connections use the real volume, or look at it. */
  connections(id: RealVolumeId): number {
    const { use, looking } = this.#doors.get(id) ?? {};
    return [use, looking].reduce((sum, door) => sum + (door ? this.#connections.of(door) : 0), 0);
  }

  resized(id: RealVolumeId, sizeBytes: number): void {
    const { use, looking } = this.#doors.get(id) ?? {};
    use?.resized(sizeBytes);
    looking?.resized(sizeBytes);
  }

  /** Shuts a door, at once; resolves when nothing that came through it is under way. */
  async shut(purpose: Purpose, id: RealVolumeId): Promise<void> {
    const pair = this.#doors.get(id);
    const door = pair?.[purpose];
    if (pair === undefined || door === undefined) return;
    delete pair[purpose];
    if (purpose === 'use') delete pair.epoch;
    if (pair.use === undefined && pair.looking === undefined) this.#doors.delete(id);
    this.#shut.set(door, undefined);
    await door.shut();
    // From here on, so that what took long is answered as well.
    if (this.#shut.has(door)) this.#shut.set(door, setTimeout(() => void this.#cut(door), TOLD_MS).unref());
  }

  /** Both doors. */
  async shutAll(id: RealVolumeId): Promise<void> {
    await Promise.all([this.shut('use', id), this.shut('looking', id)]);
  }

  /** Cuts off whoever is still connected to a shut door: what is flushed at the end are the open ones. */
  async cutShut(): Promise<void> {
    await Promise.all([...this.#shut.keys()].map((door) => this.#cut(door)));
  }

  async #cut(door: EpochDoor): Promise<void> {
    clearTimeout(this.#shut.get(door));
    await this.#connections.cut(door, 'this way to the real volume has been shut');
    this.#shut.delete(door);
  }
}

function makeDoor(purpose: Purpose, realVolume: RealVolume, file: HeldFile, behind: DoorFile): EpochDoor {
  const { volume } = file;
  if (volume === undefined) throw new Error(`the file of ${realVolume.id} is open`);
  const { blockSizes, capabilities } = volume;
  const { sizeBytes } = realVolume;
  const readOnly = purpose === 'looking';
  return new EpochDoor({ file: behind, sizeBytes, blockSizes, capabilities, readOnly });
}
