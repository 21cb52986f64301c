/**
 * A gateway: virtual volumes over NBD, from what storage systems keep.
 *
 * It starts and serves while the directory is away, from the second information of its data folder. Another cluster's directory
 * ends the start; one that turns up later is not listened to, and what is served is served on.
 */

import { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { GatewayName, SiteName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { formatListenUri, type ListenAddress, parseListenUri } from '../model/nbd-uri.ts';
import type { Service } from '../model/service.ts';
import { listenHttp, listenNbd } from '../runtime/listen.ts';
import { openDataFolder } from '../storage/data-folder.ts';
import { createDataPlane, type Front, growAt, logInAt } from './data-plane.ts';
import { WatchedKnowledge } from './knowledge.ts';
import { createManagement } from './management.ts';
import { Membership } from './membership.ts';
import { isUnwanted, Registration } from './registration.ts';
import { createWorkers } from './workers.ts';

export interface GatewayOptions {
  readonly name: GatewayName;
  readonly site: SiteName;
  readonly dataFolder: string;
  readonly listen: readonly ListenAddress[];
  readonly manage: { readonly host: string; readonly port: number };
  readonly directoryUrl: string;
  /** The host that others are told, instead of those that are listened on. */
  readonly advertise?: string;
  readonly workers: number;
  /** How long requests wait for a storage system that is away (default 30,000). */
  readonly reconnectMs?: number;
  /** Connections to each real volume (default 2). */
  readonly connections?: number;
  readonly log: Log;
}

const RECONNECT_MS = 30_000;
const CONNECTIONS = 2;
/** How long the start waits for the directory; what it has not said by then is used when it comes. */
const START_MS = 2_000;

/** @throws UsageError, StoreError, ControlError ('wrong-cluster', 'wrong-identity') */
export async function startGateway(options: GatewayOptions): Promise<Service> {
  await using begun = new AsyncDisposableStack(); // in reverse order, also when the start fails half-way
  const service = await start(options, begun);
  const running = begun.move();
  let stopping: Promise<void> | undefined;
  return {
    ready: service,
    stop: () => {
      stopping ??= running.disposeAsync();
      return stopping;
    },
  };
}

async function start(options: GatewayOptions, begun: AsyncDisposableStack): Promise<Service['ready']> {
  const { name, site, log, manage } = options;
  const folder = begun.adopt(await openDataFolder(options.dataFolder, { role: 'gateway', name }), (one) =>
    one.close(),
  );
  const directory = new DirectoryClient(options.directoryUrl);
  const membership = begun.adopt(await Membership.open(folder, log), (one) => one.close());
  const knowledge = begun.adopt(
    new WatchedKnowledge({ directory, membership, log }, await membership.load()),
    (one) => one.stop(),
  );
  const isThere = await refuseOtherCluster(directory, membership);
  knowledge.start();
  const { workers } = options;
  const moving = {
    grow: growAt(directory),
    logIn: logInAt(directory, name, log),
    connections: options.connections ?? CONNECTIONS,
    reconnectMs: options.reconnectMs ?? RECONNECT_MS,
    log,
  };
  if (isThere) await knowledge.until(() => knowledge.isWatching, START_MS);
  const front = begun.adopt(
    workers > 1
      ? createWorkers({ knowledge, workers, ...moving })
      : createDataPlane({ knowledge, ...moving }),
    (one) => one.stop(),
  );
  const management = createManagement({
    knowledge,
    log,
    hostsOf: (volume) => front.hostsOf(volume),
    figures: () => front.figures(),
  });
  begun.defer(() => management.close());
  const manageUrl = advertisedUrl(await listenHttp(management, manage), options.advertise);
  const uris = await listenAll(front, options);
  const registration = begun.adopt(
    new Registration({
      name,
      directory,
      membership,
      log,
      report: () => ({
        site,
        id: folder.id,
        uris,
        manage: manageUrl,
        revision: knowledge.information?.revision ?? 0,
        hosts: front.figures().hosts,
      }),
    }),
    (one) => one.stop(),
  );
  registration.start(await firstReport(registration));
  log.info({ uris, manage: manageUrl, folder: folder.path }, 'gateway is ready');
  return { document: { ready: true, uris, manage: manageUrl }, sentence: `ready ${uris.join(' ')}` };
}

/** Whether the directory answers. @throws ControlError 'wrong-cluster' */
async function refuseOtherCluster(directory: DirectoryClient, membership: Membership): Promise<boolean> {
  let clusterId: string;
  try {
    ({ clusterId } = await inTime(directory.cluster()));
  } catch (error) {
    if (error instanceof ControlError) return false;
    throw error;
  }
  await membership.join(clusterId);
  return true;
}

/** @returns in how many ms the next one is due. @throws ControlError when this gateway is not wanted */
async function firstReport(registration: Registration): Promise<number> {
  try {
    return await inTime(registration.report());
  } catch (error) {
    if (!(error instanceof ControlError) || isUnwanted(error)) throw error;
    return 0;
  }
}

async function inTime<T>(answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const error = new ControlError('unreachable', 'the directory does not answer');
    timer = setTimeout(() => reject(error), START_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function listenAll(front: Front, { listen, advertise }: GatewayOptions): Promise<string[]> {
  const uris: string[] = [];
  for (const address of listen) {
    const uri = await listenNbd(front, address);
    const bound = parseListenUri(uri);
    const isTold = advertise !== undefined && 'host' in bound;
    uris.push(isTold ? formatListenUri({ host: advertise, port: bound.port }) : uri);
  }
  return uris;
}

function advertisedUrl(url: string, advertise: string | undefined): string {
  if (advertise === undefined) return url;
  const told = new URL(url);
  told.hostname = advertise.includes(':') ? `[${advertise}]` : advertise;
  return told.origin;
}
