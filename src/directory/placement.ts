/**
 * Where a volume's segments go (V7). Pure. A storage system's free room is its capacity less the sizes of all real volumes
 * that the catalog knows of: of volumes, promised to operations, and not yet deleted.
 *
 *  1. On the storage system with the most free room, if that has room for all; of equals, the first by name.
 *  2. Otherwise concatenated, taking the largest rooms first.
 *  3. All inner borders are multiples of 4,096.
 */

import type { CreateVolume } from '../control-protocol/directory-api.ts';
import { SECTOR_BYTES, SEGMENT_ALIGNMENT_BYTES, type StorageName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';

/** A storage system that may be chosen. */
export interface Room {
  readonly storage: StorageName;
  readonly freeBytes: number;
}

export interface Share {
  readonly storage: StorageName;
  readonly lengthBytes: number;
}

/** @throws ControlError no-space, unavailable */
export function place(sizeBytes: number, rooms: readonly Room[]): Share[] {
  if (rooms.length === 0) throw new ControlError('unavailable', 'no storage system is online');
  const largestFirst = [...rooms].sort((a, b) => b.freeBytes - a.freeBytes || compareNames(a, b));
  const shares: Share[] = [];
  let leftBytes = sizeBytes;
  for (const { storage, freeBytes } of largestFirst) {
    const whole = leftBytes <= freeBytes;
    const lengthBytes = whole ? leftBytes : alignedDown(freeBytes);
    if (lengthBytes > 0) shares.push({ storage, lengthBytes });
    leftBytes -= Math.max(0, lengthBytes);
    if (leftBytes === 0) return shares;
  }
  const text = `no room for ${sizeBytes} bytes: all storage systems that are online have ${sizeBytes - leftBytes} together`;
  throw new ControlError('no-space', text);
}

/**
 * As a person has said it: storage systems in order, those without size sharing what is left evenly.
 * `rooms` has those that are online. @throws ControlError bad-request, no-space, unavailable
 */
export function placeAsAsked(
  sizeBytes: number,
  asked: NonNullable<CreateVolume['segments']>,
  rooms: readonly Room[],
): Share[] {
  const shares = sharesOf(sizeBytes, asked);
  for (const { lengthBytes } of shares.slice(0, -1)) {
    if (lengthBytes % SEGMENT_ALIGNMENT_BYTES !== 0) {
      const text = `all segments but the last have multiples of ${SEGMENT_ALIGNMENT_BYTES} bytes, and one has ${lengthBytes}`;
      throw new ControlError('bad-request', text);
    }
  }
  for (const name of new Set(shares.map(({ storage }) => storage))) {
    const room = rooms.find(({ storage }) => storage === name);
    if (room === undefined) throw new ControlError('unavailable', `storage system ${name} is offline`);
    const needed = shares
      .filter(({ storage }) => storage === name)
      .reduce((sum, { lengthBytes }) => sum + lengthBytes, 0);
    if (needed > room.freeBytes) {
      const text = `storage system ${name} has no room for ${needed} bytes: ${Math.max(0, room.freeBytes)} are free`;
      throw new ControlError('no-space', text);
    }
  }
  return shares;
}

function sharesOf(sizeBytes: number, asked: NonNullable<CreateVolume['segments']>): Share[] {
  const given = asked.reduce((sum, segment) => sum + (segment.sizeBytes ?? 0), 0);
  const sharers = asked.filter((segment) => segment.sizeBytes === undefined).length;
  const leftBytes = sizeBytes - given;
  if (sharers === 0 && leftBytes !== 0) {
    throw new ControlError(
      'bad-request',
      `the segments have ${given} bytes together, and the volume ${sizeBytes}`,
    );
  }
  const evenBytes = sharers === 0 ? 0 : alignedDown(leftBytes / sharers);
  const lastBytes = leftBytes - evenBytes * (sharers - 1);
  if (sharers > 0 && (lastBytes < SECTOR_BYTES || (sharers > 1 && evenBytes <= 0))) {
    const text = `${Math.max(0, leftBytes)} bytes are left for ${sharers} segments without size: too few`;
    throw new ControlError('bad-request', text);
  }
  let sharersLeft = sharers;
  return asked.map(({ storage, sizeBytes }) => {
    if (sizeBytes !== undefined) return { storage, lengthBytes: sizeBytes };
    sharersLeft -= 1;
    return { storage, lengthBytes: sharersLeft === 0 ? lastBytes : evenBytes };
  });
}

export interface Growth {
  /** How much longer the last segment becomes, in its own storage system. */
  readonly lastBytes: number;
  readonly further: readonly Share[];
}

/**
 * More of a volume whose last segment ends at `sizeBytes`: there, when its storage system has room, otherwise as further
 * segments. @throws ControlError no-space, unavailable
 */
export function placeGrowth(
  sizeBytes: number,
  moreBytes: number,
  last: StorageName,
  rooms: readonly Room[],
): Growth {
  const lastRoom = rooms.find(({ storage }) => storage === last)?.freeBytes ?? 0;
  if (moreBytes <= lastRoom) return { lastBytes: moreBytes, further: [] };
  const fillBytes = alignedDown(sizeBytes + SEGMENT_ALIGNMENT_BYTES - 1) - sizeBytes;
  if (fillBytes > Math.max(0, lastRoom)) {
    const text = `the last segment would have to grow by ${fillBytes} bytes first, and storage system ${last} is offline or has no room`;
    throw new ControlError('no-space', text);
  }
  const others = rooms.map((room) =>
    room.storage === last ? { ...room, freeBytes: room.freeBytes - fillBytes } : room,
  );
  return { lastBytes: fillBytes, further: place(moreBytes - fillBytes, others) };
}

function alignedDown(bytes: number): number {
  return Math.floor(bytes / SEGMENT_ALIGNMENT_BYTES) * SEGMENT_ALIGNMENT_BYTES;
}

function compareNames(a: Room, b: Room): number {
  return a.storage < b.storage ? -1 : a.storage > b.storage ? 1 : 0;
}
