/**
 * Telling: what a primary's members are told of each other (I4, I7): which of them differ from the primary, and what these lack.
 *
 * Invariant: a member that bears this knowledge has been told the difference of every other in its session, in the order in which it
 * came to be, and before any operation that somebody lacks by it.
 */

import type { MemberId } from '../peer-protocol/messages.ts';
import type { Core } from './core.ts';
import type { Lacks } from './lacks.ts';
import type { Link, Pair } from './pair.ts';
import type { Work } from './work.ts';
import type { Writes } from './writes.ts';

export interface TellingOptions {
  readonly core: Core;
  readonly lacks: Lacks;
  readonly writes: Writes;
  readonly pairs: readonly Pair[];
}

export class Telling {
  readonly #options: TellingOptions;
  readonly #pairs: readonly Pair[];
  readonly #writes: Writes;

  constructor(options: TellingOptions) {
    this.#options = options;
    this.#pairs = options.pairs;
    this.#writes = options.writes;
  }

  /** All bearing members hear which members differ now; `then` when they have acknowledged it, or are lost. */
  members(isForced: boolean, then: () => void): void {
    const work = this.#writes.newMessage(undefined, then);
    for (const pair of this.#pairs) {
      const { link } = pair;
      if (!pair.isBearing || link === undefined) continue;
      if (isForced || pair.told !== this.#differing(pair).join()) this.#sendMembers(pair, link, work);
    }
    this.#writes.release(work);
  }

  #differing(to: Pair): MemberId[] {
    return this.#pairs.filter((pair) => pair !== to && pair.isDiffering).map(({ member }) => member);
  }

  #sendMembers(pair: Pair, link: Link, work: Work): void {
    const differing = this.#differing(pair);
    pair.told = differing.join();
    const isEqual = pair.isCalledEqual;
    this.#writes.send(pair, link, work, (seq, confirmed) => ({
      kind: 'members',
      seq,
      confirmed,
      differing,
      isEqual,
    }));
  }

  /** It differs no more. */
  calledEqual(pair: Pair, link: Link): void {
    const work = this.#writes.newMessage(pair.member, () => undefined);
    pair.isCalledEqual = true;
    this.#sendMembers(pair, link, work);
    this.#writes.release(work);
  }

  /** The first message of a session in which it is no more than copied to. */
  isCopying(pair: Pair, link: Link): void {
    const differing = [pair.member, ...this.#differing(pair)];
    const work = this.#writes.newMessage(pair.member, () => undefined);
    this.#writes.send(pair, link, work, (seq, confirmed) => ({
      kind: 'members',
      seq,
      confirmed,
      differing,
      isEqual: false,
    }));
    this.#writes.release(work);
  }

  /** What the others lack, and who they are: from now on it has to know (I7). */
  knowledge(pair: Pair, link: Link, then: () => void): void {
    const { core, lacks } = this.#options;
    const work = this.#writes.newMessage(pair.member, (isDone) => {
      if (isDone) then();
    });
    for (const { member, isDiffering } of this.#pairs) {
      if (member === pair.member) continue;
      // Also of who lacks nothing: a member that is not told of is one that this primary has not heard of.
      const isAll = core.durable.lacksAll.includes(member);
      const lists = isAll ? [undefined] : isDiffering ? lacks.lists(member) : [[]];
      for (const ranges of lists) {
        this.#writes.send(pair, link, work, (seq, confirmed) => ({
          kind: 'lacks',
          seq,
          confirmed,
          member,
          ranges,
        }));
      }
    }
    pair.isBearing = true;
    pair.isCalledEqual = pair.state !== 'equalizing';
    this.#sendMembers(pair, link, work);
    this.#writes.release(work);
  }

  /** A member that is new lacks everything. */
  added(member: MemberId): void {
    for (const bearing of this.#pairs) {
      const { link } = bearing;
      if (!bearing.isBearing || link === undefined) continue;
      const work = this.#writes.newMessage(bearing.member, () => undefined);
      this.#writes.send(bearing, link, work, (seq, confirmed) => ({
        kind: 'lacks',
        seq,
        confirmed,
        member,
        ranges: undefined,
      }));
      this.#writes.release(work);
    }
    this.members(false, () => undefined);
  }
}
