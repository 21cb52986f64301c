/** The directory's API: each route calls what does it, and nothing else. */

import type { ServerResponse } from 'node:http';
import { directoryRoutes as routes } from '../control-protocol/directory-routes.ts';
import { assert, ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { HttpServer } from '../runtime/http-server.ts';
import { provisionedBytes } from './capacity.ts';
import type { Catalog } from './catalog.ts';
import { eventMessages, informationMessages } from './information.ts';
import type { Membership } from './membership.ts';
import type { NewerEpochs } from './newer-epochs.ts';
import { finishedOperation } from './operations/wait.ts';
import type { Peers } from './peers.ts';
import { type Message, streamMessages } from './sse.ts';
import {
  gatewayViews,
  locations,
  shownOperation,
  statusView,
  storageRecordAsked,
  storageView,
  storageViews,
  volumeRecord,
  volumeSummaries,
} from './views.ts';
import { repairVolume } from './volume-repair.ts';
import type { VolumeRequests } from './volume-requests.ts';
import { volumeView } from './volume-view.ts';

/** Watches and followers of events, together. */
const STREAMS_MAX = 1_000;

export interface RoutesOptions {
  readonly catalog: Catalog;
  readonly membership: Membership;
  readonly requests: VolumeRequests;
  readonly newerEpochs: NewerEpochs;
  readonly peers: Peers;
  readonly version: string;
  readonly log: Log;
}

/** @returns how many event streams there are. */
export function addRoutes(server: HttpServer, options: RoutesOptions): () => number {
  server.after(() => {
    addClusterRoutes(server, options);
    addVolumeRoutes(server, options);
    addPeerRoutes(server, options);
  });
  let streams = 0;
  const stream = (
    reply: { hijack(): unknown; raw: ServerResponse },
    messages: (signal: AbortSignal) => AsyncIterable<Message>,
  ): void => {
    if (streams >= STREAMS_MAX) throw new ControlError('unavailable', 'there are too many event streams');
    streams += 1;
    reply.hijack();
    streamMessages(reply.raw, messages, options).finally(() => {
      streams -= 1;
    });
  };
  server.after(() => addStreamRoutes(server, options, stream));
  return () => streams;
}

function addClusterRoutes(server: HttpServer, options: RoutesOptions): void {
  const { catalog, membership, newerEpochs, version } = options;
  const { view } = catalog;
  server.get('/cluster', { schema: routes.cluster }, () => {
    assert(view.cluster !== undefined, 'a cluster has its id');
    return { clusterId: view.cluster.clusterId, revision: view.informationRevision, version };
  });
  server.get('/status', { schema: routes.status }, () => statusView(view, membership, newerEpochs));
  server.get('/operations', { schema: routes.operations }, () =>
    [...view.operations.values()].sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1)).map(shownOperation),
  );
  server.get('/operations/:id', { schema: routes.operation }, async ({ params, query }) =>
    shownOperation(await finishedOperation(catalog, params.id, query.waitMs)),
  );
  server.get('/events', { schema: routes.events }, ({ query: { since, limit } }) => {
    if (since === undefined) return limit === 0 ? [] : view.events.slice(-limit);
    const first = view.events[0]?.id ?? 1;
    const from = Math.max(0, since + 1 - first);
    return view.events.slice(from, from + limit);
  });
}

function addVolumeRoutes(server: HttpServer, options: RoutesOptions): void {
  const { catalog, requests, newerEpochs, peers } = options;
  const { view } = catalog;
  server.get('/volumes', { schema: routes.volumes }, () => volumeSummaries(view));
  server.post('/volumes', { schema: routes.createVolume }, async ({ body }, reply) =>
    reply.status(202).send(shownOperation(await requests.create(body))),
  );
  server.get('/volumes/:name', { schema: routes.volume }, ({ params }) =>
    volumeView(volumeRecord(view, params.name), { view, peers, newerEpochs }),
  );
  server.patch('/volumes/:name', { schema: routes.resizeVolume }, async ({ params, body }, reply) =>
    reply.status(202).send(shownOperation(await requests.resize(params.name, body))),
  );
  server.delete('/volumes/:name', { schema: routes.deleteVolume }, async ({ params, query }, reply) =>
    reply.status(202).send(shownOperation(await requests.delete(params.name, query.force))),
  );
  server.post('/volumes/:name/repair', { schema: routes.repairVolume }, ({ params }) =>
    repairVolume(volumeRecord(view, params.name), { catalog, peers }),
  );
  server.get('/volumes/:name/location', { schema: routes.location }, ({ params, query }) =>
    locations(view, volumeRecord(view, params.name), query),
  );
  server.get('/volumes/:name/record', { schema: routes.volumeRecord }, ({ params }) =>
    volumeRecord(view, params.name),
  );
}

function addPeerRoutes(server: HttpServer, { catalog, membership }: RoutesOptions): void {
  const { view } = catalog;
  server.get('/storage', { schema: routes.storageSystems }, () => storageViews(view, membership));
  server.get('/storage/:name', { schema: routes.storageSystem }, ({ params }) =>
    storageView(storageRecordAsked(view, params.name), membership, provisionedBytes(view)),
  );
  server.put('/storage/:name', { schema: routes.reportStorage }, ({ params, body }) =>
    membership.reportStorage(params.name, body),
  );
  server.post('/storage/:name/claim', { schema: routes.claimStorage }, ({ params, body }) =>
    membership.claimStorage(params.name, body),
  );
  server.get('/gateways', { schema: routes.gateways }, () => gatewayViews(view, membership));
  server.put('/gateways/:name', { schema: routes.reportGateway }, ({ params, body }) =>
    membership.reportGateway(params.name, body),
  );
}

function addStreamRoutes(
  server: HttpServer,
  { catalog }: RoutesOptions,
  stream: (
    reply: { hijack(): unknown; raw: ServerResponse },
    messages: (signal: AbortSignal) => AsyncIterable<Message>,
  ) => void,
): void {
  server.get('/events/stream', { schema: routes.followEvents }, ({ query }, reply) =>
    stream(reply, (signal) => eventMessages(catalog, query.since, signal)),
  );
  server.get('/watch', { schema: routes.watch }, (_request, reply) =>
    stream(reply, (signal) => informationMessages(catalog, signal)),
  );
}
