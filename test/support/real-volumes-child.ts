/**
 * A process that makes, changes and deletes one real volume, to be killed while it does. `node real-volumes-child.ts DATA`
 * prints the number of each step that has been answered, before it goes on.
 */

import { writeSync } from 'node:fs';
import type { ChangeRealVolume } from '../../src/control-protocol/storage-api.ts';
import { RealVolumeTable } from '../../src/storage-system/real-volume-table.ts';
import { RealVolumes } from '../../src/storage-system/real-volumes.ts';
import { volumeFolder } from '../../src/storage-system/start-check.ts';
import { silentLog } from './log.ts';
import { epochOf, idOf, KiB, wantedOf } from './storage-system.ts';

const [data] = process.argv.slice(2);
if (data === undefined) throw new Error('real-volumes-child.ts DATA');
const id = idOf(1);
const table = new RealVolumeTable(`${data}/meta.db`);
const realVolumes = new RealVolumes({
  table,
  fileOf: volumeFolder(`${data}/volumes`).fileOf,
  capacityBytes: 2 ** 40,
  connections: { of: () => 0, cut: async () => undefined },
  idleMax: 8,
  log: silentLog,
  onFailures: () => undefined,
});

const change = (wanted: ChangeRealVolume) => () => realVolumes.change(id, wanted);
const steps: (() => Promise<unknown>)[] = [
  () => realVolumes.make(id, wantedOf(64 * KiB)),
  async () =>
    (await realVolumes.files.file(id).open()).write(0, Buffer.alloc(64 * KiB, 7), 0, 64 * KiB, true),
  change({ sizeBytes: 128 * KiB }),
  change({ sizeBytes: 32 * KiB }),
  change({ epoch: epochOf(2), access: 'prohibited' }),
  () => realVolumes.remove(id, false),
];
for (const [index, step] of steps.entries()) {
  await step();
  writeSync(1, `${index + 1}\n`);
}
await realVolumes.stop();
await realVolumes.files.closeAll();
table.close();
