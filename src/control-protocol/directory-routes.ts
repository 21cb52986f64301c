/** The routes of directory-api.ts, as the server checks them and OpenAPI shows them. */

import { z } from 'zod';
import { EventRecord, InterfaceRecord, OperationRecord, VolumeRecord } from './catalog.ts';
import { DiscardReport, LeaseAnswer, LeaseRequest, PairReport, Recorded } from './copy-groups.ts';
import {
  AddCopy,
  ClusterView,
  ConsistencyGroupView,
  CreateGroup,
  CreateVolume,
  FailOver,
  Failure,
  GatewayReport,
  GatewayView,
  Location,
  Login,
  LoginView,
  Registered,
  RepairView,
  ResizeVolume,
  SetInterface,
  StatusView,
  StorageClaim,
  StorageReport,
  StorageView,
  SwitchCopy,
  VolumeSummary,
  VolumeView,
} from './directory-api.ts';
import { GatewayName, GroupName, InterfaceName, OperationId, StorageName, VolumeName } from './names.ts';

/** Longest wait for an operation to finish within one request. */
export const WAIT_MS_MAX = 30_000;
export const EVENTS_AT_ONCE_MAX = 10_000;

const EVENTS_AT_ONCE = 100;

const Count = z.coerce.number().pipe(z.int().min(0));

/** `?force`, `?force=true`. */
const Switch = z
  .enum(['', 'true', 'false'])
  .default('false')
  .transform((text) => text !== 'false');

const ofVolume = z.object({ name: VolumeName });
const ofCopy = z.object({ name: VolumeName, storage: StorageName });
const ofInterface = z.object({ name: InterfaceName });
const ofGroup = z.object({ name: GroupName });
const ofStorage = z.object({ name: StorageName });
const ofGateway = z.object({ name: GatewayName });
const ofOperation = z.object({ id: OperationId });

const failures = { '4xx': Failure, '5xx': Failure };

function answers<Body extends z.ZodType>(body: Body) {
  return { 200: body, ...failures };
}

const nothing = { 204: z.undefined(), ...failures };
const begins = { 202: OperationRecord, ...failures };

export const directoryRoutes = {
  cluster: { summary: 'Which cluster this is', response: answers(ClusterView) },
  status: { summary: 'How the cluster is', response: answers(StatusView) },
  volumes: { summary: 'All volumes', response: answers(z.array(VolumeSummary)) },
  createVolume: { summary: 'Create a volume', body: CreateVolume, response: begins },
  volume: { summary: 'A volume', params: ofVolume, response: answers(VolumeView) },
  resizeVolume: { summary: 'Resize a volume', params: ofVolume, body: ResizeVolume, response: begins },
  deleteVolume: {
    summary: 'Delete a volume',
    params: ofVolume,
    querystring: z.object({ force: Switch }),
    response: begins,
  },
  repairVolume: {
    summary: 'Take back what has failed of its real volumes: writes that were not flushed before may be lost',
    params: ofVolume,
    response: answers(RepairView),
  },
  location: {
    summary: 'The real volumes behind a range of a volume',
    params: ofVolume,
    querystring: z.object({ offset: Count.optional(), length: Count.optional() }),
    response: answers(z.array(Location)),
  },
  volumeRecord: {
    summary: 'A volume as gateways are told of it',
    params: ofVolume,
    response: answers(VolumeRecord),
  },
  addCopy: {
    summary: 'Add a copy of a volume on a storage system',
    params: ofVolume,
    body: AddCopy,
    response: begins,
  },
  removeCopy: { summary: 'Remove a copy of a volume', params: ofCopy, response: begins },
  suspendCopy: { summary: 'Let a copy not follow for now', params: ofCopy, response: begins },
  resyncCopy: {
    summary: 'Let a copy follow again: what it lacks is copied',
    params: ofCopy,
    response: begins,
  },
  switchCopy: {
    summary: 'Make another copy the primary, without losing a write',
    params: ofVolume,
    body: SwitchCopy,
    response: begins,
  },
  failOver: {
    summary: 'Make another copy the primary when the primary is gone',
    params: ofVolume,
    body: FailOver,
    response: begins,
  },
  login: {
    summary: 'Where to connect; the nearest copy becomes primary',
    params: ofVolume,
    body: Login,
    response: answers(LoginView),
  },
  interfaces: { summary: 'All interfaces', response: answers(z.array(InterfaceRecord)) },
  interface: { summary: 'An interface', params: ofInterface, response: answers(InterfaceRecord) },
  setInterface: {
    summary: 'Say which sites are near an interface',
    params: ofInterface,
    body: SetInterface,
    response: answers(InterfaceRecord),
  },
  removeInterface: { summary: 'Forget an interface', params: ofInterface, response: nothing },
  groups: { summary: 'All groups', response: answers(z.array(ConsistencyGroupView)) },
  group: { summary: 'A group', params: ofGroup, response: answers(ConsistencyGroupView) },
  createGroup: {
    summary: 'Create a group',
    body: CreateGroup,
    response: { 201: ConsistencyGroupView, ...failures },
  },
  reportPair: {
    summary: 'A primary says how one of its pairs is',
    body: PairReport,
    response: answers(Recorded),
  },
  renewLeases: {
    summary: 'A storage system asks whether its primaries may serve on',
    body: LeaseRequest,
    response: answers(LeaseAnswer),
  },
  reportDiscard: {
    summary: 'A primary says what a member that came back has given up',
    body: DiscardReport,
    response: nothing,
  },
  operations: {
    summary: 'Operations under way, and the latest of those that have finished',
    response: answers(z.array(OperationRecord)),
  },
  operation: {
    summary: 'An operation; waits until it has finished, up to waitMs',
    params: ofOperation,
    querystring: z.object({ waitMs: Count.default(0) }),
    response: answers(OperationRecord),
  },
  storageSystems: { summary: 'All storage systems', response: answers(z.array(StorageView)) },
  storageSystem: { summary: 'A storage system', params: ofStorage, response: answers(StorageView) },
  reportStorage: {
    summary: 'A storage system registers, and says that it is there',
    params: ofStorage,
    body: StorageReport,
    response: answers(Registered),
  },
  claimStorage: {
    summary: 'A storage system that starts asks whether it is the only one with its data folder',
    params: ofStorage,
    body: StorageClaim,
    response: answers(Registered),
  },
  gateways: { summary: 'All gateways', response: answers(z.array(GatewayView)) },
  reportGateway: {
    summary: 'A gateway registers, and says that it is there',
    params: ofGateway,
    body: GatewayReport,
    response: answers(Registered),
  },
  events: {
    summary: 'Events after `since`, oldest first; without it the newest',
    querystring: z.object({
      since: Count.optional(),
      limit: Count.pipe(z.int().max(EVENTS_AT_ONCE_MAX)).default(EVENTS_AT_ONCE),
    }),
    response: answers(z.array(EventRecord)),
  },
  followEvents: {
    summary: 'Server-sent events: `event`, an EventRecord, after `since` (otherwise from now on)',
    querystring: z.object({ since: Count.optional() }),
  },
  watch: {
    summary:
      'Server-sent events: `snapshot`, a SecondInformation, then `change`, an InformationChange each; a comment every 5 s',
  },
};
