/**
 * The directory's HTTP API over tables in memory, with the same server and the same schemas: for tests of who asks it. It can
 * be stopped and started again on its port, say what the test wants of operations, and hold event streams open.
 */

import { randomBytes, randomUUID } from 'node:crypto';
import type { ServerResponse } from 'node:http';
import { z } from 'zod';
import {
  EventRecord,
  InformationChange,
  OperationRecord,
  SecondInformation,
} from '../../src/control-protocol/catalog.ts';
import {
  ClusterView,
  CreateVolume,
  Location,
  RepairView,
  ResizeVolume,
  StatusView,
  StorageView,
  VolumeSummary,
  VolumeView,
} from '../../src/control-protocol/directory-api.ts';
import { Bytes, OperationId, StorageName, VolumeName } from '../../src/control-protocol/names.ts';
import { ControlError } from '../../src/model/errors.ts';
import { createHttpServer, type HttpServer } from '../../src/runtime/http-server.ts';
import { listenHttp } from '../../src/runtime/listen.ts';
import { addCopy, routeCopies } from './directory-double-copies.ts';
import { freePort } from './ports.ts';

const MADE_AT = '2026-11-21T12:00:00.000Z';
const silent = { debug() {}, info() {}, warn() {}, error() {} };
const ByVolume = z.object({ name: VolumeName });

type Ending = { readonly code: string; readonly message: string } | 'done';

export class DirectoryDouble {
  clusterId: string = randomUUID();
  readonly volumes = new Map<string, VolumeView>();
  readonly storage = new Map<string, StorageView>();
  readonly events: EventRecord[] = [];
  readonly operations = new Map<string, OperationRecord>();
  /** What was asked, as `PATCH /volumes/db {"sizeBytes":…}`. */
  readonly asked: string[] = [];
  gatewayUris: string[] = ['nbd://127.0.0.1:10809'];
  /** How operations end; undefined: not yet. */
  ending: Ending | undefined = 'done';
  /** What a repair comes to. */
  repair: Omit<RepairView, 'volume'> = { repaired: [], remaining: [] };
  #server: HttpServer | undefined;
  #port = 0;
  readonly #streams = new Set<ServerResponse>();

  constructor() {
    for (const [name, site] of [
      ['east-1', 'east'],
      ['west-1', 'west'],
    ] as const) {
      this.storage.set(name, storageView(name, site));
    }
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get streams(): number {
    return this.#streams.size;
  }

  async start(): Promise<void> {
    const server = createHttpServer({ title: 'double', log: silent, notReady: () => undefined });
    this.#server = server;
    server.addHook('preHandler', async ({ method, url, body }) => {
      this.asked.push(
        `${method} ${url}${body === undefined || body === null ? '' : ` ${JSON.stringify(body)}`}`,
      );
    });
    server.after(() => {
      this.#routeVolumes(server);
      this.#routeTheRest(server);
      this.#routeStreams(server);
      routeCopies(server, this);
    });
    this.#port ||= await freePort();
    await listenHttp(server, { host: '127.0.0.1', port: this.#port });
  }

  async stop(): Promise<void> {
    await this.#server?.close();
    this.#server = undefined;
  }

  /** Something happens. */
  happen(kind: string, subject: string, text = `${subject} ${kind}`): EventRecord {
    const event = { id: this.events.length + 1, at: MADE_AT, kind, subject, text, details: {} };
    this.events.push(event);
    for (const stream of this.#streams) writeEvent(stream, event);
    return event;
  }

  /** An operation that waits ends. */
  finishOperations(): void {
    for (const [id, operation] of this.operations) this.operations.set(id, ended(operation, this.ending));
  }

  addVolume(name: string, size: number, segments: NonNullable<CreateVolume['segments']> = []): VolumeView {
    const placed = segments.length > 0 ? segments : [{ storage: StorageName.parse('east-1') }];
    const length = size / placed.length;
    const volume = VolumeView.parse({
      ...{ name, size, epoch: 1, state: 'ready', group: null, migrations: [], operation: null },
      createdAt: MADE_AT,
      uris: this.gatewayUris.map((uri) => `${uri}/${encodeURIComponent(name)}`),
      segments: placed.map(({ storage }, index) => ({
        ...{ offset: index * length, length, epoch: 1 },
        copies: [copyView(storage)],
      })),
    });
    this.volumes.set(name, volume);
    return volume;
  }

  volume(name: string): VolumeView {
    const volume = this.volumes.get(name);
    if (volume === undefined) throw new ControlError('not-found', `there is no volume ${name}`);
    return volume;
  }

  begin(kind: OperationRecord['kind'], volume: string, result: object | null = null): OperationRecord {
    const operation = OperationRecord.parse({
      ...{ id: `op-${randomBytes(8).toString('hex')}`, kind, volume, state: 'running', step: 'first' },
      ...{ input: {}, result, error: null, createdAt: MADE_AT, finishedAt: null },
    });
    this.operations.set(operation.id, ended(operation, this.ending));
    return operation;
  }

  #routeVolumes(server: HttpServer): void {
    server.get('/volumes', { schema: { response: { 200: z.array(VolumeSummary) } } }, () =>
      [...this.volumes.values()].map((volume) => ({
        ...volume,
        segments: volume.segments.length,
        storage: volume.segments.flatMap(({ copies }) => copies.map(({ storage }) => storage)),
      })),
    );
    server.post(
      '/volumes',
      { schema: { body: CreateVolume, response: { 202: OperationRecord } } },
      async ({ body }, reply) => {
        if (this.volumes.has(body.name))
          throw new ControlError('exists', `there is a volume ${body.name} already`);
        if (this.ending === 'done') {
          this.addVolume(body.name, body.sizeBytes, body.segments);
          for (const storage of body.copies ?? []) addCopy(this, body.name, storage, 'duplex');
        }
        reply.status(202);
        return this.begin('create-volume', body.name);
      },
    );
    const one = { schema: { params: ByVolume, response: { 200: VolumeView } } };
    server.get('/volumes/:name', one, ({ params }) => this.volume(params.name));
    server.patch(
      '/volumes/:name',
      { schema: { params: ByVolume, body: ResizeVolume, response: { 202: OperationRecord } } },
      async ({ params, body }, reply) => {
        const volume = this.volume(params.name);
        if (body.sizeBytes < volume.size && !body.allowShrink) {
          throw new ControlError('conflict', `volume ${params.name} is larger than that`);
        }
        this.volumes.set(params.name, { ...volume, size: body.sizeBytes });
        reply.status(202);
        return this.begin('resize-volume', params.name);
      },
    );
    const removal = { params: ByVolume, querystring: z.object({ force: z.stringbool() }) };
    server.delete(
      '/volumes/:name',
      { schema: { ...removal, response: { 202: OperationRecord } } },
      async ({ params }, reply) => {
        this.volume(params.name);
        this.volumes.delete(params.name);
        reply.status(202);
        return this.begin('delete-volume', params.name);
      },
    );
    server.post(
      '/volumes/:name/repair',
      { schema: { params: ByVolume, response: { 200: RepairView } } },
      ({ params }) => ({ volume: this.volume(params.name).name, ...this.repair }),
    );
    const range = z.object({ offset: z.coerce.number().optional(), length: z.coerce.number().optional() });
    server.get(
      '/volumes/:name/location',
      { schema: { params: ByVolume, querystring: range, response: { 200: z.array(Location) } } },
      ({ params, query }) => {
        const { offset = 0, length = this.volume(params.name).size - offset } = query;
        return [Location.parse({ ...copyView('east-1'), offset, length, uri: 'nbd://127.0.0.1:1/rv' })];
      },
    );
  }

  #routeTheRest(server: HttpServer): void {
    server.get('/cluster', { schema: { response: { 200: ClusterView } } }, () => ({
      ...{ clusterId: this.clusterId, revision: 1, version: '0' },
    }));
    server.get('/status', { schema: { response: { 200: StatusView } } }, () => this.#status());
    server.get('/storage', { schema: { response: { 200: z.array(StorageView) } } }, () => [
      ...this.storage.values(),
    ]);
    server.get(
      '/storage/:name',
      { schema: { params: z.object({ name: StorageName }), response: { 200: StorageView } } },
      ({ params }) => {
        const view = this.storage.get(params.name);
        if (view === undefined)
          throw new ControlError('not-found', `there is no storage system ${params.name}`);
        return view;
      },
    );
    server.get(
      '/operations/:id',
      { schema: { params: z.object({ id: OperationId }), response: { 200: OperationRecord } } },
      ({ params }) => {
        const operation = this.operations.get(params.id);
        if (operation === undefined)
          throw new ControlError('not-found', `there is no operation ${params.id}`);
        return operation;
      },
    );
  }

  #status(): StatusView {
    const volumes = [...this.volumes.values()];
    const bytes = volumes.reduce((sum, { size }) => sum + size, 0);
    const suspended = volumes
      .filter(({ segments }) =>
        segments.some(({ copies }) => copies.some(({ pair }) => pair === 'suspended')),
      )
      .map(({ name }) => name);
    const degraded = [...this.storage.values()].some(({ state }) => state === 'offline');
    return StatusView.parse({
      ...{ clusterId: this.clusterId, revision: 1, health: degraded ? 'degraded' : 'ok' },
      ...{ storage: [...this.storage.values()], gateways: [], operations: [] },
      volumes: { count: volumes.length, bytes, notReady: [], suspended },
    });
  }

  #routeStreams(server: HttpServer): void {
    const since = z.object({
      since: z.coerce.number().optional(),
      limit: z.coerce.number().min(1).optional(),
    });
    const after = { schema: { querystring: since, response: { 200: z.array(EventRecord) } } };
    server.get('/events', after, ({ query: { since, limit = 1000 } }) =>
      since === undefined ? this.events.slice(-limit) : this.events.slice(since, since + limit),
    );
    server.get('/events/stream', { schema: { querystring: since } }, ({ query }, reply) => {
      reply.hijack();
      this.#stream(reply.raw);
      for (const event of this.events.slice(query.since ?? this.events.length)) writeEvent(reply.raw, event);
    });
    server.get('/watch', (_request, reply) => {
      reply.hijack();
      this.#stream(reply.raw);
      const { clusterId } = this;
      const snapshot = SecondInformation.parse({ clusterId, revision: 1, volumes: [], storage: [] });
      reply.raw.write(`event: snapshot\ndata: ${JSON.stringify(snapshot)}\n\n`);
      const none = { volumes: [], removedVolumes: [], storage: [], removedStorage: [] };
      const change = InformationChange.parse({ revision: 2, ...none });
      reply.raw.write(`event: change\ndata: ${JSON.stringify(change)}\n\n`);
    });
  }

  #stream(response: ServerResponse): void {
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(': hello\n\n');
    this.#streams.add(response);
    response.on('close', () => this.#streams.delete(response));
  }
}

function writeEvent(stream: ServerResponse, event: EventRecord): void {
  stream.write(`event: event\nid: ${event.id}\ndata: ${JSON.stringify(event)}\n\n`);
}

function ended(operation: OperationRecord, ending: Ending | undefined): OperationRecord {
  if (ending === undefined || operation.state !== 'running') return operation;
  const finished = { ...operation, finishedAt: MADE_AT };
  if (ending === 'done') return { ...finished, state: 'done' };
  return { ...finished, state: 'failed', error: ending };
}

export function copyView(storage: string) {
  return {
    ...{ storage, site: 'east', realVolume: 'rv-0123456789abcdef', realOffset: 0, role: 'primary' },
    ...{
      pair: 'simplex',
      mode: 'normal',
      file: '/srv/rv.raw',
      reason: null,
      outOfSyncBytes: 0,
      outOfSyncKnown: true,
    },
    lag: { entries: 0, bytes: 0, seconds: 0 },
  };
}

function storageView(name: string, site: string): StorageView {
  const GiB = 2 ** 30;
  return StorageView.parse({
    ...{ name, site, id: randomUUID(), state: 'online', lastSeenAt: MADE_AT, uri: 'nbd://127.0.0.1:1' },
    ...{
      nbd: { host: '127.0.0.1', port: 1 },
      peer: { host: '127.0.0.1', port: 2 },
      manage: 'http://127.0.0.1:3',
    },
    ...{ capacityBytes: 100 * GiB, provisionedBytes: Bytes.parse(GiB), freeBytes: 99 * GiB, usedBytes: 4096 },
    ...{ folder: `/srv/${name}`, realVolumes: 1, failed: [] },
  });
}
