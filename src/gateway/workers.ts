/**
 * A gateway of several processes (SPEC V3). The primary process accepts connections and has the handshakes; when a host has
 * agreed on an export, its socket goes to the worker whose export that is. The primary also watches the directory, and tells all
 * workers what it hears.
 *
 *   worker:  starting -> ready      it may be asked
 *            any      -> ended      whatever the reason (one that does not answer is killed): another is started in its place, at once unless
 *                                   they all end soon
 *
 * Invariants
 *  1. A volume belongs to one place for ever (by a hash of its name), and there is one process at a place at a time: the next is
 *     started when the one before has ended. So the connections of a volume are always in one process, which has the fence
 *     between them (SPEC N4); the kernel closes those of one that has ended, to hosts and to storage systems, before anybody hears. Those
 *     on their way to it are closed here (hand-overs.ts).
 *  2. The end of a worker is nothing to the others, nor to connections that are still in their handshake: a question to it waits for the
 *     next one, up to FIND_MS_MAX.
 *  3. What waits for a worker is bounded: questions and hand-overs by their numbers, what it is told by the time after which one that
 *     hangs is killed.
 *  4. Workers have the same second information: a snapshot first, then each message of the watch, in its order.
 */

import { type ChildProcess, fork } from 'node:child_process';
import { createHash } from 'node:crypto';
import { setImmediate } from 'node:timers/promises';
import { pause } from '../base/pause.ts';
import { assert, ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Volume } from '../model/volume.ts';
import { type AgreedConnection, ExportRefused, type NbdExport, NbdServer } from '../nbd/server.ts';
import type { ExportEntry } from '../nbd-server-protocol/session.ts';
import { Conversation } from './conversation.ts';
import type { DataPlaneOptions, Front } from './data-plane.ts';
import { type Figures, noFigures, readyVolumes } from './exports.ts';
import { HandOvers } from './hand-overs.ts';
import type { WatchedKnowledge } from './knowledge.ts';
import { recordsOf } from './second-information.ts';
import {
  type Adoption,
  type ExportShape,
  type Found,
  type Growth,
  WORKER_STOP_MS,
  type WorkerStart,
} from './worker-messages.ts';

/** How long a host in its handshake waits for a worker, and what it opens; a handshake may take a minute. */
const FIND_MS_MAX = 50_000;
/** One that has lived for less than this, as the one before it, is followed by the next only after a pause. */
const SETTLED_MS = 5_000;
const PAUSE_MS = 1_000;

/** A worker is asked so often for a sign of life; one that owes it for so many times in a row hangs. Starting takes longer. */
const BEAT_MS = 2_000;
const BEATS_OWED_MAX = 5;
const BEATS_OWED_STARTING_MAX = 20;
/** Hosts in their handshake that may wait for one worker's answer. */
const QUESTIONS_MAX = 4_096;

export interface WorkersOptions extends Omit<DataPlaneOptions, 'knowledge'> {
  readonly workers: number;
  readonly knowledge: WatchedKnowledge;
}

/** Which of `places` a volume belongs to: the one whose hash with its name is the highest. */
export function placeOf(name: string, places: number): number {
  let best = 0;
  let highest = '';
  for (let place = 0; place < places; place++) {
    const hash = createHash('sha256').update(`${place}\0${name}`).digest('hex');
    if (hash <= highest) continue;
    best = place;
    highest = hash;
  }
  return best;
}

/** Starts the processes. Nobody waits for them but those who ask. */
export function createWorkers(options: WorkersOptions): Front {
  const { knowledge, log } = options;
  const places = Array.from({ length: options.workers }, (_, place) => new WorkerPlace(place, options));
  const placeFor = (name: string): WorkerPlace => {
    const place = places[placeOf(name, places.length)];
    assert(place !== undefined, 'there is a place for every volume');
    return place;
  };
  const handOver = ({ socket, session, rest }: AgreedConnection): void => {
    if (!placeFor(session.exportName).adopt({ session, rest }, socket)) socket.destroy();
  };
  const exports = {
    list: (): Iterable<ExportEntry> => readyVolumes(knowledge.information),
    find: (name: string) => placeFor(name).find(name),
  };
  const server = new NbdServer({ exports, log, handOver });
  const unsubscribe = knowledge.onMessage((message) => {
    for (const place of places) place.tell('watched', message);
  });
  return {
    listen: (address) => server.listen(address),
    hostsOf: (name) => placeFor(name).hostsOf(name),
    figures: () => sumOf(places.map((place) => place.figures)),
    stop: async () => {
      unsubscribe();
      const outcomes = await Promise.allSettled([server.stop(), ...places.map((place) => place.stop())]);
      for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    },
  };
}

function sumOf(all: readonly Figures[]): Figures {
  const sum = noFigures();
  for (const { hosts, volumes, heldRequests, paths, pathsTo, moves } of all) {
    sum.hosts += hosts;
    sum.volumes += volumes;
    sum.heldRequests += heldRequests;
    sum.moves += moves;
    for (const state of Object.keys(sum.paths) as (keyof Figures['paths'])[])
      sum.paths[state] += paths[state];
    for (const [storage, count] of Object.entries(pathsTo))
      sum.pathsTo[storage] = (sum.pathsTo[storage] ?? 0) + count;
  }
  return sum;
}

/** One process after another. */
class WorkerPlace {
  figures: Figures = noFigures();
  readonly #number: number;
  readonly #options: WorkersOptions;
  readonly #log: Log;
  #child: ChildProcess | undefined;
  #conversation: Conversation | undefined;
  readonly #handOvers = new HandOvers();
  #isReady = false;
  #questions = 0;
  readonly #waiters = new Set<() => void>();
  readonly #stopping = new AbortController();
  readonly #running: Promise<void>;

  constructor(number: number, options: WorkersOptions) {
    this.#number = number;
    this.#options = options;
    this.#log = options.log;
    this.#running = this.#run();
  }

  tell(topic: string, body: unknown): void {
    this.#conversation?.tell(topic, body);
  }

  /** False when there is nobody to take it. */
  adopt(agreed: Omit<Adoption, 'id'>, socket: AgreedConnection['socket']): boolean {
    const id = this.#isReady ? this.#handOvers.begin(socket) : undefined;
    if (id === undefined) return false;
    const adoption: Adoption = { id, ...agreed };
    this.#conversation?.tell('adopt', adoption, socket);
    return true;
  }

  async find(name: string): Promise<NbdExport | undefined> {
    const untilMs = performance.now() + FIND_MS_MAX;
    if (this.#questions >= QUESTIONS_MAX) {
      throw new ExportRefused('shutdown', 'the process that serves this volume has too much to do');
    }
    this.#questions += 1;
    try {
      return await this.#find(name, untilMs);
    } finally {
      this.#questions -= 1;
    }
  }

  async #find(name: string, untilMs: number): Promise<NbdExport | undefined> {
    while (!this.#stopping.signal.aborted) {
      const found = await this.#ask('find', name, untilMs - performance.now());
      if (found === undefined) continue; // it has ended meanwhile
      const answer = found as Found;
      if (answer.kind === 'none') return undefined;
      if (answer.kind === 'refused') throw new ExportRefused(answer.code, answer.text);
      return { name: answer.name, volume: new DistantVolume(answer.shape) };
    }
    throw new ExportRefused('shutdown', 'the gateway is being stopped');
  }

  /** Hosts of a worker that has ended come back, and must not count as gone. @throws ControlError 'unavailable' */
  async hostsOf(name: string): Promise<number> {
    if (!this.#isReady || this.#conversation === undefined) {
      throw new ControlError('unavailable', `the process that serves volume ${name} is being started`);
    }
    return (await this.#conversation.ask('hosts', name)) as number;
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    const killer = setTimeout(() => this.#child?.kill('SIGKILL'), WORKER_STOP_MS);
    try {
      if (this.#isReady) await this.#conversation?.ask('stop', undefined);
    } catch (error) {
      if (!(error instanceof ControlError) || error.code !== 'unavailable') throw error;
    } finally {
      if (this.#child?.connected === true) this.#child.disconnect(); // which ends it
      await this.#running;
      clearTimeout(killer);
    }
  }

  /** undefined: the worker ended before it answered. */
  async #ask(topic: string, body: unknown, waitMs: number): Promise<unknown> {
    if (!this.#isReady) await this.#becomesReady(waitMs);
    try {
      return await this.#conversation?.ask(topic, body);
    } catch (error) {
      if (!(error instanceof ControlError) || error.code !== 'unavailable') throw error;
      await setImmediate(); // asked again at once, it would fail at once, and its end would never be heard of
      return undefined;
    }
  }

  async #becomesReady(waitMs: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        this.#waiters.delete(end);
        resolve();
      };
      const late = new ExportRefused('shutdown', 'the process that serves this volume does not start');
      const timer = setTimeout(
        () => {
          this.#waiters.delete(end);
          reject(late);
        },
        Math.max(0, waitMs),
      );
      this.#waiters.add(end);
    });
  }

  #wake(): void {
    for (const waiter of [...this.#waiters]) waiter();
  }

  async #run(): Promise<void> {
    const { signal } = this.#stopping;
    let shortLives = 0;
    while (!signal.aborted) {
      const startedMs = performance.now();
      const how = await this.#live();
      this.#isReady = false;
      this.#conversation?.close();
      this.#conversation = undefined;
      this.#child = undefined;
      this.#handOvers.closeAll();
      this.figures = noFigures();
      if (signal.aborted) break;
      this.#log.error({ worker: this.#number, ...how }, 'a worker has ended: another is started');
      shortLives = performance.now() - startedMs < SETTLED_MS ? shortLives + 1 : 0;
      if (shortLives > 1) await pause(PAUSE_MS, signal);
    }
    this.#wake();
  }

  /** One process from its start to its end. */
  #live(): Promise<object> {
    const { connections, reconnectMs, knowledge, grow, logIn } = this.#options;
    const child = fork(new URL('./worker-main.ts', import.meta.url), [], {
      serialization: 'advanced',
      execArgv: [],
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#child = child;
    const conversation = new Conversation(child, {
      ready: () => {
        this.#isReady = true;
        this.#log.info({ worker: this.#number, pid: child.pid }, 'a worker is ready');
        this.#wake();
      },
      figures: (figures: Figures) => {
        this.figures = figures;
      },
      adopted: (id: number) => this.#handOvers.end(id),
      look: (name: Growth['name']) => knowledge.freshLook(name, FIND_MS_MAX),
      grow: ({ name, sizeBytes }: Growth) => grow(name, sizeBytes),
      'log-in': (name: Growth['name']) => logIn(name),
    });
    this.#conversation = conversation;
    const { information } = knowledge;
    if (information !== undefined) {
      conversation.tell('watched', { kind: 'snapshot', information: recordsOf(information) });
    }
    const start: WorkerStart = { connections, reconnectMs };
    conversation.tell('start', start);
    const heart = setInterval(this.#listenerTo(child, conversation), BEAT_MS);
    const ended = new Promise<object>((resolve) => {
      child.on('error', (error) => {
        if (child.pid === undefined)
          resolve({ error: error.message }); // there is no process, nor an exit
        else this.#log.warn({ worker: this.#number, error: error.message }, 'trouble with a worker');
      });
      child.on('exit', (code, exitSignal) => resolve({ code, signal: exitSignal }));
    });
    return ended.finally(() => clearInterval(heart));
  }

  /** Counted in beats, not by the clock: when this process itself has hung, answers are there already, and about to be read. */
  #listenerTo(child: ChildProcess, conversation: Conversation): () => void {
    let owed = 0;
    return () => {
      owed += 1;
      if (owed === 1) {
        conversation.ask('beat', undefined).then(
          () => {
            owed = 0;
          },
          () => undefined, // it has ended: so does the listening
        );
      } else if (owed > (this.#isReady ? BEATS_OWED_MAX : BEATS_OWED_STARTING_MAX)) {
        this.#log.error({ worker: this.#number, pid: child.pid }, 'a worker does not answer: it is killed');
        child.kill('SIGKILL');
      }
    };
  }
}

/** A volume of a worker's: enough of it for a handshake. */
class DistantVolume implements Volume {
  readonly sizeBytes: number;
  readonly blockSizes: Volume['blockSizes'];
  readonly capabilities: Volume['capabilities'];
  readonly readNow = unreachable;
  readonly read = unreachable;
  readonly writeNow = unreachable;
  readonly write = unreachable;
  readonly flush = unreachable;
  readonly trim = unreachable;
  readonly writeZeroes = unreachable;
  readonly cache = unreachable;
  readonly blockStatus = unreachable;
  readonly mayHaveHoles = unreachable;
  readonly resize = unreachable;
  readonly close = unreachable;

  constructor({ sizeBytes, blockSizes, capabilities }: ExportShape) {
    this.sizeBytes = sizeBytes;
    this.blockSizes = blockSizes;
    this.capabilities = capabilities;
  }
}

function unreachable(): never {
  throw new Error('a connection is handed over before its first request');
}
