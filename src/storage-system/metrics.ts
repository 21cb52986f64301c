/** What a storage system shows on /metrics, beside what every process does. */

import { Gauge, type Registry } from '@prometheus-io/client';
import { RealVolumeState } from '../control-protocol/storage-api.ts';

export interface Figures {
  readonly byState: ReadonlyMap<RealVolumeState, number>;
  readonly connections: number;
  readonly openFiles: number;
  readonly capacityBytes: number;
  readonly provisionedBytes: number;
  readonly usedBytes: number;
  readonly isRegistered: boolean;
}

export function addMetrics(registry: Registry, figures: () => Promise<Figures>): void {
  const registers = [registry];
  const gauge = (name: string, help: string, value: (figures: Figures) => number) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        this.set(value(await figures()));
      },
    });
  new Gauge({
    name: 'volary_real_volumes',
    help: 'Real volumes by state',
    labelNames: ['state'],
    registers,
    async collect() {
      const { byState } = await figures();
      for (const state of RealVolumeState.options) this.set({ state }, byState.get(state) ?? 0);
    },
  });
  gauge('volary_real_volume_connections', 'NBD connections to real volumes', (now) => now.connections);
  gauge('volary_open_files', 'Files of real volumes that are open', (now) => now.openFiles);
  gauge('volary_capacity_bytes', 'Capacity for real volumes', (now) => now.capacityBytes);
  gauge('volary_provisioned_bytes', 'Sum of the sizes of all real volumes', (now) => now.provisionedBytes);
  gauge('volary_used_bytes', 'Allocated in the file system by real volumes', (now) => now.usedBytes);
  gauge('volary_registered', 'The directory has answered its last report', (now) =>
    now.isRegistered ? 1 : 0,
  );
}
