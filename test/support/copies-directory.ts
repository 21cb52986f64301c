/**
 * A directory as far as copy groups go, over real HTTP and with the real rules for a record (replication/group-rules.ts): it takes the
 * reports of storage systems, records pairs, grants leases, and tells members their groups until they have answered.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import {
  type CopyRecord,
  SegmentRecord,
  StorageRecord,
  type VolumeRecord,
} from '../../src/control-protocol/catalog.ts';
import {
  DiscardReport,
  type GroupView,
  LeaseAnswer,
  LeaseRequest,
  PairReport,
  Recorded,
} from '../../src/control-protocol/copy-groups.ts';
import { Registered, StorageReport } from '../../src/control-protocol/directory-api.ts';
import { type RealVolumeId, StorageName, VolumeName } from '../../src/control-protocol/names.ts';
import { StorageClient } from '../../src/control-protocol/peers-client.ts';
import { ControlError } from '../../src/model/errors.ts';
import {
  failedOver,
  groupConfigOf,
  leaseHolds,
  nextEpoch,
  recordPair,
  switched,
  switchTarget,
  withCopy,
  withoutCopy,
} from '../../src/replication/group-rules.ts';
import { createHttpServer, type HttpServer } from '../../src/runtime/http-server.ts';
import { listenHttp } from '../../src/runtime/listen.ts';
import { silentLog } from './log.ts';
import { CLUSTER, KEY } from './storage-system.ts';

export const VOLUME = VolumeName.parse('data');
const RETRY_MS = 50;

export interface CopiesDirectoryOptions {
  readonly leaseMs?: number;
  readonly fence?: VolumeRecord['fence'];
}

export class CopiesDirectory implements AsyncDisposable {
  segment: SegmentRecord | undefined;
  readonly storage = new Map<string, StorageRecord>();
  readonly discards: DiscardReport[] = [];
  readonly leases: LeaseRequest[] = [];
  /** Reports of pairs and questions about leases are not answered. */
  isAway = false;
  readonly #leaseMs: number;
  readonly #fence: VolumeRecord['fence'];
  #revision = 1;
  #server: HttpServer | undefined;
  #url = '';
  readonly #stopped = new AbortController();
  readonly #telling = new Set<Promise<void>>();

  constructor({ leaseMs = 1_000, fence = 'never' }: CopiesDirectoryOptions = {}) {
    this.#leaseMs = leaseMs;
    this.#fence = fence;
  }

  get url(): string {
    return this.#url;
  }

  async start(): Promise<this> {
    const server = createHttpServer({ title: 'directory', log: silentLog, notReady: () => undefined });
    server.after(() => this.#route(server));
    this.#server = server;
    this.#url = await listenHttp(server, { host: '127.0.0.1', port: 0 });
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stopped.abort();
    await Promise.all(this.#telling);
    await this.#server?.close();
  }

  // --- what an administrator does --------------------------------------------------------------------------

  /** The group, its primary first. All others are new. */
  async make(copies: readonly { storage: string; realVolume: RealVolumeId }[], sizeBytes: number): Promise<void> {
    const [primary, ...others] = copies.map((copy) => newCopyOf(copy.storage, copy.realVolume));
    this.segment = SegmentRecord.parse({
      ...{ offset: 0, length: sizeBytes, epoch: 1, isHandedOver: true, isGrouped: true },
      copies: [{ ...primary, role: 'primary', pair: 'simplex', mode: 'normal' }],
    });
    for (const other of others) this.segment = withCopy(this.segment, other);
    await this.tell();
  }

  /** Changes the record, and tells everybody, which goes on after this has returned for who is away. */
  change(change: (segment: SegmentRecord) => SegmentRecord): void {
    this.segment = change(this.#there());
    this.#revision += 1;
    for (const { realVolume } of this.segment.copies) this.#tellSoon(realVolume);
  }

  /** All that are there now; rejects when one does not answer. */
  async tell(): Promise<GroupView[]> {
    this.#revision += 1;
    return Promise.all(this.#there().copies.map(({ realVolume }) => this.#tellOne(realVolume)));
  }

  async switchTo(member: RealVolumeId): Promise<void> {
    const segment = this.#there();
    switchTarget(segment, member);
    const primary = this.copy((copy) => copy.role === 'primary');
    const epoch = nextEpoch(segment);
    await this.client(primary.storage).handOver(primary.realVolume, { epoch, to: member }, 5_000);
    this.change((now) => switched(now, member));
  }

  failOver(member: RealVolumeId, force = false): void {
    this.change((segment) => failedOver(segment, member, force));
  }

  remove(member: RealVolumeId): void {
    this.change((segment) => withoutCopy(segment, member));
  }

  copy(which: (copy: CopyRecord) => boolean): CopyRecord {
    const copy = this.#there().copies.find(which);
    if (copy === undefined) throw new Error('there is no such copy');
    return copy;
  }

  pairOf(member: RealVolumeId): string {
    return this.copy(({ realVolume }) => realVolume === member).pair;
  }

  client(storage: string): StorageClient {
    const record = this.storage.get(storage);
    if (record === undefined) throw new Error(`storage system ${storage} has not been heard of`);
    return new StorageClient(record.name, record.manage);
  }

  #there(): SegmentRecord {
    if (this.segment === undefined) throw new Error('there is no group yet');
    return this.segment;
  }

  #tellOne(member: RealVolumeId): Promise<GroupView> {
    const settings = { leaseMs: this.#leaseMs, copyBytesPerSecond: 0 };
    const volume = { name: VOLUME, fence: this.#fence };
    const config = groupConfigOf(volume, this.#there(), this.storage, this.#revision, settings);
    const { storage } = this.copy(({ realVolume }) => realVolume === member);
    return this.client(storage).configureGroup(member, config);
  }

  #tellSoon(member: RealVolumeId): void {
    const telling = this.#tellUntilAnswered(member, this.#revision).finally(() => this.#telling.delete(telling));
    this.#telling.add(telling);
  }

  async #tellUntilAnswered(member: RealVolumeId, revision: number): Promise<void> {
    while (!this.#stopped.signal.aborted && this.#revision === revision) {
      try {
        await this.#tellOne(member);
        return;
      } catch (error) {
        if (!(error instanceof ControlError)) throw error;
        await sleep(RETRY_MS);
      }
    }
  }

  // --- what storage systems ask for ------------------------------------------------------------------------

  #route(server: HttpServer): void {
    const params = z.object({ name: StorageName });
    server.put(
      '/storage/:name',
      { schema: { params, body: StorageReport, response: { 200: Registered } } },
      ({ params: { name }, body }) => {
        const before = this.storage.get(name);
        const record = StorageRecord.parse({ ...body, name });
        this.storage.set(name, record);
        const hasMoved = before?.manage !== record.manage || before.peer.port !== record.peer.port;
        if (this.segment !== undefined && hasMoved) this.change((segment) => segment);
        return { clusterId: CLUSTER, leaseMs: 1_000 };
      },
    );
    server.post('/pairs', { schema: { body: PairReport, response: { 200: Recorded } } }, ({ body }) => {
      this.#refuseAway();
      const before = this.#there();
      const after = recordPair(before, body);
      if (after !== before) this.change(() => after);
      const copy = after.copies.find(({ realVolume }) => realVolume === body.member);
      return { revision: this.#revision, pairRevision: copy?.pairRevision ?? 0 };
    });
    server.post('/leases', { schema: { body: LeaseRequest, response: { 200: LeaseAnswer } } }, ({ body }) => {
      this.#refuseAway();
      this.leases.push(body);
      const segment = this.#there();
      return { granted: body.leases.map(({ realVolume, epoch }) => leaseHolds(segment, realVolume, epoch)) };
    });
    server.post('/discards', { schema: { body: DiscardReport } }, ({ body }, reply) => {
      this.discards.push(body);
      return reply.status(204).send();
    });
  }

  #refuseAway(): void {
    if (this.isAway) throw new ControlError('unavailable', 'it is away');
  }
}

function newCopyOf(storage: string, realVolume: RealVolumeId) {
  return { storage: StorageName.parse(storage), realVolume, realOffset: 0, accessKey: KEY, file: null };
}
