/**
 * Where a gateway's second information comes from: the directory's watch, for as long as the gateway runs.
 *
 * Invariants
 *  1. The watch is the only source: what it brings is in order and whole. Who suspects that there is something newer has the
 *     directory asked (`freshLook`), and when the answer differs, the watch brings it or is started again.
 *  2. While the directory is away, what is known stays; attempts go on, at most RETRY_MS_MAX apart.
 *  3. A directory of another cluster is not listened to.
 */

import { isDeepStrictEqual } from 'node:util';
import { pause } from '../base/pause.ts';
import type { StorageRecord } from '../control-protocol/catalog.ts';
import type { DirectoryClient, WatchMessage } from '../control-protocol/directory-client.ts';
import type { VolumeName } from '../control-protocol/names.ts';
import { ControlError, VolaryError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Membership } from './membership.ts';
import { type Information, reduce } from './second-information.ts';

const RETRY_MS_MIN = 50;
const RETRY_MS_MAX = 1_000;
/** What the directory has told somebody else is here by then, unless the watch is broken. */
const WATCH_LAG_MS = 250;
/** Fresh looks at one volume are at least this far apart. */
const LOOK_EVERY_MS = 300;
/** Fresh looks at the same time, at different volumes. */
const LOOKS_MAX = 64;

/** What the rest of a gateway sees of it; workers have theirs from the primary process. */
export interface Knowledge {
  readonly information: Information | undefined;
  /** Calls back after each change. @returns how to end that */
  onChange(callback: () => void): () => void;
  /**
   * Asks the directory about a volume. When it has ended, `information` is as new as the answer, if there was one within
   * `deadlineMs`. Never rejects.
   */
  freshLook(name: VolumeName, deadlineMs: number): Promise<void>;
}

export interface WatchedKnowledgeOptions {
  readonly directory: DirectoryClient;
  readonly membership: Membership;
  readonly log: Log;
}

export class WatchedKnowledge implements Knowledge {
  readonly #options: WatchedKnowledgeOptions;
  readonly #stop = new AbortController();
  readonly #callbacks = new Set<() => void>();
  readonly #messageCallbacks = new Set<(message: WatchMessage) => void>();
  readonly #looks = new Map<VolumeName, Promise<void>>();
  #information: Information | undefined;
  #isWatching = false;
  /** Ends the watch, or the pause before the next one. */
  #again = new AbortController();
  #running: Promise<void> | undefined;

  constructor(options: WatchedKnowledgeOptions, information: Information | undefined) {
    this.#options = options;
    this.#information = information;
  }

  get information(): Information | undefined {
    return this.#information;
  }

  /** The directory has told all it knows, and tells what changes. */
  get isWatching(): boolean {
    return this.#isWatching;
  }

  onChange(callback: () => void): () => void {
    this.#callbacks.add(callback);
    return () => this.#callbacks.delete(callback);
  }

  /** Calls back with each message that is of this cluster, before those of onChange. @returns how to end that */
  onMessage(callback: (message: WatchMessage) => void): () => void {
    this.#messageCallbacks.add(callback);
    return () => this.#messageCallbacks.delete(callback);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    this.#again.abort();
    await this.#running;
  }

  /** Resolves when the condition holds, or `deadlineMs` have passed. */
  async until(condition: () => boolean, deadlineMs: number): Promise<void> {
    if (condition()) return;
    await new Promise<void>((resolve) => {
      const end = (): void => {
        clearTimeout(timer);
        unsubscribe();
        resolve();
      };
      const timer = setTimeout(end, deadlineMs);
      const unsubscribe = this.onChange(() => {
        if (condition()) end();
      });
    });
  }

  async freshLook(name: VolumeName, deadlineMs: number): Promise<void> {
    let look = this.#looks.get(name);
    if (look === undefined) {
      if (this.#looks.size >= LOOKS_MAX) return;
      look = this.#look(name);
      this.#looks.set(name, look);
      const forget = (): unknown => this.#looks.delete(name);
      look.then(() => setTimeout(forget, LOOK_EVERY_MS).unref());
    }
    const deadline = new AbortController();
    await Promise.race([look, pause(deadlineMs, deadline.signal)]);
    deadline.abort();
  }

  async #look(name: VolumeName): Promise<void> {
    try {
      const isNew = await this.#answersSomethingNew(name);
      if (!isNew() || this.#stop.signal.aborted) return;
      await this.until(() => !isNew(), WATCH_LAG_MS);
      if (!isNew()) return;
      this.#again.abort();
      await this.until(() => !isNew(), RETRY_MS_MAX);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      this.#options.log.debug({ volume: name, error: error.message }, 'no fresh look at a volume');
    }
  }

  /** Asks; the result tells whether what is known then is something else than the answer. */
  async #answersSomethingNew(name: VolumeName): Promise<() => boolean> {
    const { directory } = this.#options;
    const known = (): Information | undefined => this.#information;
    const { clusterId } = this.#options.membership;
    const cluster = await directory.cluster();
    if (clusterId !== undefined && cluster.clusterId !== clusterId) return () => false;
    try {
      const record = await directory.volumeRecord(name);
      const names = new Set(record.segments.flatMap(({ copies }) => copies.map(({ storage }) => storage)));
      const systems = await Promise.all([...names].map((storage) => directory.storageSystem(storage)));
      const isSame = (mine: StorageRecord | undefined, index: number): boolean =>
        mine !== undefined && isDeepStrictEqual(mine.nbd, systems[index]?.nbd);
      return () =>
        !isDeepStrictEqual(known()?.volumes.get(name), record) ||
        !systems.every((system, index) => isSame(known()?.storage.get(system.name), index));
    } catch (error) {
      if (error instanceof ControlError && error.code === 'not-found') {
        return () => known()?.volumes.has(name) === true;
      }
      throw error;
    }
  }

  // --- the watch -------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    let retryMs = 0;
    let failure = '';
    while (!this.#stop.signal.aborted) {
      this.#again = new AbortController();
      const error = await this.#watch(this.#again.signal);
      if (this.#isWatching) retryMs = 0;
      this.#isWatching = false;
      if (this.#stop.signal.aborted || this.#again.signal.aborted) continue;
      const text = error === undefined ? 'the directory ended the watch' : String(error);
      if (text !== failure)
        this.#options.log.warn({ error: text }, 'the directory cannot be watched: using what is known');
      failure = text;
      retryMs = Math.min(RETRY_MS_MAX, Math.max(RETRY_MS_MIN, retryMs * 2));
      await pause(retryMs, this.#again.signal);
    }
  }

  /** Returns what it ended with. */
  async #watch(signal: AbortSignal): Promise<unknown> {
    const messages = this.#options.directory.watch(signal);
    for (;;) {
      let message: WatchMessage | undefined;
      try {
        const { done, value } = await messages.next();
        if (done === true) return undefined;
        message = value;
      } catch (error) {
        return error; // whatever it is: what the directory said cannot be used
      }
      const refusal = await this.#take(message);
      if (refusal === undefined) continue;
      await messages.return(undefined);
      return refusal;
    }
  }

  /** Returns why it cannot be taken. */
  async #take(message: WatchMessage): Promise<Error | undefined> {
    const { membership } = this.#options;
    if (message.kind === 'snapshot') {
      try {
        await membership.join(message.information.clusterId);
      } catch (error) {
        if (error instanceof VolaryError) return error;
        throw error;
      }
    }
    const reduction = reduce(this.#information, membership.clusterId, message);
    if (reduction.kind !== 'next') return undefined;
    const { information } = reduction;
    if (!this.#isWatching) {
      const { revision, volumes } = information;
      this.#options.log.info({ revision, volumes: volumes.size }, 'watching the directory');
    }
    this.#isWatching = true;
    this.#information = information;
    membership.keep(information);
    for (const callback of this.#messageCallbacks) callback(message);
    for (const callback of [...this.#callbacks]) callback();
    return undefined;
  }
}
