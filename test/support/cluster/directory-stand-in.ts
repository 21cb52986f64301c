/**
 * The parts of a directory that a gateway speaks with, over real HTTP, from records that the test puts in. What an operation does
 * is the test's to say.
 */

import { randomUUID } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { OperationRecord, StorageRecord, VolumeRecord } from '../../../src/control-protocol/catalog.ts';
import type { GatewayReport } from '../../../src/control-protocol/directory-api.ts';
import { freePort } from '../ports.ts';

type Answer = readonly [status: number, body: unknown];

export class DirectoryStandIn {
  readonly clusterId: string;
  readonly volumes = new Map<string, VolumeRecord>();
  readonly storage = new Map<string, StorageRecord>();
  /** The last report of each gateway. */
  readonly reports = new Map<string, GatewayReport>();
  readonly leaseMs = 300;
  /** Nothing is told to watchers: they lag behind what is asked for. */
  muted = false;
  /** Reports of gateways are taken, and never answered. */
  hangs = false;
  /** Those that still wait. */
  hanging = 0;
  /** What a resize does; resolves with the operation's error, or null. */
  onResize: (name: string, sizeBytes: number) => Promise<OperationRecord['error']> = async () => null;
  /** What a log-in does before it is answered; a string is why it is refused. */
  onLogin: (name: string) => Promise<string | undefined> = async () => undefined;
  /** Log-ins so far: `VOLUME by GATEWAY`. */
  readonly logins: string[] = [];
  snapshots = 0;
  #revision = 1;
  #server: Server | undefined;
  #port = 0;
  readonly #watchers = new Set<ServerResponse>();
  readonly #operations = new Map<string, OperationRecord>();

  constructor(clusterId: string = randomUUID()) {
    this.clusterId = clusterId;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  /** On the same port each time, unless it is told another. */
  async start(port = this.#port): Promise<void> {
    const server = createServer((request, response) => void this.#serve(request, response));
    this.#port = port === 0 ? await freePort() : port;
    await new Promise<void>((resolve) => server.listen(this.#port, '127.0.0.1', resolve));
    this.#server = server;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    if (server === undefined) return;
    const closed = new Promise((resolve) => server.close(resolve));
    server.closeAllConnections();
    await closed;
  }

  putVolume(record: unknown): VolumeRecord {
    const volume = VolumeRecord.parse(record);
    this.volumes.set(volume.name, volume);
    this.#tell({ volumes: [volume] });
    return volume;
  }

  putStorage(record: unknown): void {
    const storage = StorageRecord.parse(record);
    this.storage.set(storage.name, storage);
    this.#tell({ storage: [storage] });
  }

  removeVolume(name: string): void {
    this.volumes.delete(name);
    this.#tell({ removedVolumes: [name] });
  }

  #tell(change: object): void {
    this.#revision += 1;
    if (this.muted) return;
    const nothing = { volumes: [], removedVolumes: [], storage: [], removedStorage: [] };
    for (const watcher of this.#watchers)
      send(watcher, 'change', { ...nothing, ...change, revision: this.#revision });
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', this.url);
    if (url.pathname === '/watch') {
      this.#watch(response);
      return;
    }
    const text: Buffer[] = [];
    for await (const chunk of request) text.push(chunk as Buffer);
    const body: unknown = text.length === 0 ? undefined : JSON.parse(Buffer.concat(text).toString());
    if (this.hangs && request.method === 'PUT') {
      this.hanging += 1;
      response.on('close', () => {
        this.hanging -= 1;
      });
      return;
    }
    const path = url.pathname.split('/').slice(1).map(decodeURIComponent);
    const [status, answer] =
      path[2] === 'login'
        ? await this.#logIn(path[1] ?? '', body)
        : this.#answer(request.method ?? 'GET', path, body);
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(answer));
  }

  #watch(response: ServerResponse): void {
    this.snapshots += 1;
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    const [volumes, storage] = [[...this.volumes.values()], [...this.storage.values()]];
    send(response, 'snapshot', { clusterId: this.clusterId, revision: this.#revision, volumes, storage });
    this.#watchers.add(response);
    response.on('close', () => this.#watchers.delete(response));
  }

  #answer(method: string, path: readonly string[], body: unknown): Answer {
    const [kind, name = '', detail] = path;
    const { clusterId, leaseMs } = this;
    const missing: Answer = [404, { error: { code: 'not-found', message: `there is no ${path.join('/')}` } }];
    if (kind === 'cluster') return [200, { clusterId, revision: this.#revision, version: '0' }];
    if (kind === 'gateways' && method === 'PUT') {
      this.reports.set(name, body as GatewayReport);
      return [200, { clusterId, leaseMs }];
    }
    if (kind === 'storage') {
      const record = this.storage.get(name);
      return record === undefined ? missing : [200, viewOf(record)];
    }
    if (kind === 'operations') return [200, this.#operations.get(name)];
    const volume = this.volumes.get(name);
    if (kind !== 'volumes' || volume === undefined) return missing;
    if (method === 'PATCH') return [202, this.#resize(volume, (body as { sizeBytes: number }).sizeBytes)];
    return detail === 'record' ? [200, volume] : missing;
  }

  async #logIn(name: string, body: unknown): Promise<Answer> {
    const { gateway } = body as { gateway: string };
    this.logins.push(`${name} by ${gateway}`);
    const refusal = await this.onLogin(name);
    if (refusal !== undefined) return [503, { error: { code: 'unavailable', message: refusal } }];
    return [200, { uri: `nbd://127.0.0.1:1/${name}`, site: 'east', gateway }];
  }

  #resize(volume: VolumeRecord, sizeBytes: number): OperationRecord {
    const operation = OperationRecord.parse({
      id: `op-${'0'.repeat(15)}${this.#operations.size}`,
      kind: 'resize-volume',
      volume: volume.name,
      state: 'running',
      step: 'grow',
      input: { sizeBytes },
      error: null,
      createdAt: new Date().toISOString(),
      finishedAt: null,
    });
    this.#operations.set(operation.id, operation);
    void this.onResize(volume.name, sizeBytes).then((error) => {
      this.#operations.set(operation.id, { ...operation, state: error === null ? 'done' : 'failed', error });
    });
    return operation;
  }
}

function send(response: ServerResponse, event: string, document: object): void {
  response.write(`event: ${event}\ndata: ${JSON.stringify(document)}\n\n`);
}

function viewOf(record: StorageRecord): object {
  return {
    ...record,
    state: 'online',
    lastSeenAt: new Date().toISOString(),
    uri: `nbd://${record.nbd.host}:${record.nbd.port}`,
    provisionedBytes: 0,
    freeBytes: 0,
    usedBytes: 0,
    realVolumes: 0,
    failed: [],
  };
}
