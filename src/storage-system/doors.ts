/**
 * Doors: the ways to each real volume that are open: one for use, of the epoch that counts, one for passages into that epoch (what members
 * that have handed over still send through), and one for looking.
 *
 * Invariants
 * 1. A real volume has at most one door for use that is not shut, and one for passages; every connection has one of those, or a shut one.
 *    Those of an epoch are shut together, the one for passages also alone.
 * 2. Connections to a shut door are told (ESHUTDOWN) for a while, so that a gateway may find another way; then they are
 *    cut off, whether they have asked or not.
 */

import type { Epoch, RealVolumeId } from '../control-protocol/names.ts';
import type { RealVolumeExport } from '../control-protocol/real-volume-export.ts';
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
  /** Hosts are served through to another member. */
  isElsewhere(id: RealVolumeId): boolean;
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

type Purpose = 'use' | 'passage' | 'looking';
type Open = { [purpose in Purpose]?: EpochDoor } & { epoch?: Epoch };

export class Doors {
  readonly #connections: Connections;
  readonly #doors = new Map<RealVolumeId, Open>();
  /** With the timer that cuts its connections off, once nothing is under way. */
  readonly #shut = new Map<EpochDoor, NodeJS.Timeout | undefined>();

  constructor(connections: Connections) {
    this.#connections = connections;
  }

  /** The door that is there, or a new one, which leads to `behind`; the file is open. */
  door(purpose: Purpose, realVolume: RealVolume, file: HeldFile, behind: DoorFile = file): EpochDoor {
    const open = this.#doors.get(realVolume.id) ?? {};
    this.#doors.set(realVolume.id, open);
    open[purpose] ??= makeDoor(purpose, realVolume, file, behind);
    if (purpose !== 'looking') open.epoch ??= realVolume.epoch;
    return open[purpose];
  }

  /** Of the doors that are not for looking. */
  epochOf(id: RealVolumeId): Epoch | undefined {
    return this.#doors.get(id)?.epoch;
  }

  /** Nothing is under way through the doors for use and for passages while `change` runs; they lead to `behind` afterwards. */
  async exchange(id: RealVolumeId, change: () => Promise<void>, behind: () => DoorFile): Promise<void> {
    const { use, passage } = this.#doors.get(id) ?? {};
    await Promise.all([use?.hold(), passage?.hold()]);
    try {
      await change();
    } finally {
      use?.leadTo(behind());
      passage?.leadTo(behind());
    }
  }

  /** How many connections use the real volume, or look at it. */
  connections(id: RealVolumeId): number {
    const { use, passage, looking } = this.#doors.get(id) ?? {};
    return [use, passage, looking].reduce((sum, door) => sum + (door ? this.#connections.of(door) : 0), 0);
  }

  resized(id: RealVolumeId, sizeBytes: number): void {
    const { use, passage, looking } = this.#doors.get(id) ?? {};
    for (const door of [use, passage, looking]) door?.resized(sizeBytes);
  }

  /** Shuts the doors of an epoch, or the one for looking, at once; resolves when nothing that came through them is under way. */
  async shut(what: 'epoch' | 'looking', id: RealVolumeId): Promise<void> {
    const open = this.#doors.get(id);
    if (open === undefined) return;
    const { use, passage, looking } = open;
    if (what === 'looking') delete open.looking;
    else {
      delete open.use;
      delete open.passage;
      delete open.epoch;
    }
    if (Object.keys(open).length === 0) this.#doors.delete(id);
    const doors = what === 'looking' ? [looking] : [use, passage];
    await Promise.all(doors.map((door) => door && this.#shutDoor(door)));
  }

  /** Nothing comes through passages into this epoch any more; resolves when nothing that came so is under way. Nobody may be let in after it. */
  async endPassages(id: RealVolumeId): Promise<void> {
    const door = this.#doors.get(id)?.passage; // it stays there, so that whoever comes next waits for the same
    if (door !== undefined) await this.#shutDoor(door);
  }

  /** All of them. */
  async shutAll(id: RealVolumeId): Promise<void> {
    await Promise.all([this.shut('epoch', id), this.shut('looking', id)]);
  }

  async #shutDoor(door: EpochDoor): Promise<void> {
    if (!door.isShut) this.#shut.set(door, undefined);
    await door.shut();
    // From here on, so that what took long is answered as well.
    if (!this.#shut.has(door) || this.#shut.get(door) !== undefined) return;
    this.#shut.set(door, setTimeout(() => void this.#cut(door), TOLD_MS).unref());
  }

  /** What leads to another storage system is not ours to flush: it is shut, also before all ends. */
  async shutWhere(isElsewhere: (id: RealVolumeId) => boolean): Promise<void> {
    const ids = [...this.#doors.keys()].filter(isElsewhere);
    await Promise.all(ids.map((id) => this.shut('epoch', id)));
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

export function purposeOf(access: RealVolumeExport['access']): Purpose {
  if (access === undefined) return 'looking';
  return access.manner === 'passage' ? 'passage' : 'use';
}

function makeDoor(purpose: Purpose, realVolume: RealVolume, file: HeldFile, behind: DoorFile): EpochDoor {
  const { volume } = file;
  if (volume === undefined) throw new Error(`the file of ${realVolume.id} is open`);
  const { blockSizes, capabilities } = volume;
  const { sizeBytes } = realVolume;
  const readOnly = purpose === 'looking';
  return new EpochDoor({ file: behind, sizeBytes, blockSizes, capabilities, readOnly });
}
