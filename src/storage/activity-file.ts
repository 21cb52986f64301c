/** The file `activity` of an activity log: header and map, as activity-log.ts draws them. */

import type { BlockBitmap } from '../base/block-bitmap.ts';
import { EXTENT_BYTES } from '../model/copy-granularity.ts';
import { readMap } from './activity-map.ts';
import { readWholeFile } from './replace-file.ts';
import { findHeader, PAYLOAD_BYTES, TWIN_HEADER_BYTES } from './twin-header.ts';

export const ACTIVITY_FORMAT = { magic: 'VolaryAL', version: 1 };

/** More than any volume can need: a file that is larger is not even read. */
const READ_BYTES_MAX = 1024 * 1024 * 1024;

const STATES = ['clean', 'open', 'lost'] as const;
export type ActivityState = (typeof STATES)[number];

export interface ActivityHeader {
  readonly realVolume: string;
  readonly bootId: string;
  readonly state: ActivityState;
  readonly sectors: number;
}

export function activityPayload({ realVolume, bootId, state, sectors }: ActivityHeader): Buffer {
  const payload = Buffer.alloc(PAYLOAD_BYTES);
  payload.write(bootId, 'hex');
  payload[16] = 1 + STATES.indexOf(state);
  payload.writeUInt32LE(EXTENT_BYTES, 20);
  payload.write(realVolume, 24, 24, 'latin1');
  payload.writeBigUInt64LE(BigInt(sectors), 48);
  return payload;
}

export interface ActivityFound {
  readonly header: ActivityHeader;
  readonly marks: BlockBitmap;
  readonly isDamaged: boolean;
}

/** Undefined when the file is not there, or not one of that volume, or not to be understood. @throws UsageError, StoreError */
export async function readActivity(
  path: string,
  realVolume: string,
  sizeBytes: number,
): Promise<ActivityFound | undefined> {
  const bytes = await readWholeFile(path, READ_BYTES_MAX);
  if (bytes === undefined) return undefined;
  const found = findHeader(ACTIVITY_FORMAT, bytes, path);
  if (found.kind !== 'valid') return undefined;
  const { payload } = found;
  const state = STATES[(payload[16] ?? 0) - 1];
  const bootId = payload.toString('hex', 0, 16);
  const sectors = Number(payload.readBigUInt64LE(48));
  if (state === undefined) return undefined;
  const header = { realVolume, bootId, state, sectors };
  if (!activityPayload(header).equals(payload)) return undefined; // another volume's, or of other extents
  return { header, ...readMap(bytes.subarray(TWIN_HEADER_BYTES), sectors, realVolume, sizeBytes) };
}
