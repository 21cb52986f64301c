/**
 * Primary: what a member does as the primary of one epoch.
 *
 *   draining    what an earlier role has begun to apply has not ended
 *   giving way  its cache is lost, and another member may have what it has not (I14)
 *   waiting     the primary before may still believe in its lease (I11)
 *   open        serves, as far as lease and pairs allow
 *
 * Invariants
 * 1. What cannot go on now is held, and goes on in order of arrival; reads overtake changes.
 * 2. Nothing is answered, and no read admitted, without a lease (I11); but that the hosts should look elsewhere.
 * 3. After `end` nothing of it does anything any more.
 */

import type { GroupConfig } from '../control-protocol/copy-groups.ts';
import type { MemberId } from '../peer-protocol/messages.ts';
import type { Operation, Request, RequestError, Token } from './effects.ts';
import { Lease } from './lease.ts';
import { Pair, type PairState } from './pair.ts';
import { Pairs } from './pairs.ts';
import { type Keep, Writes } from './writes.ts';

export interface PrimaryOptions extends Keep {
  /** The lease of the primary before has to be waited out. */
  readonly mustWait: boolean;
  /** Another member says that `epoch` has begun, or (undefined) the directory that another has. False: it has not. */
  readonly stale: (epoch: number | undefined) => boolean;
  /** All is settled and confirmed: `epoch` may begin at `to`. */
  readonly drained: (handOver: HandingOver) => void;
}

export interface HandingOver {
  readonly token: Token;
  readonly epoch: number;
  readonly to: MemberId;
}

export interface HeldRequest {
  readonly token: Token;
  readonly request: Request;
}

export interface PairView {
  readonly realVolume: MemberId;
  readonly state: PairState;
  readonly outOfSyncBytes: number;
  /** Since the process began. */
  readonly copiedBytes: number;
}

type Phase = 'draining' | 'giving-way' | 'waiting' | 'open';

export class Primary {
  readonly #options: PrimaryOptions;
  readonly #pairs: Pair[] = [];
  readonly #writes: Writes;
  readonly #keeper: Pairs;
  readonly #lease: Lease;
  #phase: Phase = 'draining';
  readonly #waitUntilMs: number;
  #renewAtMs = Number.NEGATIVE_INFINITY;
  #reads: HeldRequest[] = [];
  #changes: HeldRequest[] = [];
  #answers: { token: Token; error: RequestError | undefined }[] = [];
  #handOver: (HandingOver & { confirming: Map<MemberId, Token> | undefined }) | undefined;
  #isOver = false;
  /** Something has happened that held requests may have waited for. */
  #isChanged = false;

  constructor(options: PrimaryOptions) {
    this.#options = options;
    const { core, journal, marks, lacks } = options;
    const keep = { core, journal, marks, lacks };
    const leaseMs = core.durable.config.leaseMs;
    this.#waitUntilMs = options.mustWait ? core.nowMs + leaseMs * 1.1 : Number.NEGATIVE_INFINITY;
    this.#lease = new Lease(() => core.durable.config.leaseMs);
    this.#writes = new Writes({
      ...keep,
      pairs: this.#pairs,
      answer: (token, error) => this.#answer(token, error),
      failedHere: () => this.#keeper.failedHere(),
    });
    this.#keeper = new Pairs({
      ...keep,
      pairs: this.#pairs,
      writes: this.#writes,
      bytesPerSecond: () => core.durable.config.copyBytesPerSecond,
      changed: () => this.#changed(),
      stale: (epoch) => options.stale(epoch),
    });
    for (const member of core.durable.config.members) {
      if (member.realVolume !== core.id) this.#pairs.push(this.#newPair(member));
    }
    this.#changed();
  }

  // ── what others ask ──────────────────────────────────────────────────────────────────────────────────────

  servesNow(nowMs: number): boolean {
    return (
      this.#phase === 'open' && !this.#isOver && this.#handOver === undefined && this.#lease.holds(nowMs)
    );
  }

  get isServing(): boolean {
    return this.#phase === 'open' && this.#handOver === undefined;
  }

  /** Nothing is under way, and nothing is waited for but the answers to heartbeats. */
  get isAtRest(): boolean {
    if (!this.isServing || !this.#writes.isIdle) return false;
    if (this.#reads.length + this.#changes.length + this.#answers.length > 0) return false;
    return this.#pairs.every((pair) => pair.isAtRest);
  }

  views(): PairView[] {
    const { core, lacks } = this.#options;
    return this.#pairs.map(({ member, state, copiedBytes }) => {
      const isAll = core.durable.lacksAll.includes(member);
      const outOfSyncBytes = isAll ? lacks.sizeBytes : lacks.missing(member).countBytes;
      return { realVolume: member, state, outOfSyncBytes, copiedBytes };
    });
  }

  get links(): Pairs {
    return this.#keeper;
  }

  // ── requests ─────────────────────────────────────────────────────────────────────────────────────────────

  request(token: Token, request: Request): void {
    const isRead = request.kind === 'read';
    if (isRead ? this.#canRead() : this.#canChange()) this.#go(token, request);
    else if (this.#reads.length + this.#changes.length >= this.#options.core.limits.heldMax) {
      this.#options.core.emit({ kind: 'answer', token, error: 'shutdown' });
    } else (isRead ? this.#reads : this.#changes).push({ token, request });
  }

  #go(token: Token, request: Request): void {
    if (request.kind === 'read') this.#options.core.emit({ kind: 'admit', token });
    else this.#change(token, request);
  }

  #change(token: Token, operation: Operation): void {
    if (this.#isFenced()) this.#answer(token, 'io');
    else this.#writes.begin(token, operation);
  }

  #canRead(): boolean {
    return this.servesNow(this.#options.core.nowMs);
  }

  #canChange(): boolean {
    if (this.#phase !== 'open' || this.#handOver !== undefined) return false;
    for (const { state } of this.#pairs) if (state === 'connecting') return false;
    return true;
  }

  /** I15. */
  #isFenced(): boolean {
    const { fence } = this.#options.core.durable.config;
    if (fence === 'never') return false;
    if (fence === 'status') return this.#overdue().length > 0;
    return this.#pairs.some(
      ({ isWanted, state }) => isWanted && (state === 'suspended' || state === 'leaving'),
    );
  }

  /** Pairs whose suspension could not be recorded in time. */
  #overdue(): Pair[] {
    const { awakeMs, limits } = this.#options.core;
    return this.#pairs.filter(
      ({ state, sinceAwakeMs }) => state === 'leaving' && awakeMs - sinceAwakeMs > limits.recordMs,
    );
  }

  #answer(token: Token, error: RequestError | undefined): void {
    const { core } = this.#options;
    // An error promises nothing: what a fence fails is not to wait for a lease that cannot be had just then (I15).
    const isFailed = error === 'shutdown' || (error !== undefined && this.#isFenced());
    if (isFailed || this.#lease.holds(core.nowMs)) core.emit({ kind: 'answer', token, error });
    else this.#answers.push({ token, error });
  }

  // ── what happens ─────────────────────────────────────────────────────────────────────────────────────────

  /** The directory has told a newer revision of this epoch. */
  configure(before: GroupConfig, config: GroupConfig): void {
    for (const member of config.members) {
      if (member.realVolume === this.#options.core.id) continue;
      const pair = this.#keeper.find(member.realVolume);
      if (pair !== undefined) {
        this.#keeper.recordSays(pair, member.pair === 'simplex' ? undefined : member.pair);
        this.#keeper.want(pair, member.wanted === 'following');
      } else this.#keeper.add(this.#newPair(member));
    }
    for (const { realVolume } of before.members) {
      const pair = this.#keeper.find(realVolume);
      if (pair !== undefined && !config.members.some((member) => member.realVolume === realVolume)) {
        this.#keeper.remove(pair);
      }
    }
    this.#changed();
  }

  handOver(handOver: HandingOver): void {
    const { core } = this.#options;
    const canBegin = this.#phase === 'open' && this.#handOver === undefined;
    const isInStep = this.#keeper.find(handOver.to)?.state === 'duplex';
    if (!canBegin || !isInStep || handOver.epoch <= core.durable.epoch) {
      core.emit({ kind: 'handed-over', token: handOver.token, isRefused: true });
      return;
    }
    this.#handOver = { ...handOver, confirming: undefined };
    this.#keeper.isPaused = true;
  }

  tick(): void {
    const { core } = this.#options;
    if (this.#phase === 'waiting' && core.nowMs >= this.#waitUntilMs) this.#waited();
    if (this.#phase !== 'draining') this.#keeper.tick();
    if (this.#isOver) return;
    this.#renew();
    if (core.durable.config.fence === 'status') {
      const overdue = this.#overdue();
      if (overdue.length > 0) {
        this.#writes.failWaiting(overdue);
        this.#isChanged = true;
      }
    }
    // A lease may have ended, and a fence may have risen: who waits for either looks again, as do those whom a pair that is leaving blocks.
    const isHeld = this.#reads.length + this.#changes.length + this.#answers.length > 0;
    if (isHeld || this.#pairs.some(({ blocked }) => blocked.length > 0)) this.#isChanged = true;
  }

  /** At the end of every step. */
  run(): void {
    if (this.#phase === 'draining' && this.#options.journal.isIdle) this.#drained();
    for (;;) {
      this.#writes.run();
      if (this.#isOver || !this.#isChanged) break;
      this.#isChanged = false;
      this.#goOn();
    }
    if (this.#handOver !== undefined && !this.#isOver) this.#goOnHandingOver();
  }

  /** The role is over. Returns what was held. */
  end(): HeldRequest[] {
    this.#isOver = true;
    this.#keeper.close(); // before anything is answered: what a link still has of a payload is the host's again then
    for (const { token } of this.#answers) {
      this.#options.core.emit({ kind: 'answer', token, error: 'shutdown' });
    }
    this.#answers = [];
    if (this.#handOver !== undefined) {
      this.#options.core.emit({ kind: 'handed-over', token: this.#handOver.token, isRefused: true });
      this.#handOver = undefined;
    }
    this.#writes.abandon();
    return [...this.#reads, ...this.#changes];
  }

  // ── phases ───────────────────────────────────────────────────────────────────────────────────────────────

  #newPair(member: GroupConfig['members'][number]): Pair {
    const { core } = this.#options;
    const { mayBeInStep } = core.durable;
    const state = mayBeInStep.includes(member.realVolume) ? 'connecting' : 'suspended';
    const recorded = member.pair === 'simplex' ? undefined : member.pair;
    const isWanted = member.wanted === 'following';
    return new Pair(member.realVolume, state, isWanted, recorded, core.awakeMs, core.limits.retryMs);
  }

  #drained(): void {
    const { journal, core } = this.#options;
    if (journal.hasLostCache && core.durable.mayBeInStep.length > 0) {
      this.#phase = 'giving-way';
      this.#told('gives way: its cache is lost');
      this.#renew();
      return;
    }
    this.#connect();
  }

  /** I12, and after a restart I17: what is unsettled may be missing anywhere. */
  #connect(): void {
    const { journal, lacks, core } = this.#options;
    const ranges = journal.ranges();
    for (const { member } of this.#pairs) lacks.addAll(member, ranges);
    journal.forget(journal.snapshot());
    this.#phase = core.nowMs < this.#waitUntilMs ? 'waiting' : 'open';
    this.#told(this.#phase === 'open' ? 'serves' : 'waits for the lease before it to end');
    this.#keeper.open();
    if (this.#phase === 'open') this.#waited();
    this.#changed();
    this.#renew();
  }

  #waited(): void {
    const { core } = this.#options;
    if (this.#phase === 'waiting') this.#told('serves');
    this.#phase = 'open';
    const { config } = core.durable;
    if (!config.isHandedOver) core.change({ config: { ...config, isHandedOver: true } });
    this.#changed();
  }

  #told(cause: string): void {
    const { core } = this.#options;
    const { epoch } = core.durable;
    core.emit({ kind: 'told', what: { kind: 'role', from: 'primary', to: 'primary', epoch, cause } });
  }

  #renew(): void {
    const { core } = this.#options;
    const isGivingWay = this.#phase === 'giving-way';
    if (this.#phase === 'draining' || core.nowMs < this.#renewAtMs) return;
    const isNeeded =
      core.durable.mayBeInStep.length > 0 || this.#pairs.some(({ link }) => link?.isUp === true);
    if (!isNeeded) return;
    const { epoch, leaseMs } = core.durable.config;
    const sentMs = core.nowMs;
    this.#renewAtMs = sentMs + leaseMs / 3;
    const token = core.renewed.ask((outcome) => {
      if (this.#isOver) return;
      if (outcome === 'stale-epoch') this.#options.stale(undefined);
      if (outcome !== 'granted') return;
      this.#lease.granted(sentMs);
      // Granted although it gives way: nobody can take over. It goes on when the record calls nobody duplex any more.
      if (isGivingWay && this.#phase === 'giving-way') this.#keeper.giveUpOthers();
      this.#changed();
    });
    if (isGivingWay) core.emit({ kind: 'give-way', epoch });
    core.emit({ kind: 'renew', token, epoch });
  }

  #changed(): void {
    const { core } = this.#options;
    const { mayBeInStep } = core.durable;
    this.#lease.update(this.#pairs.filter(({ member }) => mayBeInStep.includes(member)));
    this.#isChanged = true;
    if (this.#phase === 'giving-way' && mayBeInStep.length === 0) this.#connect();
    if (this.#pairs.some(({ state, link }) => link?.isUp === true && state !== 'suspended')) this.#renew();
  }

  /** What was held goes on, as far as it can. */
  #goOn(): void {
    const { core } = this.#options;
    if (core.durable.config.fence === 'data') {
      const lost = this.#pairs.filter(({ state, isWanted }) => state === 'leaving' && isWanted);
      if (lost.length > 0) this.#writes.failWaiting(lost);
    }
    if (this.#answers.length > 0 && this.#lease.holds(core.nowMs)) {
      const answers = this.#answers;
      this.#answers = [];
      for (const { token, error } of answers) core.emit({ kind: 'answer', token, error });
    }
    if (this.#reads.length > 0 && this.#canRead()) {
      const reads = this.#reads;
      this.#reads = [];
      for (const { token } of reads) core.emit({ kind: 'admit', token });
    }
    if (this.#changes.length > 0 && this.#canChange()) {
      const changes = this.#changes;
      this.#changes = [];
      for (const { token, request } of changes) this.#go(token, request);
    }
  }

  // ── hand-over (I16) ──────────────────────────────────────────────────────────────────────────────────────

  #goOnHandingOver(): void {
    const handOver = this.#handOver;
    if (handOver === undefined) return;
    if (this.#keeper.find(handOver.to)?.state !== 'duplex') {
      this.#handOver = undefined;
      this.#keeper.isPaused = false;
      this.#options.core.emit({ kind: 'handed-over', token: handOver.token, isRefused: true });
      this.#keeper.copyOn();
      this.#goOn();
      return;
    }
    if (!this.#writes.isIdle || this.#answers.length > 0) return;
    if (this.#pairs.some(({ state }) => state === 'leaving' || state === 'connecting')) return;
    const inStep = this.#pairs.filter(({ mayBeInStep }) => mayBeInStep);
    if (handOver.confirming === undefined) {
      handOver.confirming = new Map();
      for (const pair of inStep) {
        if (pair.link !== undefined)
          handOver.confirming.set(pair.member, this.#keeper.heartbeat(pair, pair.link));
      }
    }
    const { confirming } = handOver;
    const isConfirmed = [...confirming].every(([member, token]) => {
      const pair = this.#keeper.find(member);
      return pair?.mayBeInStep !== true || (pair.link?.answeredToken ?? 0) >= token;
    });
    if (!isConfirmed) return;
    this.#handOver = undefined;
    this.#options.drained(handOver);
  }
}
