/**
 * A gateway's reports to the directory: at the start, and then three times in a lease for as long as it runs.
 *
 *   reporting -> away        the directory does not answer: again, ever less often
 *   reporting -> unwanted    another cluster's, or the name is another's: it goes on serving, and asks now and then
 *   any       -> reporting   a report was taken
 */

import { pause } from '../base/pause.ts';
import type { GatewayReport } from '../control-protocol/directory-api.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { GatewayName } from '../control-protocol/names.ts';
import { ControlError, VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Membership } from './membership.ts';

const RETRY_MS_MIN = 100;
const RETRY_MS_MAX = 2_000;
const UNWANTED_MS = 10_000;
const REPORTS_PER_LEASE = 3;

export interface RegistrationOptions {
  readonly name: GatewayName;
  readonly directory: DirectoryClient;
  readonly membership: Membership;
  readonly log: Log;
  /** What to report now, less the cluster's identity. */
  readonly report: () => Omit<GatewayReport, 'clusterId'>;
}

export class Registration {
  readonly #options: RegistrationOptions;
  readonly #stop = new AbortController();
  #state: 'reporting' | 'away' | 'unwanted' = 'away';
  #running: Promise<void> | undefined;

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  /** Reports once. @returns when to do so again, in ms. @throws ControlError */
  async report(): Promise<number> {
    const { name, directory, membership, report } = this.#options;
    const clusterId = membership.clusterId ?? null;
    const answer = await directory.reportGateway(name, { ...report(), clusterId }, this.#stop.signal);
    await membership.join(answer.clusterId);
    this.#enter('reporting', undefined);
    return answer.leaseMs / REPORTS_PER_LEASE;
  }

  /** Goes on reporting, the next time in `firstMs`. */
  start(firstMs: number): void {
    this.#running ??= this.#run(firstMs);
  }

  /** Says nothing any more; gives up a report that is under way. */
  async stop(): Promise<void> {
    this.#stop.abort();
    await this.#running;
  }

  async #run(firstMs: number): Promise<void> {
    const { signal } = this.#stop;
    let waitMs = firstMs;
    let retryMs = 0;
    for (;;) {
      await pause(waitMs, signal);
      if (signal.aborted) return;
      try {
        waitMs = await this.report();
        retryMs = 0;
      } catch (error) {
        if (!(error instanceof VolaryError)) throw error;
        if (signal.aborted) return;
        retryMs = Math.min(RETRY_MS_MAX, Math.max(RETRY_MS_MIN, retryMs * 2));
        waitMs = isUnwanted(error) ? UNWANTED_MS : retryMs;
        this.#enter(isUnwanted(error) ? 'unwanted' : 'away', error);
      }
    }
  }

  #enter(state: 'reporting' | 'away' | 'unwanted', cause: VolaryError | undefined): void {
    const from = this.#state;
    if (from === state) return;
    this.#state = state;
    const fields = { from, to: state, cause: cause?.message };
    if (state === 'unwanted') this.#options.log.error(fields, 'registration');
    else this.#options.log.info(fields, 'registration');
  }
}

/** The directory does not want this gateway, and will not tomorrow. */
export function isUnwanted(error: unknown): boolean {
  return error instanceof ControlError && (error.code === 'wrong-cluster' || error.code === 'wrong-identity');
}
