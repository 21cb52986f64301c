/**
 * Who belongs to the cluster, and who is there: storage systems and gateways report themselves, and a lease lasts until the next report.
 *
 *  1. A name belongs to the data folder that registered it first; a data folder has one name, and of its copies one is taken (instances.ts).
 *  2. What is written is what has changed: a report that says nothing new writes nothing.
 *  3. Events follow the state, not the moment: what has not been announced of it is announced, also by the next directory.
 */

import { isDeepStrictEqual } from 'node:util';
import type { GatewayRecord, StorageRecord } from '../control-protocol/catalog.ts';
import type {
  GatewayReport,
  Registered,
  StorageClaim,
  StorageReport,
} from '../control-protocol/directory-api.ts';
import type { GatewayName, StorageName } from '../control-protocol/names.ts';
import { assert, ControlError, StoreError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { lapsed } from '../replication/group-rules.ts';
import type { Catalog, Draft } from './catalog.ts';
import type { LeaseId } from './catalog-store.ts';
import type { CatalogView } from './catalog-view.ts';
import { isNewInstance, isRestored, refuseInstance, reportedInstance, takenInstance } from './instances.ts';
import type { AnnouncementRecord, PeerKey, PeerKind } from './records.ts';
import { UnknownRealVolumes } from './unknown-real-volumes.ts';

export const LEASE_MS = 3_000;
/** Storage systems, and gateways. */
const PEERS_MAX = 1_000;
/** After a disk error. */
const ANNOUNCE_RETRY_MS = 1_000;

export interface MembershipOptions {
  readonly catalog: Catalog;
  readonly log: Log;
  readonly now: () => Date;
  readonly leaseMs: number;
  /** As in unknown-real-volumes.ts. */
  readonly unknownMs?: number;
}

/** What the last report said, as far as it is not kept in the catalog. */
interface Heard<Report> {
  readonly report: Report;
  readonly at: string;
}

type Failed = StorageReport['failed'];

const WORDS: Record<PeerKind, string> = { storage: 'storage system', gateway: 'gateway' };

export class Membership {
  readonly #options: MembershipOptions;
  readonly #stopListening: () => void;
  readonly #storageHeard = new Map<string, Heard<StorageReport>>();
  readonly #gatewayHeard = new Map<string, Heard<GatewayReport>>();
  readonly #unknown: UnknownRealVolumes;
  #announcing = false;
  #stopped = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.#unknown = new UnknownRealVolumes(options);
    this.#stopListening = options.catalog.onCommit((changes) => {
      if (changes.some(({ table, record }) => table === 'presence' && record === null)) this.announceLosses();
    });
  }

  /** @throws ControlError wrong-cluster, wrong-identity */
  async reportStorage(name: StorageName, report: StorageReport): Promise<Registered> {
    const { clusterId, realVolumes, usedBytes: _, failed, instance, ...said } = report;
    const record: StorageRecord = { name, ...said };
    const isNewLife = (view: CatalogView) =>
      instance !== undefined &&
      !isDeepStrictEqual(view.instances.get(name), reportedInstance(view, name, instance));
    const registered = await this.#report(`storage/${name}`, clusterId, failed, record, {
      known: (view) => view.storage,
      check: (view) => {
        if (instance !== undefined) refuseInstance(view, name, instance);
      },
      isNews: (view) => isNewLife(view) || !isDeepStrictEqual(view.storage.get(name), record),
      put: (draft) => {
        if (!isDeepStrictEqual(draft.view.storage.get(name), record)) draft.putStorage(record);
        if (instance !== undefined && isNewLife(draft.view)) {
          draft.putInstance(name, reportedInstance(draft.view, name, instance));
        }
      },
    });
    this.#storageHeard.set(name, { report, at: this.#options.now().toISOString() });
    await this.#unknown.heard(name, realVolumes);
    return { ...registered, ...this.#numberOf(name) };
  }

  /**
   * Before it serves: from then on no other process with a copy of its folder is taken.
   * @throws ControlError wrong-cluster, wrong-identity, in-use
   */
  async claimStorage(name: StorageName, { id, clusterId, instance }: StorageClaim): Promise<Registered> {
    const { catalog } = this.#options;
    const peer = `storage/${name}` as const;
    const registered = this.#registered(peer, clusterId);
    const check = (view: CatalogView): void => {
      refuseOther(peer, { name, id }, view.storage, view.presence.has(peer));
      refuseInstance(view, name, instance);
    };
    check(catalog.view);
    // A name that nobody has yet is given by the first report.
    if (!catalog.view.storage.has(name)) return registered;
    await catalog.change((draft) => {
      check(draft.view);
      if (isRestored(draft.view, name, instance)) this.#restore(draft, name);
      if (isNewInstance(draft.view, name, instance)) {
        draft.putInstance(name, takenInstance(draft.view, name, instance));
      }
    });
    return { ...registered, ...this.#numberOf(name) };
  }

  #numberOf(name: StorageName): Pick<Registered, 'instanceNumber'> {
    const latest = this.#options.catalog.view.instances.get(name);
    return latest === undefined ? {} : { instanceNumber: latest.number };
  }

  /** What it holds is older than what the record says. */
  #restore(draft: Draft, name: StorageName): void {
    for (const volume of draft.view.volumes.values()) {
      const segments = volume.segments.map((segment) => lapsed(segment, name));
      const isNews = segments.some((segment, at) => segment !== volume.segments[at]);
      if (isNews) draft.putVolume({ ...volume, segments });
    }
    draft.addEvent({
      kind: 'storage.restored',
      subject: name,
      text: `storage system ${name} goes on with a data folder that was put back from a backup: what was written there since is lost, but for volumes with another copy in step`,
      details: {},
    });
  }

  /** @throws ControlError wrong-cluster, wrong-identity */
  async reportGateway(name: GatewayName, report: GatewayReport): Promise<Registered> {
    const { clusterId, revision: _, hosts: __, ...said } = report;
    const record: GatewayRecord = { name, ...said };
    const registered = await this.#report(`gateway/${name}`, clusterId, [], record, {
      known: (view) => view.gateways,
      check: () => undefined,
      isNews: (view) => !isDeepStrictEqual(view.gateways.get(name), record),
      put: (draft) => draft.putGateway(record),
    });
    this.#gatewayHeard.set(name, { report, at: this.#options.now().toISOString() });
    return registered;
  }

  /** undefined: nothing since this directory was started. */
  lastStorageReport(name: string): StorageReport | undefined {
    return this.#storageHeard.get(name)?.report;
  }

  lastGatewayReport(name: string): GatewayReport | undefined {
    return this.#gatewayHeard.get(name)?.report;
  }

  presenceOf(peer: PeerKey): { state: 'online' | 'offline'; lastSeenAt: string | null } {
    const { view } = this.#options.catalog;
    const state = view.presence.has(peer) ? 'online' : 'offline';
    return { state, lastSeenAt: this.#lastSeenAt(peer) };
  }

  /** Of those that are registered, and not there any more; also what a directory before this one has not told. */
  announceLosses(): void {
    if (this.#announcing || this.#stopped) return;
    this.#announcing = true;
    this.#announceLosses().finally(() => {
      this.#announcing = false;
    });
  }

  stop(): void {
    this.#stopped = true;
    this.#stopListening();
    clearTimeout(this.#timer);
  }

  async #report(
    peer: PeerKey,
    clusterId: string | null,
    failed: Failed,
    record: StorageRecord | GatewayRecord,
    table: {
      readonly known: (view: CatalogView) => ReadonlyMap<string, StorageRecord | GatewayRecord>;
      readonly check: (view: CatalogView) => void;
      readonly isNews: (view: CatalogView) => boolean;
      readonly put: (draft: Draft) => void;
    },
  ): Promise<Registered> {
    const { catalog } = this.#options;
    const { isNews } = table;
    const registered = this.#registered(peer, clusterId);
    const check = (view: CatalogView): void => {
      refuseOther(peer, record, table.known(view), view.presence.has(peer));
      table.check(view);
    };
    check(catalog.view);
    const lease = await this.#lease(peer);
    const hasToldAll = (view: CatalogView): boolean =>
      isDeepStrictEqual(view.announced.get(peer)?.failed, failed) &&
      view.announced.get(peer)?.state === 'online';
    if (lease === undefined && !isNews(catalog.view) && hasToldAll(catalog.view)) return registered;
    await catalog.change((draft) => {
      check(draft.view);
      if (isNews(draft.view)) table.put(draft);
      if (lease !== undefined) draft.putPresence(peer, lease);
      this.#announce(draft, peer, 'online', failed);
    });
    return registered;
  }

  /** What is answered to those of the same cluster. @throws ControlError */
  #registered(peer: PeerKey, clusterId: string | null): Registered {
    const { catalog, leaseMs } = this.#options;
    const { cluster } = catalog.view;
    assert(cluster !== undefined, 'a cluster has its id before anybody can report');
    if (clusterId !== null && clusterId !== cluster.clusterId) {
      const text = `${nameOf(peer)} belongs to cluster ${clusterId}, and this is cluster ${cluster.clusterId}: give it the address of its own directory, or a new data folder`;
      throw new ControlError('wrong-cluster', text);
    }
    return { clusterId: cluster.clusterId, leaseMs };
  }

  /** A new lease; undefined: the one there is has been kept alive. */
  async #lease(peer: PeerKey): Promise<LeaseId | undefined> {
    const { catalog, leaseMs } = this.#options;
    const presence = catalog.view.presence.get(peer);
    if (presence !== undefined && (await catalog.store.keepAlive(presence.lease))) return undefined;
    return catalog.store.grantLease(leaseMs);
  }

  async #announceLosses(): Promise<void> {
    const { catalog, log } = this.#options;
    const lost = (view: CatalogView): PeerKey[] =>
      [...view.announced]
        .filter(([peer, { state }]) => state === 'online' && !view.presence.has(peer))
        .map(([peer]) => peer as PeerKey);
    try {
      while (!this.#stopped && lost(catalog.view).length > 0) {
        await catalog.change((draft) => {
          for (const peer of lost(draft.view)) {
            this.#announce(draft, peer, 'offline', draft.view.announced.get(peer)?.failed ?? []);
          }
        });
      }
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
      log.error({ error: error.message }, 'who is away cannot be written down yet');
      this.#timer = setTimeout(() => this.announceLosses(), ANNOUNCE_RETRY_MS).unref();
    }
  }

  /** Events of what differs from what has been told. */
  #announce(draft: Draft, peer: PeerKey, state: AnnouncementRecord['state'], failed: Failed): void {
    const told = draft.view.announced.get(peer);
    const [kind, name] = partsOf(peer);
    if (told?.state === state && isDeepStrictEqual(told.failed, failed)) return;
    draft.putAnnouncement(peer, { state, lastSeenAt: this.#lastSeenAt(peer), failed });
    if (told?.state !== state) {
      draft.addEvent({
        kind: `${kind}.${state}`,
        subject: name,
        text: `${nameOf(peer)} is ${state}`,
        details: {},
      });
      this.#options.log.info({ peer, from: told?.state ?? 'unknown', to: state }, 'presence');
    }
    for (const { realVolume, reason } of failed) {
      if (told?.failed.some((known) => known.realVolume === realVolume)) continue;
      const volume = draft.view.ownerOf(realVolume) ?? null;
      draft.addEvent({
        kind: 'real-volume.failed',
        subject: realVolume,
        text: `real volume ${realVolume} of ${nameOf(peer)} has failed: ${reason}`,
        details: { storage: name, volume, reason },
      });
    }
  }

  #lastSeenAt(peer: PeerKey): string | null {
    const [kind, name] = partsOf(peer);
    const heard = kind === 'storage' ? this.#storageHeard.get(name) : this.#gatewayHeard.get(name);
    return heard?.at ?? this.#options.catalog.view.announced.get(peer)?.lastSeenAt ?? null;
  }
}

function partsOf(peer: PeerKey): [PeerKind, string] {
  const slash = peer.indexOf('/');
  return [peer.slice(0, slash) as PeerKind, peer.slice(slash + 1)];
}

function nameOf(peer: PeerKey): string {
  const [kind, name] = partsOf(peer);
  return `${WORDS[kind]} ${name}`;
}

/**
 * A gateway's data folder holds nothing that cannot be fetched again: while nobody is there under its name, another folder may
 * take it. A storage system's folder is what it is.
 * @throws ControlError
 */
function refuseOther(
  peer: PeerKey,
  { name, id }: Pick<StorageRecord | GatewayRecord, 'name' | 'id'>,
  known: ReadonlyMap<string, StorageRecord | GatewayRecord>,
  isPresent: boolean,
): void {
  const owner = known.get(name);
  const [kind] = partsOf(peer);
  if (owner !== undefined && owner.id !== id && (kind === 'storage' || isPresent)) {
    const text = `${nameOf(peer)} is data folder ${owner.id}, and this one is ${id}: start it with its own data folder, or give this one another name`;
    throw new ControlError('wrong-identity', text);
  }
  const named = [...known.values()].find((other) => other.id === id && other.name !== name);
  if (named !== undefined) {
    const text = `data folder ${id} is registered as ${named.name}: start it under that name, or give ${name} a data folder of its own`;
    throw new ControlError('wrong-identity', text);
  }
  if (owner === undefined && known.size >= PEERS_MAX) {
    throw new ControlError('unavailable', `a cluster has at most ${PEERS_MAX} of these`);
  }
}
