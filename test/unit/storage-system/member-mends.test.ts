/** What could not be done to a member's real volume is undone as a whole, or done when it is asked for again. */

import { readFileSync, truncateSync } from 'node:fs';
import { afterEach, expect, test } from 'vitest';
import { StoreError } from '../../../src/model/errors.ts';
import { allDuplex, MemberLab } from '../../support/member-lab.ts';
import { MiB } from '../../support/storage-system.ts';
import { eventually } from '../../support/tools.ts';

const SIZE = 8 * MiB;

let lab: MemberLab;
afterEach(async () => {
  await lab[Symbol.asyncDispose]();
});

test('a growth that cannot be kept is undone in the member, too: a copy that is made then has the size that is left', async () => {
  lab = await MemberLab.start({ systems: 3 });
  const made = await lab.makeGroup(SIZE, ['s1', 's2']);
  await allDuplex(made);
  const { table, realVolumes } = lab.system('s1');
  const change = table.change.bind(table);
  table.change = (id, events) => {
    if (!events.some(({ kind }) => kind === 'resized')) return change(id, events);
    throw new StoreError('no-space', 'the disk is full');
  };
  const [first] = made.copies;
  if (first === undefined) throw new Error('there are copies');
  const growth = realVolumes.change(first.realVolume, { sizeBytes: 2 * SIZE });
  await expect(growth).rejects.toMatchObject({ code: 'no-space' });
  table.change = change;
  const more = await lab.addCopy(made, 's3');
  await allDuplex(more);
  const [one, , third] = more.files.map((file) => readFileSync(file));
  expect(third?.equals(one as Buffer)).toBe(true);
});

test('I14: a member that has failed is not taken back before its lost cache is noted; asked for again, it is', async () => {
  let isFull = false;
  lab = await MemberLab.start({
    folders: (system, folders) => ({
      ...folders,
      open: async (...args) => {
        if (isFull && system === 's2') throw new StoreError('no-space', 'the disk is full');
        return folders.open(...args);
      },
    }),
  });
  const made = await lab.makeGroup(SIZE);
  await allDuplex(made);
  const [first, second] = made.copies;
  if (first === undefined || second === undefined) throw new Error('there are copies');
  truncateSync(made.files[1] as string, SIZE / 2);
  await lab.volume(first).flush();
  const { realVolume } = second;
  await eventually('suspended', () => made.group.copy(realVolume).pair === 'suspended' || undefined);
  await lab.volume(first).write(0, Buffer.alloc(4096, 7), 0, 4096, true);
  truncateSync(made.files[1] as string, SIZE);
  const { realVolumes } = lab.system('s2');
  isFull = true;
  await expect(realVolumes.change(realVolume, { failure: 'accepted' })).rejects.toMatchObject({
    code: 'no-space',
  });
  expect(realVolumes.view(realVolume).state).toBe('failed');
  isFull = false;
  await realVolumes.change(realVolume, { failure: 'accepted' });
  await allDuplex(made);
  const [one, other] = made.files.map((file) => readFileSync(file));
  expect(other?.equals(one as Buffer)).toBe(true);
});
