/**
 * Replica: one member of a copy group. Events in, effects out (effects.ts); SPEC.md has the rules. `step` is the one way in: here roles
 * begin and end, and epochs rise.
 *
 * Invariants
 * 1. One of `primary` and `secondary` is there, and neither before the first configuration. A primary is one of the epoch of its configuration:
 *    whoever hears of a newer one is secondary of that, and waits to be told who is primary.
 * 2. The durable epoch never becomes smaller (I10).
 */

import type { GroupConfig } from '../control-protocol/copy-groups.ts';
import { assert } from '../model/errors.ts';
import type { MemberId } from '../peer-protocol/messages.ts';
import { Core } from './core.ts';
import type { DurableState, Effect, Event, Output, Request, Token } from './effects.ts';
import { Journal } from './journal.ts';
import { Lacks } from './lacks.ts';
import { DEFAULT_LIMITS, isNewerEpoch, REST_MS, type ReplicaLimits } from './limits.ts';
import { Marks } from './marks.ts';
import { type HandingOver, type HeldRequest, type PairView, Primary } from './primary.ts';
import { Secondary } from './secondary.ts';
import type { Keep } from './writes.ts';

export type ReplicaOptions = { readonly id: MemberId } & Partial<ReplicaLimits>;

export interface ReplicaView {
  readonly role: 'primary' | 'secondary';
  readonly epoch: number;
  readonly revision: number;
  /** Of a primary: whether it serves hosts, as far as the directory and its lease let it. */
  readonly serving: boolean;
  readonly pairs: readonly PairView[];
}

type EventOf<K extends Event['kind']> = Extract<Event, { kind: K }>;
type Hosts = Extract<Effect, { kind: 'serve' }>['hosts'];

export class Replica {
  readonly #core: Core;
  readonly #keep: Keep;
  #primary: Primary | undefined;
  #secondary: Secondary | undefined;
  #hosts: Hosts = 'hold';
  /** Requests that came while hosts are held. */
  #held: HeldRequest[] = [];
  /** It was primary in this life until it handed over, and began this epoch: hosts that came then are served through. */
  #begunEpoch: number | undefined;
  #role = 'none';

  constructor({ id, ...limits }: ReplicaOptions) {
    const core = new Core(id, { ...DEFAULT_LIMITS, ...limits });
    const marks = new Marks(core);
    this.#core = core;
    this.#keep = { core, marks, journal: new Journal(core, marks), lacks: new Lacks(core) };
  }

  step(event: Event): Output {
    this.#core.begin(event.nowMs);
    this.#dispatch(event);
    this.#primary?.run();
    this.#secondary?.run();
    return this.#core.end();
  }

  /** Whether a read may be answered from here, this instant. */
  servesNow(nowMs: number): boolean {
    return this.#primary?.servesNow(nowMs) === true;
  }

  /** A tick that comes so soon after the last would do nothing. */
  restMs(): number {
    const { journal, marks } = this.#keep;
    if (!journal.isTold || marks.isFull) return 0;
    if (this.#primary === undefined) return REST_MS.secondary;
    return this.#primary.isAtRest ? REST_MS.primary : 0;
  }

  view(): ReplicaView {
    if (!this.#core.hasDurable)
      return { role: 'secondary', epoch: 0, revision: 0, serving: false, pairs: [] };
    const { epoch, config } = this.#core.durable;
    return {
      role: this.#primary === undefined ? 'secondary' : 'primary',
      epoch,
      revision: config.revision,
      serving: this.#primary?.isServing === true,
      pairs: this.#primary?.views() ?? [],
    };
  }

  #dispatch(event: Event): void {
    const core = this.#core;
    switch (event.kind) {
      case 'applied': {
        const work = this.#keep.journal.applied(event.token);
        work.owner.applied(work, event.error);
        break;
      }
      case 'from-secondary':
        this.#primary?.links.message(event.from, event.session, event.message);
        break;
      case 'from-primary':
        this.#secondary?.message(event.session, event.message);
        break;
      case 'request':
        this.#request(event.token, event.request);
        break;
      case 'tick':
        this.#keep.journal.tellSettled();
        this.#primary?.tick();
        this.#keep.marks.sweep();
        break;
      case 'marked':
        core.marked.answer(event.token);
        break;
      case 'unmarked':
        core.unmarked.answer(event.token);
        break;
      case 'range-read':
        core.rangeRead.answer(event.token, event.pieces);
        break;
      case 'allocated':
        core.allocated.answer(event.token, event.ranges);
        break;
      case 'reported':
        core.reported.answer(event.token, event.outcome);
        break;
      case 'renewed':
        core.renewed.answer(event.token, event.outcome);
        break;
      case 'resized':
        this.#secondary?.resized(this.#keep.lacks.sizeBytes, event.sizeBytes);
        this.#keep.lacks.resize(event.sizeBytes);
        this.#keep.journal.resize(event.sizeBytes);
        this.#keep.marks.resize(event.sizeBytes);
        break;
      default:
        this.#dispatchRare(event);
    }
  }

  #dispatchRare(
    event: EventOf<
      | 'start'
      | 'configure'
      | 'hand-over'
      | 'link-up'
      | 'link-refused'
      | 'link-down'
      | 'hello'
      | 'session-ended'
    >,
  ): void {
    switch (event.kind) {
      case 'start':
        this.#start(event);
        break;
      case 'configure':
        this.#configure(event.token, event.config);
        break;
      case 'hand-over':
        if (this.#primary !== undefined) this.#primary.handOver(event);
        else this.#core.emit({ kind: 'handed-over', token: event.token, isRefused: true });
        break;
      case 'link-up': {
        const { to, session, hasLostCache, unsettled, alone } = event;
        this.#primary?.links.linkUp(to, session, hasLostCache, unsettled, alone);
        break;
      }
      case 'link-refused':
        this.#primary?.links.linkRefused(event.to, event.session, event.code, event.epoch);
        break;
      case 'link-down':
        this.#primary?.links.linkDown(event.to, event.session);
        break;
      case 'hello':
        this.#hello(event);
        break;
      case 'session-ended':
        this.#secondary?.ended(event.session);
        break;
    }
  }

  // ── start and configuration ──────────────────────────────────────────────────────────────────────────────

  #start({ durable, unsettled, lacks, hasLostCache, marked, sizeBytes }: EventOf<'start'>): void {
    this.#keep.lacks.resize(sizeBytes);
    this.#keep.marks.start(marked, sizeBytes);
    this.#keep.journal.start(unsettled, hasLostCache);
    if (durable === undefined) return;
    this.#core.recall(durable);
    this.#keep.lacks.start(lacks);
    const { role, config, epoch } = durable;
    if (role === 'secondary') this.#serveAsSecondary('started');
    else {
      assert(config.epoch === epoch, 'a primary is one of the epoch that it was told');
      this.#serveAsPrimary('started', false); // an earlier life may have been asked to end the passages
    }
  }

  #configure(token: Token, config: GroupConfig): void {
    const core = this.#core;
    const known = core.hasDurable ? core.durable : undefined;
    const isMember = config.members.some(({ realVolume }) => realVolume === core.id);
    const answer = (isRefused: boolean): void => {
      core.emit({ kind: 'configured', token, epoch: core.hasDurable ? core.durable.epoch : 0, isRefused });
    };
    if (!isMember || (known !== undefined && config.epoch < known.epoch)) {
      answer(true);
      return;
    }
    // After an older catalog has been put back, revisions begin again with an epoch that nobody has known.
    const before = known?.config;
    const isNews = before === undefined || config.epoch > before.epoch || config.revision > before.revision;
    if (isNews) this.#reconfigure(known, config);
    answer(false);
  }

  #reconfigure(known: DurableState | undefined, told: GroupConfig): void {
    const { id } = this.#core;
    const isNewEpoch = known === undefined || told.epoch > known.config.epoch;
    // Once the lease before has been waited out, it has been.
    const isHandedOver = told.isHandedOver || (!isNewEpoch && known.config.isHandedOver);
    const config = { ...told, isHandedOver };
    const role = config.primary === id ? 'primary' : 'secondary';
    const before = known?.config;
    if (role === 'primary' && this.#primary !== undefined && known !== undefined && !isNewEpoch) {
      const lacksAll = lacksAllOf(known, config, id);
      const isMember = (member: MemberId): boolean => config.members.some((of) => of.realVolume === member);
      this.#core.change({ config, lacksAll, mayBeInStep: known.mayBeInStep.filter(isMember) });
      this.#primary.configure(before ?? config, config);
      return;
    }
    this.#endPrimary(role === 'primary' ? 'hold' : 'refuse');
    const isOfOther = this.#secondary?.source !== config.primary;
    if (known === undefined || config.epoch > known.epoch || isOfOther) this.#secondary?.fence(config.epoch);
    const isEqual = known?.role === 'secondary' && known.isEqual;
    const isKnowing = known?.role === 'primary' || isEqual;
    const promotable = config.members.filter(
      ({ realVolume, pair }) => realVolume !== id && pair === 'duplex',
    );
    const mayBeInStep =
      role === 'primary'
        ? promotable.map(({ realVolume }) => realVolume)
        : successorsOf(known, config.epoch, config.primary, id);
    const lacksAll =
      role === 'primary' && (!isKnowing || config.isForced === true)
        ? config.members.map(({ realVolume }) => realVolume).filter((member) => member !== id)
        : lacksAllOf(known, config, id);
    this.#core.save({ config, epoch: config.epoch, role, mayBeInStep, lacksAll, isEqual });
    this.#forgetStrangers(config, role === 'secondary' ? mayBeInStep : []);
    if (role === 'primary') this.#serveAsPrimary('told', isNewEpoch && told.isHandedOver);
    else this.#serveAsSecondary('told');
  }

  /** Members that have been taken away. What one that was in step lacks, others that were made as it is may lack, too. */
  #forgetStrangers({ members }: GroupConfig, inStep: readonly MemberId[]): void {
    const { lacks } = this.#keep;
    for (const member of lacks.members()) {
      if (members.some(({ realVolume }) => realVolume === member)) continue;
      const ranges = inStep.includes(member) ? [...lacks.missing(member).ranges()] : [];
      for (const { realVolume } of members) {
        if (ranges.length > 0 && realVolume !== this.#core.id) lacks.addAll(realVolume, ranges);
      }
      lacks.forget(member);
    }
  }

  // ── roles ────────────────────────────────────────────────────────────────────────────────────────────────

  #serveAsPrimary(cause: string, takesPassages: boolean): void {
    const { config } = this.#core.durable;
    this.#secondary = undefined;
    this.#begunEpoch = undefined;
    this.#primary = new Primary({
      ...this.#keep,
      mustWait: !config.isHandedOver,
      stale: (epoch) => this.#deposed(epoch),
      drained: (handOver) => this.#handedOver(handOver),
    });
    this.#told('primary', cause);
    this.#serve('here', takesPassages);
    const held = this.#held;
    this.#held = [];
    for (const { token, request } of held) this.#primary.request(token, request);
  }

  #serveAsSecondary(cause: string): void {
    if (this.#secondary === undefined) this.#told('secondary', cause);
    this.#secondary ??= new Secondary(this.#keep);
    const { primary, epoch } = this.#core.durable.config;
    // Whoever has handed over serves through, to the primary of the epoch that it has begun. In a later one that might come behind something newer.
    if (this.#core.durable.epoch !== this.#begunEpoch) this.#serve('refuse');
    else if (epoch === this.#begunEpoch) this.#serve({ through: primary });
    this.#letGo();
  }

  /** Ends it; what it held is held, or told to look elsewhere. */
  #endPrimary(hosts: 'hold' | 'refuse'): void {
    const primary = this.#primary;
    if (primary === undefined) return;
    this.#primary = undefined;
    this.#held = primary.end();
    this.#begunEpoch = undefined;
    this.#hosts = hosts;
    if (hosts === 'refuse') this.#letGo();
  }

  /** There is a newer epoch, and this member was primary. What it knows of others stays right unless another was made primary (by force). */
  #deposed(epoch: number | undefined): boolean {
    const { durable } = this.#core;
    const { config } = durable;
    if (epoch !== undefined && !isNewerEpoch(epoch, config.epoch)) return false;
    const newest = Math.max(durable.epoch, epoch ?? config.epoch + 1);
    this.#raise(newest, true, durable.mayBeInStep, 'there is a newer epoch');
    return true;
  }

  #handedOver({ token, epoch }: HandingOver): void {
    this.#endPrimary('hold');
    this.#keep.journal.tellSettled();
    this.#core.change({ epoch, role: 'secondary', isEqual: true, mayBeInStep: [] });
    this.#begunEpoch = epoch;
    this.#secondary = new Secondary(this.#keep);
    this.#told('secondary', 'handed over');
    this.#serve('hold');
    this.#core.emit({ kind: 'handed-over', token, isRefused: false });
  }

  #hello({ session, source, epoch, sizeBytes }: EventOf<'hello'>): void {
    const core = this.#core;
    const refuse = (code: Extract<Effect, { kind: 'refuse' }>['code']): void => {
      core.emit({ kind: 'refuse', session, code, epoch: core.hasDurable ? core.durable.epoch : 0 });
    };
    if (!core.hasDurable) {
      refuse('unknown');
      return;
    }
    const { durable } = core;
    const isOther = durable.config.epoch === epoch && durable.config.primary !== source;
    if (epoch < durable.epoch) refuse('stale-epoch');
    else if (source === core.id || isOther || (this.#primary !== undefined && epoch === durable.epoch)) {
      refuse('unknown');
    } else if (epoch > durable.epoch && !isNewerEpoch(epoch, durable.epoch)) refuse('policy');
    // The directory will tell of a member that is new here before its primary's time is over.
    else if (epoch > durable.epoch && memberOf(durable.config, source) === undefined) refuse('busy');
    else if (sizeBytes > this.#keep.lacks.sizeBytes) refuse('size');
    else {
      const isStillEqual = durable.role === 'secondary' && durable.isEqual;
      if (epoch > durable.epoch) {
        const successors = successorsOf(durable, epoch, source, core.id);
        this.#raise(epoch, isStillEqual, successors, 'a primary of a newer epoch');
      }
      assert(this.#secondary !== undefined, 'whoever takes a session is secondary');
      this.#secondary.hello(session, source);
    }
  }

  /** There is a newer epoch, of which the directory has not told yet. */
  #raise(epoch: number, isEqual: boolean, mayBeInStep: readonly MemberId[], cause: string): void {
    this.#secondary?.fence(epoch);
    this.#endPrimary('refuse');
    this.#core.change({ epoch, role: 'secondary', isEqual, mayBeInStep });
    this.#serveAsSecondary(cause);
  }

  // ── hosts ────────────────────────────────────────────────────────────────────────────────────────────────

  #request(token: Token, request: Request): void {
    if (this.#primary !== undefined) {
      this.#primary.request(token, request);
      return;
    }
    this.#held.push({ token, request });
    if (this.#hosts !== 'hold' || this.#held.length > this.#core.limits.heldMax) this.#letGo();
  }

  /** What is held, and will not be served here, goes where hosts are told to go. */
  #letGo(): void {
    if (this.#hosts === 'hold' && this.#held.length <= this.#core.limits.heldMax) return;
    const held = this.#held;
    this.#held = [];
    for (const { token } of held) {
      if (typeof this.#hosts === 'object') this.#core.emit({ kind: 'forward', token });
      else this.#core.emit({ kind: 'answer', token, error: 'shutdown' });
    }
  }

  #serve(hosts: Hosts, takesPassages = false): void {
    this.#hosts = hosts;
    this.#core.emit({ kind: 'serve', epoch: this.#core.durable.epoch, hosts, takesPassages });
  }

  #told(to: string, cause: string): void {
    const { epoch } = this.#core.durable;
    const from = this.#role;
    this.#role = to;
    this.#core.emit({ kind: 'told', what: { kind: 'role', from, to, epoch, cause } });
  }
}

function memberOf({ members }: GroupConfig, id: MemberId): GroupConfig['members'][number] | undefined {
  return members.find(({ realVolume }) => realVolume === id);
}

/**
 * Who may have been primary since a member was one, or was equal to one, as `epoch` begins: what any of them lacks, whoever is primary by then may
 * lack (I13). Who was primary remembers whom it had in step; a secondary, who is primary of the epoch that follows, and when it has missed
 * one, that anybody may have been.
 */
function successorsOf(
  known: DurableState | undefined,
  epoch: number,
  primary: MemberId,
  id: MemberId,
): readonly MemberId[] {
  if (known === undefined) return [];
  const { mayBeInStep, role, config } = known;
  if (role === 'primary' || epoch === known.epoch) return mayBeInStep;
  const more = epoch === known.epoch + 1 ? [primary] : config.members.map(({ realVolume }) => realVolume);
  return [...new Set([...mayBeInStep, ...more])].filter((member) => member !== id);
}

/** Members that this one has not heard of before lack everything. */
function lacksAllOf(known: DurableState | undefined, config: GroupConfig, id: MemberId): MemberId[] {
  const before = known?.config.members ?? [];
  const lacksAll = known?.lacksAll ?? [];
  return config.members
    .map(({ realVolume }) => realVolume)
    .filter((member) => {
      if (member === id) return false;
      if (lacksAll.includes(member)) return true;
      // A new member has nothing that its primary could lack.
      if (known === undefined && member === config.primary) return false;
      return !before.some(({ realVolume }) => realVolume === member);
    });
}
