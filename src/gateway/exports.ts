/**
 * The exports of a gateway: the virtual volumes that it knows, each under its own name. A volume's paths are opened when the
 * first host asks for it, and closed a moment after the last one has left.
 *
 *   (none)  -> opening   a host asks for a volume that may be used
 *   opening -> open      all paths are there; or -> (none), and the host is told why not
 *   open    -> (none)    nobody has used it for a moment; or it was deleted: its hosts are cut off
 *
 * Invariants
 *  1. There is one VirtualVolume of a volume at a time that hosts can come to: the fence between their connections is in it.
 *  2. One that is not in `#entries` any more is not given to anybody.
 *  3. When the first host begins to use a volume that has copies, the directory is asked to have the nearest one be its primary
 *     (log-in). Nobody waits for that: the switch is one like any other. Who only looks (INFO) changes nothing.
 */

import { isDeepStrictEqual } from 'node:util';
import { VolumeName } from '../control-protocol/names.ts';
import { VolumeError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { type ExportDirectory, ExportRefused, type NbdExport } from '../nbd/server.ts';
import type { RemoteState } from '../nbd-client/remote-volume.ts';
import type { ExportEntry } from '../nbd-server-protocol/session.ts';
import type { Knowledge } from './knowledge.ts';
import type { Path } from './path.ts';
import { type Information, type Planning, planOf, type VolumePlan } from './second-information.ts';
import { follow, VirtualVolume } from './virtual-volume.ts';

/** How long a volume stays open after its last host, and after it was asked about and not used. */
const LINGER_MS = 1_000;
const UNUSED_MS = 2_000;
/** How long a host waits for the directory's word on a name that is not known here. */
const LOOK_MS = 2_000;

export interface VolumeExportsOptions {
  readonly knowledge: Knowledge;
  /** Has the directory make a volume larger. @throws VolumeError */
  readonly grow: (name: VolumeName, sizeBytes: number) => Promise<void>;
  /** Has the directory make the copy primary that is nearest to this gateway, if it may. Never rejects. */
  readonly logIn: (name: VolumeName) => Promise<void>;
  readonly connections: number;
  readonly reconnectMs: number;
  readonly log: Log;
}

/** What a VolumeExports needs of the server that it is for. */
export interface Hosts {
  connectionsOf(volume: VirtualVolume): number;
  disconnect(volume: VirtualVolume, reason: string): Promise<void>;
}

export interface Figures {
  hosts: number;
  volumes: number;
  heldRequests: number;
  readonly paths: Record<RemoteState, number>;
  /** The same paths, by the storage system that each leads to. */
  readonly pathsTo: Record<string, number>;
  /** How often a path was led to another copy, epoch or address. */
  moves: number;
}

export function noFigures(): Figures {
  return {
    hosts: 0,
    volumes: 0,
    heldRequests: 0,
    paths: { connected: 0, reconnecting: 0, failed: 0, closed: 0 },
    pathsTo: {},
    moves: 0,
  };
}

interface Entry {
  readonly name: VolumeName;
  plan: VolumePlan;
  /** Paths that it is waiting for. */
  opening: readonly Path[];
  readonly ready: Promise<NbdExport>;
  /** From when it is open. */
  nbdExport: (NbdExport & { readonly volume: VirtualVolume }) | undefined;
  inUse: boolean;
  /** Why `plan` is older than what is known; undefined: it is not. */
  behind: string | undefined;
  lingerTimer: NodeJS.Timeout | undefined;
}

function hasCopies({ segments }: VolumePlan): boolean {
  return segments.some(({ copies }) => copies.length > 1);
}

/** What LIST shows. */
export function* readyVolumes(information: Information | undefined): Iterable<ExportEntry> {
  for (const name of information?.volumes.keys() ?? []) {
    if (planOf(information, name).kind === 'plan') yield { name };
  }
}

export class VolumeExports implements ExportDirectory {
  readonly #options: VolumeExportsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new Set<Promise<void>>();
  readonly #closingVolumes = new Set<VirtualVolume>();
  readonly #unsubscribe: () => void;
  #hosts: Hosts | undefined;
  #stopping = false;
  #moves = 0;

  constructor(options: VolumeExportsOptions) {
    this.#options = options;
    this.#unsubscribe = options.knowledge.onChange(() => this.#changed());
  }

  /** Must be called before the first host comes. */
  servedBy(hosts: Hosts): void {
    this.#hosts = hosts;
  }

  list(): Iterable<ExportEntry> {
    return readyVolumes(this.#options.knowledge.information);
  }

  find(name: string): NbdExport | Promise<NbdExport | undefined> {
    const entry = this.#entries.get(name);
    if (entry?.nbdExport === undefined) return this.#findLater(name);
    if (!entry.inUse) this.#linger(entry, UNUSED_MS);
    return entry.nbdExport;
  }

  hostsOf(name: string): number {
    const volume = this.#entries.get(name)?.nbdExport?.volume;
    return volume === undefined ? 0 : (this.#hosts?.connectionsOf(volume) ?? 0);
  }

  figures(): Figures {
    const figures: Figures = { ...noFigures(), volumes: this.#entries.size, moves: this.#moves };
    for (const { name, nbdExport, opening } of this.#entries.values()) {
      figures.hosts += this.hostsOf(name);
      figures.heldRequests += nbdExport?.volume.held ?? 0;
      for (const { state, segment } of nbdExport?.volume.paths ?? opening) {
        figures.paths[state] += 1;
        figures.pathsTo[segment.storage] = (figures.pathsTo[segment.storage] ?? 0) + 1;
      }
    }
    return figures;
  }

  /** Waits for no storage system any more: nobody comes here from now on. */
  giveUp(reason: string): void {
    this.#stopping = true;
    this.#unsubscribe();
    for (const { opening, nbdExport } of this.#entries.values()) {
      for (const path of opening) path.giveUp(reason);
      nbdExport?.volume.giveUp(reason);
    }
    for (const volume of this.#closingVolumes) volume.giveUp(reason);
  }

  /** Closes everything; the server has been stopped before. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#unsubscribe();
    for (const entry of [...this.#entries.values()]) this.#close(entry, false);
    await Promise.all(this.#closing);
  }

  // --- opening ---------------------------------------------------------------------------------------------

  async #findLater(given: string): Promise<NbdExport | undefined> {
    if (given === '') {
      throw new ExportRefused('unknown', 'there is no default export here: give the name of a volume');
    }
    const { success, data: name } = VolumeName.safeParse(given);
    if (!success || this.#stopping) return undefined;
    let planning = this.#planOf(name);
    if (planning.kind !== 'plan') {
      await this.#options.knowledge.freshLook(name, LOOK_MS);
      planning = this.#planOf(name);
    }
    if (planning.kind === 'unknown' || this.#stopping) return undefined;
    if (planning.kind !== 'plan') throw new ExportRefused('policy', planning.reason);
    const entry = this.#entries.get(name) ?? this.#open(name, planning.plan);
    try {
      return await entry.ready;
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      throw new ExportRefused('shutdown', `volume ${name}: ${error.message}`, { cause: error });
    }
  }

  #planOf(name: VolumeName): Planning {
    return planOf(this.#options.knowledge.information, name);
  }

  #open(name: VolumeName, plan: VolumePlan): Entry {
    const { connections, reconnectMs, log, knowledge, grow } = this.#options;
    let waitingFor: readonly Path[] = [];
    const volume = VirtualVolume.open(
      plan,
      {
        connections,
        reconnectMs,
        log,
        grow: (sizeBytes) => grow(name, sizeBytes),
        onRefused: () => void knowledge.freshLook(name, LOOK_MS),
        onMoved: () => {
          this.#moves += 1;
        },
      },
      (paths) => {
        waitingFor = paths;
      },
    );
    const entry: Entry = {
      name,
      plan,
      opening: waitingFor,
      ready: volume.then((opened) => this.#opened(entry, opened)),
      nbdExport: undefined,
      inUse: false,
      behind: undefined,
      lingerTimer: undefined,
    };
    this.#entries.set(name, entry);
    entry.ready.catch(() => {
      if (this.#entries.get(name) === entry) this.#entries.delete(name);
    });
    return entry;
  }

  #opened(entry: Entry, volume: VirtualVolume): NbdExport {
    const { name } = entry;
    if (this.#entries.get(name) !== entry) {
      this.#track(volume.close());
      throw new VolumeError('shutdown', 'it is being taken away');
    }
    const users = { begun: () => this.#begun(entry, volume), ended: () => this.#ended(entry) };
    entry.nbdExport = { name, volume, users, distant: true };
    entry.opening = [];
    volume.update(entry.plan); // what has become known meanwhile
    this.#linger(entry, UNUSED_MS);
    this.#options.log.info({ volume: name, sizeBytes: volume.sizeBytes }, 'volume opened');
    return entry.nbdExport;
  }

  // --- use -------------------------------------------------------------------------------------------------

  #begun(entry: Entry, volume: VirtualVolume): void {
    clearTimeout(entry.lingerTimer);
    entry.inUse = true;
    if (this.#entries.get(entry.name) === entry) {
      if (hasCopies(entry.plan)) void this.#options.logIn(entry.name);
      return;
    }
    // It was closed while this host took its time to hear of it.
    this.#disconnect(volume, 'the volume has been closed');
  }

  #ended(entry: Entry): void {
    entry.inUse = false;
    if (this.#entries.get(entry.name) === entry) this.#linger(entry, LINGER_MS);
  }

  #linger(entry: Entry, lingerMs: number): void {
    clearTimeout(entry.lingerTimer);
    entry.lingerTimer = setTimeout(() => this.#close(entry, true), lingerMs);
  }

  // --- changes ---------------------------------------------------------------------------------------------

  #changed(): void {
    for (const entry of [...this.#entries.values()]) {
      const planning = this.#planOf(entry.name);
      const behind = planning.kind === 'incomplete' ? planning.reason : undefined;
      if (behind !== undefined && behind !== entry.behind) {
        this.#options.log.warn({ volume: entry.name, reason: behind }, 'serving it as it was');
      }
      entry.behind = behind;
      if (planning.kind === 'incomplete') continue;
      if (planning.kind !== 'plan' || planning.plan.createdAt !== entry.plan.createdAt) {
        this.#takeAway(entry);
      } else if (entry.nbdExport?.volume.wantsUpdate || !isDeepStrictEqual(planning.plan, entry.plan)) {
        entry.plan = planning.plan;
        follow(entry.opening, entry.plan);
        entry.nbdExport?.volume.update(entry.plan);
      }
    }
  }

  /** The volume has been deleted. */
  #takeAway(entry: Entry): void {
    this.#options.log.info({ volume: entry.name }, 'volume is gone: its hosts are cut off');
    const volume = entry.nbdExport?.volume;
    this.#close(entry, false);
    if (volume !== undefined) this.#disconnect(volume, 'the volume has been deleted');
  }

  #disconnect(volume: VirtualVolume, reason: string): void {
    this.#track(this.#hosts?.disconnect(volume, reason) ?? Promise.resolve());
  }

  /** Nobody comes to it any more; it closes when what is under way has ended. */
  #close(entry: Entry, flush: boolean): void {
    clearTimeout(entry.lingerTimer);
    this.#entries.delete(entry.name);
    for (const path of entry.opening) this.#track(path.close());
    const volume = entry.nbdExport?.volume;
    if (volume !== undefined) this.#track(this.#closeVolume(entry.name, volume, flush));
  }

  async #closeVolume(name: VolumeName, volume: VirtualVolume, flush: boolean): Promise<void> {
    const { write, flush: canFlush } = volume.capabilities;
    this.#closingVolumes.add(volume);
    try {
      if (flush && write && canFlush) await volume.flush();
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
      this.#options.log.warn({ volume: name, error: error.message }, 'no flush after the last host has left');
    }
    await volume.close();
    this.#closingVolumes.delete(volume);
    this.#options.log.info({ volume: name }, 'volume closed');
  }

  #track(closing: Promise<void>): void {
    this.#closing.add(closing);
    void closing.finally(() => this.#closing.delete(closing));
  }
}
