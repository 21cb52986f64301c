/**
 * HeldMember: one member with all that it needs: its file, its folder, and the volume that its hosts see. Made by Members.
 */

import type { GroupView } from '../control-protocol/copy-groups.ts';
import { Epoch, type RealVolumeId } from '../control-protocol/names.ts';
import { formatRealVolumeExport } from '../control-protocol/real-volume-export.ts';
import { ControlError, VolaryError, VolumeError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import {
  openRemoteVolume,
  type RemoteRefusal,
  type RemoteVolume,
  type RemoteVolumeOptions,
} from '../nbd-client/remote-volume.ts';
import type { DurableState } from '../replication/effects.ts';
import type { ReplicaView } from '../replication/replica.ts';
import type { SparseFile } from '../storage/sparse-file.ts';
import type { DoorFile } from './epoch-door.ts';
import type { GroupDirectory } from './group-directory.ts';
import { type Found, Member, type Rules, type Served } from './member.ts';
import type { MemberFolder } from './member-disk.ts';
import { type Connect, memberOf } from './member-links.ts';
import type { HeldFile } from './open-volumes.ts';
import { type OtherMember, ReplicatedVolume } from './replicated-volume.ts';

/** The rules, and what they let be seen. */
export interface ViewedRules extends Rules {
  view(): Pick<ReplicaView, 'serving' | 'pairs'>;
  restMs(): number;
}

/** The folder of a member while it is open. */
export interface OpenFolder extends MemberFolder {
  readonly found: Omit<Found, 'durable' | 'sizeBytes'>;
  /** To the size of the volume, before anything is written behind the old one. */
  resize(sizeBytes: number): Promise<void>;
  /** With `isClean` what is there counts also when the machine has been started anew. */
  close(isClean: boolean): Promise<void>;
}

export interface HeldMemberParts {
  readonly id: RealVolumeId;
  readonly held: HeldFile;
  readonly file: SparseFile;
  readonly folder: OpenFolder;
  readonly rules: ViewedRules;
  readonly connect: Connect;
  readonly clusterId: () => string | undefined;
  readonly directory: GroupDirectory;
  readonly keep: (state: DurableState) => Promise<void>;
  readonly onFailed: (reason: string) => void;
  /** An epoch begins: the door of the one before is to be shut. */
  readonly onEpoch: (epoch: number) => void;
  readonly log: Log;
}

/** How long requests wait for the member that they are served through. */
const THROUGH_MS = 30_000;

export class HeldMember {
  readonly id: RealVolumeId;
  readonly member: Member;
  readonly volume: ReplicatedVolume;
  readonly door: DoorFile;
  readonly #parts: HeldMemberParts;
  /** Passages into this epoch are taken: it has begun in this life, and nobody has ended them. */
  #passageEpoch: number | undefined;
  #closed: Promise<void> | undefined;
  #tickedMs = Number.NEGATIVE_INFINITY;

  constructor(parts: HeldMemberParts) {
    const { id, rules, file, folder, connect, clusterId, directory, keep, onFailed, log } = parts;
    this.id = id;
    this.#parts = parts;
    this.member = new Member({
      ...{ id, rules, file, folder, connect, clusterId, directory, keep, onFailed, log },
      onServe: (served) => this.#serve(served),
    });
    this.volume = new ReplicatedVolume({ file, requests: this.member });
    const { volume } = this;
    this.door = { volume, open: async () => volume };
  }

  start(durable: DurableState | undefined): void {
    const { folder, file } = this.#parts;
    this.member.start({ durable, sizeBytes: file.sizeBytes, ...folder.found });
  }

  /** Whether hosts that come with this epoch are served here, now or soon: the rules hold their requests until then. */
  isServed(epoch: Epoch): boolean {
    const { served } = this.member;
    return served?.epoch === epoch && served.hosts === 'here';
  }

  takesPassages(epoch: Epoch): boolean {
    return this.#passageEpoch === epoch && this.isServed(epoch);
  }

  endPassages(epoch: Epoch): void {
    if (this.#passageEpoch === epoch) this.#passageEpoch = undefined;
  }

  /** Time has gone by. There may be thousands, most of them at rest. */
  tick(nowMs: number): void {
    if (nowMs - this.#tickedMs < this.#parts.rules.restMs()) return;
    this.#tickedMs = nowMs;
    this.member.tick();
  }

  view(): GroupView {
    const { durable } = this.member;
    if (durable === undefined)
      throw new ControlError('unavailable', `${this.id} has not been told its group yet`);
    const { serving, pairs } = this.#parts.rules.view();
    const { epoch, role, config } = durable;
    return {
      ...{ realVolume: this.id, epoch: epoch as Epoch, revision: config.revision, role, serving },
      pairs: pairs.map((pair) => ({ ...pair, realVolume: pair.realVolume as RealVolumeId })),
    };
  }

  /** @throws StoreError */
  async resize(sizeBytes: number): Promise<void> {
    await this.member.caughtUp();
    await this.#parts.folder.resize(sizeBytes);
    this.member.resized(sizeBytes);
  }

  /** Ends what waits for others: it fails. */
  async giveUp(): Promise<void> {
    await this.member.stop();
    await this.volume.close();
  }

  /** `crashed`: as if the process had. `failed`: what was written to the file, and not flushed, may be lost. Never fails. */
  close(how: 'clean' | 'crashed' | 'failed'): Promise<void> {
    this.#closed ??= this.#close(how);
    return this.#closed;
  }

  async #close(how: 'clean' | 'crashed' | 'failed'): Promise<void> {
    const { file, folder, held } = this.#parts;
    if (how === 'failed') await this.#attempt(async () => folder.loseCache());
    await this.giveUp();
    const isFlushed = how === 'clean' && (await this.#attempt(() => file.flush()));
    if (how === 'clean' && !isFlushed) await this.#attempt(async () => folder.loseCache());
    await this.#attempt(() => folder.close(isFlushed));
    held.end();
  }

  async #attempt(action: () => Promise<void>): Promise<boolean> {
    try {
      await action();
      return true;
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      const { id, log } = this.#parts;
      log.error(
        { realVolume: id, error: error.message },
        'a member of a copy group could not be closed well',
      );
      return false;
    }
  }

  #serve({ epoch, hosts, takesPassages }: Served): void {
    this.#passageEpoch = takesPassages ? epoch : undefined;
    if (typeof hosts === 'object') {
      this.volume.serve(epoch, { through: () => this.#openThrough(hosts.through, epoch) });
      return;
    }
    // Who hands over holds what came before, and serves it through, also when the next epoch has begun.
    if (hosts !== 'hold') this.#parts.onEpoch(epoch);
    this.volume.serve(epoch, hosts);
  }

  #openThrough(id: string, epoch: number): Promise<OtherMember> {
    const target = memberOf(this.member.config, id);
    if (target === undefined) {
      return Promise.reject(new VolumeError('shutdown', `${id} is not of this copy group any more`));
    }
    const { realVolume, nbd, accessKey } = target;
    return openPassage({
      address: nbd,
      exportName: formatRealVolumeExport(realVolume, Epoch.parse(epoch), accessKey, 'passage'),
      description: `real volume ${realVolume}, through`,
      ...{ openMs: THROUGH_MS, reconnectMs: THROUGH_MS, log: this.#parts.log },
    });
  }
}

/** One that is refused because it has been ended is given up, with all that waits for it: gateways find the primary, and send again there. */
async function openPassage(options: RemoteVolumeOptions): Promise<OtherMember> {
  const ended = new AbortController();
  let volume: RemoteVolume | undefined;
  const onRefused = ({ code, message }: RemoteRefusal): void => {
    if (code !== 'shutdown') return;
    ended.abort();
    volume?.giveUp(message);
  };
  volume = await openRemoteVolume({ ...options, signal: ended.signal, onRefused });
  if (ended.signal.aborted) volume.giveUp('it was ended while it was being opened');
  return volume;
}
