/** Records of the catalog, short to write. */

import { KEY } from './storage-stand-in.ts';

export interface SegmentOf {
  readonly storage: string;
  readonly realVolume: string;
  readonly length: number;
  readonly realOffset?: number;
  readonly epoch?: number;
  readonly isHandedOver?: boolean;
  /** Its other copies, by storage system and real volume. */
  readonly secondaries?: readonly { readonly storage: string; readonly realVolume: string }[];
}

/** A volume of these segments, one behind the other. */
export function volumeOf(name: string, segments: readonly SegmentOf[], more: object = {}): object {
  let offset = 0;
  const records = segments.map((segment) => {
    const { storage, realVolume, length, realOffset = 0, epoch = 1, isHandedOver = true } = segment;
    const copy = { realOffset, mode: 'normal', accessKey: KEY, file: null };
    const primary = { storage, realVolume, role: 'primary', pair: 'simplex', ...copy };
    const others = (segment.secondaries ?? []).map((one) => ({
      ...one,
      role: 'secondary',
      pair: 'duplex',
      ...copy,
    }));
    const record = { offset, length, epoch, isHandedOver, copies: [primary, ...others] };
    offset += length;
    return record;
  });
  return {
    name,
    sizeBytes: offset,
    state: 'ready',
    group: null,
    segments: records,
    operation: null,
    createdAt: '2026-01-01T00:00:00.000Z',
    ...more,
  };
}
