/** Copies of volumes that lie on several storage systems: each segment has a primary of its own. */

import { expect, test } from 'vitest';
import { MiB, until } from '../../support/directory-lab.ts';
import { A, B, becomes, C, makeCopyLab, standing, V } from './copy-lab.ts';

async function makeTwoSegments() {
  const lab = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }, { storage: 'b' }], ['c']);
  const { directory } = lab;
  await becomes(directory, 'a primary, c duplex', 0);
  await becomes(directory, 'b primary, c duplex', 1);
  return lab;
}

test('failover moves what lies on a storage system that is away, and leaves the rest where it is', async () => {
  const { directory, a, ...lab } = await makeTwoSegments();
  await a.stop();
  await until(async () => (await directory.storageSystem(A)).state === 'offline');
  expect(await lab.ended(directory.failOver(V, { storage: C }))).toMatchObject({ state: 'done' });
  expect(await standing(directory, 0)).toContain('c primary');
  expect(await standing(directory, 1)).toBe('b primary, c duplex');
});

test('failover moves all of it when nothing is known to be away', async () => {
  const { directory, ...lab } = await makeTwoSegments();
  expect(await lab.ended(directory.failOver(V, { storage: C }))).toMatchObject({ state: 'done' });
  for (const at of [0, 1]) expect(await standing(directory, at)).toContain('c primary');
});

test('switch and failover move the segments that have a copy there', async () => {
  const { directory, ...lab } = await makeTwoSegments();
  expect(await lab.ended(directory.switchCopy(V, { storage: C }))).toMatchObject({ state: 'done' });
  expect(await lab.ended(directory.switchCopy(V, { storage: A }))).toMatchObject({ state: 'done' });
  expect(await standing(directory, 0)).toBe('a primary, c duplex');
  expect(await standing(directory, 1)).toBe('b duplex, c primary');
  expect(await lab.ended(directory.failOver(V, { storage: B }))).toMatchObject({ state: 'done' });
  expect(await standing(directory, 1)).toContain('b primary');
  await expect(directory.switchCopy(V, { storage: A })).rejects.toMatchObject({ code: 'conflict' });
});
