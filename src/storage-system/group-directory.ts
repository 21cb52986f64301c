/**
 * What the members of a storage system ask of the directory: to record how a pair is, and whether an epoch is still that. Each
 * question is answered exactly once, at the latest when its deadline has passed.
 *
 * Questions about epochs are put together: a storage system may be primary of thousands of groups, and asks for all of them with
 * one request, about every RENEW_MS of which somebody needs it. What was refused is asked ever more rarely (Refusals).
 */

import type { Asker, DiscardReport, LeaseVerdict, PairReport } from '../control-protocol/copy-groups.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { isAway } from '../control-protocol/http-client.ts';
import { Epoch, type RealVolumeId } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { Gate } from '../storage/gate.ts';
import { Refusals } from './refusals.ts';

/** The directory's API, as far as it is needed here. */
export type GroupApi = Pick<DirectoryClient, 'reportPair' | 'renewLeases' | 'reportDiscard'>;

export type ReportOutcome =
  | { readonly outcome: 'recorded'; readonly pairRevision: number }
  | { readonly outcome: 'stale-epoch' | 'unreachable'; readonly pairRevision?: undefined };
export type RenewOutcome = 'granted' | 'stale-epoch' | 'unreachable';

export interface GroupDirectoryOptions {
  readonly api: GroupApi;
  /** Who asks. */
  readonly asker: () => Asker;
  readonly log: Log;
}

/** One that has not answered by then is asked again, by whoever still wants to know. */
const ANSWER_MS = 1_500;
/** How long a question about an epoch waits for those of others. */
const GATHER_MS = 20;
const REPORTS_AT_ONCE = 16;
const LEASES_MAX = 10_000;
const LEASES = 'leases';

const OUTCOMES: Record<LeaseVerdict, RenewOutcome> = {
  granted: 'granted',
  over: 'stale-epoch',
  later: 'unreachable',
};

interface Question {
  readonly realVolume: RealVolumeId;
  readonly epoch: Epoch;
  readonly answer: (outcome: RenewOutcome) => void;
}

export class GroupDirectory {
  readonly #options: GroupDirectoryOptions;
  readonly #refusals: Refusals;
  readonly #stopped = new AbortController();
  readonly #reports = new Gate(REPORTS_AT_ONCE);
  #questions: Question[] = [];
  readonly #givingWay = new Set<RealVolumeId>();
  #gathering: NodeJS.Timeout | undefined;
  #isAsking = false;

  constructor(options: GroupDirectoryOptions) {
    this.#options = options;
    this.#refusals = new Refusals(options.log);
  }

  /** Never rejects. */
  report(report: PairReport): Promise<ReportOutcome> {
    const { member, pair } = report;
    return this.#reports.run(async () => {
      const asked = JSON.stringify(report);
      if (this.#refusals.isPaused(member, asked)) return { outcome: 'unreachable' };
      try {
        const { pairRevision } = await this.#options.api.reportPair(report, this.#deadline());
        this.#refusals.taken(member);
        return { outcome: 'recorded', pairRevision };
      } catch (error) {
        return { outcome: this.#failure(error, member, asked, { pair: member, to: pair }) };
      }
    });
  }

  /** For the directory's events: told once, and then it is in the log alone. Never rejects. */
  async discarded(report: DiscardReport): Promise<void> {
    try {
      await this.#options.api.reportDiscard(report, this.#stopped.signal);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      const about = { pair: report.member, discardedBytes: report.bytes, error: error.message };
      this.#options.log.debug(about, 'the directory has not heard of what was given up');
    }
  }

  /** Whether `epoch` is still the real volume's, and it is primary. Never rejects. */
  renew(realVolume: RealVolumeId, epoch: number): Promise<RenewOutcome> {
    return new Promise((answer) => {
      this.#questions.push({ realVolume, epoch: Epoch.parse(epoch), answer });
      this.#gather();
    });
  }

  /** It has lost its page cache, and does not want to be primary: said with the next question. */
  giveWay(realVolume: RealVolumeId): void {
    this.#givingWay.add(realVolume);
    this.#gather();
  }

  /** Gives up what is under way: it is answered as unreachable. */
  stop(): void {
    this.#stopped.abort();
    clearTimeout(this.#gathering);
    for (const { answer } of this.#questions.splice(0)) answer('unreachable');
  }

  #gather(): void {
    if (this.#gathering !== undefined || this.#isAsking) return;
    this.#gathering = setTimeout(() => {
      this.#gathering = undefined;
      void this.#ask();
    }, GATHER_MS);
  }

  async #ask(): Promise<void> {
    const asked = this.#questions.splice(0, LEASES_MAX);
    const givingWay = [...this.#givingWay].slice(0, LEASES_MAX);
    for (const id of givingWay) this.#givingWay.delete(id);
    const leases = asked.map(({ realVolume, epoch }) => ({ realVolume, epoch }));
    if (this.#refusals.isPaused(LEASES, '')) {
      for (const { answer } of asked) answer('unreachable');
      return; // who gives way says so again with the next question
    }
    this.#isAsking = true;
    try {
      const { api, asker } = this.#options;
      const request = { asker: asker(), leases, givingWay };
      const { answers } = await api.renewLeases(request, this.#deadline());
      this.#refusals.taken(LEASES);
      for (const [index, { answer }] of asked.entries()) {
        answer(OUTCOMES[answers[index] ?? 'later']);
      }
    } catch (error) {
      const outcome = this.#failure(error, LEASES, '', { leases: leases.length });
      for (const { answer } of asked) answer(outcome);
    } finally {
      this.#isAsking = false;
    }
    if (this.#questions.length > 0 || this.#givingWay.size > 0) this.#gather();
  }

  #deadline(): AbortSignal {
    return AbortSignal.any([this.#stopped.signal, AbortSignal.timeout(ANSWER_MS)]);
  }

  /** `asked` about `subject` has failed. */
  #failure(error: unknown, subject: string, asked: string, about: object): 'stale-epoch' | 'unreachable' {
    if (!(error instanceof ControlError)) throw error;
    if (error.code === 'stale-epoch') return 'stale-epoch';
    if (!isAway(error)) this.#refusals.refused(subject, asked, error, about);
    this.#options.log.debug({ ...about, error: error.message }, 'the directory has not answered for a group');
    return 'unreachable';
  }
}
