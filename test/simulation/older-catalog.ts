/**
 * An older catalog that a person has put back, as the simulated directory sees it: from then on until all members have said what they know, and a
 * person has chosen who goes on where they know a newer epoch, what the record says may be wrong. Nobody begins anything meanwhile.
 *
 * What is put back has the same members and the same size: what else has changed since is told to storage systems in other ways. And nothing that
 * members have not been told yet is lost with what was there.
 */

import type { CopyRecord, SegmentRecord } from '../../src/control-protocol/catalog.ts';
import type { RealVolumeId } from '../../src/control-protocol/names.ts';
import type { MemberId } from '../../src/peer-protocol/messages.ts';
import type { Scheduler } from './scheduler.ts';

interface Past {
  readonly segment: SegmentRecord;
  readonly revision: number;
}

/** Who goes on, in an epoch after `newest`; `truth`: what the record said that is lost. */
interface Choice {
  readonly to: RealVolumeId;
  readonly newest: number;
  readonly truth: SegmentRecord;
}

const PAST_MAX = 20;

export class OlderCatalog {
  readonly #scheduler: Scheduler;
  #past: Past[] = [];
  #truth: SegmentRecord | undefined;
  readonly #newerEpochs = new Map<MemberId, number>();

  constructor(scheduler: Scheduler) {
    this.#scheduler = scheduler;
  }

  get isThere(): boolean {
    return this.#truth !== undefined;
  }

  /** The record was so. */
  remember(segment: SegmentRecord, revision: number): void {
    this.#past.push({ segment, revision });
  }

  /** In the place of the record that is now; undefined: there is none. */
  putBack(now: SegmentRecord): Past | undefined {
    if (this.isThere) return undefined;
    const shape = shapeOf(now);
    this.#past = this.#past.filter(({ segment }) => shapeOf(segment) === shape).slice(-PAST_MAX);
    const past = this.#scheduler.pick(this.#past);
    if (past === undefined) return undefined;
    this.#truth = now;
    this.#newerEpochs.clear();
    return past;
  }

  /** A member has refused what it was told. */
  refused(id: MemberId, epoch: number): void {
    if (this.isThere) this.#newerEpochs.set(id, epoch);
  }

  /** When all have said what they know: who is to go on, or nobody; most often one that has all that was answered. Undefined: not yet. */
  choice(segment: SegmentRecord, isTold: (id: MemberId) => boolean): Choice | 'nobody' | undefined {
    const truth = this.#truth;
    const isHeard = ({ realVolume: id }: CopyRecord): boolean => this.#newerEpochs.has(id) || isTold(id);
    if (truth === undefined || !segment.copies.every(isHeard)) return undefined;
    const newest = Math.max(...this.#newerEpochs.values());
    if (newest <= segment.epoch) return 'nobody';
    const good = truth.copies.filter(({ role, pair }) => role === 'primary' || pair === 'duplex');
    const to = this.#scheduler.pick(this.#scheduler.chance(0.7) ? good : truth.copies)?.realVolume;
    return to === undefined ? undefined : { to, newest, truth };
  }

  mended(): void {
    this.#truth = undefined;
  }
}

/** Members and size. */
function shapeOf({ length, copies }: SegmentRecord): string {
  return `${length} ${copies.map(({ realVolume }) => realVolume).join()}`;
}
