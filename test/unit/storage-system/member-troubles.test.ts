import { readFileSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { StoreError } from '../../../src/model/errors.ts';
import { wanted } from '../../../src/replication/group-rules.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { NbdClient } from '../../support/client.ts';
import { allDuplex, type Copy, type LabGroup, type LabOptions, MemberLab } from '../../support/member-lab.ts';
import { exportOf, MiB } from '../../support/storage-system.ts';
import { eventually } from '../../support/tools.ts';

const SIZE = 16 * MiB;

let lab: MemberLab;
afterEach(async () => {
  await lab[Symbol.asyncDispose]();
});

async function duplexGroup(options: LabOptions = {}): Promise<LabGroup & { first: Copy; second: Copy }> {
  lab = await MemberLab.start(options);
  const made = await lab.makeGroup(SIZE);
  await allDuplex(made);
  const [first, second] = made.copies;
  if (first === undefined || second === undefined) throw new Error('there are two copies');
  return { ...made, first, second };
}

const page = (value: number): Buffer => Buffer.alloc(4096, value);

test('both shrink while the secondary lacks what is cut off, and grow again: it is brought up all the same', async () => {
  const made = await duplexGroup({ limits: { idleMs: 100 } });
  const { first, second, group } = made;
  group.change((segment) => wanted(segment, second.realVolume, 'suspended'));
  await eventually('suspended', () => group.copy(second.realVolume).pair === 'suspended' || undefined);
  for (const offset of [0, SIZE - 4096]) await lab.volume(first).write(offset, page(3), 0, 4096, false);
  group.change((segment) => ({ ...segment, length: SIZE / 4 }));
  for (const { storage, realVolume } of [first, second]) {
    await lab.system(storage).realVolumes.change(realVolume, { sizeBytes: SIZE / 4 });
  }
  expect(lab.system('s1').members.view(first.realVolume).pairs).toMatchObject([{ outOfSyncBytes: 4096 }]);
  group.change((segment) => wanted(segment, second.realVolume, 'following'));
  await allDuplex(made);
  await lab.volume(first).write(SIZE / 4 - 4096, page(4), 0, 4096, false);
  const [small, same] = made.files.map((file) => readFileSync(file));
  expect(small?.length).toBe(SIZE / 4);
  expect(same?.equals(small as Buffer)).toBe(true);
  for (const { storage, realVolume } of [second, first]) {
    await lab.system(storage).realVolumes.change(realVolume, { sizeBytes: SIZE });
  }
  group.change((segment) => ({ ...segment, length: SIZE }));
  await lab.volume(first).write(SIZE - 4096, page(5), 0, 4096, false);
  const [one, other] = made.files.map((file) => readFileSync(file));
  expect(one?.at(-1)).toBe(5);
  expect(other?.equals(one as Buffer)).toBe(true);
});

test('what is held for a range that is cut off meanwhile is refused, and harms nobody', async () => {
  const made = await duplexGroup();
  await lab.system('s1').stop();
  await lab.system('s2').stop();
  await lab.startSystem('s1');
  // It waits for the other, which may be in step.
  const write = outcomeOf(lab.volume(made.first).write(SIZE - 4096, page(5), 0, 4096, false));
  await lab.system('s1').realVolumes.change(made.first.realVolume, { sizeBytes: SIZE / 4 });
  expect(await write).toBe('invalid');
  expect(await outcomeOf(lab.volume(made.first).write(0, page(6), 0, 4096, false))).toBe('done');
});

test('I6: what is lacked behind the size that the group was told is lacked after a start, too', async () => {
  const made = await duplexGroup();
  const { first, second, group } = made;
  for (const { storage, realVolume } of [second, first]) {
    await lab.system(storage).realVolumes.change(realVolume, { sizeBytes: 2 * SIZE });
  }
  await lab.system('s2').stop();
  expect(await outcomeOf(lab.volume(first).write(2 * SIZE - 4096, page(7), 0, 4096, false))).toBe('done');
  await lab.system('s1').stop();
  await lab.startSystem('s1');
  await lab.startSystem('s2');
  group.change((segment) => ({ ...segment, length: 2 * SIZE }));
  await allDuplex(made);
  const [one, other] = made.files.map((file) => readFileSync(file));
  expect(one?.at(-1)).toBe(7);
  expect(other?.equals(one as Buffer)).toBe(true);
});

test('I11: the last copy of a group waits for the lease of the primary before, also when that is taken away', async () => {
  const made = await duplexGroup({ leaseMs: 1_500 });
  const { first, second, group } = made;
  await lab.system('s1').stop();
  group.failOver(second.realVolume);
  group.remove(first.realVolume);
  const { members } = lab.system('s2');
  await eventually('it has been told', () => members.views().some(({ epoch }) => epoch === 2) || undefined);
  await eventually('it is alone', async () => {
    const view = members.view(second.realVolume);
    return view.pairs.length === 0 || undefined;
  });
  expect(members.isMember(second.realVolume)).toBe(true);
  const client = await NbdClient.open(lab.system('s2').uri, exportOf(second.realVolume, 2));
  expect(await client.write(0, page(1))).toBe(0);
  await eventually('it is no member', () => !members.isMember(second.realVolume) || undefined);
  expect(await client.write(0, page(2))).toBe(0);
  client.wire.destroy();
});

test.each(['s1', 's2'])(
  'I17: a member on %s that cannot be opened again is tried until it can',
  async (name) => {
    let [isFailing, failures, attempts] = [false, 0, 0];
    const made = await duplexGroup({
      folders: (system, folders) => ({
        ...folders,
        open: async (...args) => {
          if (isFailing && system === name) {
            attempts += 1;
            if (attempts === 2) isFailing = false;
            throw new StoreError('no-space', 'the disk is full');
          }
          const folder = await folders.open(...args);
          const begun: typeof folder.begun = (token, range) => {
            if (failures === 0 && system === name && range.offset === 8192) {
              [isFailing, failures] = [true, 1];
              throw new StoreError('no-space', 'the disk is full');
            }
            folder.begun(token, range);
          };
          return { ...folder, begun };
        },
      }),
    });
    const { first } = made;
    const volume = () => lab.system('s1').members.behind(first.realVolume)?.volume;
    await eventually('a write is answered', async () => {
      const outcome = outcomeOf(volume()?.write(8192, page(2), 0, 4096, false) ?? Promise.resolve());
      return (volume() !== undefined && (await outcome) === 'done') || undefined;
    });
    await eventually('it has been tried', () => attempts === 2 || undefined);
    await eventually('it is there again', () => lab.system(name).members.views().length === 1 || undefined);
    await allDuplex(made);
  },
);
