/** What the API shows, made of the catalog's records. */

import type { OperationRecord, StorageRecord, VolumeRecord } from '../control-protocol/catalog.ts';
import type {
  GatewayView,
  Location,
  StatusView,
  StorageView,
  VolumeSummary,
} from '../control-protocol/directory-api.ts';
import type { StorageName } from '../control-protocol/names.ts';
import { formatRealVolumeExport } from '../control-protocol/real-volume-export.ts';
import { assert, ControlError } from '../model/errors.ts';
import { formatListenUri } from '../model/nbd-uri.ts';
import { provisionedBytes } from './capacity.ts';
import type { CatalogView } from './catalog-view.ts';
import type { Membership } from './membership.ts';
import type { NewerEpochs } from './newer-epochs.ts';

/** @throws ControlError not-found */
export function volumeRecord(view: CatalogView, name: string): VolumeRecord {
  const volume = view.volumes.get(name);
  if (volume === undefined) throw new ControlError('not-found', `there is no volume ${name}`);
  return volume;
}

export function volumeSummary({
  name,
  sizeBytes,
  state,
  group,
  segments,
  createdAt,
}: VolumeRecord): VolumeSummary {
  const storage = new Set(segments.flatMap(({ copies }) => copies.map((copy) => copy.storage)));
  return { name, size: sizeBytes, state, group, segments: segments.length, storage: [...storage], createdAt };
}

export function volumeSummaries(view: CatalogView): VolumeSummary[] {
  return byName(view.volumes).map(volumeSummary);
}

/** @throws ControlError bad-request */
export function locations(
  view: CatalogView,
  volume: VolumeRecord,
  { offset = 0, length }: { offset?: number | undefined; length?: number | undefined },
): Location[] {
  const { name, sizeBytes, segments } = volume;
  if (offset > sizeBytes) {
    throw new ControlError(
      'bad-request',
      `volume ${name} has ${sizeBytes} bytes: there is nothing at ${offset}`,
    );
  }
  const end = Math.min(sizeBytes, offset + (length ?? sizeBytes));
  return segments.flatMap((segment) => {
    const from = Math.max(offset, segment.offset);
    const to = Math.min(end, segment.offset + segment.length);
    if (from >= to) return [];
    return segment.copies.map(({ storage, realVolume, realOffset, role, accessKey, file }): Location => {
      const { site, nbd } = storageRecord(view, storage);
      // Others than the primary can be looked at, no more.
      const use = formatRealVolumeExport(realVolume, segment.epoch, accessKey);
      const uri = `${formatListenUri(nbd)}/${role === 'primary' ? use : realVolume}`;
      const at = realOffset + (from - segment.offset);
      return { offset: from, length: to - from, storage, site, realVolume, realOffset: at, role, uri, file };
    });
  });
}

export function storageViews(view: CatalogView, membership: Membership): StorageView[] {
  const provisioned = provisionedBytes(view);
  return byName(view.storage).map((record) => storageView(record, membership, provisioned));
}

export function storageView(
  record: StorageRecord,
  membership: Membership,
  provisioned: ReadonlyMap<StorageName, number>,
): StorageView {
  const { name, nbd, capacityBytes } = record;
  const report = membership.lastStorageReport(name);
  const provisionedBytes = provisioned.get(name) ?? 0;
  return {
    ...record,
    ...membership.presenceOf(`storage/${name}`),
    uri: formatListenUri(nbd),
    provisionedBytes,
    freeBytes: Math.max(0, capacityBytes - provisionedBytes),
    usedBytes: report?.usedBytes ?? 0,
    realVolumes: report?.realVolumes ?? 0,
    failed: report?.failed ?? [],
  };
}

/** @throws ControlError not-found */
export function storageRecordAsked(view: CatalogView, name: string): StorageRecord {
  const record = view.storage.get(name);
  if (record === undefined) throw new ControlError('not-found', `there is no storage system ${name}`);
  return record;
}

export function gatewayViews(view: CatalogView, membership: Membership): GatewayView[] {
  return byName(view.gateways).map((record) => {
    const report = membership.lastGatewayReport(record.name);
    const presence = membership.presenceOf(`gateway/${record.name}`);
    return { ...record, ...presence, revision: report?.revision ?? 0, hosts: report?.hosts ?? 0 };
  });
}

export function statusView(view: CatalogView, membership: Membership, newerEpochs: NewerEpochs): StatusView {
  assert(view.cluster !== undefined, 'a cluster has its id');
  const storage = storageViews(view, membership);
  const gateways = gatewayViews(view, membership);
  const healthy =
    [...storage, ...gateways].every(({ state }) => state === 'online') &&
    storage.every(({ failed }) => failed.length === 0);
  const volumes = byName(view.volumes);
  const suspended = volumes.filter(hasLostCopy).map(({ name }) => name);
  const newerEpoch = volumes.filter((volume) => newerEpochs.has(volume)).map(({ name }) => name);
  return {
    clusterId: view.cluster.clusterId,
    revision: view.informationRevision,
    health: healthy && suspended.length + newerEpoch.length === 0 ? 'ok' : 'degraded',
    storage,
    gateways,
    volumes: {
      count: volumes.length,
      bytes: volumes.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
      notReady: volumes.filter(({ state }) => state !== 'ready').map(({ name }) => name),
      suspended,
      newerEpoch,
    },
    operations: [...view.operations.values()]
      .filter(({ finishedAt }) => finishedAt === null)
      .sort((a, b) => (a.createdAt < b.createdAt ? -1 : 1))
      .map(shownOperation),
  };
}

/** A copy does not follow, and nobody has asked for that. */
function hasLostCopy({ segments }: VolumeRecord): boolean {
  return segments.some(({ copies }) =>
    copies.some(({ pair, wanted }) => pair === 'suspended' && wanted === 'following'),
  );
}

/** Without the plan, which has access keys. */
export function shownOperation(operation: OperationRecord): OperationRecord {
  const { plan: _, ...input } = operation.input;
  return { ...operation, input };
}

export function storageRecord(view: CatalogView, name: StorageName): StorageRecord {
  const record = view.storage.get(name);
  assert(record !== undefined, `storage system ${name} has real volumes, and is known`);
  return record;
}

export function byName<T extends { readonly name: string }>(table: ReadonlyMap<string, T>): T[] {
  return [...table.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}
