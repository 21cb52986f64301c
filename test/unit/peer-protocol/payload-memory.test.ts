import { expect, test } from 'vitest';
import { Limit } from '../../../src/peer-protocol/constants.ts';
import { PayloadMemory } from '../../../src/peer-protocol/payload-memory.ts';

test('every size up to the largest payload is had, and no two share a byte', () => {
  const memory = new PayloadMemory();
  const sizes = [1, 512, 2048, 2049, 4096, 4097, 32_768, 32_769, 65_536, 65_537, 1 << 20, Limit.payloadBytes];
  const payloads = sizes.flatMap((bytes) => [memory.take(bytes), memory.take(bytes)]);
  for (const [i, payload] of payloads.entries()) payload.fill(i);
  for (const [i, payload] of payloads.entries()) {
    expect(payload.length).toBe(sizes[i >> 1]);
    expect(payload.every((byte) => byte === i)).toBe(true);
  }
});

test('memory that was given back is had again, however it was cut; tiny memory is not', () => {
  const memory = new PayloadMemory();
  const large = memory.take(100_000);
  memory.give(large);
  expect(memory.retainedBytes).toBe(131_072);
  expect(memory.take(131_072).buffer).toBe(large.buffer);
  expect(memory.retainedBytes).toBe(0);
  expect(memory.take(100_000).buffer).not.toBe(large.buffer);
  const small = memory.take(5000);
  memory.give(small);
  expect(memory.retainedBytes).toBe(8192);
  const again = memory.take(8192);
  expect([again.buffer, again.byteOffset]).toEqual([small.buffer, small.byteOffset]);
  expect(memory.retainedBytes).toBe(0);
  memory.give(memory.take(2048));
  expect(memory.retainedBytes).toBe(0);
});

test('no two share a byte when some have been given back between', () => {
  const memory = new PayloadMemory();
  const first = Array.from({ length: 40 }, (_, i) => memory.take(3000 + 100 * i));
  for (const [i, payload] of first.entries()) if (i % 2 === 0) memory.give(payload);
  const held = first.filter((_, i) => i % 2 === 1);
  held.push(...Array.from({ length: 40 }, (_, i) => memory.take(7000 - 100 * i)));
  for (const [i, payload] of held.entries()) payload.fill(i);
  for (const [i, payload] of held.entries()) expect(payload.every((byte) => byte === i)).toBe(true);
});

test('what is kept is bounded', () => {
  const memory = new PayloadMemory();
  for (const payload of Array.from({ length: 100 }, () => memory.take(1 << 20))) memory.give(payload);
  expect(memory.retainedBytes).toBe(32 << 20);
  for (const payload of Array.from({ length: 2000 }, () => memory.take(4096))) memory.give(payload);
  expect(memory.retainedBytes).toBe(36 << 20);
});
