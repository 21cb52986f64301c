/** Who gets in through a passage, for how long, and what it means to be alone. */

import { afterEach, expect, test } from 'vitest';
import { Doors } from '../../../src/storage-system/doors.ts';
import type { HeldFile } from '../../../src/storage-system/open-volumes.ts';
import type { RealVolume } from '../../../src/storage-system/real-volume.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { NbdClient } from '../../support/client.ts';
import { allDuplex, type Copy, type LabGroup, MemberLab } from '../../support/member-lab.ts';
import { epochOf, exportOf, idOf, MiB } from '../../support/storage-system.ts';
import { eventually } from '../../support/tools.ts';
import { DelayVolume, Gate } from '../../support/volumes/delay-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const SHUTDOWN = 108;
const page = Buffer.alloc(4096, 7);

let lab: MemberLab | undefined;
const clients: NbdClient[] = [];
afterEach(async () => {
  for (const client of clients.splice(0)) client.wire.destroy();
  await lab?.[Symbol.asyncDispose]();
  lab = undefined;
});

async function open({ storage, realVolume }: Copy, epoch: number, manner = ''): Promise<NbdClient> {
  const client = await NbdClient.open(
    lab?.system(storage).uri ?? '',
    `${exportOf(realVolume, epoch)}${manner}`,
  );
  clients.push(client);
  return client;
}

/** Two copies, of which the second has become primary. */
async function switched(): Promise<{ made: LabGroup; first: Copy; second: Copy }> {
  lab = await MemberLab.start();
  const made = await lab.makeGroup(MiB);
  await allDuplex(made);
  const [first, second] = made.copies;
  if (first === undefined || second === undefined) throw new Error('there are two copies');
  await made.group.switchTo(second.realVolume);
  await eventually('the second is primary', async () => {
    const [outcome] = await Promise.allSettled([open(second, 2)]);
    return outcome.status === 'fulfilled' ? true : undefined;
  });
  return { made, first, second };
}

test('passages are taken beside gateways, until one is alone: then the one that is there is shut, and another refused', async () => {
  const { second } = await switched();
  const passage = await open(second, 2, '.passage');
  const ordinary = await open(second, 2);
  expect(await passage.write(0, page)).toBe(0);
  const alone = await open(second, 2, '.alone');
  expect(await passage.write(0, page)).toBe(SHUTDOWN);
  expect([await ordinary.write(0, page), await alone.write(0, page)]).toEqual([0, 0]);
  await expect(open(second, 2, '.passage')).rejects.toThrow('takes nothing through other members');
});

test('hosts on the old path go on through it until somebody is alone, and are told then', async () => {
  lab = await MemberLab.start();
  const made = await lab.makeGroup(MiB);
  await allDuplex(made);
  const [first, second] = made.copies as [Copy, Copy];
  const old = await open(first, 1);
  await made.group.switchTo(second.realVolume);
  expect(await old.write(0, page)).toBe(0);
  await open(second, 2);
  expect(await old.write(4096, page)).toBe(0);
  await open(second, 2, '.alone');
  expect(await old.write(8192, page)).toBe(SHUTDOWN);
});

test('a primary that has been started anew takes no passages: it does not know whether somebody was alone', async () => {
  const { second } = await switched();
  await lab?.system(second.storage).stop();
  await lab?.startSystem(second.storage);
  await eventually('it serves', async () => {
    const [outcome] = await Promise.allSettled([open(second, 2)]);
    return outcome.status === 'fulfilled' ? true : undefined;
  });
  await expect(open(second, 2, '.passage')).rejects.toThrow('takes nothing through other members');
});

test('no passage leads into an epoch that a failover has begun, nor back to who has handed over', async () => {
  const { made, first } = await switched();
  await expect(open(first, 2, '.passage')).rejects.toThrow('not primary');
  await allDuplex(made);
  made.group.failOver(first.realVolume);
  await eventually('the first is primary again', async () => {
    const [outcome] = await Promise.allSettled([open(first, 3, '.alone')]);
    return outcome.status === 'fulfilled' ? true : undefined;
  });
  await expect(open(first, 3, '.passage')).rejects.toThrow('takes nothing through other members');
});

test('hosts are served through into the epoch that the hand-over has begun, and no later one', async () => {
  lab = await MemberLab.start({ systems: 3 });
  const made = await lab.makeGroup(MiB);
  await allDuplex(made);
  const [first, second, third] = made.copies as [Copy, Copy, Copy];
  const old = await open(first, 1);
  await made.group.switchTo(second.realVolume);
  const next = await open(second, 2);
  expect(await old.write(0, page)).toBe(0);
  await allDuplex(made);
  await made.group.switchTo(third.realVolume);
  expect(await next.write(0, page)).toBe(0);
  await eventually('it is told', async () => ((await old.write(0, page)) === SHUTDOWN ? true : undefined));
});

test('to be alone is to wait for what is under way, whoever asks, and for nothing else', async () => {
  const gate = new Gate();
  const volume = new DelayVolume(new MemoryVolume(Buffer.alloc(MiB)), gate.delay);
  const id = idOf(1);
  const realVolume = { id, epoch: epochOf(2), sizeBytes: MiB } as RealVolume;
  const file = { volume, open: async () => volume } as unknown as HeldFile;
  const doors = new Doors({ of: () => 0, cut: async () => undefined });
  const [use, passage] = [doors.door('use', realVolume, file), doors.door('passage', realVolume, file)];
  gate.shut('write');
  const [underWay, other] = [passage, use].map((door) => outcomeOf(door.write(0, page, 0, 4096, false)));
  await eventually('both are there', () => (gate.held.length === 2 ? true : undefined));
  const order: string[] = [];
  const alone = [1, 2].map((n) => doors.endPassages(id).then(() => order.push(`alone ${n}`)));
  void underWay?.then(() => order.push('written'));
  expect(await outcomeOf(passage.write(0, page, 0, 4096, false))).toBe('shutdown');
  gate.letOneGo(0);
  await Promise.all(alone);
  expect(order).toEqual(['written', 'alone 1', 'alone 2']);
  gate.open();
  expect(await other).toBe('done');
  await doors.endPassages(id);
  expect(await outcomeOf(use.write(0, page, 0, 4096, false))).toBe('done');
});
