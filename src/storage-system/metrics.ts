/** What a storage system shows on /metrics, beside what every process does. */

import { Gauge, type Registry } from '@prometheus-io/client';
import { type GroupView, PairView } from '../control-protocol/copy-groups.ts';
import { RealVolumeState } from '../control-protocol/storage-api.ts';

export interface Figures {
  readonly byState: ReadonlyMap<RealVolumeState, number>;
  readonly connections: number;
  readonly openFiles: number;
  readonly capacityBytes: number;
  readonly provisionedBytes: number;
  readonly usedBytes: number;
  readonly isRegistered: boolean;
  /** Of the members that are primary. */
  readonly pairs: ReadonlyMap<PairView['state'], number>;
  readonly outOfSyncBytes: number;
  readonly copiedBytes: number;
  readonly members: ReadonlyMap<GroupView['role'], number>;
}

/** How the copies are, of all members. */
export function copiesOf(
  views: readonly GroupView[],
): Pick<Figures, 'pairs' | 'outOfSyncBytes' | 'copiedBytes' | 'members'> {
  const pairs = new Map<PairView['state'], number>();
  const members = new Map<GroupView['role'], number>();
  let [outOfSyncBytes, copiedBytes] = [0, 0];
  for (const view of views) {
    members.set(view.role, (members.get(view.role) ?? 0) + 1);
    for (const pair of view.pairs) {
      pairs.set(pair.state, (pairs.get(pair.state) ?? 0) + 1);
      outOfSyncBytes += pair.outOfSyncBytes;
      copiedBytes += pair.copiedBytes;
    }
  }
  return { pairs, outOfSyncBytes, copiedBytes, members };
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
  new Gauge({
    name: 'volary_copy_pairs',
    help: 'Pairs of primaries here with their secondaries, by state',
    labelNames: ['state'],
    registers,
    async collect() {
      const { pairs } = await now();
      for (const state of PairView.shape.state.options) this.set({ state }, pairs.get(state) ?? 0);
    },
  });
  new Gauge({
    name: 'volary_copy_members',
    help: 'Real volumes of copy groups, by role',
    labelNames: ['role'],
    registers,
    async collect() {
      const { members } = await now();
      for (const role of ['primary', 'secondary'] as const) this.set({ role }, members.get(role) ?? 0);
    },
  });
  gauge(
    'volary_copy_out_of_sync_bytes',
    'What secondaries of primaries here lack',
    (of) => of.outOfSyncBytes,
  );
  gauge('volary_copied_bytes', 'Copied to secondaries since the process began', (of) => of.copiedBytes);
  gauge('volary_real_volume_connections', 'NBD connections to real volumes', (of) => of.connections);
  gauge('volary_open_files', 'Files of real volumes that are open', (of) => of.openFiles);
  gauge('volary_capacity_bytes', 'Capacity for real volumes', (of) => of.capacityBytes);
  gauge('volary_provisioned_bytes', 'Sum of the sizes of all real volumes', (of) => of.provisionedBytes);
  gauge('volary_used_bytes', 'Allocated in the file system by real volumes', (of) => of.usedBytes);
  gauge('volary_registered', 'The directory has answered its last report', (now) =>
    now.isRegistered ? 1 : 0,
  );
}
