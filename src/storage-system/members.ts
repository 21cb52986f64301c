/**
 * Members: the real volumes of a storage system that belong to copy groups. Each is a HeldMember from the first GroupConfig with more
 * than one member on, until the group has one, or the real volume goes.
 *
 *   DATA/copies/ID/   what outlives a crash beside the file (CopyFolder)
 *   DATA/meta.db      what the rules must not forget (RealVolumeTable)
 *
 * Invariants
 * 1. A real volume that is a member is changed through it alone: it begins and ends while nothing is under way behind its door.
 * 2. A member that cannot be used serves no host: its file may be behind what others have.
 * 3. One that has failed alone (its folder, the metadata) begins anew from what is durable, as after a crash, as soon as it can.
 */

import { pause } from '../base/pause.ts';
import type { GroupConfig, GroupView, HandOver } from '../control-protocol/copy-groups.ts';
import type { Epoch, RealVolumeId } from '../control-protocol/names.ts';
import { assert, ControlError, VolaryError, VolumeError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { HelloHandler, SecondaryLink } from '../peer-protocol/links.ts';
import type { RefusalCode } from '../peer-protocol/messages.ts';
import type { DurableState } from '../replication/effects.ts';
import { Gate } from '../storage/gate.ts';
import type { Groups } from './doors.ts';
import type { DoorFile } from './epoch-door.ts';
import { controlErrorOf } from './errors.ts';
import type { GroupDirectory } from './group-directory.ts';
import { HeldMember, type OpenFolder, type ViewedRules } from './held-member.ts';
import { MemberKeeper } from './member-keeper.ts';
import { type Connect, isSameKey } from './member-links.ts';
import type { HeldFile } from './open-volumes.ts';
import { conditionOf } from './real-volume.ts';
import type { RealVolumeTable } from './real-volume-table.ts';
import type { RealVolumes } from './real-volumes.ts';

/** Where members keep what is beside their files. */
export interface MemberFolders {
  /** `isNew`: the member has nothing to remember yet, whatever lies there. */
  open(id: RealVolumeId, sizeBytes: number, isNew: boolean): Promise<OpenFolder>;
  remove(id: RealVolumeId): Promise<void>;
  ids(): Promise<RealVolumeId[]>;
}

export interface MembersOptions {
  readonly table: RealVolumeTable;
  readonly realVolumes: RealVolumes;
  readonly folders: MemberFolders;
  readonly rulesOf: (id: RealVolumeId) => ViewedRules;
  readonly connect: Connect;
  readonly directory: GroupDirectory;
  readonly log: Log;
}

const TICK_MS = 100;
/** When one has failed alone; doubled for each time that it cannot be started. */
const RESTART_MS = 1_000;
const RESTART_MAX_MS = 30_000;
/** A stop waits so long for secondaries, and for the directory. */
const GIVE_UP_MS = 12_000;
/** As many as the thread pool has threads. */
const AT_ONCE = 64;

export class Members implements Groups {
  readonly #options: MembersOptions;
  readonly #keeper: MemberKeeper;
  readonly #members = new Map<RealVolumeId, HeldMember>();
  /** Those that cannot be used now, and why. */
  readonly #broken = new Map<RealVolumeId, string>();
  readonly #dropping = new Set<RealVolumeId>();
  #ticker: NodeJS.Timeout | undefined;
  #givingUp: NodeJS.Timeout | undefined;
  readonly #stopped = new AbortController();

  constructor(options: MembersOptions) {
    this.#options = options;
    this.#keeper = new MemberKeeper(options.table);
  }

  /** All that there are, before anybody asks for them. */
  async start(): Promise<void> {
    const { table, realVolumes, folders, log } = this.#options;
    const members = table.members();
    for (const id of await folders.ids()) {
      if (members.has(id)) continue;
      await folders.remove(id);
      log.info({ realVolume: id }, 'removed what a member of a copy group has left');
    }
    const gate = new Gate(AT_ONCE);
    const starts = [...members].map(([id, durable]) =>
      gate.run(async () => {
        const failure = realVolumes.get(id)?.failure;
        if (failure) this.#broken.set(id, failure.reason);
        else await this.#startOrLeave(id, durable);
      }),
    );
    await Promise.all(starts);
  }

  // --- asked for by the directory --------------------------------------------------------------------------

  /** @throws ControlError */
  view(id: RealVolumeId): GroupView {
    const { epoch, state } = this.#options.realVolumes.view(id);
    const held = this.#members.get(id);
    if (held !== undefined) return held.view();
    this.#refuseBroken(id);
    return { realVolume: id, epoch, revision: 0, role: 'primary', serving: state === 'in-use', pairs: [] };
  }

  views(): GroupView[] {
    return [...this.#members.values()].filter(({ member }) => member.durable).map((held) => held.view());
  }

  /** @throws ControlError `stale-epoch`, `failed`, `not-found`, … */
  async configure(id: RealVolumeId, config: GroupConfig): Promise<GroupView> {
    const { realVolumes } = this.#options;
    const { epoch } = realVolumes.view(id);
    if (this.#broken.has(id)) await this.#attempt(id, () => this.#startAnew(id)); // what was wrong may have passed
    this.#refuseBroken(id);
    if (!config.members.some(({ realVolume }) => realVolume === id)) {
      throw new ControlError('bad-request', `${id} is not of the group that it is told`);
    }
    if (config.epoch < epoch) {
      throw new ControlError('stale-epoch', `real volume ${id} has epoch ${epoch}: ${config.epoch} is over`);
    }
    if (!this.#members.has(id)) {
      if (config.members.length === 1) return this.#plain(id, config);
      await this.#begin(id);
    }
    const { member } = this.#there(id);
    if (await member.configure(config)) {
      throw new ControlError('stale-epoch', `a newer epoch than ${config.epoch} of ${id} is known`);
    }
    if (!this.#isAlone(id)) return this.view(id);
    await this.#drop(id);
    return this.#plain(id, config);
  }

  /** @throws ControlError */
  async handOver(id: RealVolumeId, wanted: HandOver): Promise<GroupView> {
    this.#options.realVolumes.view(id);
    this.#refuseBroken(id);
    if (await this.#there(id).member.handOver(wanted)) {
      throw new ControlError('stale-epoch', `${id} cannot hand over epoch ${wanted.epoch}`);
    }
    return this.view(id);
  }

  /** Alone in its group: served as any real volume. */
  async #plain(id: RealVolumeId, { epoch, revision, primary }: GroupConfig): Promise<GroupView> {
    const { realVolumes } = this.#options;
    if (primary !== id) throw new ControlError('bad-request', `${id} is alone, and not its group's primary`);
    if (realVolumes.view(id).epoch < epoch) await realVolumes.change(id, { epoch });
    return { ...this.view(id), revision };
  }

  #there(id: RealVolumeId): HeldMember {
    const held = this.#members.get(id);
    if (held === undefined) throw new ControlError('conflict', `real volume ${id} is not of a copy group`);
    return held;
  }

  #refuseBroken(id: RealVolumeId): void {
    const reason = this.#broken.get(id);
    if (reason !== undefined) throw new ControlError('failed', `real volume ${id} has failed: ${reason}`);
  }

  /** Those whose file is whole, and that cannot be used all the same. */
  failed(): { realVolume: RealVolumeId; reason: string }[] {
    const isWhole = (id: RealVolumeId) => this.#options.realVolumes.get(id)?.failure === null;
    const broken = [...this.#broken].filter(([id]) => isWhole(id));
    return broken.map(([realVolume, reason]) => ({ realVolume, reason }));
  }

  // --- peers and hosts -------------------------------------------------------------------------------------

  /** A primary says hello. */
  readonly onHello: HelloHandler = (link) => {
    const refusal = this.#refusalOf(link);
    const held = this.#members.get(link.hello.target as RealVolumeId);
    if (refusal === undefined && held !== undefined) return held.member.received(link);
    link.refuse({ code: refusal ?? 'busy', epoch: 0, text: 'this real volume does not take this primary' });
    return { onMessages: () => undefined, onClosed: () => undefined };
  };

  #refusalOf({ hello }: SecondaryLink): RefusalCode | undefined {
    const { table, realVolumes } = this.#options;
    const id = hello.target as RealVolumeId;
    const realVolume = realVolumes.get(id);
    if (hello.clusterId !== table.clusterId || realVolume === undefined) return 'unknown';
    if (!isSameKey(hello.accessKey, realVolume.accessKey)) return 'policy';
    if (conditionOf(realVolume) !== 'in-use' || this.#broken.has(id)) return 'failed';
    return undefined;
  }

  /** Hosts that come with this epoch are served here, as far as the copy group goes. */
  isServed(id: RealVolumeId, epoch: Epoch): boolean {
    if (this.#broken.has(id)) return false;
    return this.#members.get(id)?.isServed(epoch) ?? true;
  }

  isMember(id: RealVolumeId): boolean {
    return this.#members.has(id);
  }

  /** The last host has gone. */
  unused(id: RealVolumeId): void {
    this.#members.get(id)?.volume.letGo();
  }

  // --- for RealVolumes -------------------------------------------------------------------------------------

  behind(id: RealVolumeId): DoorFile | undefined {
    const reason = this.#broken.get(id);
    if (reason === undefined) return this.#members.get(id)?.door;
    const refusal = new VolumeError('shutdown', `this copy cannot be used: ${reason}`);
    return { volume: undefined, open: () => Promise.reject(refusal) };
  }

  async ended(id: RealVolumeId, cause: 'failed' | 'leaving'): Promise<void> {
    const held = this.#members.get(id);
    this.#members.delete(id);
    if (held !== undefined) {
      this.#broken.set(id, 'its real volume has failed');
      await held.close('failed');
    }
    if (cause === 'failed') return;
    this.#broken.delete(id);
    await this.#attempt(id, () => this.#options.folders.remove(id));
  }

  async takingBack(id: RealVolumeId): Promise<void> {
    const { table, folders, realVolumes } = this.#options;
    if (!table.members().has(id)) return;
    const folder = await folders.open(id, realVolumes.view(id).sizeBytes, false);
    try {
      folder.loseCache(); // the failure may have kept it from being said, or the end of the process
    } finally {
      await folder.close(false);
    }
  }

  async takenBack(id: RealVolumeId): Promise<void> {
    const durable = this.#options.table.members().get(id);
    if (durable !== undefined) await this.#startOrLeave(id, durable);
  }

  async resized(id: RealVolumeId, sizeBytes: number): Promise<void> {
    await this.#members.get(id)?.resize(sizeBytes);
  }

  // --- beginning and ending --------------------------------------------------------------------------------

  #begin(id: RealVolumeId): Promise<void> {
    return this.#options.realVolumes.exchange(id, `make ${id} a member of a copy group`, async (file) => {
      if (!this.#members.has(id)) await this.#open(id, file, undefined);
    });
  }

  /** Nobody else is of its group, and nothing of the time when there was is waited for: the lease of a primary before, above all. */
  #isAlone(id: RealVolumeId): boolean {
    const held = this.#members.get(id);
    return held?.member.config?.members.length === 1 && held.view().serving;
  }

  /** It is alone now: what is kept beside its file goes. */
  #drop(id: RealVolumeId): Promise<void> {
    const { realVolumes, table, folders, log } = this.#options;
    return realVolumes.exchange(id, `take ${id} out of its copy group`, async () => {
      const held = this.#members.get(id);
      if (held === undefined || !this.#isAlone(id)) return;
      await held.close('clean');
      try {
        table.forgetMember(id);
      } catch (error) {
        void this.#restart(held, 'that it is no member any more could not be kept');
        throw error;
      }
      this.#members.delete(id);
      await folders.remove(id);
      log.info({ realVolume: id }, 'the only copy again: served without a copy group');
    });
  }

  /** As `configure` would have, had there been nothing to be waited for. */
  async #dropSoon(id: RealVolumeId): Promise<void> {
    if (this.#dropping.has(id)) return;
    this.#dropping.add(id);
    const isDropped = await this.#attempt(id, () => this.#drop(id));
    if (!isDropped) await pause(RESTART_MS, this.#stopped.signal);
    this.#dropping.delete(id);
  }

  /** One that cannot be started serves nobody until it can; the others are not kept from it. */
  async #startOrLeave(id: RealVolumeId, durable: DurableState): Promise<void> {
    const file = this.#options.realVolumes.files.file(id);
    const attempt = () => this.#open(id, file, durable);
    if (await this.#attempt(id, attempt)) return;
    this.#broken.set(id, 'what is kept of its copy group cannot be used');
    void this.#startAgain(id);
  }

  async #open(id: RealVolumeId, held: HeldFile, durable: DurableState | undefined): Promise<void> {
    const { folders, rulesOf, connect, table, directory, realVolumes, log } = this.#options;
    assert(!this.#members.has(id), `${id} is a member once`);
    held.begin();
    try {
      const file = await held.open();
      const isNew = durable === undefined && !table.isPutBack(id);
      const folder = await folders.open(id, file.sizeBytes, isNew);
      const made = new HeldMember({
        ...{ id, held, file, folder, connect, directory, log, rules: rulesOf(id) },
        clusterId: () => table.clusterId,
        keep: (state) => this.#keeper.keep(id, state),
        onFailed: (reason) => void this.#restart(made, reason),
        onEpoch: (epoch) => realVolumes.epochBegun(id, epoch),
      });
      this.#members.set(id, made);
      this.#broken.delete(id);
      if (realVolumes.get(id)?.failure === null) made.start(durable);
      else await this.ended(id, 'failed'); // meanwhile
    } catch (error) {
      held.end();
      throw error;
    }
    this.#ticker ??= setInterval(() => this.#tick(), TICK_MS);
  }

  async #restart(held: HeldMember, reason: string): Promise<void> {
    const { log } = this.#options;
    const { id } = held;
    log.error({ realVolume: id, cause: reason }, 'a member of a copy group has failed: it begins anew');
    this.#broken.set(id, reason);
    await held.close('crashed');
    if (this.#members.get(id) !== held) return; // its real volume has gone as well
    this.#members.delete(id);
    await this.#startAgain(id);
  }

  /** A disk that is full, or gone for a while, comes back without anybody telling: tries until it can be started, or is used no more. */
  async #startAgain(id: RealVolumeId): Promise<void> {
    for (let waitMs = RESTART_MS; ; waitMs = Math.min(2 * waitMs, RESTART_MAX_MS)) {
      await pause(waitMs, this.#stopped.signal);
      if (this.#stopped.signal.aborted || this.#isNotToStart(id)) return;
      if (await this.#attempt(id, () => this.#startAnew(id))) return;
    }
  }

  /** From what is durable, unless its real volume has failed. @throws ControlError: it is broken still */
  #startAnew(id: RealVolumeId): Promise<void> {
    const { realVolumes, table } = this.#options;
    return realVolumes.exchange(id, `start ${id} anew`, async (file) => {
      if (this.#isNotToStart(id)) return;
      const durable = table.members().get(id);
      if (durable !== undefined) await this.#open(id, file, durable);
      else this.#broken.delete(id);
    });
  }

  #isNotToStart(id: RealVolumeId): boolean {
    return this.#options.realVolumes.get(id)?.failure !== null || this.#members.has(id);
  }

  /** False when it did not work, for which there is no way but to say so. */
  async #attempt(id: RealVolumeId, action: () => Promise<void>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      const { message } = controlErrorOf(error, `use the copy ${id}`);
      this.#options.log.error({ realVolume: id, error: message }, 'a member of a copy group cannot be used');
      return false;
    }
  }

  #tick(): void {
    const nowMs = performance.now();
    for (const [id, held] of this.#members) {
      held.tick(nowMs);
      if (this.#isAlone(id)) void this.#dropSoon(id);
    }
    if (this.#members.size > 0) return;
    clearInterval(this.#ticker);
    this.#ticker = undefined;
  }

  /** What is asked for from now on is to end: what waits for others, who do not answer, is given up after a while. */
  stopSoon(): void {
    this.#givingUp = setTimeout(() => {
      for (const held of this.#members.values()) void held.giveUp();
    }, GIVE_UP_MS);
  }

  /** Ends all, clean. Nobody asks for anything any more. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    clearTimeout(this.#givingUp);
    const gate = new Gate(AT_ONCE);
    const closing = [...this.#members.values()].map((held) => gate.run(() => held.close('clean')));
    await Promise.all(closing);
    this.#members.clear();
    clearInterval(this.#ticker);
  }
}
