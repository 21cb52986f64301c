import { expect, test } from 'vitest';
import { Limit } from '../../../src/peer-protocol/constants.ts';
import { PayloadMemory } from '../../../src/peer-protocol/payload-memory.ts';

test('every size up to the largest payload is had, and no two share a byte', () => {
  const memory = new PayloadMemory();
  const sizes = [1, 512, 4096, 32_768, 32_769, 65_536, 65_537, 1 << 20, Limit.payloadBytes];
  const payloads = sizes.flatMap((bytes) => [memory.take(bytes), memory.take(bytes)]);
  for (const [i, payload] of payloads.entries()) payload.fill(i);
  for (const [i, payload] of payloads.entries()) {
    expect(payload.length).toBe(sizes[i >> 1]);
    expect(payload.every((byte) => byte === i)).toBe(true);
  }
});

test('large memory that was given back is had again, small memory is not', () => {
  const memory = new PayloadMemory();
  const large = memory.take(100_000);
  memory.give(large);
  expect(memory.retainedBytes).toBe(131_072);
  expect(memory.take(131_072).buffer).toBe(large.buffer);
  expect(memory.retainedBytes).toBe(0);
  expect(memory.take(100_000).buffer).not.toBe(large.buffer);
  memory.give(memory.take(4096));
  expect(memory.retainedBytes).toBe(0);
});

test('what is kept is bounded', () => {
  const memory = new PayloadMemory();
  for (const payload of Array.from({ length: 100 }, () => memory.take(1 << 20))) memory.give(payload);
  expect(memory.retainedBytes).toBe(32 << 20);
});
