/**
 * RealVolumes: all that a storage system does with its real volumes. What is asked for by the directory (management.ts)
 * and by NBD clients (exports.ts) meets here.
 *
 * Invariants
 * 1. Changes of one real volume take turns, and an export is found only between two of them: who opens a real volume
 *    while its epoch is being raised waits until the last write of the old epoch has ended.
 * 2. A raised epoch is durable before the old door is shut, and the door is shut, with nothing under way behind it, before
 *    the raise is answered. So whatever happens in between, no write of an old epoch comes behind one of a new epoch.
 * 3. A making leaves a whole real volume or nothing; what a crash may leave is said in real-volume-table.ts.
 * 4. The sizes of all real volumes together are at most the capacity, those that are being made or enlarged included.
 * 5. A failure of one real volume is noted where it happens, at any time, without waiting for a turn; others do not notice.
 */

import type { RealVolumeId } from '../control-protocol/names.ts';
import type { RealVolumeExport } from '../control-protocol/real-volume-export.ts';
import type { ChangeRealVolume, MakeRealVolume, RealVolumeView } from '../control-protocol/storage-api.ts';
import { assert, ControlError, UsageError, VolaryError, VolumeError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { removeFile } from '../storage/folder-space.ts';
import { openSparseFile } from '../storage/open-sparse-file.ts';
import { lookAtRawFile, rereadFromDisk } from '../storage/raw-file.ts';
import type { SparseFile } from '../storage/sparse-file.ts';
import { type Connections, Doors, type Groups, purposeOf } from './doors.ts';
import type { DoorFile, EpochDoor } from './epoch-door.ts';
import { controlErrorOf, mayPass } from './errors.ts';
import { checkFile, tooShort } from './file-check.ts';
import { type HeldFile, OpenVolumes } from './open-volumes.ts';
import { changed, conditionOf, eventsOf, type Failure, type RealVolume } from './real-volume.ts';
import type { RealVolumeTable } from './real-volume-table.ts';
import { Turns } from './turns.ts';

export interface RealVolumesOptions {
  readonly table: RealVolumeTable;
  /** The path of the file of a real volume. */
  readonly fileOf: (id: RealVolumeId) => string;
  readonly capacityBytes: number;
  readonly connections: Connections;
  /** How many files without users stay open. */
  readonly idleMax: number;
  readonly log: Log;
  /** A real volume has failed, or has been taken back: `failed` says which have. */
  readonly onFailures: () => void;
}

/** A way to a real volume, and its file, which is to be told of users. */
export interface Way {
  readonly door: EpochDoor;
  readonly file: HeldFile;
}

export class RealVolumes {
  readonly files: OpenVolumes;
  readonly #options: RealVolumesOptions;
  readonly #table: RealVolumeTable;
  readonly #doors: Doors;
  readonly #log: Log;
  readonly #turns = new Turns();
  /** Asked for by what is under way, and not in the table yet. */
  #reservedBytes = 0;
  #isStopping = false;
  #groups: Groups | undefined;

  constructor(options: RealVolumesOptions) {
    this.#options = options;
    this.#table = options.table;
    this.#log = options.log;
    this.#doors = new Doors(options.connections);
    const { idleMax, log } = options;
    this.files = new OpenVolumes({ open: (id) => this.#openFile(id), idleMax, log });
  }

  /** Before anything is asked for. */
  attach(groups: Groups): void {
    this.#groups = groups;
  }

  // --- looking ---------------------------------------------------------------------------------------------

  /** @throws ControlError `not-found` */
  view(id: RealVolumeId): RealVolumeView {
    return this.#viewOf(this.#there(id));
  }

  views(): RealVolumeView[] {
    return [...this.#table.all()].filter(isThere).map((realVolume) => this.#viewOf(realVolume));
  }

  get(id: RealVolumeId): RealVolume | undefined {
    const realVolume = this.#table.get(id);
    return realVolume !== undefined && isThere(realVolume) ? realVolume : undefined;
  }

  /** What has failed, and why. */
  failed(): { realVolume: RealVolumeId; reason: string }[] {
    const found: { realVolume: RealVolumeId; reason: string }[] = [];
    for (const realVolume of this.#table.all()) {
      const { id, failure } = realVolume;
      if (failure !== null && isThere(realVolume)) found.push({ realVolume: id, reason: failure.reason });
    }
    return found;
  }

  // --- ways ------------------------------------------------------------------------------------------------

  /**
   * The way that an export name asks for. `admit` says whether it may be had, at any time, by throwing; it is asked again
   * after each wait, because everything may have changed.
   * @throws VolumeError when the file cannot be opened, and what `admit` throws
   */
  async way({ realVolume: id, access }: RealVolumeExport, admit: () => void): Promise<Way> {
    const purpose = purposeOf(access);
    for (;;) {
      if (this.#isStopping) throw new VolumeError('shutdown', 'the storage system is being stopped');
      admit();
      const busy = this.#turns.busy(id);
      if (busy !== undefined) {
        await busy;
        continue;
      }
      const file = this.files.file(id);
      if (file.volume === undefined) {
        await file.open();
        continue;
      }
      const behind = purpose === 'looking' ? file : this.#behind(id);
      return { door: this.#doors.door(purpose, this.#there(id), file, behind), file };
    }
  }

  /**
   * In its turn, and while nothing is under way through the door for use: `change` has something else be behind it from then on
   * (Groups). @throws ControlError
   */
  exchange(id: RealVolumeId, attempt: string, change: (file: HeldFile) => Promise<void>): Promise<void> {
    return this.#inTurn(id, attempt, () => {
      this.#there(id);
      const run = () => change(this.files.file(id));
      return this.#doors.exchange(id, run, () => this.#behind(id));
    });
  }

  /** The doors of an epoch that is over are shut; what is behind them has seen to it that nothing comes of it later. */
  epochBegun(id: RealVolumeId, epoch: number): void {
    if ((this.#doors.epochOf(id) ?? epoch) < epoch) void this.#doors.shut('epoch', id);
  }

  /** Resolves when nothing that came through a passage into the epoch of now is under way. Nobody is let in there any more (Groups). */
  endPassages(id: RealVolumeId): Promise<void> {
    return this.#doors.endPassages(id);
  }

  #behind(id: RealVolumeId): DoorFile {
    return this.#groups?.behind(id) ?? this.files.file(id);
  }

  // --- changing --------------------------------------------------------------------------------------------

  /** Makes a real volume; the same again is nothing. @throws ControlError */
  make(id: RealVolumeId, wanted: MakeRealVolume): Promise<RealVolumeView> {
    return this.#inTurn(id, `make real volume ${id}`, async () => {
      const known = this.#table.get(id);
      if (known !== undefined) return this.#sameOrConflict(known, wanted);
      const { sizeBytes, volume, epoch, accessKey } = wanted;
      await this.#reserve(sizeBytes, () => this.#makeFile(id, sizeBytes));
      const createdAt = new Date().toISOString();
      const made: RealVolume = {
        ...{ id, sizeBytes, volume, epoch, accessKey, createdAt },
        ...{ access: 'allowed', failure: null, isLeaving: false },
      };
      try {
        this.#table.add(made);
      } catch (error) {
        await removeFile(this.#options.fileOf(id));
        throw error;
      }
      this.#log.info(
        { realVolume: id, from: null, to: conditionOf(made), sizeBytes, volume, epoch },
        'real volume made',
      );
      return this.#viewOf(made);
    });
  }

  /** @throws ControlError */
  change(id: RealVolumeId, wanted: ChangeRealVolume): Promise<RealVolumeView> {
    return this.#inTurn(id, `change real volume ${id}`, async () => {
      if (wanted.failure === 'accepted') await this.#takeBack(id);
      const before = this.#there(id);
      const { sizeBytes } = wanted;
      // What will be refused is refused before anything has been done.
      if (sizeBytes !== undefined) changed(before, { kind: 'resized', sizeBytes });
      const after = this.#table.change(id, eventsOf(before, wanted));
      this.#told(before, after, 'asked for');
      if (after.access === 'prohibited') await this.#doors.shutAll(id);
      else if (after.epoch > before.epoch) await this.#doors.shut('epoch', id);
      if (sizeBytes !== undefined) await this.#resize(id, sizeBytes);
      return this.view(id);
    });
  }

  /** Removes a real volume and its file; one that is not there is removed already. @throws ControlError */
  remove(id: RealVolumeId, force: boolean): Promise<void> {
    return this.#inTurn(id, `delete real volume ${id}`, async () => {
      const before = this.#table.get(id);
      if (before === undefined) return;
      const connections = this.#doors.connections(id);
      if (isThere(before) && connections > 0 && !force) {
        throw new ControlError('in-use', `real volume ${id} is in use by ${connections} connections`);
      }
      const after = this.#table.change(id, [{ kind: 'removal-begun' }]);
      this.#told(before, after, force ? 'asked for, by force' : 'asked for');
      await this.#end(id, 'leaving');
      await removeFile(this.#options.fileOf(id));
      this.#table.remove(id);
      this.files.forget(id);
      this.#log.info({ realVolume: id, from: 'leaving', to: null }, 'real volume deleted');
    });
  }

  /** Tries again what could not be kept of failures. Never fails. */
  keepFailures(): void {
    try {
      const kept = this.#table.keepFailures();
      if (kept.length > 0) this.#log.info({ realVolumes: kept }, 'failures are kept now');
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      this.#log.debug({ error: error.message }, 'failures cannot be kept yet'); // that they are not is in the log
    }
  }

  /** Takes nothing new, waits for what is under way, and cuts off who came through shut doors. */
  async stop(): Promise<void> {
    this.#isStopping = true;
    await this.#turns.allDone();
    await this.#doors.shutWhere((id) => this.#groups?.isElsewhere(id) === true);
    await this.#doors.cutShut();
  }

  // --- steps -----------------------------------------------------------------------------------------------

  #inTurn<T>(id: RealVolumeId, attempt: string, operation: () => Promise<T>): Promise<T> {
    return this.#turns.run(id, async () => {
      if (this.#isStopping) throw new ControlError('unavailable', 'the storage system is being stopped');
      try {
        return await operation();
      } catch (error) {
        throw controlErrorOf(error, attempt);
      }
    });
  }

  #sameOrConflict(known: RealVolume, wanted: MakeRealVolume): RealVolumeView {
    const isSame =
      isThere(known) &&
      known.sizeBytes === wanted.sizeBytes &&
      known.volume === wanted.volume &&
      known.epoch === wanted.epoch &&
      known.accessKey === wanted.accessKey;
    if (isSame) return this.#viewOf(known);
    throw new ControlError('conflict', `real volume ${known.id} is there already, and it is another`);
  }

  async #makeFile(id: RealVolumeId, sizeBytes: number): Promise<void> {
    const path = this.#options.fileOf(id);
    const look = await lookAtRawFile(path);
    if (look.kind === 'usable' && look.allocatedBytes === 0) await removeFile(path);
    else if (look.kind !== 'missing') {
      throw new ControlError('conflict', `${path} is in the way: it is no real volume's; take it away`);
    }
    const file = await openSparseFile(path, { sizeBytes });
    await file.close();
  }

  /** Keeps room for `bytes` while the operation is under way; the table counts them afterwards. */
  async #reserve<T>(bytes: number, operation: () => Promise<T>): Promise<T> {
    const { capacityBytes } = this.#options;
    const freeBytes = capacityBytes - this.#table.provisionedBytes - this.#reservedBytes;
    if (bytes > freeBytes) {
      throw new ControlError(
        'no-space',
        `${bytes} bytes more do not fit: ${Math.max(freeBytes, 0)} of ${capacityBytes} are free`,
      );
    }
    this.#reservedBytes += bytes;
    try {
      return await operation();
    } finally {
      this.#reservedBytes -= bytes;
    }
  }

  async #resize(id: RealVolumeId, sizeBytes: number): Promise<void> {
    const held = this.files.file(id);
    held.begin(); // so that it is not closed, and opened again with the size in the table, half-way
    try {
      const file = await held.open();
      const before = this.#there(id).sizeBytes;
      // What an interrupted resize has left behind the end must not come to light.
      if (file.sizeBytes !== before) await file.resize(before);
      if (sizeBytes > before) await this.#reserve(sizeBytes - before, () => this.#grow(id, file, sizeBytes));
      else if (sizeBytes < before) await this.#shrink(id, file, sizeBytes);
    } finally {
      held.end();
    }
  }

  async #grow(id: RealVolumeId, file: SparseFile, sizeBytes: number): Promise<void> {
    const before = this.#there(id).sizeBytes;
    await file.resize(sizeBytes);
    try {
      await file.flush();
      await this.#groups?.resized(id, sizeBytes);
      this.#sizeChanged(id, sizeBytes);
    } catch (error) {
      if (file.state === 'ok') {
        await file.resize(before);
        await this.#groups?.resized(id, before);
      }
      throw error;
    }
  }

  async #shrink(id: RealVolumeId, file: SparseFile, sizeBytes: number): Promise<void> {
    this.#sizeChanged(id, sizeBytes);
    await file.resize(sizeBytes);
    await this.#groups?.resized(id, sizeBytes);
  }

  /** Ends a failure. Nothing of what has failed is used on: the file is opened again, and what it holds is read from the disk. */
  async #takeBack(id: RealVolumeId): Promise<void> {
    const { failure, sizeBytes } = this.#there(id);
    if (failure === null) return;
    await this.#end(id, 'failed');
    const { trouble } = await checkFile(this.#options.fileOf(id), sizeBytes);
    if (trouble !== undefined) {
      throw new ControlError('conflict', `real volume ${id} cannot be taken back: ${trouble}`);
    }
    await rereadFromDisk(this.#options.fileOf(id));
    await this.#groups?.takingBack(id);
    const before = this.#there(id);
    this.#told(before, this.#table.change(id, [{ kind: 'accepted' }]), `taken back after: ${failure.reason}`);
    await this.#groups?.takenBack(id);
    this.#options.onFailures();
  }

  #sizeChanged(id: RealVolumeId, sizeBytes: number): void {
    const before = this.#there(id).sizeBytes;
    this.#table.change(id, [{ kind: 'resized', sizeBytes }]);
    this.#doors.resized(id, sizeBytes);
    this.#log.info({ realVolume: id, from: before, to: sizeBytes }, 'real volume resized');
  }

  // --- files -----------------------------------------------------------------------------------------------

  async #openFile(id: RealVolumeId): Promise<SparseFile> {
    const realVolume = this.get(id);
    if (realVolume === undefined) throw new VolumeError('shutdown', `there is no real volume ${id} any more`);
    let file: SparseFile;
    try {
      file = await openSparseFile(this.#options.fileOf(id), {
        onFailed: (reason) => this.#fail(id, { cause: 'writes-lost', reason }),
      });
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      if (!mayPass(error)) this.#fail(id, { cause: 'file-unusable', reason: error.message });
      throw new VolumeError('io', `cannot open the file of real volume ${id}: ${error.message}`, {
        cause: error,
      });
    }
    try {
      await this.#fit(file, realVolume);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** An interrupted resize leaves a longer file; a shorter one lacks data. */
  async #fit(file: SparseFile, { id, sizeBytes }: RealVolume): Promise<void> {
    if (file.sizeBytes > sizeBytes) await file.resize(sizeBytes);
    if (file.sizeBytes === sizeBytes) return;
    const reason = tooShort(file.sizeBytes, sizeBytes);
    this.#fail(id, { cause: 'file-unusable', reason });
    throw new VolumeError('failed', `real volume ${id} has failed: ${reason}`);
  }

  /** The real volume cannot be used any more; that is durable when this returns, if it can be. */
  #fail(id: RealVolumeId, failure: Failure): void {
    const before = this.get(id);
    if (before === undefined) return;
    let after: RealVolume;
    try {
      after = this.#table.change(id, [{ kind: 'failed', ...failure }]);
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      this.#log.error(
        { realVolume: id, error: error.message, cause: failure.reason },
        'a failure could not be kept: it is tried again, and lost if the process ends before',
      );
      after = this.#table.rememberFailure(id, failure);
    }
    this.#told(before, after, failure.reason);
    this.#options.onFailures();
    void this.#end(id, 'failed');
  }

  /** Nobody uses it any more, and its file is closed. */
  async #end(id: RealVolumeId, cause: 'failed' | 'leaving'): Promise<void> {
    const file = this.files.file(id);
    const shut = this.#doors.shutAll(id);
    await this.#groups?.ended(id, cause); // what is under way there may wait for others
    await shut;
    await file.close(true);
  }

  // --- small things ----------------------------------------------------------------------------------------

  #there(id: RealVolumeId): RealVolume {
    const realVolume = this.get(id);
    if (realVolume === undefined) throw new ControlError('not-found', `there is no real volume ${id}`);
    return realVolume;
  }

  #viewOf(realVolume: RealVolume): RealVolumeView {
    const { id, failure, sizeBytes, volume, epoch } = realVolume;
    const reason = failure?.reason ?? null;
    const state = conditionOf(realVolume);
    assert(state !== 'leaving', 'what is leaving is not shown');
    const file = this.#options.fileOf(id);
    const connections = this.#doors.connections(id);
    return { id, state, reason, sizeBytes, volume, epoch, file, connections };
  }

  #told(before: RealVolume, after: RealVolume, cause: string): void {
    if (before === after) return;
    const [from, to] = [conditionOf(before), conditionOf(after)];
    const { id, volume, epoch } = after;
    const log = to === 'failed' ? this.#log.error : this.#log.info;
    log.call(this.#log, { realVolume: id, from, to, cause, volume, epoch }, 'real volume changed');
  }
}

function isThere(realVolume: RealVolume): boolean {
  return !realVolume.isLeaving;
}
