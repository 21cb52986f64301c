/**
 * Keeps one role running: starts it, starts it again when it has died, and stops it.
 *
 * Invariants:
 *  1. There is at most one process of the role at a time.
 *  2. Once `stop` is called, nothing is started any more; when it has returned, nothing of the role runs.
 *  3. A role that ends by itself before it was ever ready is not started again: the same would happen. But what an earlier
 *     life, under a supervisor that was killed, still holds is waited for.
 */

import { ControlError } from '../model/errors.ts';
import { restartDelayMs } from './restart-policy.ts';
import {
  type RoleEnd,
  RoleError,
  RoleProcess,
  type RoleProcessOptions,
  type RoleReady,
} from './role-process.ts';

/** Failures that pass when whoever has the folder or the port has gone. */
const PASSING: ReadonlySet<string> = new Set(['locked', 'address-in-use']);
/** Longer than a role takes to notice that its supervisor is gone, and to end. */
const PASSING_MS = 15_000;

/** What happens to a role, for a person or a log. */
export type Change =
  | { readonly state: 'ready'; readonly pid: number; readonly restarts: number }
  | {
      readonly state: 'ended';
      readonly pid: number;
      readonly end: RoleEnd;
      /** undefined: it stays away. */
      readonly restartMs: number | undefined;
    };

export interface RoleKeeperOptions extends RoleProcessOptions {
  readonly restart: boolean;
  readonly onChange: (change: Change) => void;
}

export class RoleKeeper {
  readonly #options: RoleKeeperOptions;
  readonly #firstReady = Promise.withResolvers<RoleReady>();
  #process: RoleProcess | undefined;
  #timer: NodeJS.Timeout | undefined;
  #lastDelayMs: number | undefined;
  #starts = 0;
  #firstStartMs: number | undefined;
  #wasReady = false;
  #stopping = false;

  constructor(options: RoleKeeperOptions) {
    this.#options = options;
    this.#firstReady.promise.catch(() => undefined); // whoever waits for it is told; nobody has to
  }

  start(): void {
    const startedAtMs = performance.now();
    this.#firstStartMs ??= startedAtMs;
    const process = new RoleProcess(this.#options);
    this.#process = process;
    this.#starts += 1;
    process.ready().then((ready) => {
      if (ready === undefined) return;
      this.#wasReady = true;
      this.#firstReady.resolve(ready);
      this.#options.onChange({ state: 'ready', pid: ready.pid, restarts: this.#starts - 1 });
    });
    process.end.then((end) => this.#ended(process.pid, end, performance.now() - startedAtMs));
  }

  /** Of its first life that comes so far. @throws RoleError, or ControlError `cancelled` */
  ready(): Promise<RoleReady> {
    return this.#firstReady.promise;
  }

  get missing(): string {
    return this.#process?.missing ?? 'it is down';
  }

  async stop(limitMs: number): Promise<void> {
    this.#stopping = true;
    clearTimeout(this.#timer);
    const { name } = this.#options.plan;
    this.#firstReady.reject(new ControlError('cancelled', `${name} was stopped before it was ready`));
    const process = this.#process;
    if (process === undefined) return;
    process.signal('SIGTERM');
    const limit = setTimeout(() => process.signal('SIGKILL'), limitMs);
    await process.end;
    clearTimeout(limit);
  }

  #ended(pid: number, end: RoleEnd, uptimeMs: number): void {
    const { plan, restart, onChange } = this.#options;
    this.#process = undefined;
    const again = restart && !this.#stopping && !this.#isHopeless(end);
    const restartMs = again ? restartDelayMs(this.#lastDelayMs, uptimeMs) : undefined;
    onChange({ state: 'ended', pid, end, restartMs });
    if (restartMs !== undefined) {
      this.#lastDelayMs = restartMs;
      this.#timer = setTimeout(() => this.start(), restartMs);
      return;
    }
    const how = end.signal ?? `exit status ${end.code}`;
    this.#firstReady.reject(
      end.failure ??
        new RoleError('failed', `${plan.name} ended before it was ready (${how}): the log says more`),
    );
  }
  #isHopeless({ code, failure }: RoleEnd): boolean {
    if (this.#wasReady || code === null) return false;
    const waitedMs = performance.now() - (this.#firstStartMs ?? 0);
    return failure === undefined || !PASSING.has(failure.code) || waitedMs > PASSING_MS;
  }
}
