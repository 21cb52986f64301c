/**
 * Where copies go: on the storage systems that a person names, each with room for all of the volume, and never two of a segment on
 * one. A primary that the directory places itself goes to another site than its copies, when there is room.
 */

import type { CreateVolume, Transfer } from '../control-protocol/directory-api.ts';
import type { StorageName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { roomsOf } from './capacity.ts';
import type { CatalogView } from './catalog-view.ts';
import { place, placeAsAsked, type Room, type Share } from './placement.ts';

/** @throws ControlError not-supported */
export function refuseTransfer(transfer: Transfer | undefined): void {
  if (transfer !== 'async') return;
  throw new ControlError(
    'not-supported',
    'asynchronous copies come with version 0.2: leave the transfer out, or say sync',
  );
}

/** @throws ControlError unavailable */
export function refuseOffline(view: CatalogView, storage: StorageName): void {
  if (view.presence.has(`storage/${storage}`)) return;
  throw new ControlError('unavailable', `storage system ${storage} is offline: wait until it is back`);
}

/** Primaries of a new volume that has `copies`. @throws ControlError bad-request, no-space, unavailable */
export function placeWithCopies(
  view: CatalogView,
  sizeBytes: number,
  asked: CreateVolume['segments'],
  copies: readonly StorageName[],
): Share[] {
  const twice = copies.find((storage, at) => copies.indexOf(storage) !== at);
  if (twice !== undefined) {
    throw new ControlError(
      'bad-request',
      `storage system ${twice} is named for two copies: name another one`,
    );
  }
  const both = asked?.find(({ storage }) => copies.includes(storage))?.storage;
  if (both !== undefined) {
    const text = `storage system ${both} is named for a segment and for a copy of it: name another one for the copy`;
    throw new ControlError('bad-request', text);
  }
  const rooms = roomsBeside(view, copies, sizeBytes);
  if (asked !== undefined) return placeAsAsked(sizeBytes, asked, rooms);
  if (copies.length > 0 && rooms.length === 0) {
    throw new ControlError(
      'unavailable',
      'no storage system that is online is left for the primary: name fewer copies',
    );
  }
  const sites = new Set(copies.map((storage) => view.storage.get(storage)?.site));
  const elsewhere = rooms.filter(({ storage }) => !sites.has(view.storage.get(storage)?.site));
  const isRoomElsewhere = elsewhere.some(({ freeBytes }) => freeBytes >= sizeBytes);
  return place(sizeBytes, isRoomElsewhere ? elsewhere : rooms);
}

/** The rooms for primaries, beside copies that take `moreBytes` each. @throws ControlError no-space, unavailable */
export function roomsBeside(
  view: CatalogView,
  copies: readonly StorageName[],
  moreBytes: number,
): readonly Room[] {
  const rooms = roomsOf(view);
  for (const storage of copies) {
    const room = rooms.find((each) => each.storage === storage);
    if (room === undefined) {
      const text = `storage system ${storage}, which has a copy, is offline: wait until it is back, or leave that copy out`;
      throw new ControlError('unavailable', text);
    }
    if (room.freeBytes < moreBytes) {
      const text = `storage system ${storage} has no room for ${moreBytes} bytes of a copy: ${Math.max(0, room.freeBytes)} are free`;
      throw new ControlError('no-space', text);
    }
  }
  return rooms.filter(({ storage }) => !copies.includes(storage));
}
