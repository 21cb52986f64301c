/** Records of the catalog, short to write. */

import { KEY } from './storage-stand-in.ts';

export interface SegmentOf {
  readonly storage: string;
  readonly realVolume: string;
  readonly length: number;
  readonly realOffset?: number;
  readonly epoch?: number;
}

/** A volume of these segments, one behind the other. */
export function volumeOf(name: string, segments: readonly SegmentOf[], more: object = {}): object {
  let offset = 0;
  const records = segments.map(({ storage, realVolume, length, realOffset = 0, epoch = 1 }) => {
    const primary = { role: 'primary', pair: 'simplex', mode: 'normal', accessKey: KEY, file: null };
    const segment = { offset, length, epoch, copies: [{ storage, realVolume, realOffset, ...primary }] };
    offset += length;
    return segment;
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
