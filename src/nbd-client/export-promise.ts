/**
 * What a RemoteVolume has promised to its users about its export, and whether a further connection keeps it. An export
 * may come back with more, but not with less: what stands on the volume knows its size and its abilities.
 */

import type { BlockSizes, Capabilities } from '../model/volume.ts';
import { TransmissionFlag } from '../nbd-server-protocol/constants.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';

/** Payloads up to this are taken whatever the server takes: larger ones than its own are split. */
export const PAYLOAD_BYTES_MAX = 32 * 1024 * 1024;

const {
  readOnly,
  sendFlush,
  sendTrim,
  sendWriteZeroes,
  sendFastZero,
  sendCache,
  sendResize,
  sendFua,
  canMultiConn,
} = TransmissionFlag;

export function capabilitiesOf({ transmissionFlags: flags, contexts }: ClientSession): Capabilities {
  const write = (flags & readOnly) === 0;
  return {
    write,
    flush: (flags & sendFlush) !== 0,
    trim: write && (flags & sendTrim) !== 0,
    writeZeroes: write && (flags & sendWriteZeroes) !== 0,
    fastZero: write && (flags & sendFastZero) !== 0,
    blockStatus: contexts.length > 0,
    cache: (flags & sendCache) !== 0,
    resize: write && (flags & sendResize) !== 0,
  };
}

export function blockSizesOf({ blockSizes }: ClientSession): BlockSizes {
  return { ...blockSizes, maximumPayload: Math.max(PAYLOAD_BYTES_MAX, blockSizes.maximumPayload) };
}

/** What the new session lacks of the first one, in words; undefined: nothing. Sizes are not looked at. */
export function shortfallOf(first: ClientSession, now: ClientSession): string | undefined {
  const had = capabilitiesOf(first);
  const has = capabilitiesOf(now);
  for (const name of Object.keys(had) as (keyof Capabilities)[]) {
    if (had[name] && !has[name]) return `the export has come back without "${name}"`;
  }
  const lost = first.transmissionFlags & ~now.transmissionFlags;
  if ((lost & sendFua) !== 0) return 'the export has come back without FUA';
  if ((lost & canMultiConn) !== 0) return 'the export has come back without CAN_MULTI_CONN';
  if (now.blockSizes.minimum > first.blockSizes.minimum) {
    return `the export has come back with blocks of ${now.blockSizes.minimum} bytes`;
  }
  if (now.blockSizes.maximumPayload < first.blockSizes.maximumPayload) {
    return `the export has come back with at most ${now.blockSizes.maximumPayload} bytes in a request`;
  }
  return undefined;
}
