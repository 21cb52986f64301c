import { Gauge, type Registry } from '@prometheus-io/client';
import type { Figures } from './exports.ts';
import type { Knowledge } from './knowledge.ts';

/** Adds what a gateway tells of itself to what /metrics shows. */
export function registerMetrics(registry: Registry, figures: () => Figures, knowledge: Knowledge): void {
  const gauge = (name: string, help: string, value: () => number): void => {
    new Gauge({
      name: `volary_gateway_${name}`,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  };
  gauge('hosts', 'Connections of hosts that use a volume', () => figures().hosts);
  gauge('volumes_in_use', 'Volumes whose paths are open', () => figures().volumes);
  gauge('held_requests', 'Requests that wait while a volume is changed', () => figures().heldRequests);
  gauge('revision', 'Revision of the second information', () => knowledge.information?.revision ?? 0);
  new Gauge({
    name: 'volary_gateway_paths',
    help: 'Paths to real volumes, by state',
    labelNames: ['state'],
    registers: [registry],
    collect() {
      for (const [state, count] of Object.entries(figures().paths)) this.set({ state }, count);
    },
  });
  new Gauge({
    name: 'volary_gateway_paths_to',
    help: 'Paths to real volumes, by the storage system that each leads to',
    labelNames: ['storage'],
    registers: [registry],
    collect() {
      this.reset();
      for (const [storage, count] of Object.entries(figures().pathsTo)) this.set({ storage }, count);
    },
  });
  gauge('path_moves', 'Paths led to another copy, epoch or address, since the start', () => figures().moves);
}
