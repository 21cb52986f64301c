/** One member of a test group: the real replica, and in memory what a driver keeps for it. */

import type { GroupConfig } from '../../../src/control-protocol/copy-groups.ts';
import { EXTENT_BYTES } from '../../../src/model/copy-granularity.ts';
import { assert } from '../../../src/model/errors.ts';
import type { MemberId, Range } from '../../../src/peer-protocol/messages.ts';
import type { DurableState, Effect, Event, Operation } from '../../../src/replication/effects.ts';
import type { ReplicaLimits } from '../../../src/replication/limits.ts';
import { Replica } from '../../../src/replication/replica.ts';

export const SIZE = 16 * 1024 * 1024;
export const BLOCK = 4096;

export type EventOf<K extends Event['kind']> = Extract<Event, { kind: K }>;
export type EffectOf<K extends Effect['kind']> = Extract<Effect, { kind: K }>;

export class TestMember {
  readonly id: MemberId;
  readonly disk = Buffer.alloc(SIZE);
  /** Of its file: all of `disk`, or less. */
  sizeBytes = SIZE;
  readonly written = new Set<number>();
  durable: DurableState | undefined;
  journal = new Map<number, Range>();
  before: readonly Range[] = [];
  hasLostCache = false;
  readonly marked = new Set<number>();
  readonly bits = new Map<MemberId, Set<number>>();
  replica: Replica;
  life = 1;
  isUp = true;
  hosts: EffectOf<'serve'>['hosts'] = 'hold';
  readonly effects: Effect[] = [];
  /** Sessions with others: their number, there, of what is ours here. */
  readonly persisted: DurableState[] = [];
  failApply: ((operation: Operation) => EventOf<'applied'>['error']) | undefined;

  constructor(id: MemberId, limits: Partial<ReplicaLimits>) {
    this.id = id;
    this.replica = new Replica({ id, ...limits });
  }

  effectsOf<K extends Effect['kind']>(kind: K): EffectOf<K>[] {
    return this.effects.filter((effect): effect is EffectOf<K> => effect.kind === kind);
  }

  /** Bits that are durable for the member. */
  lacks(member: MemberId): number {
    return this.bits.get(member)?.size ?? 0;
  }

  get unsettled(): Range[] {
    return [...this.before, ...this.journal.values()];
  }

  /** What a start tells as unsettled: nothing behind the end of the file. */
  get found(): Range[] {
    const extents = [...this.marked].map((extent) => {
      const offset = extent * EXTENT_BYTES;
      return { offset, length: Math.min(EXTENT_BYTES, this.sizeBytes - offset) };
    });
    const ranges = this.hasLostCache ? extents : this.unsettled;
    return ranges.filter(({ offset }) => offset < this.sizeBytes);
  }
}

export function configOf(ids: readonly MemberId[], primary: MemberId): GroupConfig {
  return {
    volume: 'v1',
    epoch: 1,
    revision: 1,
    sizeBytes: SIZE,
    fence: 'never',
    leaseMs: 3000,
    copyBytesPerSecond: 0,
    primary,
    isHandedOver: true,
    members: ids.map((id) => ({
      realVolume: id,
      storage: `s-${id[3]}`,
      peer: { host: '127.0.0.1', port: 1 },
      nbd: { host: '127.0.0.1', port: 2 },
      accessKey: '0123456789abcdef',
      pair: id === primary ? 'duplex' : 'suspended',
      wanted: 'following',
    })),
  } as unknown as GroupConfig;
}

export function apply(member: TestMember, operation: Operation): void {
  if (operation.kind === 'flush') return;
  const { offset, length } = operation;
  for (let at = Math.floor(offset / BLOCK); at * BLOCK < offset + length; at++) {
    if (operation.kind === 'write') member.written.add(at);
    else if (at * BLOCK >= offset && (at + 1) * BLOCK <= offset + length) member.written.delete(at);
  }
  if (operation.kind === 'write') operation.payload.copy(member.disk, offset);
  else member.disk.fill(0, offset, offset + length);
}

/** As the activity log does. */
export function checkMarks({ id, marked, sizeBytes }: TestMember, operation: Operation): void {
  if (operation.kind === 'flush') return;
  const end = Math.min(operation.offset + operation.length, sizeBytes);
  for (let at = Math.floor(operation.offset / EXTENT_BYTES); at * EXTENT_BYTES < end; at++) {
    assert(marked.has(at), `${id}: an operation in extent ${at}, which is not marked`);
  }
}

export function changeBits(
  member: TestMember,
  { kind, member: of, ranges }: EffectOf<'set-bits' | 'clear-bits'>,
): void {
  const blocks = member.bits.get(of) ?? new Set();
  member.bits.set(of, blocks);
  for (const { offset, length } of ranges) {
    const isSet = kind === 'set-bits';
    const start = isSet ? Math.floor(offset / BLOCK) : Math.ceil(offset / BLOCK);
    for (let at = start; at * BLOCK < Math.min(SIZE, offset + length); at++) {
      if (isSet) blocks.add(at);
      else if ((at + 1) * BLOCK <= offset + length) blocks.delete(at);
    }
  }
}
