/** The contract, for a VirtualVolume over storage systems, while its paths change all the time. */

import { expect, onTestFinished, test } from 'vitest';
import { VolumeRecord } from '../../src/control-protocol/catalog.ts';
import type { RealVolumeId } from '../../src/control-protocol/names.ts';
import { informationOf, planOf, type VolumePlan } from '../../src/gateway/second-information.ts';
import { VirtualVolume } from '../../src/gateway/virtual-volume.ts';
import { volumeOf } from '../support/cluster/records.ts';
import { realVolumeId, StorageStandIn } from '../support/cluster/storage-stand-in.ts';
import { silentLog } from '../support/log.ts';
import { DelayVolume, seededDelays } from '../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import { type Subject, volumeContract } from './volume-contract.ts';

const BORDER = 20_480;
const CHANGE_EVERY_MS = 10;

interface Changing extends Subject {
  /** The storage system has a new epoch; the volume is told of it when that is done. */
  change(index: 0 | 1): Promise<void>;
}

/** Two segments on two storage systems; with `restless`, one of them has a new epoch every few milliseconds. */
async function virtualVolumeOf(contents: Buffer, restless: boolean): Promise<Changing> {
  const storage = [new StorageStandIn('a'), new StorageStandIn('b')] as const;
  const pieces = [contents.subarray(0, BORDER), contents.subarray(BORDER)];
  const epochs = [1, 1];
  const ids: RealVolumeId[] = [];
  for (const [index, system] of storage.entries()) {
    const id = realVolumeId(index);
    ids.push(id);
    const inner = new MemoryVolume(pieces[index] as Buffer);
    system.put(id, restless ? new DelayVolume(inner, seededDelays(index, 2)) : inner);
    await system.start();
  }
  const plan = (): VolumePlan => {
    const segments = storage.map(({ name }, index) => ({
      storage: name,
      realVolume: ids[index] as string,
      length: (pieces[index] as Buffer).length,
      epoch: epochs[index] ?? 1,
    }));
    const volumes = [VolumeRecord.parse(volumeOf('disk', segments))];
    const records = storage.map(({ record }) => record) as never[];
    const information = informationOf({ clusterId: '', revision: 1, volumes, storage: records });
    const planning = planOf(information, 'disk');
    if (planning.kind !== 'plan') throw new Error(`no plan: ${planning.kind}`);
    return planning.plan;
  };
  const options = { connections: 2, reconnectMs: 10_000, log: silentLog, onRefused: () => undefined };
  const volume = await VirtualVolume.open(plan(), options, () => undefined);
  let changing: Promise<void> | undefined;
  const change = async (index: 0 | 1): Promise<void> => {
    await storage[index].raiseEpoch(ids[index] as RealVolumeId);
    epochs[index] = (epochs[index] ?? 0) + 1;
    volume.update(plan());
  };
  const timer = setInterval(() => {
    if (!restless || changing !== undefined) return;
    changing = change(epochs[0] === epochs[1] ? 0 : 1).finally(() => {
      changing = undefined;
    });
  }, CHANGE_EVERY_MS);
  const dispose = async (): Promise<void> => {
    clearInterval(timer);
    await changing;
    await volume.close();
    for (const system of storage) await system.stop();
  };
  return { volume, dispose, change };
}

volumeContract('a VirtualVolume', { make: (contents) => virtualVolumeOf(contents, false) });
volumeContract('a VirtualVolume whose paths get new epochs all the time', {
  make: (contents) => virtualVolumeOf(contents, true),
});

test('a VirtualVolume that is being closed follows its paths: what is under way has to end', async () => {
  const subject = await virtualVolumeOf(Buffer.alloc(2 * BORDER), false);
  onTestFinished(() => subject.dispose());
  const { volume } = subject;
  const order: string[] = [];
  const changing = subject.change(0).then(() => order.push('changed'));
  const writing = volume.write(0, Buffer.alloc(512, 1), 0, 512, true).then(() => order.push('written'));
  await Promise.all([volume.close(), changing, writing]);
  expect(order).toEqual(['changed', 'written']);
});
