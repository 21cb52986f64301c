/**
 * A copy group by hand: a few real replicas, disks in memory, a directory that records everything, a network without delay. Each test
 * says which events come later (`park`), which do not (`lose`), who is killed and who starts again.
 */

import type { GroupConfig } from '../../../src/control-protocol/copy-groups.ts';
import { EXTENT_BYTES } from '../../../src/model/copy-granularity.ts';
import { assert } from '../../../src/model/errors.ts';
import type { MemberId } from '../../../src/peer-protocol/messages.ts';
import type { Effect, Event, Request } from '../../../src/replication/effects.ts';
import type { ReplicaLimits } from '../../../src/replication/limits.ts';
import { Replica } from '../../../src/replication/replica.ts';
import {
  apply,
  BLOCK,
  changeBits,
  checkMarks,
  configOf,
  type EffectOf,
  type EventOf,
  TestMember,
} from './member.ts';

export const A = 'rv-aaaaaaaaaaaaaaaa';
export const B = 'rv-bbbbbbbbbbbbbbbb';
export const C = 'rv-cccccccccccccccc';
export const D = 'rv-dddddddddddddddd';

/** An event without its time. */
type Input = { [K in Event['kind']]: Omit<EventOf<K>, 'nowMs'> }[Event['kind']];

interface Queued {
  readonly member: TestMember;
  readonly life: number;
  readonly input: Input;
}

/** What is on its way may be looked at by these. */
type Filter = (input: Input, member: MemberId) => boolean;

export class TestGroup {
  nowMs = 1000;
  readonly members = new Map<MemberId, TestMember>();
  config: GroupConfig;
  readonly answers = new Map<number, string>();
  readonly #queue: Queued[] = [];
  #parked: Queued[] = [];
  #park: Filter | undefined;
  #lose: Filter | undefined;
  #lastToken = 1_000_000;
  readonly #limits: Partial<ReplicaLimits>;
  /** Whether the directory answers. */
  isDirectoryUp = true;
  /** Members that cannot be reached. */
  readonly cut = new Set<MemberId>();
  readonly #links = new Map<string, { source: MemberId; target: MemberId; session: number; there: number }>();

  constructor(
    ids: readonly MemberId[],
    limits: Partial<ReplicaLimits> = {},
    change: Partial<GroupConfig> = {},
  ) {
    this.#limits = limits;
    this.config = { ...configOf(ids, ids[0] as MemberId), ...change };
    for (const id of ids) this.newMember(id);
  }

  get(id: MemberId): TestMember {
    const member = this.members.get(id);
    assert(member !== undefined, `there is ${id}`);
    return member;
  }

  newMember(id: MemberId): TestMember {
    const member = new TestMember(id, this.#limits);
    this.members.set(id, member);
    this.#push(member, {
      kind: 'start',
      durable: undefined,
      unsettled: [],
      lacks: new Map(),
      hasLostCache: false,
      marked: [],
      sizeBytes: member.sizeBytes,
    });
    return member;
  }

  // ── the directory ────────────────────────────────────────────────────────────────────────────────────────

  /** The record changes, and all (or `only`) are told. */
  tell(change: Partial<GroupConfig> = {}, only?: readonly MemberId[]): void {
    this.config = { ...this.config, ...change, revision: this.config.revision + 1 };
    for (const id of only ?? this.members.keys()) {
      const member = this.get(id);
      if (member.isUp) this.#push(member, { kind: 'configure', token: this.#token(), config: this.config });
    }
    this.run();
  }

  setPair(id: MemberId, change: Partial<GroupConfig['members'][number]>): GroupConfig['members'] {
    return this.config.members.map((member) =>
      member.realVolume === id ? { ...member, ...change } : member,
    );
  }

  pairOf(id: MemberId): string | undefined {
    return this.config.members.find(({ realVolume }) => realVolume === id)?.pair;
  }

  /** `to` becomes primary: of a failover unless handed over. */
  promote(
    to: MemberId,
    isHandedOver: boolean,
    change: Partial<GroupConfig> = {},
    only?: readonly MemberId[],
  ): void {
    const before = this.config.primary;
    const members = this.config.members.map((member) => {
      if (member.realVolume === to) return { ...member, pair: 'duplex' as const };
      return member.realVolume === before && !isHandedOver
        ? { ...member, pair: 'suspended' as const }
        : member;
    });
    const primary = to as GroupConfig['primary'];
    const epoch = (this.config.epoch + 1) as GroupConfig['epoch'];
    this.tell({ epoch, primary, isHandedOver, members, ...change }, only);
  }

  // ── hosts ────────────────────────────────────────────────────────────────────────────────────────────────

  request(id: MemberId, request: Request): number {
    const token = this.#token();
    this.#push(this.get(id), { kind: 'request', token, request });
    this.run();
    return token;
  }

  write(id: MemberId, offset: number, fill: number, length = BLOCK): number {
    const payload = Buffer.alloc(length, fill);
    return this.request(id, { kind: 'write', offset, length, fua: false, payload });
  }

  /** undefined: not answered yet. */
  answer(token: number): string | undefined {
    return this.answers.get(token);
  }

  // ── faults ───────────────────────────────────────────────────────────────────────────────────────────────

  /** What fits is kept back until `unpark`. */
  park(filter: Filter): void {
    this.#park = filter;
  }

  unpark(): void {
    this.#park = undefined;
    this.#queue.push(...this.#parked);
    this.#parked = [];
    this.run();
  }

  get parked(): readonly Input[] {
    return this.#parked.map(({ input }) => input);
  }

  lose(filter: Filter | undefined): void {
    this.#lose = filter;
  }

  /** The process dies; its links break. */
  kill(id: MemberId): void {
    const member = this.get(id);
    [member.isUp, member.life] = [false, member.life + 1];
    for (const [key, link] of this.#links) {
      if (link.source === id || link.target === id) this.#break(key);
    }
    this.#parked = this.#parked.filter((queued) => queued.member.life === queued.life);
    this.run();
  }

  start(id: MemberId, hasLostCache = false): void {
    const member = this.get(id);
    member.replica = new Replica({ id, ...this.#limits });
    member.isUp = true;
    member.hasLostCache ||= hasLostCache;
    [member.before, member.journal] = [member.found, new Map()];
    const lacks = new Map(
      [...member.bits].map(([of, blocks]) => [
        of,
        [...blocks].map((at) => ({ offset: at * BLOCK, length: BLOCK })),
      ]),
    );
    this.#push(member, {
      kind: 'start',
      durable: member.durable,
      unsettled: member.before,
      lacks,
      hasLostCache: member.hasLostCache,
      marked: [...member.marked],
      sizeBytes: member.sizeBytes,
    });
    this.run();
  }

  /** Its own file has another size. */
  resize(id: MemberId, sizeBytes: number): void {
    const member = this.get(id);
    member.sizeBytes = sizeBytes;
    const end = Math.ceil(sizeBytes / EXTENT_BYTES);
    for (const extent of member.marked) if (extent >= end) member.marked.delete(extent);
    this.push(id, { kind: 'resized', sizeBytes });
  }

  cutOff(id: MemberId): void {
    this.cut.add(id);
    for (const [key, link] of this.#links) if (link.source === id || link.target === id) this.#break(key);
    this.run();
  }

  /** Time goes by, in ticks. */
  pass(ms: number): void {
    for (let at = 0; at < ms; at += 100) {
      this.nowMs += 100;
      for (const member of this.members.values()) if (member.isUp) this.#push(member, { kind: 'tick' });
      this.run();
    }
  }

  push(id: MemberId, input: Input): void {
    this.#push(this.get(id), input);
    this.run();
  }

  run(): void {
    for (let steps = 0; ; steps++) {
      assert(steps < 1_000_000, 'it comes to rest');
      const next = this.#queue.shift();
      if (next === undefined) return;
      const { member, life, input } = next;
      if (life !== member.life) continue;
      if (this.#lose?.(input, member.id) === true) continue;
      if (this.#park?.(input, member.id) === true) {
        this.#parked.push(next);
        continue;
      }
      this.#step(member, { ...input, nowMs: this.nowMs } as Event);
    }
  }

  // ── inside ───────────────────────────────────────────────────────────────────────────────────────────────

  #token(): number {
    this.#lastToken += 1;
    return this.#lastToken;
  }

  #push(member: TestMember, input: Input): void {
    if (member.isUp) this.#queue.push({ member, life: member.life, input });
  }

  #step(member: TestMember, event: Event): void {
    const { persist, effects } = member.replica.step(event);
    if (persist !== undefined) {
      member.durable = persist;
      member.persisted.push(persist);
    }
    for (const effect of effects) {
      member.effects.push(effect);
      this.#carryOut(member, effect);
    }
  }

  #carryOut(member: TestMember, effect: Effect): void {
    const { id } = member;
    switch (effect.kind) {
      case 'apply': {
        const { token, operation, isJournaled } = effect;
        if (isJournaled && operation.kind !== 'flush') {
          member.journal.set(token, { offset: operation.offset, length: operation.length });
        }
        if (isJournaled) checkMarks(member, operation);
        const error = member.failApply?.(operation);
        if (error === undefined) apply(member, operation);
        this.#push(member, { kind: 'applied', token, error });
        break;
      }
      case 'settle':
        for (const token of effect.tokens)
          assert(member.journal.delete(token), 'what is settled was journaled');
        break;
      case 'forget-unsettled':
        member.before = [];
        member.hasLostCache = false;
        break;
      case 'admit':
        this.answers.set(effect.token, 'admitted');
        break;
      case 'forward':
        this.answers.set(effect.token, 'forwarded');
        break;
      case 'answer':
        assert(!this.answers.has(effect.token), 'a request is answered once');
        this.answers.set(effect.token, effect.error ?? 'done');
        break;
      case 'mark':
        for (const extent of effect.extents) {
          if (extent * EXTENT_BYTES < member.sizeBytes) member.marked.add(extent);
        }
        this.#push(member, { kind: 'marked', token: effect.token });
        break;
      case 'unmark':
        for (const extent of effect.extents) assert(member.marked.delete(extent), 'it was marked');
        this.#push(member, { kind: 'unmarked', token: effect.token });
        break;
      case 'set-bits':
      case 'clear-bits':
        changeBits(member, effect);
        break;
      case 'forget-member':
        member.bits.delete(effect.member);
        break;
      case 'read-range': {
        const { offset, length } = effect.range;
        const payload = Buffer.from(member.disk.subarray(offset, offset + length));
        const isHole = payload.every((byte) => byte === 0);
        const piece = isHole
          ? ({ kind: 'hole', offset, length } as const)
          : ({ kind: 'data', offset, length, payload } as const);
        this.#push(member, { kind: 'range-read', token: effect.token, pieces: [piece] });
        break;
      }
      case 'find-allocated': {
        const ranges = [...member.written]
          .sort((a, b) => a - b)
          .map((at) => ({ offset: at * BLOCK, length: BLOCK }));
        this.#push(member, { kind: 'allocated', token: effect.token, ranges });
        break;
      }
      case 'report':
        this.#reported(member, effect);
        break;
      case 'renew': {
        const isCurrent = this.config.epoch === effect.epoch && this.config.primary === id;
        const outcome = !this.isDirectoryUp ? 'unreachable' : isCurrent ? 'granted' : 'stale-epoch';
        this.#push(member, { kind: 'renewed', token: effect.token, outcome });
        break;
      }
      case 'serve':
        member.hosts = effect.hosts;
        break;
      case 'give-way':
      case 'told':
      case 'configured':
      case 'handed-over':
        break;
      default:
        this.#connection(member, effect);
    }
  }

  #reported(member: TestMember, { token, epoch, member: of, pair }: EffectOf<'report'>): void {
    const isCurrent = this.config.epoch === epoch && this.config.primary === member.id;
    const outcome = !this.isDirectoryUp ? 'unreachable' : isCurrent ? 'recorded' : 'stale-epoch';
    if (outcome === 'recorded') this.config = { ...this.config, members: this.setPair(of, { pair }) };
    this.#push(member, { kind: 'reported', token, outcome });
  }

  #connection(member: TestMember, effect: Effect): void {
    const { id } = member;
    switch (effect.kind) {
      case 'connect': {
        const { to, session, epoch } = effect;
        const there = this.members.get(to);
        if (there?.isUp !== true || this.cut.has(to) || this.cut.has(id)) {
          this.#push(member, { kind: 'link-down', to, session });
          break;
        }
        const number = this.#token();
        this.#links.set(`${id} ${session}`, { source: id, target: to, session, there: number });
        this.#push(there, {
          kind: 'hello',
          session: number,
          source: id,
          epoch,
          sizeBytes: this.config.sizeBytes,
        });
        break;
      }
      case 'disconnect':
        this.#break(`${id} ${effect.session}`);
        break;
      case 'send': {
        const link = this.#links.get(`${id} ${effect.session}`);
        if (link === undefined) break;
        this.#push(this.get(link.target), {
          kind: 'from-primary',
          session: link.there,
          message: effect.message,
        });
        break;
      }
      case 'welcome':
      case 'refuse':
      case 'reply':
      case 'end-session':
        this.#answerSession(member, effect);
        break;
      default:
        throw new Error(`nobody carries out ${effect.kind}`);
    }
  }

  #answerSession(member: TestMember, effect: EffectOf<'welcome' | 'refuse' | 'reply' | 'end-session'>): void {
    const found = [...this.#links].find(
      ([, link]) => link.target === member.id && link.there === effect.session,
    );
    if (found === undefined) return;
    const [key, link] = found;
    const source = this.get(link.source);
    const session = link.session;
    const to = member.id;
    switch (effect.kind) {
      case 'welcome': {
        const { hasLostCache, unsettled, alone } = effect;
        this.#push(source, { kind: 'link-up', to, session, hasLostCache, unsettled, alone });
        break;
      }
      case 'refuse':
        this.#links.delete(key);
        this.#push(source, { kind: 'link-refused', to, session, code: effect.code, epoch: effect.epoch });
        break;
      case 'reply':
        this.#push(source, { kind: 'from-secondary', from: to, session, message: effect.message });
        break;
      case 'end-session':
        this.#links.delete(key);
        this.#push(source, { kind: 'link-down', to, session });
        break;
    }
  }

  #break(key: string): void {
    const link = this.#links.get(key);
    if (link === undefined) return;
    this.#links.delete(key);
    this.#push(this.get(link.source), { kind: 'link-down', to: link.target, session: link.session });
    this.#push(this.get(link.target), { kind: 'session-ended', session: link.there });
  }
}
