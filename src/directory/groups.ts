/** Groups: volumes whose writes share one order. So far copies are synchronous, and a group says the fence of its volumes. */

import type { GroupRecord } from '../control-protocol/catalog.ts';
import type { ConsistencyGroupView, CreateGroup } from '../control-protocol/directory-api.ts';
import { ControlError } from '../model/errors.ts';
import { secondariesOf } from '../replication/group-rules.ts';
import type { Catalog } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import { refuseTransfer } from './copy-placement.ts';

const GROUPS_MAX = 10_000;

/** @throws ControlError not-found */
export function groupAsked(view: CatalogView, name: string): GroupRecord {
  const group = view.groups.get(name);
  if (group !== undefined) return group;
  throw new ControlError('not-found', `there is no group ${name}: create it first, with volary group create`);
}

/** @throws ControlError exists, not-supported, unavailable */
export async function createGroup(
  catalog: Catalog,
  { name, transfer, fence = 'never', journal, journalSizeBytes, fetch }: CreateGroup,
): Promise<ConsistencyGroupView> {
  refuseTransfer(transfer);
  if (journal !== undefined || journalSizeBytes !== undefined || fetch !== undefined) {
    const text = 'journals belong to asynchronous copies, which come with version 0.2: leave them out';
    throw new ControlError('not-supported', text);
  }
  const group = await catalog.change((draft): GroupRecord => {
    if (draft.view.groups.has(name)) {
      throw new ControlError('exists', `there is a group ${name} already: choose another name`);
    }
    if (draft.view.groups.size >= GROUPS_MAX) {
      throw new ControlError('unavailable', `a cluster has at most ${GROUPS_MAX} groups`);
    }
    const record = { name, transfer, fence, createdAt: draft.now };
    draft.putGroup(record);
    draft.addEvent({
      kind: 'group.created',
      subject: name,
      text: `group ${name} has been created`,
      details: { transfer, fence },
    });
    return record;
  });
  return groupView(catalog.view, group);
}

export function groupViews(view: CatalogView): ConsistencyGroupView[] {
  return [...view.groups.values()]
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((group) => groupView(view, group));
}

export function groupView(view: CatalogView, group: GroupRecord): ConsistencyGroupView {
  const volumes = [...view.volumes.values()].filter((volume) => volume.group === group.name);
  const copies = volumes.flatMap(({ segments }) => segments.flatMap(secondariesOf));
  const storage = [...new Set(copies.map((copy) => copy.storage))].sort();
  const nothing = { stored: 0, transferred: 0, applied: 0, discarded: 0, journal: { used: 0, size: 0 } };
  return {
    ...group,
    fetch: null,
    journal: null,
    volumes: volumes.map(({ name }) => name).sort(),
    sequence: 0,
    secondaries: storage.map((name) => ({ storage: name, ...nothing })),
  };
}
