/**
 * One life of a member's process: it drives a Replica as a storage system does, after the rules of effects.ts, on a disk and a network
 * that are simulated. It can end between any two effects, and stand still for a while with all that comes to it waiting.
 */

import type { Fence, GroupConfig } from '../../src/control-protocol/copy-groups.ts';
import type { MemberId, Range } from '../../src/peer-protocol/messages.ts';
import type { DurableState, Effect, Event, Output } from '../../src/replication/effects.ts';
import type { ReplicaView } from '../../src/replication/replica.ts';
import type { Directory } from './directory.ts';
import { type DiskPace, DiskWorks } from './disk-works.ts';
import { Door, type Passage } from './door.ts';
import { FenceWatch } from './fences.ts';
import { BLOCK_BYTES, blocksOf } from './layout.ts';
import type { MemberDisk } from './member-disk.ts';
import { type EventBody, type Link, linkAt, type Network, type Station } from './network.ts';

export interface ReplicaLike {
  step(event: Event): Output;
  servesNow(nowMs: number): boolean;
  view(): ReplicaView;
}

export type Report = Extract<Effect, { kind: 'report' }>;

/** What a member's process needs of the world around it. */
export interface Surroundings extends Passage {
  readonly network: Network;
  makeReplica(by: MemberProcess): ReplicaLike;
  trace(who: string, what: () => string): void;
  violation(text: string): Error;
  readonly directory: Directory;
  nextToken(): number;
  /** A host's request has been answered, a read is served this instant (`read`), or soon (`admitted`). */
  served(by: MemberProcess, epoch: number, kind: string): void;
  /** A primary takes what it has for what there is. */
  goesOn(by: MemberProcess): void;
  /** What it had lost has been copied to it. */
  madeWhole(id: MemberId): void;
  /** Blocks that somebody who does not follow lacks from now on. */
  written(blocks: number): void;
  copied(by: MemberProcess, range: Range): void;
  linked(by: MemberProcess, to: MemberId, told: readonly Range[]): void;
  readonly fence: Fence;
  readonly recordMs: number;
  /** The effects may be looked at, and changed by deliberate bugs. */
  carryOut(by: MemberProcess, effect: Effect, carryOut: (effect: Effect) => void): void;
}

export interface ProcessPace extends DiskPace {
  /** Steps go on while a state is being made durable; their effects wait. */
  readonly stepsDuringPersist: boolean;
}

const TICK_MS = 100;

interface EffectItem {
  readonly effect: Effect;
  /** The event that it comes from. */
  readonly cause: EventBody;
  /** Of a report: what was known of the pair when the rules decided. */
  readonly pairRevision: number;
}

type Item = { readonly persist: DurableState } | EffectItem;

export class MemberProcess implements Station {
  readonly id: MemberId;
  readonly disk: MemberDisk;
  readonly door: Door;
  isAlive = true;
  isFrozen = false;
  /** Ends itself when so many more effects have been carried out. */
  effectsLeft = Number.POSITIVE_INFINITY;
  onEnd: (() => void) | undefined;
  readonly #around: Surroundings;
  readonly #pace: ProcessPace;
  readonly #replica: ReplicaLike;
  readonly #links = new Map<number, Link>();
  readonly #works: DiskWorks;
  readonly #life: string;
  /** The highest that has been heard of each pair. */
  readonly #pairRevisions = new Map<MemberId, number>();
  #givingWay = 0;
  /** It gives way, and has been told to go on: nobody else can. */
  isToldToGoOn = false;
  #inbox: { readonly source: string; readonly event: EventBody }[] = [];
  #items: Item[] = [];
  #isPersisting = false;
  #isDraining = false;
  #isResizing = false;
  readonly #fences: FenceWatch;
  #config: GroupConfig | undefined;

  constructor(id: MemberId, life: number, disk: MemberDisk, around: Surroundings, pace: ProcessPace) {
    this.id = id;
    this.disk = disk;
    this.#life = `${life}`;
    this.#around = around;
    this.#pace = pace;
    this.#replica = around.makeReplica(this);
    this.door = new Door(this, around);
    this.#fences = new FenceWatch(around.recordMs, (text) => around.violation(`${id}: ${text}`));
    this.#config = disk.durable?.config;
    const { scheduler } = around.network;
    this.#works = new DiskWorks(this, disk, scheduler, pace, (text) => around.violation(text));
  }

  begin(): void {
    const { disk } = this;
    disk.fit();
    this.receive('self', {
      kind: 'start',
      durable: disk.durable,
      unsettled: disk.unsettled(),
      lacks: disk.lacks(),
      hasLostCache: disk.hasLostCache,
      marked: [...disk.marks],
      sizeBytes: disk.fileBytes,
    });
    this.#tickLater();
  }

  get nowMs(): number {
    return this.#around.network.scheduler.nowMs;
  }

  knowPair(member: MemberId, revision: number): void {
    this.#pairRevisions.set(member, Math.max(revision, this.#pairRevisions.get(member) ?? 0));
  }

  get isLeaving(): boolean {
    return this.#replica.view().pairs.some(({ state }) => state === 'leaving');
  }

  servesNow(): boolean {
    // What the rules have decided last counts only when it is durable.
    return !this.#isPersisting && this.#replica.servesNow(this.nowMs);
  }

  receive(source: string, event: EventBody): void {
    if (!this.isAlive) return;
    if (this.isFrozen || this.#isDraining || (this.#isPersisting && !this.#pace.stepsDuringPersist)) {
      // Whatever else waits may as well have come later; but nobody who comes through the door that is as wide as that before it.
      const at = this.#inbox.findIndex((entry) => entry.event.kind !== 'resized');
      if (event.kind === 'resized')
        this.#inbox.splice(at < 0 ? this.#inbox.length : at, 0, { source, event });
      else this.#inbox.push({ source, event });
    } else this.#step(event);
  }

  /** Its real volume gets another size; asked again and again, until `done` has been called. */
  resize(sizeBytes: number, done: () => void): void {
    const { disk } = this;
    if (!this.isAlive || this.isFrozen || this.#isResizing) return;
    if (sizeBytes === disk.rowBytes) {
      done();
      return;
    }
    this.#isResizing = true;
    const { scheduler } = this.#around.network;
    const isShrinking = sizeBytes < disk.rowBytes;
    if (isShrinking) disk.rowBytes = sizeBytes;
    const steps = [
      () => disk.resizeFile(sizeBytes),
      () => disk.resizeFolder(sizeBytes),
      () => this.receive('resize', { kind: 'resized', sizeBytes }),
      () => {
        disk.rowBytes = sizeBytes;
        this.#isResizing = false;
        done();
      },
    ];
    const next = (): void => {
      // Nothing new is written behind the end by then, and what is being written there, or has been decided, is waited for.
      if (steps.length === 4 && isShrinking) disk.fileBytes = sizeBytes;
      if (steps.length > 2 && (this.#works.isApplying || this.#isPersisting || this.#items.length > 0)) {
        this.#after(1, next);
        return;
      }
      this.#around.trace(
        this.id,
        () => `resizes to ${sizeBytes / BLOCK_BYTES} blocks: ${steps.length} steps`,
      );
      steps.shift()?.();
      // Nothing is between what is kept beside the file, the rules, and the row; but the process may end at any time.
      if (steps.length > 0) this.#after(steps.length === 3 ? scheduler.between(0, 20) : 0, next);
    };
    this.#after(scheduler.between(0, 20), next);
  }

  freeze(): void {
    this.isFrozen = true;
    this.#around.trace(this.id, () => 'FROZEN');
  }

  thaw(): void {
    if (!this.isAlive || !this.isFrozen) return;
    this.isFrozen = false;
    this.#around.trace(this.id, () => `thawed, ${this.#inbox.length} events wait`);
    this.#drain();
    this.door.look();
  }

  /** SIGKILL: what was under way is done in part. */
  end(): void {
    if (!this.isAlive) return;
    this.isAlive = false;
    this.#items = [];
    this.#inbox = [];
    this.#works.end();
    this.door.end();
    this.onEnd?.();
  }

  // --- events ------------------------------------------------------------------------------------------------

  #step(event: EventBody): void {
    this.#around.trace(this.id, () => `<- ${describe(event)}`);
    if (event.kind === 'link-up') this.#around.linked(this, event.to, [...event.unsettled, ...event.alone]);
    // Of who lacks everything nothing can be spared when nobody can say what there is.
    if (event.kind === 'allocated' && event.ranges === undefined) {
      this.#around.written(this.disk.fileBytes / BLOCK_BYTES);
    }
    const config =
      event.kind === 'configure' ? event.config : event.kind === 'start' ? event.durable?.config : undefined;
    for (const member of config?.members ?? []) this.knowPair(member.realVolume, member.pairRevision);
    if (event.kind === 'request' && event.request.kind !== 'read')
      this.#fences.began(event.token, this.nowMs);
    const { persist, effects } = this.#replica.step({ ...event, nowMs: this.nowMs });
    this.#config = persist?.config ?? this.#config;
    this.#lookAtFence(event, effects);
    if (persist !== undefined) this.#items.push({ persist });
    for (const effect of effects) {
      const pairRevision = effect.kind === 'report' ? (this.#pairRevisions.get(effect.member) ?? 0) : 0;
      this.#items.push({ effect, pairRevision, cause: event });
    }
    this.#drain();
  }

  #lookAtFence(event: EventBody, effects: readonly Effect[]): void {
    const { fence } = this.#around;
    if (fence !== 'never') this.#fences.look(this.#replica.view(), this.#config, fence, this.nowMs);
    for (const effect of effects) {
      if (effect.kind === 'answer') this.#fences.answered(effect.token, effect.error, fence, this.nowMs);
    }
    if (event.kind === 'tick') this.#fences.ticked(this.nowMs);
  }

  #drain(): void {
    if (this.#isDraining) return;
    this.#isDraining = true;
    while (this.isAlive && !this.isFrozen) {
      if (!this.#isPersisting && this.#items.length > 0) this.#carryOut(this.#items.shift()!);
      else if (this.#inbox.length > 0 && !(this.#isPersisting && !this.#pace.stepsDuringPersist)) {
        this.#step(this.#next());
      } else break;
    }
    this.#isDraining = false;
  }

  /** The order of one source is kept; that between sources is anybody's guess. */
  #next(): EventBody {
    const { scheduler } = this.#around.network;
    const { source } = this.#inbox[scheduler.random.below(this.#inbox.length)]!;
    const index = this.#inbox.findIndex((entry) => entry.source === source);
    return this.#inbox.splice(index, 1)[0]!.event;
  }

  #tickLater(): void {
    this.#after(TICK_MS, () => {
      if (!this.isFrozen) this.receive('tick', { kind: 'tick' });
      this.#tickLater();
    });
  }

  #after(delayMs: number, action: () => void): void {
    this.#around.network.scheduler.after(delayMs, () => {
      if (this.isAlive) action();
    });
  }

  // --- effects -----------------------------------------------------------------------------------------------

  #carryOut(item: Item): void {
    if ('persist' in item) {
      this.#persist(item.persist);
      return;
    }
    if (this.effectsLeft-- <= 0) {
      this.#around.trace(this.id, () => `KILLED before ${describe(item.effect)}`);
      this.end();
      return;
    }
    this.#around.carryOut(this, item.effect, (effect) => {
      this.#around.trace(this.id, () => `-> ${describe(effect)}`);
      this.#do(effect, item);
    });
  }

  #persist(state: DurableState): void {
    this.#around.trace(
      this.id,
      () => `-> persist ${JSON.stringify({ ...state, config: state.config?.revision })}`,
    );
    this.#isPersisting = true;
    this.#works.persist(state, () => {
      this.#isPersisting = false;
      this.#drain();
    });
  }

  /** What a host writes may be copied to who did not follow, or where it failed here, and that again and again; what else differs a session's beginning tells. */
  #setBits({ member, ranges }: Extract<Effect, { kind: 'set-bits' }>, cause: EventBody): void {
    this.disk.setBits(member, ranges, true);
    if (['start', 'allocated'].includes(cause.kind) || (cause.kind === 'link-up' && cause.to === member))
      return;
    for (const range of ranges) this.#around.written(blocksOf(range).length);
  }

  #forgetUnsettled(): void {
    for (const key of [...this.disk.journal.keys()]) {
      if (!key.startsWith(`${this.#life}/`)) this.disk.journal.delete(key);
    }
    this.disk.hasLostCache = false;
    if (this.disk.durable?.role === 'secondary') this.#around.madeWhole(this.id);
    else this.#around.goesOn(this);
  }

  #do(effect: Effect, { pairRevision, cause }: EffectItem): void {
    switch (effect.kind) {
      case 'apply':
        this.#works.apply(
          effect.token,
          effect.operation,
          effect.isJournaled ? `${this.#life}/${effect.token}` : undefined,
        );
        return;
      case 'settle':
        for (const token of effect.tokens) this.disk.journal.delete(`${this.#life}/${token}`);
        return;
      case 'forget-unsettled':
        this.#forgetUnsettled();
        return;
      case 'forward':
        this.door.forwarded(effect.token);
        return;
      case 'admit':
        this.door.admitted(effect.token);
        return;
      case 'answer':
        this.door.answered(effect.token, effect.error);
        return;
      case 'mark':
        this.#works.mark(effect.token, effect.extents);
        return;
      case 'unmark':
        this.#works.unmark(effect.token, effect.extents);
        return;
      case 'set-bits':
        this.#setBits(effect, cause);
        return;
      case 'clear-bits':
        this.disk.setBits(effect.member, effect.ranges, false);
        return;
      case 'forget-member':
        this.disk.bits.delete(effect.member);
        return;
      case 'read-range':
        this.#around.copied(this, effect.range);
        this.#works.readRange(effect.token, effect.range);
        return;
      case 'find-allocated':
        this.#works.findAllocated(effect.token);
        return;
      case 'report':
        this.#around.directory.report(this, effect, pairRevision);
        return;
      case 'renew':
        this.#around.directory.renew(this, effect.token, effect.epoch, this.#givingWay === effect.epoch);
        return;
      case 'give-way':
        this.#givingWay = effect.epoch;
        return;
      case 'configured':
      case 'handed-over':
        this.#around.directory.answered(this, effect.token, effect.isRefused);
        return;
      case 'serve':
        this.door.serve(effect);
        return;
      case 'told':
        return;
      default:
        this.#doLink(effect);
        return;
    }
  }

  #doLink(effect: Effect): void {
    const { network } = this.#around;
    switch (effect.kind) {
      case 'connect': {
        const hello = { epoch: effect.epoch, sizeBytes: this.disk.fileBytes };
        this.#links.set(effect.session, network.connect(this, effect.to, effect.session, hello));
        return;
      }
      case 'disconnect':
        this.#links.get(effect.session)?.disconnect();
        return;
      case 'send':
        this.#links.get(effect.session)?.send(effect.message);
        return;
      case 'welcome':
        linkAt(this, effect.session)?.welcome(effect);
        return;
      case 'refuse':
        linkAt(this, effect.session)?.refuse(effect.code, effect.epoch);
        return;
      case 'reply':
        linkAt(this, effect.session)?.reply(effect.message);
        return;
      case 'end-session':
        linkAt(this, effect.session)?.endSession();
        return;
      default:
        throw new Error(`nobody carries out ${effect.kind}`);
    }
  }
}

/** Of a trace: numbers in place of payloads, blocks in place of offsets. */
export function describe(what: EventBody | Effect): string {
  return JSON.stringify(what, (key, value: unknown) => {
    if (key === 'payload') return undefined;
    if (key === 'lacks' && value instanceof Map) return Object.fromEntries(value);
    if (key === 'config') return undefined;
    if (isRange(value)) {
      const { offset, length, ...rest } = value;
      const blocks = `${offset / BLOCK_BYTES}+${length / BLOCK_BYTES}`;
      return Object.keys(rest).length > 0 ? { ...rest, blocks } : blocks;
    }
    return value;
  });
}

function isRange(value: unknown): value is Range {
  return typeof value === 'object' && value !== null && 'offset' in value && 'length' in value;
}
