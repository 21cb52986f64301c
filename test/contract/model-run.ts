/** Runs random operations on a volume and holds what it does against the model, and other looks at a volume. */

import { expect } from 'vitest';
import { VolumeError } from '../../src/model/errors.ts';
import type { Extent, Volume } from '../../src/model/volume.ts';
import { fitting, type Operation, type Step, valueAfter } from './volume-model.ts';

/** 'done', or the code of the VolumeError. Anything else that is thrown is passed on. */
export async function outcomeOf(operation: Promise<unknown>): Promise<string> {
  try {
    await operation;
    return 'done';
  } catch (error) {
    if (error instanceof VolumeError) return error.code;
    throw error;
  }
}

export async function bytesOf(volume: Volume): Promise<Buffer> {
  const bytes = Buffer.alloc(volume.sizeBytes);
  await volume.read(0, bytes, 0, bytes.length);
  return bytes;
}

interface Asked {
  offset: number;
  length: number;
  extentsMax: number;
  bytes: Buffer;
}

export function checkExtents(extents: Extent[], { offset, length, extentsMax, bytes }: Asked): void {
  expect(extents.length).toBeGreaterThan(0);
  expect(extents.length).toBeLessThanOrEqual(extentsMax);
  let from = offset;
  for (const [index, extent] of extents.entries()) {
    expect(extent.length).toBeGreaterThan(0);
    const next = extents[index + 1];
    if (next !== undefined) expect([next.hole, next.zero]).not.toEqual([extent.hole, extent.zero]);
    if (extent.zero)
      expect(bytes.subarray(from, from + extent.length).every((byte) => byte === 0)).toBe(true);
    from += extent.length;
  }
  expect(from).toBeLessThanOrEqual(offset + length);
  if (extents.length < extentsMax) expect(from).toBe(offset + length);
}

/** Runs the steps on a volume that holds `contents`; fails where it differs from the model. */
export async function runAgainstModel(
  volume: Volume,
  contents: Buffer,
  sequence: readonly Step[],
): Promise<void> {
  let model: Buffer = Buffer.from(contents);
  for (const step of sequence) {
    if (step.kind === 'resize') {
      if (!volume.capabilities.resize) continue;
      await volume.resize(step.sizeBytes);
      const resized = Buffer.alloc(step.sizeBytes);
      model.copy(resized);
      model = resized;
      expect((await bytesOf(volume)).equals(model)).toBe(true);
    } else {
      const operations = step.operations.flatMap((op) => fitting(op, volume) ?? []);
      const outcomes = await Promise.all(operations.map((op) => start(volume, op)));
      // A fast zero that was refused has done nothing.
      const effective = operations.filter((_, index) => outcomes[index] !== 'refused');
      const after = await bytesOf(volume);
      checkBatch({ before: model, after, operations: effective });
      checkReads(operations, outcomes, { before: model, changes: effective });
      model = after;
      await checkStatus(volume, operations, model);
    }
  }
}

/** Runs one operation: the bytes of a read, 'refused' for a fast zero that would be slow. */
async function start(volume: Volume, op: Operation): Promise<Buffer | 'refused' | undefined> {
  switch (op.kind) {
    case 'read': {
      const target = Buffer.alloc(op.length);
      if (!op.now || !volume.readNow(op.offset, target, 0, op.length)) {
        await volume.read(op.offset, target, 0, op.length);
      }
      return target;
    }
    case 'write': {
      const source = Buffer.alloc(op.length, op.byte);
      if (op.now && volume.writeNow(op.offset, source, 0, op.length)) source.fill(0);
      else await volume.write(op.offset, source, 0, op.length, op.fua);
      return undefined;
    }
    case 'writeZeroes': {
      const outcome = await outcomeOf(volume.writeZeroes(op.offset, op.length, op));
      if (!op.fast || outcome !== 'not-supported') expect(outcome).toBe('done');
      return outcome === 'done' ? undefined : 'refused';
    }
    case 'trim':
      await volume.trim(op.offset, op.length, op.fua);
      return undefined;
    case 'flush':
      await volume.flush();
      return undefined;
    case 'cache':
      await volume.cache(op.offset, op.length);
      return undefined;
    case 'blockStatus':
      await volume.blockStatus(op.offset, op.length, op.extentsMax);
      return undefined;
  }
}

/** Every byte is what one of the operations that touched it left there, or as before where none did. */
function checkBatch({
  before,
  after,
  operations,
}: {
  before: Buffer;
  after: Buffer;
  operations: Operation[];
}): void {
  expect(after.length).toBe(before.length);
  // Most batches end as if they had run in order; only then is there nothing to look at byte by byte.
  const inOrder = Buffer.from(before);
  for (const op of operations) {
    if (op.kind === 'write') inOrder.fill(op.byte, op.offset, op.offset + op.length);
    else if (op.kind === 'writeZeroes') inOrder.fill(0, op.offset, op.offset + op.length);
  }
  if (after.equals(inOrder)) return;
  for (const [position, value] of after.entries()) {
    if (value === inOrder[position]) continue;
    const values = operations.flatMap((op) => valueAfter(op, position) ?? []);
    if (values.includes(value) || values.includes('any')) continue;
    const expected = values.length === 0 ? before[position] : values.join(' or ');
    expect.fail(`byte ${position} is ${value} and should be ${expected}`);
  }
}

/** A read that ran beside changes saw each byte as before or as one of them left it. */
function checkReads(
  operations: Operation[],
  outcomes: (Buffer | 'refused' | undefined)[],
  { before, changes }: { before: Buffer; changes: Operation[] },
): void {
  for (const [index, op] of operations.entries()) {
    const bytes = outcomes[index];
    if (op.kind !== 'read' || !(bytes instanceof Buffer)) continue;
    if (bytes.equals(before.subarray(op.offset, op.offset + op.length))) continue;
    for (const [at, value] of bytes.entries()) {
      const position: number = op.offset + at;
      if (value === before[position]) continue;
      const values: (number | 'any')[] = changes.flatMap((change) => valueAfter(change, position) ?? []);
      if (values.includes(value) || values.includes('any')) continue;
      expect.fail(`read ${value} at ${position}: was ${before[position]}, may be ${values.join(' or ')}`);
    }
  }
}

async function checkStatus(volume: Volume, operations: Operation[], bytes: Buffer): Promise<void> {
  for (const op of operations) {
    if (op.kind !== 'blockStatus') continue;
    const extents = await volume.blockStatus(op.offset, op.length, op.extentsMax);
    checkExtents(extents, { ...op, bytes });
    if (volume.mayHaveHoles(op.offset, op.length)) continue;
    expect(extents.some((extent) => extent.hole)).toBe(false);
  }
}
