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
  let asked: Promise<Figures> | undefined;
  /** One look for all of them: they are collected at the same time. */
  const now = () => {
    asked ??= figures().finally(() => {
      asked = undefined;
    });
    return asked;
  };
  const gauge = (name: string, help: string, value: (figures: Figures) => number) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        this.set(value(await now()));
      },
    });
  new Gauge({
    name: 'volary_real_volumes',
    help: 'Real volumes by state',
    labelNames: ['state'],
    registers,
    async collect() {
      const { byState } = await now();
      for (const state of RealVolumeState.options) this.set({ state }, byState.get(state) ?? 0);
    },
  });
  gauge('volary_real_volume_connections', 'NBD connections to real volumes', (of) => of.connections);
  gauge('volary_open_files', 'Files of real volumes that are open', (of) => of.openFiles);
  gauge('volary_capacity_bytes', 'Capacity for real volumes', (of) => of.capacityBytes);
  gauge('volary_provisioned_bytes', 'Sum of the sizes of all real volumes', (of) => of.provisionedBytes);
  gauge('volary_used_bytes', 'Allocated in the file system by real volumes', (of) => of.usedBytes);
  gauge('volary_registered', 'The directory has answered its last report', (now) =>
    now.isRegistered ? 1 : 0,
  );
}
