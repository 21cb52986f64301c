/** What /metrics says of the cluster, read when it is asked for. */

import { Counter, Gauge, type Registry } from '@prometheus-io/client';
import type { PairState } from '../control-protocol/catalog.ts';
import { secondariesOf } from '../replication/group-rules.ts';
import type { Catalog } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';

export interface Counted {
  readonly catalog: Catalog;
  readonly streams: () => number;
  /** Members of copy groups that have not answered what they are to know. */
  readonly untold: () => number;
}

export function registerMetrics(registry: Registry, { catalog, streams, untold }: Counted): void {
  const { view } = catalog;
  registerPairs(registry, catalog);
  const figures: [name: string, help: string, read: () => number][] = [
    ['volumes', 'Virtual volumes', () => view.volumes.size],
    ['volume_bytes', 'Sizes of all virtual volumes together', () => volumeBytes(view)],
    ['storage_systems', 'Storage systems that are registered', () => view.storage.size],
    ['storage_systems_online', 'Storage systems that are online', () => online(view, 'storage/')],
    ['gateways', 'Gateways that are registered', () => view.gateways.size],
    ['gateways_online', 'Gateways that are online', () => online(view, 'gateway/')],
    ['operations_unfinished', 'Operations under way', () => unfinished(view)],
    ['garbage_real_volumes', 'Real volumes that are still to be deleted', () => view.garbage.size],
    ['catalog_revision', 'Commits of the catalog', () => view.revision],
    ['events', 'Events so far', () => view.newestEventId],
    ['event_streams', 'Watches and followers of events', streams],
    ['members_untold', 'Members of copy groups that have not answered what they are to know', untold],
  ];
  for (const [name, help, read] of figures) {
    new Gauge({
      name: `volary_directory_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(read());
      },
    });
  }
}

const STATES: readonly PairState[] = ['copying', 'duplex', 'suspended'];

/** How pairs are, and how often something became of them since this directory was started: as the events say. */
function registerPairs(registry: Registry, catalog: Catalog): void {
  const { view } = catalog;
  new Gauge({
    name: 'volary_directory_pairs',
    help: 'Pairs of a primary with a secondary, by state',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      const pairs = [...view.volumes.values()].flatMap(({ segments }) => segments.flatMap(secondariesOf));
      for (const state of STATES) {
        this.set({ state }, pairs.filter(({ pair }) => pair === state).length);
      }
    },
  });
  const counter = (name: string, help: string): Counter =>
    new Counter({ name: `volary_directory_${name}_total`, help, registers: [registry] });
  const counters: Readonly<Record<string, Counter>> = {
    'copy.pair': counter('pair_changes', 'Changes of the state of a pair'),
    'copy.switched': counter('switches', 'Volumes whose primary was switched'),
    'copy.failed-over': counter('failovers', 'Volumes that failed over'),
    'copy.discarded': counter('discards', 'Copies that have given up what they alone had'),
  };
  catalog.onCommit((changes) => {
    for (const { table, record } of changes) {
      if (table === 'events' && record !== null && Object.hasOwn(counters, record.kind)) {
        counters[record.kind]?.inc();
      }
    }
  });
}

function volumeBytes(view: CatalogView): number {
  return [...view.volumes.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

function online(view: CatalogView, prefix: string): number {
  return [...view.presence.keys()].filter((peer) => peer.startsWith(prefix)).length;
}

function unfinished(view: CatalogView): number {
  return [...view.operations.values()].filter(({ finishedAt }) => finishedAt === null).length;
}
