/** What /metrics says of the cluster, read when it is asked for. */

import { Gauge, type Registry } from '@prometheus-io/client';
import type { CatalogView } from './catalog-view.ts';

export function registerMetrics(registry: Registry, view: CatalogView, streams: () => number): void {
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

function volumeBytes(view: CatalogView): number {
  return [...view.volumes.values()].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
}

function online(view: CatalogView, prefix: string): number {
  return [...view.presence.keys()].filter((peer) => peer.startsWith(prefix)).length;
}

function unfinished(view: CatalogView): number {
  return [...view.operations.values()].filter(({ finishedAt }) => finishedAt === null).length;
}
