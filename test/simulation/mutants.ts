/**
 * Deliberate bugs: what a member would be if one of its rules was forgotten. Each changes what goes into the real rules or what comes out of them;
 * mutants.test.ts shows that the oracles see every one of them.
 */

import type { Fence } from '../../src/control-protocol/copy-groups.ts';
import type { SecondaryMessage } from '../../src/peer-protocol/messages.ts';
import type { Effect, Event, Output } from '../../src/replication/effects.ts';
import type { Flaw } from './door.ts';
import { VOLUME_BYTES } from './layout.ts';
import type { MemberProcess, ReplicaLike } from './member-process.ts';

export interface Mutant {
  readonly name: string;
  /** Which events the rules are told of, and as what; undefined: of none. */
  readonly event?: (event: Event, by: MemberProcess) => Event | undefined;
  readonly output?: (output: Output) => Output;
  readonly servesNow?: (by: MemberProcess) => boolean;
  /** Those that bring it to light, where that would take many runs otherwise. */
  readonly faults?: readonly string[];
  /** Of the group, where only one level shows it. */
  readonly fence?: Fence;
  readonly flaws?: readonly Flaw[];
  /** What is carried out in place of an effect. */
  readonly effect?: (effect: Effect, by: MemberProcess) => readonly Effect[];
}

type Send = Extract<Effect, { kind: 'send' }>;

/** The primary is told that the member has done what has only been sent to it. */
function acknowledge({ to, session, message }: Send, by: MemberProcess): void {
  if (message.kind === 'heartbeat') return;
  const ack: SecondaryMessage = { kind: 'ack', seq: message.seq, result: 'done' };
  by.receive('mutant', { kind: 'from-secondary', from: to, session, message: ack });
}

/** Each acknowledgement is told once, however often it comes. */
function once(event: Event, by: MemberProcess): Event | undefined {
  if (event.kind !== 'from-secondary' || event.message.kind !== 'ack') return event;
  const key = `${event.session}/${event.message.seq}`;
  const told = toldOf(by);
  if (told.has(key)) return undefined;
  told.add(key);
  return event;
}

function isChange({ message: { kind } }: Send): boolean {
  return kind === 'write' || kind === 'zero' || kind === 'trim';
}

/** What the rules are told of the fence. */
function withFence(event: Event, fence: Fence): Event {
  if (event.kind === 'configure') return { ...event, config: { ...event.config, fence } };
  if (event.kind !== 'start' || event.durable === undefined) return event;
  return { ...event, durable: { ...event.durable, config: { ...event.durable.config, fence } } };
}

/** As soon as a member is lost all writes fail, whoever else has not got them yet. */
function failedTooEarly(effect: Effect, by: MemberProcess): readonly Effect[] {
  const told = toldOf(by);
  if (effect.kind === 'answer') return told.delete(`failed ${effect.token}`) ? [] : [effect];
  const isLost = effect.kind === 'told' && effect.what.kind === 'pair' && effect.what.to === 'leaving';
  if (!isLost) return [effect];
  const tokens = by.door.writesUnderWay();
  for (const token of tokens) told.add(`failed ${token}`);
  return [effect, ...tokens.map((token) => ({ kind: 'answer', token, error: 'io' }) as const)];
}

const PASSAGES = ['switchAndBreak', 'switchAndFreeze'];
const UNHEARD = ['deposeUnheard', 'freeze', 'resync'];

/** Who has handed over serves through, whoever is primary by now. */
function throughForEver(effect: Effect, by: MemberProcess): readonly Effect[] {
  if (effect.kind !== 'serve') return [effect];
  const told = toldOf(by);
  if (effect.hosts === 'hold') told.add('handed over');
  else if (effect.hosts === 'here') told.delete('handed over');
  const primary = by.disk.durable?.config.primary;
  if (effect.hosts !== 'refuse' || !told.has('handed over') || primary === undefined) return [effect];
  return [{ ...effect, hosts: { through: primary } }];
}

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'I2: a write is answered before its secondaries have acknowledged it',
    event: once,
    effect: (effect, by) => {
      if (effect.kind === 'send' && isChange(effect)) acknowledge(effect, by);
      return [effect];
    },
  },
  {
    name: 'I2: a suspension is not recorded',
    effect: (effect, by) => {
      if (effect.kind !== 'report' || effect.pair !== 'suspended') return [effect];
      by.receive('mutant', { kind: 'reported', token: effect.token, outcome: 'recorded' });
      return [];
    },
  },
  {
    name: 'I3: that a member may be in step is forgotten in a crash',
    output: ({ persist, effects }) => ({
      persist: persist === undefined ? undefined : { ...persist, mayBeInStep: [] },
      effects,
    }),
  },
  {
    name: 'I4: no bits are set for what a suspended member lacks',
    effect: (effect) => (effect.kind === 'set-bits' ? [] : [effect]),
  },
  {
    name: 'I4, I7: a secondary is not told who differs',
    effect: (effect) =>
      effect.kind === 'send' && effect.message.kind === 'members'
        ? [{ ...effect, message: { ...effect.message, differing: [] } }]
        : [effect],
  },
  {
    name: 'I7: a secondary is not told what others lack',
    effect: (effect) =>
      effect.kind === 'send' && effect.message.kind === 'lacks'
        ? [{ ...effect, message: { ...effect.message, ranges: [] } }]
        : [effect],
  },
  {
    name: 'I5, N3: a secondary acknowledges a flush that it has not done',
    effect: (effect, by) => {
      if (
        effect.kind !== 'apply' ||
        effect.operation.kind !== 'flush' ||
        by.disk.durable?.role !== 'secondary'
      ) {
        return [effect];
      }
      by.receive('mutant', { kind: 'applied', token: effect.token, error: undefined });
      return [];
    },
  },
  {
    name: 'I6: what is unsettled is in no journal',
    effect: (effect) => (effect.kind === 'apply' ? [{ ...effect, isJournaled: false }] : [effect]),
  },
  {
    name: 'I6: what has only been applied counts as settled',
    effect: (effect) =>
      effect.kind === 'apply' ? [effect, { kind: 'settle', tokens: [effect.token] }] : [effect],
  },
  {
    name: 'I9: a secondary says that it has applied what it has only begun to apply',
    event: (event, by) => {
      if (event.kind !== 'applied') return event;
      const told = toldOf(by);
      if (told.has(`${event.token}`)) return undefined;
      told.add(`${event.token}`);
      return event;
    },
    effect: (effect, by) => {
      if (effect.kind === 'apply' && by.disk.durable?.role === 'secondary') {
        by.receive('mutant', { kind: 'applied', token: effect.token, error: undefined });
      }
      return [effect];
    },
  },
  {
    name: 'I10: the epoch of a hello is not looked at',
    event: (event, by) =>
      event.kind === 'hello'
        ? { ...event, epoch: Math.max(event.epoch, (by.disk.durable?.epoch ?? 0) + 1) }
        : event,
  },
  {
    name: 'I11: a primary serves reads without a lease',
    faults: UNHEARD,
    servesNow: (by) => !by.disk.hasLostCache,
  },
  {
    name: 'I11: a lease is granted in an old epoch',
    faults: UNHEARD,
    event: (event) => (event.kind === 'renewed' ? { ...event, outcome: 'granted' } : event),
  },
  {
    name: 'I11: who is promoted does not wait for the lease of who was primary',
    faults: UNHEARD,
    event: (event) =>
      event.kind === 'configure' ? { ...event, config: { ...event.config, isHandedOver: true } } : event,
  },
  {
    name: 'I13: a secondary does not tell what is unsettled',
    effect: (effect) => (effect.kind === 'welcome' ? [{ ...effect, unsettled: [] }] : [effect]),
  },
  {
    name: 'I13: a secondary does not tell what it has written alone',
    effect: (effect) => (effect.kind === 'welcome' ? [{ ...effect, alone: [] }] : [effect]),
  },
  {
    name: 'I14: a lost cache goes unnoticed',
    event: (event) => (event.kind === 'start' ? { ...event, hasLostCache: false, unsettled: [] } : event),
  },
  {
    name: 'I15: never: hosts fail while a member is away',
    fence: 'never',
    event: (event) => withFence(event, 'data'),
  },
  {
    name: 'I15: status: hosts fail before it is known that nothing can be recorded',
    fence: 'status',
    event: (event) => withFence(event, 'data'),
  },
  {
    name: 'I15: status: hosts wait for a record that cannot be changed',
    fence: 'status',
    faults: ['directoryDown', 'isolate'],
    event: (event) => withFence(event, 'never'),
  },
  {
    name: 'I15: data: hosts are answered while a member is away',
    fence: 'data',
    event: (event) => withFence(event, 'never'),
  },
  {
    name: 'I15: a host has its buffer back before its payload has left',
    fence: 'data',
    faults: ['cut', 'cutOneWay', 'freeze', 'slowNetwork'],
    effect: failedTooEarly,
  },
  {
    name: 'I5, N3: a secondary acknowledges what its full disk has failed',
    faults: ['fullDisk', 'failover'],
    effect: (effect) =>
      effect.kind === 'reply' && effect.message.kind === 'ack'
        ? [{ ...effect, message: { ...effect.message, result: 'done' } }]
        : [effect],
  },
  {
    name: 'I2: a primary takes for written what its full disk has failed',
    faults: ['fullDisk'],
    event: (event) => (event.kind === 'applied' ? { ...event, error: undefined } : event),
  },
  {
    name: 'sizes: a member is not told that it has been cut',
    faults: ['resize', 'slowNetwork'],
    event: (event) => (event.kind === 'resized' && event.sizeBytes < VOLUME_BYTES ? undefined : event),
  },
  {
    name: 'sizes: what a member lacks follows the config, and not the file',
    faults: ['resize', 'kill', 'suspend', 'failover'],
    event: (event) => {
      if (event.kind === 'resized') return undefined;
      if (event.kind !== 'start') return event;
      return { ...event, sizeBytes: event.durable?.config.sizeBytes ?? event.sizeBytes };
    },
  },
  {
    name: 'I16: a gateway that sends again does not demand to be alone',
    faults: PASSAGES,
    flaws: ['undemanded'],
  },
  {
    name: 'I16: a gateway is alone before what came through passages has ended',
    faults: PASSAGES,
    flaws: ['unawaited'],
  },
  {
    name: 'I16: a primary that has been started anew takes passages',
    faults: ['switchAndFreeze'],
    effect: (effect) =>
      effect.kind === 'serve' && effect.hosts === 'here' ? [{ ...effect, takesPassages: true }] : [effect],
  },
  {
    name: 'I16: hosts are served through into later epochs',
    faults: ['switchAndBreak'],
    effect: throughForEver,
  },
  {
    name: 'S4: extents are not marked',
    effect: (effect, by) => {
      if (effect.kind !== 'mark') return [effect];
      by.receive('mutant', { kind: 'marked', token: effect.token });
      return [];
    },
  },
];

/** What the rules of a process have been told already. */
const toldBy = new WeakMap<MemberProcess, Set<string>>();

function toldOf(process: MemberProcess): Set<string> {
  const told = toldBy.get(process) ?? new Set<string>();
  toldBy.set(process, told);
  return told;
}

export function mutate(replica: ReplicaLike, by: MemberProcess, mutant: Mutant): ReplicaLike {
  return {
    step(event) {
      const changed = mutant.event === undefined ? event : mutant.event(event, by);
      if (changed === undefined) return { persist: undefined, effects: [] };
      const output = replica.step(changed);
      return mutant.output?.(output) ?? output;
    },
    servesNow: (nowMs) => mutant.servesNow?.(by) ?? replica.servesNow(nowMs),
    view: () => replica.view(),
  };
}
