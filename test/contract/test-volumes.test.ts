/** What the test volumes add to the contract: tests that lean on them may trust them. */

import { expect, test, vi } from 'vitest';
import { DelayVolume, Gate, seededDelays } from '../support/volumes/delay-volume.ts';
import { FaultVolume } from '../support/volumes/fault-volume.ts';
import { LogVolume } from '../support/volumes/log-volume.ts';
import { MemoryVolume } from '../support/volumes/memory-volume.ts';
import { bytesOf, outcomeOf } from './model-run.ts';

const page = Buffer.alloc(4096, 1);

test('Gate holds the chosen operations, before they do anything, and lets them go in any order', async () => {
  const gate = new Gate();
  const volume = new DelayVolume(new MemoryVolume(Buffer.alloc(8192)), gate.delay);
  gate.shut('write');
  const first = volume.write(0, page, 0, 4096, false);
  const second = volume.write(4096, page, 0, 4096, false);
  await volume.flush();
  expect(gate.held.map(({ offset }) => offset)).toEqual([0, 4096]);
  expect((await bytesOf(volume)).every((byte) => byte === 0)).toBe(true);
  gate.letOneGo(1);
  await second;
  expect((await bytesOf(volume)).indexOf(1)).toBe(4096);
  const closing = volume.close();
  gate.open();
  await Promise.all([first, closing]);
  expect(() => gate.letOneGo()).toThrow('no operation waits');
});

test('seeded delays end in the same order for the same seed, and in another for another', async () => {
  vi.useFakeTimers(); // the order is that of the delays, whatever the machine does meanwhile
  try {
    const orderOf = async (seed: number) => {
      const delay = seededDelays(seed, 1000);
      const order: number[] = [];
      const call = { operation: 'read', offset: 0, length: 0, fua: false } as const;
      const all = Promise.all(
        [0, 1, 2, 3, 4, 5, 6, 7].map((index) => delay(call).then(() => order.push(index))),
      );
      await vi.runAllTimersAsync();
      await all;
      return order;
    };
    expect(await orderOf(7)).toEqual(await orderOf(7));
    expect(await orderOf(7)).not.toEqual(await orderOf(8));
  } finally {
    vi.useRealTimers();
  }
});

test('FaultVolume fails the n-th call, now or later, that touches a byte, and the volume behind sees none of it', async () => {
  const volume = new FaultVolume(new MemoryVolume(Buffer.alloc(8192)));
  volume.inject({ operation: 'write', code: 'no-space', at: 2, times: 2, touching: 4096 });
  expect(volume.writeNow(4096, page, 0, 4096)).toBe(true);
  expect(volume.writeNow(0, page, 0, 4096)).toBe(true);
  const source = Buffer.alloc(8192, 2);
  expect(volume.writeNow(0, source, 0, 8192)).toBe(false);
  expect(await outcomeOf(volume.write(0, source, 0, 8192, false))).toBe('no-space');
  expect(await outcomeOf(volume.write(0, source, 0, 8192, false))).toBe('no-space');
  expect((await bytesOf(volume)).includes(2)).toBe(false);
  expect(await outcomeOf(volume.write(0, source, 0, 8192, false))).toBe('done');
  expect((await bytesOf(volume)).includes(1)).toBe(false);
});

test('LogVolume tells what had ended before what started, and keeps the bytes of each write', async () => {
  const gate = new Gate();
  const volume = new LogVolume(new DelayVolume(new MemoryVolume(Buffer.alloc(8192)), gate.delay));
  gate.shut('write');
  const source = Buffer.from(page);
  const write = volume.write(0, source, 0, 4096, true);
  await volume.flush();
  gate.open();
  await write;
  source.fill(9);
  await outcomeOf(volume.read(0, source, 0, 4096));
  await expect(volume.read(8192, source, 0, 1)).rejects.toMatchObject({ code: 'invalid' });
  expect(volume.writeNow(0, page, 0, 4096)).toBe(false);
  const [first, second, third, fourth, ...others] = volume.entries;
  expect(first).toMatchObject({
    operation: 'write',
    offset: 0,
    length: 4096,
    fua: true,
    data: page,
    outcome: 'done',
  });
  expect([first?.startedAt, second?.startedAt, second?.endedAt, first?.endedAt]).toEqual([1, 2, 3, 4]);
  expect([third?.operation, third?.outcome]).toEqual(['read', 'done']);
  expect([fourth?.operation, fourth?.outcome]).toEqual(['read', 'failed']);
  expect(others).toEqual([]);
});
