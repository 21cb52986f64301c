/**
 * Member: drives the rules of one member of a copy group (replication/replica.ts): what happens goes in as events, what they
 * say is done to file, folder, links and directory.
 *
 *   running -> stopping   asked for: nothing more is begun, what is under way ends, the folder is closed clean
 *   running -> failed     what must be kept cannot be: as if it had crashed, alone
 *
 * Invariants
 *  1. One event at a time, in the order in which they came; its effects are carried out, in their order, before the next. `nowMs` is
 *     taken anew for each, so that a process that was stopped never acts on what was true before.
 *  2. What is to be durable is so before anything behind it is begun: events wait meanwhile.
 *  3. A request is answered once, and not before the file has done with its payload.
 */

import { performance } from 'node:perf_hooks'; // the global of that name is looked for at each call
import { TokenMap } from '../base/token-map.ts';
import type { GroupConfig, HandOver } from '../control-protocol/copy-groups.ts';
import type { RealVolumeId } from '../control-protocol/names.ts';
import { ControlError, StoreError, VolumeError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { LinkEvents, SecondaryLink } from '../peer-protocol/links.ts';
import type { PrimaryMessage, Range } from '../peer-protocol/messages.ts';
import type {
  DurableState,
  Effect,
  Event,
  Output,
  Request,
  RequestError,
  Token,
} from '../replication/effects.ts';
import type { SparseFile } from '../storage/sparse-file.ts';
import type { GroupDirectory } from './group-directory.ts';
import { MemberDisk, type MemberFolder } from './member-disk.ts';
import { type Connect, MemberLinks, memberOf } from './member-links.ts';
import { MemberReports } from './member-reports.ts';
import type { Requests } from './replicated-volume.ts';

/** The rules, as far as they are driven here. */
export interface Rules {
  step(event: Event): Output;
  servesNow(nowMs: number): boolean;
}

export interface MemberOptions {
  readonly id: RealVolumeId;
  readonly rules: Rules;
  readonly file: SparseFile;
  readonly folder: MemberFolder;
  readonly connect: Connect;
  readonly clusterId: () => string | undefined;
  readonly directory: Pick<GroupDirectory, 'report' | 'discarded' | 'renew' | 'giveWay'>;
  /** Makes it durable; rejects with a StoreError. */
  readonly keep: (state: DurableState) => Promise<void>;
  readonly onServe: (served: Served) => void;
  /** It has failed: it is to be stopped, and may be started anew. */
  readonly onFailed: (reason: string) => void;
  readonly log: Log;
}

export type Served = Extract<Effect, { readonly kind: 'serve' }>;

/** What is found at a start. */
export interface Found {
  readonly durable: DurableState | undefined;
  readonly unsettled: readonly Range[];
  readonly marked: readonly number[];
  readonly lacks: ReadonlyMap<string, readonly Range[]>;
  readonly hasLostCache: boolean;
  /** Of the file. */
  readonly sizeBytes: number;
}

interface Asked<T> {
  readonly resolve: (value: T) => void;
  readonly reject: (error: Error) => void;
  readonly payload?: Buffer | undefined;
}

const TEXTS: Record<RequestError, string> = {
  io: 'a copy of the volume could not do it',
  'no-space': 'there is no space left for a copy of the volume',
  invalid: 'the range is not inside of the volume',
  failed: 'the volume has failed',
  shutdown: 'this copy of the volume is not served here any more',
};

export class Member implements Requests {
  readonly id: RealVolumeId;
  readonly #options: MemberOptions;
  readonly #rules: Rules;
  readonly #disk: MemberDisk;
  readonly #links: MemberLinks;
  readonly #reports: MemberReports;
  #state: 'running' | 'stopping' | 'failed' = 'running';
  #durable: DurableState | undefined;
  #served: Served | undefined;
  /** Those before `#next` have been. */
  #events: Event[] = [];
  #next = 0;
  /** The rules, or their effects, are at work; or something is being made durable. */
  #isBusy = false;
  #isRunDue = false;
  #keeping: Promise<void> = Promise.resolve();
  #tokens = 0;
  readonly #requests = new TokenMap<Asked<void>>();
  readonly #configures = new TokenMap<Asked<boolean>>();

  constructor(options: MemberOptions) {
    const { id, rules, file, folder, connect, clusterId, log } = options;
    this.id = id;
    this.#options = options;
    this.#rules = rules;
    const tell = (event: Event) => this.#tell(event);
    const run = () => this.#run();
    const failed = (reason: string) => this.#fail(reason);
    const config = () => this.config;
    const isMember = (member: string) => memberOf(config(), member) !== undefined;
    this.#disk = new MemberDisk({ file, folder, isMember, tell, run, failed });
    const sizeBytes = () => file.sizeBytes;
    this.#reports = new MemberReports({
      id,
      directory: options.directory,
      durable: () => this.#durable,
      placeOf: (member) => this.#links.placeOf(member),
      ...{ tell, run, log },
    });
    this.#links = new MemberLinks({ id, connect, clusterId, sizeBytes, config, tell, run, log });
  }

  // --- looking ---------------------------------------------------------------------------------------------

  get durable(): DurableState | undefined {
    return this.#durable;
  }

  /** The group, as this member goes by. */
  get config(): GroupConfig | undefined {
    return this.#durable?.config;
  }

  get served(): Served | undefined {
    return this.#served;
  }

  servesNow(): boolean {
    return this.#state === 'running' && this.#rules.servesNow(performance.now());
  }

  // --- what happens ----------------------------------------------------------------------------------------

  start(found: Found): void {
    this.#durable = found.durable;
    if (found.durable !== undefined) this.#reports.learnAll(found.durable.config);
    this.#happens({ kind: 'start', nowMs: 0, ...found, lacks: this.#withThoseLost(found) });
  }

  /** Of whom no bitmap is left, nothing is known: it may lack everything. */
  #withThoseLost({ durable, lacks }: Found): Found['lacks'] {
    const { file, log } = this.#options;
    const lost = this.#othersOf(durable).filter((member) => !lacks.has(member));
    for (const pair of lost) {
      log.warn(
        { realVolume: this.id, pair },
        'the difference bitmap of a copy is gone: it may lack everything',
      );
    }
    const everything = [{ offset: 0, length: file.sizeBytes }];
    return new Map([...lacks, ...lost.map((member) => [member, everything] as const)]);
  }

  #othersOf(durable: DurableState | undefined): string[] {
    const ids = durable?.config.members.map(({ realVolume }): string => realVolume) ?? [];
    return ids.filter((id) => id !== this.id);
  }

  tick(): void {
    this.#happens({ kind: 'tick', nowMs: 0 });
  }

  /** Resolves when no effects wait for something that is being made durable. */
  caughtUp(): Promise<void> {
    return this.#keeping;
  }

  resized(sizeBytes: number): void {
    this.#happens({ kind: 'resized', nowMs: 0, sizeBytes });
  }

  request(request: Request): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#state !== 'running') {
        reject(new VolumeError('shutdown', 'this copy is not used any more'));
        return;
      }
      const payload = request.kind === 'write' ? request.payload : undefined;
      const token = this.#ask(this.#requests, { resolve, reject, payload });
      this.#tell({ kind: 'request', nowMs: 0, token, request });
      if (this.#isRunDue) return;
      this.#isRunDue = true;
      queueMicrotask(this.#runLater); // with all others that were received together
    });
  }

  /** Resolves with whether it is refused, because a newer epoch is known. */
  configure(config: GroupConfig): Promise<boolean> {
    return this.#askRefusal((token) => ({ kind: 'configure', nowMs: 0, token, config }));
  }

  /** The same. */
  handOver({ epoch, to }: HandOver): Promise<boolean> {
    return this.#askRefusal((token) => ({ kind: 'hand-over', nowMs: 0, token, epoch, to }));
  }

  #askRefusal(eventOf: (token: Token) => Event): Promise<boolean> {
    return new Promise((resolve, reject) => {
      if (this.#state === 'running') this.#happens(eventOf(this.#ask(this.#configures, { resolve, reject })));
      else reject(new ControlError('unavailable', `${this.id} begins anew`));
    });
  }

  /** A primary says hello, with the right key. */
  received(link: SecondaryLink): LinkEvents<PrimaryMessage> {
    return this.#links.received(link);
  }

  /** Begins nothing more; resolves when nothing is under way. */
  async stop(): Promise<void> {
    this.tick(); // what is settled is said at ticks
    if (this.#state === 'running') this.#state = 'stopping';
    this.#links.destroy();
    await Promise.all([this.#keeping, this.#disk.idle()]);
    const gone = new ControlError('unavailable', `${this.id} is being stopped`);
    for (const { reject } of this.#configures.values()) reject(gone);
    const shut = new VolumeError('shutdown', 'the copy is being stopped');
    for (const { reject } of this.#requests.values()) reject(shut);
    this.#configures.clear();
    this.#requests.clear();
  }

  #ask<T>(asked: TokenMap<Asked<T>>, asker: Asked<T>): Token {
    this.#tokens += 1;
    asked.add(this.#tokens, asker);
    return this.#tokens;
  }

  readonly #runLater = (): void => {
    this.#isRunDue = false;
    this.#run();
  };

  // --- steps -----------------------------------------------------------------------------------------------

  #happens(event: Event): void {
    this.#tell(event);
    this.#run();
  }

  #tell(event: Event): void {
    if (this.#state === 'running') this.#events.push(event);
  }

  #run(): void {
    if (this.#isBusy) return;
    this.#isBusy = true;
    try {
      this.#stepAll();
    } catch (error) {
      // Our own mistake ends the process, whosever promise this is within; nothing is done on top of it meanwhile.
      setImmediate(() => {
        throw error;
      });
    }
  }

  #stepAll(): void {
    for (;;) {
      while (this.#state === 'running' && this.#next < this.#events.length) {
        if (this.#step(this.#events[this.#next++] as Event)) return;
      }
      this.#links.flush(); // the others begin while this one writes
      if (this.#state !== 'running') break;
      this.#disk.startAll();
      if (this.#next === this.#events.length) break;
    }
    this.#events = [];
    this.#next = 0;
    this.#isBusy = false;
  }

  /** True: something is being made durable, and all else waits. */
  #step(event: Event): boolean {
    const stamped: { nowMs: number } = event;
    stamped.nowMs = performance.now();
    if (event.kind === 'configure') this.#reports.learnAll(event.config);
    else if (event.kind === 'reported') this.#reports.learnFrom(event);
    const { persist, effects } = this.#rules.step(event);
    if (persist === undefined) {
      this.#carryOutAll(effects);
      return false;
    }
    this.#disk.startAll();
    this.#keeping = this.#keep(persist, effects);
    return true;
  }

  /** First what is to be durable, then the effects; still busy meanwhile. */
  async #keep(state: DurableState, effects: readonly Effect[]): Promise<void> {
    try {
      for (const member of this.#othersOf(state)) this.#options.folder.addMember(member);
      await this.#options.keep(state);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      this.#fail(error.message);
      return;
    }
    const isToldAnew = state.config !== this.config;
    this.#durable = state;
    if (isToldAnew) this.#links.configured(state.config);
    this.#carryOutAll(effects);
    this.#isBusy = false;
    this.#run();
  }

  /** One that cannot be carried out fails the member: then what comes behind it must not be. */
  #carryOutAll(effects: readonly Effect[]): void {
    for (const effect of effects) {
      if (this.#state !== 'running') return;
      this.#carryOut(effect);
    }
  }

  #carryOut(effect: Effect): void {
    switch (effect.kind) {
      case 'apply':
      case 'settle':
      case 'forget-unsettled':
      case 'mark':
      case 'unmark':
      case 'set-bits':
      case 'clear-bits':
      case 'forget-member':
      case 'read-range':
      case 'find-allocated':
        this.#disk.carryOut(effect);
        break;
      case 'connect':
      case 'disconnect':
      case 'send':
      case 'welcome':
      case 'refuse':
      case 'reply':
      case 'end-session':
        this.#links.carryOut(effect);
        break;
      case 'forward':
        this.#answer(effect.token, 'shutdown'); // the volume sees how hosts are served by now
        break;
      case 'admit':
        this.#answer(effect.token, undefined);
        break;
      case 'answer':
        this.#answer(effect.token, effect.error);
        break;
      case 'configured':
      case 'handed-over': {
        this.#configures.take(effect.token)?.resolve(effect.isRefused);
        break;
      }
      case 'serve':
        this.#served = effect;
        this.#options.onServe(effect);
        break;
      default:
        this.#reports.carryOut(effect);
    }
  }

  #answer(token: Token, error: RequestError | undefined): void {
    const asked = this.#requests.take(token);
    if (asked === undefined) return;
    if (error === undefined) {
      asked.resolve();
      return;
    }
    // The rules may give up what this member is still writing.
    const writing = asked.payload === undefined ? undefined : this.#disk.writing(asked.payload);
    const reject = () => asked.reject(new VolumeError(error, TEXTS[error]));
    if (writing === undefined) reject();
    else void writing.then(reject);
  }

  /** As if it had crashed: nothing is begun any more, nobody hears anything. */
  #fail(reason: string): void {
    if (this.#state !== 'running') return;
    this.#state = 'failed';
    this.#links.destroy();
    this.#options.onFailed(reason);
  }
}
