/**
 * Registration: the storage system tells the directory that it is there, again and again, and at once when something has
 * changed. It serves on whatever comes of that, unless another process has its name.
 *
 *   unknown -> registered          the first answer; the cluster is joined, once, durably
 *   unknown, registered -> refused  another cluster; or the name belongs to another data folder, or another process with a copy of it
 *   refused -> registered          the directory that it belongs to is back
 *
 * Invariants
 * 1. A storage system that has joined a cluster never reports to another as its own: the report says which it has
 *    joined, and an answer from another counts as a refusal.
 * 2. Once its own directory says that the name is another's, it is not to serve any more: `onLost`.
 * 3. One report is under way at a time; changes that come meanwhile are told by the next one.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { StorageReport } from '../control-protocol/directory-api.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { StorageName } from '../control-protocol/names.ts';
import { ControlError, VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';

export interface RegistrationOptions {
  readonly name: StorageName;
  readonly directory: Pick<DirectoryClient, 'reportStorage' | 'url'>;
  readonly report: () => Promise<StorageReport>;
  /** Keeps, durably, which cluster has been joined. */
  readonly joinCluster: (clusterId: string) => void;
  /** The directory has taken what was reported. */
  readonly onTaken: (report: StorageReport, number: number | undefined) => void;
  readonly onLost: (refusal: ControlError) => void;
  readonly log: Log;
}

type Standing = 'unknown' | 'registered' | 'refused';

/** How long the start waits for the directory, which may have something against it. */
const FIRST_ANSWER_MS = 2_000;
const RETRY_MS = 250;
const RETRY_MS_MAX = 5_000;

export class Registration {
  readonly #options: RegistrationOptions;
  #standing: Standing = 'unknown';
  #trouble: string | undefined;
  #refusal: string | undefined;
  #retryMs = RETRY_MS;
  #timer: NodeJS.Timeout | undefined;
  #reporting: Promise<void> | undefined;
  #hasChanged = false;
  readonly #stopped = new AbortController();

  constructor(options: RegistrationOptions) {
    this.#options = options;
  }

  /** The directory has answered the last report, and well. */
  get isHeard(): boolean {
    return this.#standing === 'registered' && this.#trouble === undefined;
  }

  /** Why the directory will not have it; kept while that directory is away. */
  get refusal(): string | undefined {
    return this.#refusal;
  }

  /**
   * The first report, and from then on all others. A directory that is away, or takes long to answer, is not waited for; nor is
   * one that was not heard of a moment ago (`patience: 'none'`).
   * @throws ControlError `wrong-cluster` or `wrong-identity`
   */
  async start(patience: 'some' | 'none'): Promise<void> {
    const first = this.#report();
    this.#reporting = first.then(() => this.#scheduleNext());
    const waiting = new AbortController();
    const limitMs = patience === 'some' ? FIRST_ANSWER_MS : 0;
    const limit = sleep(limitMs, undefined, { signal: waiting.signal });
    const refusal = await Promise.race([first, limit]);
    waiting.abort();
    await Promise.allSettled([limit]); // aborted, mostly
    if (refusal !== undefined) throw refusal;
  }

  /** Something has changed that the directory wants to know. */
  changed(): void {
    this.#hasChanged = true;
    if (this.#timer !== undefined && this.#trouble === undefined) this.#reportNow();
  }

  /** Says nothing any more; gives up a report that is under way. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    clearTimeout(this.#timer);
    this.#timer = undefined;
    await this.#reporting;
  }

  #scheduleNext(delayMs = this.#retryMs): void {
    if (this.#stopped.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#reportNow(), this.#hasChanged && !this.#trouble ? 0 : delayMs);
  }

  #reportNow(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#reporting = this.#report().then(() => this.#scheduleNext());
  }

  /** @returns why the directory will not have it */
  async #report(): Promise<ControlError | undefined> {
    const { name, directory, report } = this.#options;
    const { signal } = this.#stopped;
    this.#hasChanged = false;
    try {
      const told = await report();
      const { clusterId, leaseMs, instanceNumber } = await directory.reportStorage(name, told, signal);
      if (told.clusterId === null) this.#options.joinCluster(clusterId);
      else if (told.clusterId !== clusterId) throw wrongCluster(told.clusterId, clusterId);
      this.#options.onTaken(told, instanceNumber);
      this.#retryMs = leaseMs / 3;
      this.#becomes('registered', undefined);
      return undefined;
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      if (signal.aborted) return undefined;
      this.#retryMs = this.#trouble === undefined ? RETRY_MS : Math.min(this.#retryMs * 2, RETRY_MS_MAX);
      this.#becomes(isRefusal(error) ? 'refused' : this.#standing, error);
      if (!isRefusal(error)) return undefined;
      if (error.code === 'wrong-identity') this.#options.onLost(error);
      return error;
    }
  }

  /** Logs what is new. */
  #becomes(to: Standing, trouble: VolaryError | undefined): void {
    const from = this.#standing;
    const { log, directory } = this.#options;
    this.#standing = to;
    if (from !== to || trouble?.code !== this.#trouble) {
      const fields = { directory: directory.url, from, to, cause: trouble?.message ?? 'it has answered' };
      if (to === 'refused') log.error(fields, 'the directory refuses this storage system');
      else if (trouble !== undefined) log.warn(fields, 'the directory cannot be told of this storage system');
      else log.info(fields, 'registered with the directory');
    }
    this.#trouble = trouble?.code;
    if (to !== 'refused') this.#refusal = undefined;
    else if (trouble !== undefined && isRefusal(trouble)) this.#refusal = trouble.message;
  }
}

function isRefusal(error: VolaryError): error is ControlError {
  return error instanceof ControlError && (error.code === 'wrong-cluster' || error.code === 'wrong-identity');
}

function wrongCluster(ours: string, theirs: string): ControlError {
  return new ControlError(
    'wrong-cluster',
    `this data folder belongs to cluster ${ours}, and the directory to ${theirs}: give the right directory, or another folder`,
  );
}
