/** The second information, as a stream: what gateways are told. And the events likewise. */

import type { InformationChange, SecondInformation } from '../control-protocol/catalog.ts';
import { StorageName, VolumeName } from '../control-protocol/names.ts';
import { assert } from '../model/errors.ts';
import type { Catalog } from './catalog.ts';
import type { Commit } from './catalog-store.ts';
import type { CatalogView } from './catalog-view.ts';
import { decode } from './records.ts';
import type { Message } from './sse.ts';

export function secondInformation(view: CatalogView): SecondInformation {
  assert(view.cluster !== undefined, 'a cluster has its id');
  return {
    clusterId: view.cluster.clusterId,
    revision: view.informationRevision,
    volumes: [...view.volumes.values()],
    storage: [...view.storage.values()],
  };
}

export async function* informationMessages(catalog: Catalog, signal: AbortSignal): AsyncGenerator<Message> {
  const { view, store } = catalog;
  const from = view.revision;
  yield { event: 'snapshot', data: secondInformation(view) };
  for await (const commit of store.watch(from, signal)) {
    const change = informationChange(commit);
    if (change !== undefined) yield { event: 'change', data: change };
  }
}

/** undefined: the commit has nothing for gateways. */
function informationChange({ revision, changes }: Commit): InformationChange | undefined {
  const change: InformationChange = {
    revision,
    volumes: [],
    removedVolumes: [],
    storage: [],
    removedStorage: [],
  };
  let isOne = false;
  for (const { key, value } of changes) {
    const { table, id, record } = decode(key, value);
    if (table === 'information') isOne = true;
    else if (table === 'volumes' && record !== null) change.volumes.push(record);
    else if (table === 'volumes') change.removedVolumes.push(VolumeName.parse(id));
    else if (table === 'storage' && record !== null) change.storage.push(record);
    else if (table === 'storage') change.removedStorage.push(StorageName.parse(id));
  }
  return isOne ? change : undefined;
}

/** Events after `since`; undefined: from now on. */
export async function* eventMessages(
  catalog: Catalog,
  since: number | undefined,
  signal: AbortSignal,
): AsyncGenerator<Message> {
  const { view, store } = catalog;
  const from = view.revision;
  const past = since === undefined ? [] : view.events.filter(({ id }) => id > since);
  for (const event of past) yield { event: 'event', id: event.id, data: event };
  for await (const { changes } of store.watch(from, signal)) {
    for (const { key, value } of changes) {
      const change = decode(key, value);
      if (change.table !== 'events' || change.record === null || change.record.id <= (since ?? 0)) continue;
      yield { event: 'event', id: change.record.id, data: change.record };
    }
  }
}
