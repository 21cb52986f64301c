/**
 * A storage system as a service: what it is made of, put together in order, and taken apart in order.
 *
 *   DATA/lock, identity.json   whose folder this is, and that it is used by one process alone
 *   DATA/meta.db               RealVolumeTable
 *   DATA/volumes/ID.raw        one raw sparse file a real volume, nothing else in it
 *   DATA/copies/ID/            Members: what one that is of a copy group keeps beside
 *
 * Started: folder, metadata, the directory's leave (claim-name.ts), check of the files, members of copy groups, NBD, peers, HTTP, directory. Stopped: directory, HTTP, peers,
 * changes under way, NBD (which answers and flushes), members, files, metadata, folder.
 */

import type { StorageReport } from '../control-protocol/directory-api.ts';
import { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { SiteName, StorageName } from '../control-protocol/names.ts';
import type { RealVolumeState } from '../control-protocol/storage-api.ts';
import type { ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { formatListenUri } from '../model/nbd-uri.ts';
import type { Service } from '../model/service.ts';
import { formatHttpAddress, formatSocketAddress, type SocketAddress } from '../model/socket-address.ts';
import { NbdServer } from '../nbd/server.ts';
import { connectToPeer } from '../peer-protocol/connect.ts';
import { PeerServer } from '../peer-protocol/server.ts';
import { Replica } from '../replication/replica.ts';
import { createHttpServer } from '../runtime/http-server.ts';
import { listenHttp, listenNbd } from '../runtime/listen.ts';
import { type DataFolder, openDataFolder } from '../storage/data-folder.ts';
import { folderSpace } from '../storage/folder-space.ts';
import { claimName } from './claim-name.ts';
import { copyFolders } from './copy-folders.ts';
import { exportsOf } from './exports.ts';
import { GroupDirectory } from './group-directory.ts';
import { Instance } from './instance.ts';
import { addManagement } from './management.ts';
import { type MemberFolders, Members } from './members.ts';
import { addMetrics, copiesOf, type Figures } from './metrics.ts';
import { RealVolumeTable } from './real-volume-table.ts';
import { RealVolumes } from './real-volumes.ts';
import { Registration } from './registration.ts';
import { putInOrder, refuseLostMetadata, volumeFolder } from './start-check.ts';
import { Usage } from './usage.ts';

export interface StorageSystemOptions {
  readonly name: StorageName;
  readonly site: SiteName;
  readonly dataFolder: string;
  /** NBD. Port 0 takes a free one, here and for the other two. */
  readonly listen: SocketAddress;
  /** For other storage systems. */
  readonly peer: SocketAddress;
  readonly manage: SocketAddress;
  readonly directoryUrl: string;
  /** Of all real volumes together; without it, what the file system has in all. */
  readonly capacityBytes?: number;
  /** The data folder was put back from a backup, and is to be used though it is older than what was there. */
  readonly isRestored?: boolean;
  /** The host that others are told, instead of the one that is listened on. */
  readonly advertise?: string;
  /** Of the machine, which has another one when its page cache has gone (default: as the kernel says). */
  readonly bootId?: string;
  /** It is not to be started any more. */
  readonly signal?: AbortSignal;
  readonly log: Log;
}

/** Files of real volumes that nobody uses stay open, so many. */
const IDLE_FILES_MAX = 64;
const FAILED_TOLD_MAX = 100;
/** A hello, and its answer. */
const CONNECT_MS = 2_000;

/** What is to be undone, the last first. */
type Undo = () => void | Promise<void>;

/** @throws UsageError, StoreError; ControlError `wrong-cluster` or `wrong-identity` when the directory will not have it */
export async function startStorageSystem(options: StorageSystemOptions): Promise<Service> {
  const undo: Undo[] = [];
  const stop = () => undoAll(undo);
  try {
    const lost = Promise.withResolvers<never>();
    lost.promise.catch(() => undefined); // whoever runs it is told; nobody has to
    const ready = await start(options, undo, lost.reject);
    let stopping: Promise<void> | undefined;
    return {
      ready,
      lost: lost.promise,
      stop: () => {
        stopping ??= stop();
        return stopping;
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** All, whatever fails; then the first failure. */
async function undoAll(undo: Undo[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of undo.splice(0).reverse()) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}

async function start(
  options: StorageSystemOptions,
  undo: Undo[],
  onLost: (refusal: ControlError) => void,
): Promise<Service['ready']> {
  const { name, log } = options;
  const data = await openDataFolder(options.dataFolder, { role: 'storage', name });
  undo.push(() => data.close());
  const volumes = volumeFolder(data.file('volumes'));
  const tablePath = data.file('meta.db');
  await refuseLostMetadata(tablePath, volumes);
  const table = new RealVolumeTable(tablePath);
  undo.push(() => table.close());
  const directory = new DirectoryClient(options.directoryUrl);
  const instance = new Instance({ table, place: data.place, log, nowMs: () => performance.now() });
  const folders = copyFolders(data.file('copies'), options.bootId);
  const isHeard = await claimName({
    ...{ name, id: data.id, clusterId: table.clusterId, instance, directory, log },
    isRestored: options.isRestored === true,
    signal: options.signal,
    forget: () => forgetAll(table, folders),
  });
  const allocated = await putInOrder(table, volumes, log);
  const capacityBytes = options.capacityBytes ?? folderSpace(volumes.path).totalBytes;

  let registration: Registration | undefined;
  const realVolumes = new RealVolumes({
    ...{ table, fileOf: volumes.fileOf, capacityBytes, idleMax: IDLE_FILES_MAX, log },
    connections: {
      of: (volume) => nbd.connectionsOf(volume),
      cut: (volume, reason) => nbd.disconnect(volume, reason),
    },
    onFailures: () => registration?.changed(),
  });
  const asker = () => ({ storage: name, ...instance.lives });
  const groups = new GroupDirectory({ api: directory, asker, log });
  const members = new Members({
    ...{ table, realVolumes, directory: groups, log },
    folders,
    rulesOf: (id) => new Replica({ id }),
    connect: (address, hello, signal) => connectToPeer({ address, hello, timeoutMs: CONNECT_MS, signal }),
  });
  realVolumes.attach(members);
  const nbd = new NbdServer({ exports: exportsOf(realVolumes, members), log });
  undo.push(() => realVolumes.keepFailures());
  undo.push(() => realVolumes.files.closeAll());
  undo.push(() => members.stop());
  undo.push(() => groups.stop());
  undo.push(() => nbd.stop());
  undo.push(() => realVolumes.stop());
  await members.start();
  const usage = new Usage({
    ...{ allocated, fileOf: volumes.fileOf },
    openIds: () => realVolumes.files.openIds(),
    isThere: (id) => realVolumes.get(id) !== undefined,
  });

  const parts: Parts = { options, data, table, instance, realVolumes, members, usage, capacityBytes };
  const places = await listen(parts, nbd, () => registration, undo);
  registration = new Registration({
    ...{ name, log, directory },
    report: () => reportOf(parts, places),
    joinCluster: (clusterId) => table.joinCluster(clusterId),
    onTaken: ({ instance: claim }, number) => claim && instance.taken(claim, number),
    onLost,
  });
  undo.push(() => members.stopSoon());
  undo.push(() => registration?.stop());
  await registration.start(isHeard ? 'some' : 'none');
  const { uri, manage } = places;
  const peer = formatSocketAddress(places.peer);
  log.info({ storage: name, uri, peer, manage, realVolumes: table.count }, 'storage system ready');
  return { document: { ready: true, uri, peer, manage }, sentence: `ready ${uri}` };
}

/** What members know of one another is not true any more: each is as one whose machine has lost what it had not flushed, everywhere. */
async function forgetAll(table: RealVolumeTable, folders: MemberFolders): Promise<void> {
  table.keepPutBack();
  for (const id of await folders.ids()) await folders.remove(id);
}

interface Parts {
  readonly options: StorageSystemOptions;
  readonly data: DataFolder;
  readonly table: RealVolumeTable;
  readonly instance: Instance;
  readonly realVolumes: RealVolumes;
  readonly members: Members;
  readonly usage: Usage;
  readonly capacityBytes: number;
}

/** As others are told. */
interface Places {
  readonly nbd: SocketAddress;
  readonly uri: string;
  readonly peer: SocketAddress;
  readonly manage: string;
}

async function listen(
  parts: Parts,
  nbd: NbdServer,
  registration: () => Registration | undefined,
  undo: Undo[],
): Promise<Places> {
  const { options, table, realVolumes, members } = parts;
  const { advertise, log, manage, listen } = options;
  const peer = new PeerServer({ onHello: members.onHello, log });
  undo.push(() => peer.close());
  const http = createHttpServer({
    title: 'Volary storage system',
    log,
    notReady: () => {
      if (table.clusterId === undefined) return 'it has not joined a cluster yet';
      const refusal = registration()?.refusal;
      return refusal === undefined ? undefined : `the directory refuses it: ${refusal}`;
    },
  });
  addManagement(http, realVolumes, members);
  addMetrics(http.metricsRegistry, () => figuresOf(parts, registration()?.isHeard === true));
  undo.push(() => http.close());
  const nbdPort = portOf(await listenNbd(nbd, listen));
  const peerListener = { listen: async (at: SocketAddress) => formatHttpAddress(await peer.listen(at)) };
  const peerPort = portOf(await listenHttp(peerListener, options.peer));
  const managePort = portOf(await listenHttp(http, manage));
  const nbdPlace = { host: advertise ?? listen.host, port: nbdPort };
  return {
    nbd: nbdPlace,
    uri: formatListenUri(nbdPlace),
    peer: { host: advertise ?? options.peer.host, port: peerPort },
    manage: formatHttpAddress({ host: advertise ?? manage.host, port: managePort }),
  };
}

function portOf(uri: string): number {
  return Number(/:(\d+)$/.exec(uri)?.[1]);
}

async function reportOf(parts: Parts, places: Places): Promise<StorageReport> {
  const { options, data, table, instance, realVolumes, members, usage, capacityBytes } = parts;
  realVolumes.keepFailures();
  return {
    ...{ site: options.site, id: data.id, folder: data.path, capacityBytes },
    ...{ nbd: places.nbd, peer: places.peer, manage: places.manage },
    clusterId: table.clusterId ?? null,
    instance: instance.claim(),
    realVolumes: table.count,
    usedBytes: await usage.usedBytes(),
    failed: [...realVolumes.failed(), ...members.failed()].slice(0, FAILED_TOLD_MAX),
  };
}

async function figuresOf(parts: Parts, isRegistered: boolean): Promise<Figures> {
  const { table, realVolumes, members, usage, capacityBytes } = parts;
  const byState = new Map<RealVolumeState, number>();
  let connections = 0;
  for (const view of realVolumes.views()) {
    byState.set(view.state, (byState.get(view.state) ?? 0) + 1);
    connections += view.connections;
  }
  return {
    ...{ byState, connections, capacityBytes, isRegistered },
    ...copiesOf(members.views()),
    openFiles: realVolumes.files.openCount,
    provisionedBytes: table.provisionedBytes,
    usedBytes: await usage.usedBytes(),
  };
}
