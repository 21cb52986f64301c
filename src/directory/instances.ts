/**
 * One process a storage system. A data folder that is copied, or put back from a backup, has the same id as the original: what tells them
 * apart is its latest instance (InstanceClaim), which both the folder and the catalog keep. Pure.
 *
 * Invariants
 *  1. An instance is taken only if it follows the one that was taken last. So of two copies of a folder, one is never taken again after
 *     the other has been; and a folder that is older than what was taken last never is.
 *  2. While the one that it follows may be alive, it is not taken, unless it has the lock of that one's folder: then that one has ended.
 *  3. An instance that was not taken does not count. A process that ends before it hears that it has been taken leaves the id in its
 *     folder, among those that the next one follows.
 *  4. A folder that was put back from a backup is taken when a person says so, and nobody is online: then its copies are not in step in
 *     the record any more, and who was taken before does not come back. Nor are they until it has said where it is, and their primaries are
 *     connected to it there: a primary may be connected to the process of before still, which is cut off from the directory.
 *  5. A catalog that is older than a folder (put back from a backup) takes whichever claims first: `acknowledged` says that it is older.
 */

import type { Asker } from '../control-protocol/copy-groups.ts';
import type { InstanceClaim } from '../control-protocol/directory-api.ts';
import type { Endpoint, StorageName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { CatalogView } from './catalog-view.ts';
import type { InstanceRecord } from './records.ts';

/** @throws ControlError in-use: not while the other one is online; wrong-identity: never */
export function refuseInstance(view: CatalogView, name: StorageName, claim: InstanceClaim): void {
  const latest = view.instances.get(name);
  if (latest === undefined || latest.id === claim.id) return;
  const isOnline = view.presence.has(`storage/${name}`);
  const another = `another process runs with a copy of this data folder: storage system ${name} is online at ${view.storage.get(name)?.manage}; stop that one first, or give this one an empty data folder and another name`;
  const isOlderCatalog = latest.number < claim.acknowledged;
  if (isOlderCatalog || claim.follows.includes(latest.id)) {
    if (isOnline && !claim.isSamePlace) throw new ControlError('in-use', another);
    return;
  }
  if (claim.isRestored === true) {
    if (isOnline) throw new ControlError('in-use', another);
    return;
  }
  const older = `this data folder is older than the one that storage system ${name} had last: it is a copy of before, or was rolled back; start it with the folder that it had last; if that is lost, --restored goes on with this one, without what was written since`;
  throw new ControlError('wrong-identity', isOnline ? another : older);
}

/** Not by following, but because a person says so. */
export function isRestored(view: CatalogView, name: StorageName, claim: InstanceClaim): boolean {
  const latest = view.instances.get(name);
  return claim.isRestored === true && latest !== undefined && latest.id !== claim.id;
}

/** What is kept of an instance that is taken: `number` never becomes smaller by it, so that older folders are told from older catalogs. */
export function takenInstance(view: CatalogView, name: StorageName, claim: InstanceClaim): InstanceRecord {
  const latest = view.instances.get(name);
  if (latest?.id === claim.id) return latest;
  const number = Math.max(claim.acknowledged, latest?.number ?? 0) + 1;
  const isToReport = isRestored(view, name, claim) || latest?.isRestored === true;
  return { id: claim.id, number, ...(isToReport ? { isRestored: true } : {}) };
}

/** The same when it has said where it is. */
export function reportedInstance(view: CatalogView, name: StorageName, claim: InstanceClaim): InstanceRecord {
  const { id, number } = takenInstance(view, name, claim);
  return { id, number };
}

/** @throws ControlError wrong-identity: another process has been taken for that storage system since */
export function refuseOtherLife(view: CatalogView, { storage, acknowledged, lives }: Asker): void {
  const latest = view.instances.get(storage);
  if (latest === undefined || lives.includes(latest.id) || latest.number < acknowledged) return;
  const text = `another process has been taken for storage system ${storage} since: this one is not it any more`;
  throw new ControlError('wrong-identity', text);
}

/** @throws ControlError conflict: that is not where the storage system is */
export function refuseElsewhere(view: CatalogView, name: StorageName, peer: Endpoint | undefined): void {
  const isKnown = view.instances.get(name)?.isRestored !== true;
  const there = view.storage.get(name)?.peer;
  if (isKnown && (peer === undefined || (peer.host === there?.host && peer.port === there.port))) return;
  const text = `storage system ${name} is not at that address any more: its copies are where it says that it is`;
  throw new ControlError('conflict', text);
}

export function isNewInstance(view: CatalogView, name: StorageName, claim: InstanceClaim): boolean {
  return view.instances.get(name)?.id !== claim.id;
}
