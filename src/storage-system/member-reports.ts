/**
 * What a member tells its directory, and people: reports of its pairs, renewals of its lease, what has changed.
 *
 * Invariant: a report says what was known when the rules made it, and not what has come since: the revisions that it goes with are those
 * of the records that the rules have been told.
 */

import type { GroupConfig } from '../control-protocol/copy-groups.ts';
import type { Epoch, RealVolumeId } from '../control-protocol/names.ts';
import type { Log } from '../model/log.ts';
import type { DurableState, Effect, Event } from '../replication/effects.ts';
import type { GroupDirectory } from './group-directory.ts';
import type { PeerTarget } from './member-links.ts';

type ReportEffect = Extract<Effect, { readonly kind: 'report' | 'renew' | 'give-way' | 'told' }>;
type Reported = Extract<Event, { readonly kind: 'reported' }>;

export interface MemberReportsOptions {
  readonly id: RealVolumeId;
  readonly directory: Pick<GroupDirectory, 'report' | 'discarded' | 'renew' | 'giveWay'>;
  readonly durable: () => DurableState | undefined;
  /** Where it is connected to another member. */
  readonly placeOf: (member: string) => PeerTarget | undefined;
  /** Something was answered; the rules hear of it when `run` is called. */
  readonly tell: (event: Event) => void;
  readonly run: () => void;
  readonly log: Log;
}

export class MemberReports {
  readonly #options: MemberReportsOptions;
  /** The highest revision of each pair's record that the rules have been told; and by which events they are yet to be. */
  readonly #revisions = new Map<string, number>();
  readonly #recorded = new Map<Reported, readonly [member: string, revision: number]>();

  constructor(options: MemberReportsOptions) {
    this.#options = options;
  }

  learnAll({ members }: GroupConfig): void {
    for (const { realVolume, pairRevision } of members) this.#learn(realVolume, pairRevision);
  }

  learnFrom(event: Reported): void {
    const recorded = this.#recorded.get(event);
    this.#recorded.delete(event);
    if (recorded !== undefined) this.#learn(...recorded);
  }

  #learn(member: string, revision: number): void {
    this.#revisions.set(member, Math.max(revision, this.#revisions.get(member) ?? 0));
  }

  carryOut(effect: ReportEffect): void {
    const { id, directory, tell, run } = this.#options;
    switch (effect.kind) {
      case 'report':
        void this.#report(effect);
        break;
      case 'renew': {
        const { token } = effect;
        void directory.renew(id, effect.epoch).then((outcome) => {
          tell({ kind: 'renewed', nowMs: 0, token, outcome });
          run();
        });
        break;
      }
      case 'give-way':
        directory.giveWay(id);
        break;
      case 'told':
        this.#told(effect);
        break;
    }
  }

  async #report({ token, member, epoch, pair, reason }: Extract<Effect, { kind: 'report' }>): Promise<void> {
    const { id, directory, placeOf, tell, run } = this.#options;
    const peer = placeOf(member);
    const { outcome, pairRevision } = await directory.report({
      ...{ primary: id, epoch: epoch as Epoch, member: member as RealVolumeId, pair, reason },
      ...(peer === undefined ? {} : { peer }),
      pairRevision: this.#revisions.get(member) ?? 0,
    });
    const event: Reported = { kind: 'reported', nowMs: 0, token, outcome };
    if (pairRevision !== undefined) this.#recorded.set(event, [member, pairRevision]);
    tell(event);
    run();
  }

  #told({ what }: Extract<Effect, { kind: 'told' }>): void {
    const { id, directory, durable, log } = this.#options;
    const about = { realVolume: id, volume: durable()?.config.volume };
    switch (what.kind) {
      case 'pair': {
        const { member, from, to, cause } = what;
        log.info({ ...about, pair: member, from, to, cause }, 'pair changed');
        break;
      }
      case 'role': {
        const { from, to, epoch, cause } = what;
        log.info({ ...about, from, to, epoch, cause }, 'role changed');
        break;
      }
      case 'discarded':
        log.warn(
          { ...about, pair: what.member, bytes: what.bytes },
          'a member that came back has given up what it had written alone',
        );
        void directory.discarded({
          ...{ primary: id, epoch: (durable()?.epoch ?? 1) as Epoch },
          ...{ member: what.member as RealVolumeId, bytes: what.bytes },
        });
        break;
      case 'copied':
        log.info({ ...about, pair: what.member, bytes: what.bytes }, 'copied');
        break;
    }
  }
}
