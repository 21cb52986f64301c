import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { ReadGate } from '../../../src/storage/read-gate.ts';

/** Runs `count` reads of `ms` each, all asked for at once. The most that were under way together. */
async function most(gate: ReadGate, count: number, ms: number): Promise<number> {
  let running = 0;
  let highest = 0;
  const read = async () => {
    running += 1;
    highest = Math.max(highest, running);
    await sleep(ms);
    running -= 1;
  };
  await Promise.all(Array.from({ length: count }, () => gate.run(read)));
  return highest;
}

test('a few at a time until the disk is known, as many as it takes when it is slow, few again when it is not', async () => {
  const gate = new ReadGate();
  expect(await most(gate, 64, 20)).toBe(4);
  expect(await most(gate, 64, 20)).toBe(16);
  await Promise.all(Array.from({ length: 128 }, () => gate.run(() => Promise.resolve())));
  expect(await most(gate, 10, 20)).toBe(4);
});

test('one that fails gives its place to the next, and its failure to who asked', async () => {
  const gate = new ReadGate();
  const failing = () => Promise.reject(new Error('bad sector'));
  const outcomes = await Promise.allSettled(Array.from({ length: 20 }, () => gate.run(failing)));
  expect(outcomes.every(({ status }) => status === 'rejected')).toBe(true);
  expect(await gate.run(() => Promise.resolve('read'))).toBe('read');
});

test('they begin in the order in which they were asked for', async () => {
  const gate = new ReadGate();
  const begun: number[] = [];
  await Promise.all(
    Array.from({ length: 12 }, (_, index) => gate.run(() => Promise.resolve(begun.push(index)))),
  );
  expect(begun).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
});
