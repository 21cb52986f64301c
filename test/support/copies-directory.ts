/** A directory as far as copy groups go, over real HTTP: GroupDesk, and what storage systems report. */

import { z } from 'zod';
import { StorageRecord } from '../../src/control-protocol/catalog.ts';
import {
  DiscardReport,
  LeaseAnswer,
  LeaseRequest,
  PairReport,
  Recorded,
} from '../../src/control-protocol/copy-groups.ts';
import { Registered, StorageReport } from '../../src/control-protocol/directory-api.ts';
import { StorageName } from '../../src/control-protocol/names.ts';
import { StorageClient } from '../../src/control-protocol/peers-client.ts';
import { createHttpServer, type HttpServer } from '../../src/runtime/http-server.ts';
import { listenHttp } from '../../src/runtime/listen.ts';
import { type DeskOptions, GroupDesk } from './group-desk.ts';
import { silentLog } from './log.ts';
import { CLUSTER } from './storage-system.ts';

const HAND_OVER_MS = 5_000;

export class CopiesDirectory implements AsyncDisposable {
  readonly desk: GroupDesk;
  readonly storage = new Map<string, StorageRecord>();
  readonly url: string;
  readonly #server: HttpServer;

  private constructor(server: HttpServer, url: string, options: Omit<DeskOptions, 'members' | 'storage'>) {
    this.#server = server;
    this.url = url;
    this.desk = new GroupDesk({
      ...options,
      storage: this.storage,
      members: {
        configure: ({ storage, realVolume }, config) =>
          this.client(storage).configureGroup(realVolume, config),
        handOver: ({ storage, realVolume }, body) =>
          this.client(storage).handOver(realVolume, body, HAND_OVER_MS),
      },
    });
  }

  static async start(options: Omit<DeskOptions, 'members' | 'storage'> = {}): Promise<CopiesDirectory> {
    const server = createHttpServer({ title: 'directory', log: silentLog, notReady: () => undefined });
    let directory: CopiesDirectory | undefined;
    server.after(() => addRoutes(server, () => directory as CopiesDirectory));
    const url = await listenHttp(server, { host: '127.0.0.1', port: 0 });
    directory = new CopiesDirectory(server, url, options);
    return directory;
  }

  client(storage: string): StorageClient {
    const record = this.storage.get(storage);
    if (record === undefined) throw new Error(`storage system ${storage} has not been heard of`);
    return new StorageClient(record.name, record.manage);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.desk.stop();
    await this.#server.close();
  }
}

function addRoutes(server: HttpServer, directory: () => CopiesDirectory): void {
  const desk = () => directory().desk;
  const params = z.object({ name: StorageName });
  server.put(
    '/storage/:name',
    { schema: { params, body: StorageReport, response: { 200: Registered } } },
    ({ params: { name }, body }) => {
      const { storage } = directory();
      const before = storage.get(name);
      const record = StorageRecord.parse({ ...body, name });
      storage.set(name, record);
      if (before !== undefined && before.manage !== record.manage) desk().moved();
      return { clusterId: CLUSTER, leaseMs: 1_000 };
    },
  );
  server.post('/pairs', { schema: { body: PairReport, response: { 200: Recorded } } }, ({ body }) =>
    desk().reportPair(body),
  );
  server.post('/leases', { schema: { body: LeaseRequest, response: { 200: LeaseAnswer } } }, ({ body }) =>
    desk().renewLeases(body),
  );
  server.post('/discards', { schema: { body: DiscardReport } }, async ({ body }, reply) => {
    await desk().reportDiscard(body);
    return reply.status(204).send();
  });
}
