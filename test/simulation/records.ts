/** Records of the simulated directory: a storage system of a copy, and what a trace says of a segment. */

import type { CopyRecord, SegmentRecord, StorageRecord } from '../../src/control-protocol/catalog.ts';

export function storageOf(copy: CopyRecord): StorageRecord {
  const endpoint = { host: 'localhost', port: 1 };
  return {
    name: copy.storage,
    site: 'site' as StorageRecord['site'],
    id: '00000000-0000-4000-8000-000000000000' as StorageRecord['id'],
    nbd: endpoint,
    peer: endpoint,
    manage: 'http://localhost',
    capacityBytes: 0,
    folder: '/',
  };
}

export function recordText({ epoch, isHandedOver, copies }: SegmentRecord): string {
  const pairs = copies.map(({ realVolume, role, pair, reason, wanted: wish }) =>
    [realVolume, role === 'primary' ? 'PRIMARY' : pair, reason ?? '', wish === 'suspended' ? 'unwanted' : '']
      .join(' ')
      .trimEnd(),
  );
  return `epoch ${epoch}${isHandedOver ? '' : ' (not handed over)'}: ${pairs.join(', ')}`;
}
