/** The directory's API as functions. All throw ControlError. */

import { z } from 'zod';
import {
  EventRecord,
  InformationChange,
  InterfaceRecord,
  OperationRecord,
  SecondInformation,
  VolumeRecord,
} from './catalog.ts';
import {
  type DiscardReport,
  LeaseAnswer,
  type LeaseRequest,
  type PairReport,
  Recorded,
} from './copy-groups.ts';
import {
  type AddCopy,
  ClusterView,
  ConsistencyGroupView,
  type CreateGroup,
  type CreateVolume,
  type FailOver,
  type GatewayReport,
  GatewayView,
  Location,
  type Login,
  LoginView,
  Registered,
  RepairView,
  type ResizeVolume,
  type SetInterface,
  StatusView,
  type StorageClaim,
  type StorageReport,
  StorageView,
  type SwitchCopy,
  VolumeSummary,
  VolumeView,
} from './directory-api.ts';
import { HttpClient, pathOf } from './http-client.ts';
import type { GatewayName, GroupName, InterfaceName, OperationId, StorageName, VolumeName } from './names.ts';

/** What the watch brings: everything first, then what changes. */
export type WatchMessage =
  | { readonly kind: 'snapshot'; readonly information: SecondInformation }
  | { readonly kind: 'change'; readonly change: InformationChange };

/** How long one request waits at the directory for an operation to finish. */
const WAIT_MS = 5_000;
/** A volume can have many real volumes, which are looked at one after the other. */
const REPAIR_MS_MAX = 60_000;
/** A log-in may wait for a switch. */
const LOGIN_MS_MAX = 60_000;

export class DirectoryClient {
  readonly url: string;
  readonly #http: HttpClient;

  /** `advice`: what a person can do when it cannot be reached. `timeoutMs` is for one request. */
  constructor(url: string, options: { readonly advice?: string; readonly timeoutMs?: number } = {}) {
    this.url = url;
    this.#http = new HttpClient({ url, who: 'the directory', ...options });
  }

  cluster(): Promise<ClusterView> {
    return this.#http.call(ClusterView, 'GET', '/cluster');
  }

  status(signal?: AbortSignal): Promise<StatusView> {
    return this.#http.call(StatusView, 'GET', '/status', signal === undefined ? {} : { signal });
  }

  volumes(): Promise<VolumeSummary[]> {
    return this.#http.call(z.array(VolumeSummary), 'GET', '/volumes');
  }

  volume(name: VolumeName): Promise<VolumeView> {
    return this.#http.call(VolumeView, 'GET', pathOf('volumes', name));
  }

  volumeRecord(name: VolumeName): Promise<VolumeRecord> {
    return this.#http.call(VolumeRecord, 'GET', pathOf('volumes', name, 'record'));
  }

  createVolume(body: CreateVolume): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'POST', '/volumes', { body });
  }

  resizeVolume(name: VolumeName, body: ResizeVolume): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'PATCH', pathOf('volumes', name), { body });
  }

  deleteVolume(name: VolumeName, force: boolean): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'DELETE', pathOf('volumes', name), { query: { force } });
  }

  /** What has failed of its real volumes is used again, if its files are whole. */
  repairVolume(name: VolumeName): Promise<RepairView> {
    const options = { timeoutMs: REPAIR_MS_MAX };
    return this.#http.call(RepairView, 'POST', `${pathOf('volumes', name)}/repair`, options);
  }

  location(name: VolumeName, range: { offset?: number; length?: number }): Promise<Location[]> {
    return this.#http.call(z.array(Location), 'GET', pathOf('volumes', name, 'location'), { query: range });
  }

  addCopy(name: VolumeName, body: AddCopy): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'POST', pathOf('volumes', name, 'copies'), { body });
  }

  removeCopy(name: VolumeName, storage: StorageName): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'DELETE', pathOf('volumes', name, 'copies', storage));
  }

  suspendCopy(name: VolumeName, storage: StorageName): Promise<OperationRecord> {
    const path = pathOf('volumes', name, 'copies', storage, 'suspend');
    return this.#http.call(OperationRecord, 'POST', path);
  }

  resyncCopy(name: VolumeName, storage: StorageName): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'POST', pathOf('volumes', name, 'copies', storage, 'resync'));
  }

  switchCopy(name: VolumeName, body: SwitchCopy): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'POST', pathOf('volumes', name, 'switch'), { body });
  }

  failOver(name: VolumeName, body: FailOver): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'POST', pathOf('volumes', name, 'failover'), { body });
  }

  /** Waits for the switch that it begins. */
  login(name: VolumeName, body: Login, signal?: AbortSignal): Promise<LoginView> {
    const options = { body, timeoutMs: LOGIN_MS_MAX, ...(signal && { signal }) };
    return this.#http.call(LoginView, 'POST', pathOf('volumes', name, 'login'), options);
  }

  interfaces(): Promise<InterfaceRecord[]> {
    return this.#http.call(z.array(InterfaceRecord), 'GET', '/interfaces');
  }

  setInterface(name: InterfaceName, body: SetInterface): Promise<InterfaceRecord> {
    return this.#http.call(InterfaceRecord, 'PUT', pathOf('interfaces', name), { body });
  }

  removeInterface(name: InterfaceName): Promise<void> {
    return this.#http.send('DELETE', pathOf('interfaces', name));
  }

  groups(): Promise<ConsistencyGroupView[]> {
    return this.#http.call(z.array(ConsistencyGroupView), 'GET', '/groups');
  }

  group(name: GroupName): Promise<ConsistencyGroupView> {
    return this.#http.call(ConsistencyGroupView, 'GET', pathOf('groups', name));
  }

  createGroup(body: CreateGroup): Promise<ConsistencyGroupView> {
    return this.#http.call(ConsistencyGroupView, 'POST', '/groups', { body });
  }

  /** @throws ControlError stale-epoch: another member is primary; conflict: not now, as copy-groups.ts says */
  reportPair(body: PairReport, signal?: AbortSignal): Promise<Recorded> {
    const options = { body, ...(signal && { signal }) };
    return this.#http.call(Recorded, 'POST', '/pairs', options);
  }

  renewLeases(body: LeaseRequest, signal?: AbortSignal): Promise<LeaseAnswer> {
    const options = { body, ...(signal && { signal }) };
    return this.#http.call(LeaseAnswer, 'POST', '/leases', options);
  }

  reportDiscard(body: DiscardReport, signal?: AbortSignal): Promise<void> {
    return this.#http.send('POST', '/discards', { body, ...(signal && { signal }) });
  }

  operation(id: OperationId, waitMs = 0): Promise<OperationRecord> {
    return this.#http.call(OperationRecord, 'GET', pathOf('operations', id), { query: { waitMs } });
  }

  /** The operation as it has ended, `done` or `failed`; as it is after `waitMsMax`, when that is earlier. */
  async finished(id: OperationId, waitMsMax = Number.POSITIVE_INFINITY): Promise<OperationRecord> {
    const untilMs = performance.now() + waitMsMax;
    for (;;) {
      const waitMs = Math.min(WAIT_MS, Math.max(0, Math.ceil(untilMs - performance.now())));
      const operation = await this.operation(id, waitMs);
      const isOver = operation.state === 'done' || operation.state === 'failed';
      if (isOver || performance.now() >= untilMs) return operation;
    }
  }

  storageSystems(): Promise<StorageView[]> {
    return this.#http.call(z.array(StorageView), 'GET', '/storage');
  }

  storageSystem(name: StorageName): Promise<StorageView> {
    return this.#http.call(StorageView, 'GET', pathOf('storage', name));
  }

  reportStorage(name: StorageName, body: StorageReport, signal?: AbortSignal): Promise<Registered> {
    const options = { body, ...(signal && { signal }) };
    return this.#http.call(Registered, 'PUT', pathOf('storage', name), options);
  }

  /** @throws ControlError wrong-cluster, wrong-identity; in-use: another process is online with it */
  claimStorage(name: StorageName, body: StorageClaim, signal?: AbortSignal): Promise<Registered> {
    const options = { body, ...(signal && { signal }) };
    return this.#http.call(Registered, 'POST', `${pathOf('storage', name)}/claim`, options);
  }

  gateways(): Promise<GatewayView[]> {
    return this.#http.call(z.array(GatewayView), 'GET', '/gateways');
  }

  reportGateway(name: GatewayName, body: GatewayReport, signal?: AbortSignal): Promise<Registered> {
    const options = { body, ...(signal && { signal }) };
    return this.#http.call(Registered, 'PUT', pathOf('gateways', name), options);
  }

  /** Up to `limit` events after `since`, oldest first; without `since` the newest. */
  events(query: { since?: number; limit?: number }): Promise<EventRecord[]> {
    return this.#http.call(z.array(EventRecord), 'GET', '/events', { query });
  }

  /** Events after `since` (default: from now on) as they happen, until `signal`, or the end of the connection. */
  async *followEvents(signal: AbortSignal, since?: number): AsyncGenerator<EventRecord> {
    for await (const { data } of this.#http.events('/events/stream', signal, { since })) {
      yield this.#http.parseEvent(EventRecord, '/events/stream', data);
    }
  }

  /** Returns at `signal` or when the connection ends; throws ControlError when it fails. */
  async *watch(signal: AbortSignal): AsyncGenerator<WatchMessage> {
    for await (const { event, data } of this.#http.events('/watch', signal)) {
      if (event === 'snapshot') {
        yield { kind: 'snapshot', information: this.#http.parseEvent(SecondInformation, '/watch', data) };
      } else if (event === 'change') {
        yield { kind: 'change', change: this.#http.parseEvent(InformationChange, '/watch', data) };
      }
    }
  }
}
