/**
 * What a fence promises, seen from beside the rules of one member (I15), by what they say of its pairs after every step:
 *
 *   never    nothing fails but what a disk has failed
 *   status   what changes blocks fails only when a suspension could not be recorded in time; and then it does not wait
 *   data     what changes blocks fails while a member that is to follow does not, and only then
 */

import type { GroupConfig } from '../../src/control-protocol/copy-groups.ts';
import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { RequestError } from '../../src/replication/effects.ts';
import type { ReplicaView } from '../../src/replication/replica.ts';

/** How long a request may be held by what is no matter of the fence: a connection that is being made, a disk. In ticks. */
const HELD_TICKS_MAX = 30;

interface Waiting {
  readonly beganMs: number;
  /** For which it has waited although it should fail. */
  ticks: number;
}

export class FenceWatch {
  readonly #recordMs: number;
  readonly #objects: (text: string) => Error;
  readonly #waiting = new Map<number, Waiting>();
  #config: Pick<GroupConfig, 'fence' | 'members'> | undefined;
  #isServing = false;
  /** Members that are to follow and do not, since when; and those that are being left, wanted or not. */
  readonly #away = new Map<MemberId, number>();
  readonly #leaving = new Map<MemberId, number>();
  #lastAwayMs = Number.NEGATIVE_INFINITY;
  #lastOverdueMs = Number.NEGATIVE_INFINITY;

  constructor(recordMs: number, objects: (text: string) => Error) {
    this.#recordMs = recordMs;
    this.#objects = objects;
  }

  /** The rules are told of a request that changes blocks, or flushes. */
  began(token: number, nowMs: number): void {
    this.#waiting.set(token, { beganMs: nowMs, ticks: 0 });
  }

  /** After every step. `config`: what the rules go by; `fence`: what the directory has told, whatever they take it for. */
  look(view: ReplicaView, config: GroupConfig | undefined, fence: GroupConfig['fence'], nowMs: number): void {
    if (config === undefined || fence === 'never') return;
    this.#config = { fence, members: config.members };
    this.#isServing = view.serving;
    const states = new Map(view.pairs.map(({ realVolume, state }) => [realVolume, state]));
    const isWanted = new Set<MemberId>(
      config.members.flatMap(({ realVolume, wanted }) => (wanted === 'following' ? [realVolume] : [])),
    );
    // Also as it was within the step.
    if (this.#overdueMs(nowMs) !== undefined) this.#lastOverdueMs = nowMs;
    note(this.#leaving, states, (member) => states.get(member) === 'leaving', nowMs);
    note(
      this.#away,
      states,
      (member) => isWanted.has(member) && ['leaving', 'suspended'].includes(states.get(member) ?? ''),
      nowMs,
    );
    if (this.#away.size > 0) this.#lastAwayMs = nowMs;
    if (this.#overdueMs(nowMs) !== undefined) this.#lastOverdueMs = nowMs;
  }

  answered(token: number, error: RequestError | undefined, fence: GroupConfig['fence'], nowMs: number): void {
    const waiting = this.#waiting.get(token);
    this.#waiting.delete(token);
    if (waiting === undefined || error === 'shutdown') return;
    const { beganMs } = waiting;
    if (error === 'io') {
      const lastMs = fence === 'data' ? this.#lastAwayMs : this.#lastOverdueMs;
      if (fence === 'never' || lastMs < beganMs)
        throw this.#objects(
          `fence ${fence}: a write of ${beganMs.toFixed(1)} fails without a reason (last ${lastMs.toFixed(1)}, now ${nowMs.toFixed(1)})`,
        );
    } else if (error === undefined && fence === 'data') {
      for (const [member, sinceMs] of this.#away) {
        if (sinceMs >= beganMs) continue;
        throw this.#objects(
          `fence data: a write of ${beganMs.toFixed(1)} is answered, and ${member} does not follow since ${sinceMs.toFixed(1)} (now ${nowMs.toFixed(1)})`,
        );
      }
    }
  }

  ticked(nowMs: number): void {
    const overdueMs = this.#overdueMs(nowMs);
    if (this.#config?.fence !== 'status' || !this.#isServing || overdueMs === undefined) return;
    for (const waiting of this.#waiting.values()) {
      if (waiting.beganMs <= overdueMs || ++waiting.ticks <= HELD_TICKS_MAX) continue;
      const text = `a write of ${waiting.beganMs.toFixed(1)} waits, and since ${overdueMs.toFixed(1)} nobody can record that a member is lost`;
      throw this.#objects(`fence status: ${text}`);
    }
  }

  /** Since when a pair is left that should have been by then. */
  #overdueMs(nowMs: number): number | undefined {
    const since = [...this.#leaving.values()].map((sinceMs) => sinceMs + this.#recordMs);
    const overdueMs = Math.min(...since) - 1; // the rules add up the time between their events, and so may be a little ahead
    return overdueMs < nowMs ? overdueMs : undefined;
  }
}

/** Keeps since when `isSo` of each. */
function note(
  since: Map<MemberId, number>,
  members: ReadonlyMap<MemberId, unknown>,
  isSo: (member: MemberId) => boolean,
  nowMs: number,
): void {
  for (const member of since.keys()) if (!members.has(member) || !isSo(member)) since.delete(member);
  for (const member of members.keys()) if (isSo(member) && !since.has(member)) since.set(member, nowMs);
}
