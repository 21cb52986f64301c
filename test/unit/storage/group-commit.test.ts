import { expect, test } from 'vitest';
import { GroupCommit } from '../../../src/storage/group-commit.ts';

function controlled() {
  const syncs: { succeed: () => void; fail: (error: Error) => void }[] = [];
  const group = new GroupCommit(() => new Promise((succeed, fail) => syncs.push({ succeed, fail })));
  return { group, syncs };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

test('a commit never shares the sync that runs already, and all that wait share the next one', async () => {
  const { group, syncs } = controlled();
  const ended: string[] = [];
  group.commit().then(() => ended.push('first'));
  group.commit().then(() => ended.push('second'));
  group.commit().then(() => ended.push('third'));
  expect(syncs.length).toBe(1);
  syncs[0]?.succeed();
  await turn();
  expect(ended).toEqual(['first']);
  expect(syncs.length).toBe(2);
  group.commit().then(() => ended.push('fourth'));
  syncs[1]?.succeed();
  await turn();
  expect(ended).toEqual(['first', 'second', 'third']);
  expect(syncs.length).toBe(3);
  syncs[2]?.succeed();
  await turn();
  expect(ended.at(-1)).toBe('fourth');
});

test('a failure reaches those who shared that sync; the others have the outcome of theirs', async () => {
  const { group, syncs } = controlled();
  const first = group.commit();
  const second = group.commit();
  const third = group.commit();
  syncs[0]?.fail(new Error('first failed'));
  await expect(first).rejects.toThrow('first failed');
  await turn();
  syncs[1]?.fail(new Error('second failed'));
  await expect(second).rejects.toThrow('second failed');
  await expect(third).rejects.toThrow('second failed');
  const fourth = group.commit();
  expect(syncs.length).toBe(3);
  syncs[2]?.succeed();
  await expect(fourth).resolves.toBeUndefined();
});
