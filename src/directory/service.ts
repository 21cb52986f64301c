/**
 * The directory: keeps the catalog, tells all others, runs operations.
 *
 * In the data folder: `identity.json` and `lock` of the folder itself, and the catalog, `catalog.db`. It is ready when it has read
 * the catalog and listens; operations that a directory before it has begun go on from where the catalog says they are.
 */

import { randomBytes, randomUUID } from 'node:crypto';
import type { Log } from '../model/log.ts';
import type { Service } from '../model/service.ts';
import type { GroupSettings } from '../replication/group-rules.ts';
import { createHttpServer } from '../runtime/http-server.ts';
import { listenHttp } from '../runtime/listen.ts';
import { type DataFolder, openDataFolder } from '../storage/data-folder.ts';
import { Catalog } from './catalog.ts';
import type { CatalogStore } from './catalog-store.ts';
import { CopyRequests } from './copy-requests.ts';
import { addCopyRoutes } from './copy-routes.ts';
import { GarbageCollector } from './garbage.ts';
import { GroupConfigs } from './group-configs.ts';
import { GroupLeases } from './group-leases.ts';
import { Logins } from './login.ts';
import { LEASE_MS, Membership } from './membership.ts';
import { registerMetrics } from './metrics.ts';
import { NewerEpochs } from './newer-epochs.ts';
import { OperationDesk } from './operation-desk.ts';
import { RETRY_LIMITS, type RetryLimits } from './operations/perform.ts';
import { OperationRunner } from './operations/runner.ts';
import { PairReports } from './pair-reports.ts';
import { httpPeers, type Peers } from './peers.ts';
import { addRoutes } from './routes.ts';
import { SqliteStore } from './sqlite-store.ts';
import { Teller } from './teller.ts';
import { VolumeRequests } from './volume-requests.ts';

export interface DirectoryOptions {
  readonly dataFolder: string;
  readonly listen: { readonly host: string; readonly port: number };
  readonly log: Log;
}

/** What tests choose. */
export interface DirectoryParts {
  readonly store: CatalogStore;
  readonly listen: DirectoryOptions['listen'];
  readonly log: Log;
  readonly peers?: Peers;
  readonly limits?: RetryLimits;
  /** Of storage systems and gateways. */
  readonly leaseMs?: number;
  /** What members of copy groups are told. */
  readonly group?: Partial<GroupSettings>;
  /** As in group-leases.ts. */
  readonly returnMs?: number;
  readonly garbageRetryMs?: number;
  readonly unknownMs?: number;
  readonly now?: () => Date;
  readonly random?: (bytes: number) => Buffer;
}

const VERSION = '0.1.0';
const GROUP_SETTINGS: GroupSettings = { leaseMs: 3_000, copyBytesPerSecond: 0 };

/** @throws UsageError, StoreError */
export async function startDirectory({ dataFolder, listen, log }: DirectoryOptions): Promise<Service> {
  const folder: DataFolder = await openDataFolder(dataFolder, { role: 'directory', name: 'directory' });
  try {
    const store = SqliteStore.open(folder.file('catalog.db'));
    try {
      const service = await startDirectoryOn({ store, listen, log });
      return {
        ready: service.ready,
        stop: async () => {
          await service.stop();
          await store.close();
          folder.close();
        },
      };
    } catch (error) {
      await store.close();
      throw error;
    }
  } catch (error) {
    folder.close();
    throw error;
  }
}

/** The store stays the caller's, to be closed after `stop`. @throws UsageError, StoreError */
export async function startDirectoryOn(parts: DirectoryParts): Promise<Service> {
  const { store, log, peers = httpPeers, limits = RETRY_LIMITS } = parts;
  const now = parts.now ?? (() => new Date());
  const catalog = await Catalog.open({ store, now });
  await nameCluster(catalog);
  const { garbageRetryMs: retryMs, leaseMs = LEASE_MS, random = randomBytes } = parts;
  const unknown = parts.unknownMs === undefined ? {} : { unknownMs: parts.unknownMs };
  const configs = new GroupConfigs(catalog.view, { ...GROUP_SETTINGS, ...parts.group });
  const runner = new OperationRunner({ catalog, peers, configs, limits, log });
  const desk = new OperationDesk({ catalog, runner, random });
  const newerEpochs = new NewerEpochs({ catalog, peers, log });
  const teller = new Teller({ catalog, peers, configs, newerEpochs, limits, log });
  const garbage = new GarbageCollector({
    catalog,
    peers,
    log,
    ...(retryMs === undefined ? {} : { retryMs }),
  });
  const membership = new Membership({ catalog, log, now, leaseMs, ...unknown });
  const requests = new VolumeRequests({ catalog, desk, peers, letGoMs: limits.letGoMs });
  const copies = new CopyRequests({ catalog, desk, newerEpochs });
  const returnMs = parts.returnMs === undefined ? {} : { returnMs: parts.returnMs };
  let notReady: string | undefined = 'starting';
  const server = createHttpServer({ title: 'Volary directory', log, notReady: () => notReady });
  const streams = addRoutes(server, {
    ...{ catalog, membership, requests, newerEpochs, peers, version: VERSION, log },
  });
  addCopyRoutes(server, {
    catalog,
    copies,
    logins: new Logins({ catalog, requests: copies, peers, now, log }),
    pairs: new PairReports(catalog, log),
    leases: new GroupLeases({ catalog, requests: copies, log, ...returnMs }),
  });
  registerMetrics(server.metricsRegistry, { catalog, streams, untold: () => teller.untold });
  const stop = async (): Promise<void> => {
    notReady = 'stopping';
    await server.close();
    runner.stop();
    teller.stop();
    garbage.stop();
    membership.stop();
    await catalog.close();
  };
  let url: string;
  try {
    url = await listenHttp(server, parts.listen);
  } catch (error) {
    await stop();
    throw error;
  }
  teller.start();
  runner.resume();
  garbage.collect();
  membership.announceLosses();
  notReady = undefined;
  log.info(
    { url, cluster: catalog.view.cluster?.clusterId, volumes: catalog.view.volumes.size },
    'directory',
  );
  return { ready: { document: { ready: true, directory: url }, sentence: `ready ${url}` }, stop };
}

/** Once, with the catalog. */
async function nameCluster(catalog: Catalog): Promise<void> {
  await catalog.change((draft) => {
    if (draft.view.cluster !== undefined) return;
    draft.putCluster({ clusterId: randomUUID(), createdAt: draft.now });
  });
}
