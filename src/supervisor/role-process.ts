/**
 * One life of a role: a process of its own, from its start to its end.
 *
 * Invariants:
 *  1. It leads a process group of its own: Ctrl-C in a terminal goes to the supervisor alone, which knows the right order.
 *     What it has started itself and has not taken along is killed when it has ended.
 *  2. It does not outlive this process: at our exit it is killed; when we are killed, the IPC channel to it closes, which
 *     tells it to stop (`--supervised`).
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { z } from 'zod';
import { VolaryError } from '../model/errors.ts';
import { forEachLine } from './lines.ts';
import type { RoleKind, RolePlan } from './topology.ts';

const READYZ_PERIOD_MS = 50;
const READYZ_TIMEOUT_MS = 2_000;

/** What a role said when it could not go on: its code and sentence, with its name before it. */
export class RoleError extends VolaryError {
  readonly code: string;
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

export interface RoleReady {
  readonly pid: number;
  /** The directory's is its API. */
  readonly manage: string;
  /** Where hosts or gateways connect; "" for the directory. */
  readonly uri: string;
  /** Of a storage system. */
  readonly peer: string | undefined;
}

export interface RoleEnd {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** What it has told before. */
  readonly failure: RoleError | undefined;
}

export interface RoleProcessOptions {
  readonly plan: RolePlan;
  /** Program and first arguments, before the plan's. */
  readonly command: readonly string[];
  readonly environment: NodeJS.ProcessEnv;
  /** Every line that it writes, less what is for the supervisor. */
  readonly onLine: (line: string) => void;
}

const Ready = z.looseObject({ ready: z.literal(true) });
const Failed = z.object({ error: z.object({ code: z.string(), message: z.string() }) });

const Reason = z.object({ reason: z.string() });

const readyOf: Record<RoleKind, (document: unknown) => Omit<RoleReady, 'pid'>> = {
  directory: (document) => {
    const { directory } = z.object({ directory: z.string() }).parse(document);
    return { manage: directory, uri: '', peer: undefined };
  },
  storage: (document) => z.object({ manage: z.string(), uri: z.string(), peer: z.string() }).parse(document),
  gateway: (document) => {
    const { manage, uris } = z.object({ manage: z.string(), uris: z.array(z.string()) }).parse(document);
    return { manage, uri: uris[0] ?? '', peer: undefined };
  },
};

const living = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of living) killGroup(child, 'SIGKILL');
});

export class RoleProcess {
  /** Resolves when it has ended; never rejects. */
  readonly end: Promise<RoleEnd>;
  /** Why it is not ready, as far as is known. */
  missing = 'it has not said that it is ready';
  readonly #plan: RolePlan;
  readonly #child: ChildProcess;
  readonly #saidReady: Promise<Omit<RoleReady, 'pid'>>;
  readonly #over = new AbortController();
  #failure: RoleError | undefined;

  constructor({ plan, command, environment, onLine }: RoleProcessOptions) {
    this.#plan = plan;
    const [program = '', ...first] = command;
    const args = [...first, ...plan.args, '--json', '--supervised'];
    const child = spawn(program, args, {
      env: environment,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.#child = child;
    living.add(child);
    this.#saidReady = new Promise((resolve) => {
      if (child.stdout === null) return;
      forEachLine(child.stdout, (line) => {
        const ready = this.#hear(line);
        if (ready === undefined) onLine(line);
        else resolve(ready);
      });
    });
    if (child.stderr !== null) forEachLine(child.stderr, onLine);
    this.end = new Promise((resolve) => {
      child.once('error', (error) => {
        this.#failure ??= new RoleError('io', `${plan.name} cannot be run: ${error.message}`);
        if (child.pid === undefined) this.#ended(null, null, resolve);
      });
      child.once('exit', () => killGroup(child, 'SIGKILL'));
      child.once('close', (code, signal) => this.#ended(code, signal, resolve));
    });
  }

  /** NaN when it could not be started. */
  get pid(): number {
    return this.#child.pid ?? Number.NaN;
  }

  /** Resolves when it does its work; undefined: it has ended before. */
  async ready(): Promise<RoleReady | undefined> {
    const said = await Promise.race([this.#saidReady, this.end.then(() => undefined)]);
    if (said === undefined) return undefined;
    while (!this.#over.signal.aborted) {
      const missing = await this.#notReady(said.manage);
      if (missing === undefined) return { ...said, pid: this.pid };
      this.missing = missing;
      await Promise.race([new Promise((wake) => setTimeout(wake, READYZ_PERIOD_MS)), this.end]);
    }
    return undefined;
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL') killGroup(this.#child, signal);
    else this.#child.kill(signal);
  }

  async #notReady(manage: string): Promise<string | undefined> {
    try {
      const signal = AbortSignal.any([this.#over.signal, AbortSignal.timeout(READYZ_TIMEOUT_MS)]);
      const response = await fetch(`${manage}/readyz`, { signal });
      const text = await response.text();
      return response.ok ? undefined : (Reason.safeParse(jsonOf(text)).data?.reason ?? text);
    } catch (error) {
      return `${manage}/readyz: ${(error as Error).message}`;
    }
  }

  /** @returns what it is ready with, when the line says so. */
  #hear(line: string): Omit<RoleReady, 'pid'> | undefined {
    const document = jsonOf(line);
    const ready = Ready.safeParse(document);
    if (ready.success) return readyOf[this.#plan.kind](ready.data);
    const failed = Failed.safeParse(document);
    if (failed.success) {
      const { code, message } = failed.data.error;
      this.#failure = new RoleError(code, `${this.#plan.name}: ${message}`);
    }
    return undefined;
  }

  #ended(code: number | null, signal: NodeJS.Signals | null, resolve: (end: RoleEnd) => void): void {
    living.delete(this.#child);
    this.#over.abort();
    resolve({ code, signal, failure: this.#failure });
  }
}

function jsonOf(line: string): unknown {
  try {
    return JSON.parse(line);
  } catch {
    return undefined;
  }
}

function killGroup({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}
