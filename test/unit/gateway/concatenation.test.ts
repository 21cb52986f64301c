/** What the contract cannot see of a Concatenation: who gets what, and how failures of parts come out. */

import { expect, test } from 'vitest';
import { Concatenation } from '../../../src/gateway/concatenation.ts';
import { VolumeError } from '../../../src/model/errors.ts';
import type { Volume } from '../../../src/model/volume.ts';
import { FaultVolume } from '../../support/volumes/fault-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const PIECE = 16 * 1024;

/** Two volumes, each with `gap` bytes in front of its piece. */
function pair(gap = 4096): { volume: Concatenation; parts: [FaultVolume, FaultVolume] } {
  const part = (): FaultVolume => new FaultVolume(new MemoryVolume(Buffer.alloc(gap + PIECE, 1)));
  const parts: [FaultVolume, FaultVolume] = [part(), part()];
  const segments = parts.map((volume, index) => ({
    offset: index * PIECE,
    length: PIECE,
    volume,
    volumeOffset: gap,
  }));
  return { volume: new Concatenation(segments), parts };
}

async function errorOf(operation: Promise<unknown>): Promise<VolumeError> {
  try {
    await operation;
  } catch (error) {
    if (error instanceof VolumeError) return error;
    throw error;
  }
  throw new Error('it succeeded');
}

test('3, 4: a write over the border whose second part fails is a failure, where the second part starts', async () => {
  const { volume, parts } = pair();
  parts[1].inject({ operation: 'write', code: 'no-space' });
  const error = await errorOf(volume.write(PIECE - 512, Buffer.alloc(1024, 7), 0, 1024, false));
  expect(error).toMatchObject({ code: 'no-space', offset: PIECE });
});

test('3: the failure of the first part in the volume is the one that is told', async () => {
  const { volume, parts } = pair();
  parts[0].inject({ operation: 'read', code: 'io' });
  parts[1].inject({ operation: 'read', code: 'failed' });
  const error = await errorOf(volume.read(0, Buffer.alloc(2 * PIECE), 0, 2 * PIECE));
  expect(error).toMatchObject({ code: 'io', offset: 0 });
});

test('4: an error that says where in its volume it was, says where in the whole it is', async () => {
  class Scratched extends FaultVolume {
    override read(): Promise<void> {
      return Promise.reject(new VolumeError('io', 'a scratch', { offset: 4096 + 100 }));
    }
    override readNow(): boolean {
      throw new VolumeError('io', 'a scratch', { offset: 4096 + 100 });
    }
  }
  const [first, second] = [Buffer.alloc(PIECE), Buffer.alloc(4096 + PIECE)].map((b) => new MemoryVolume(b));
  const volume = new Concatenation([
    { offset: 0, length: PIECE, volume: first as Volume, volumeOffset: 0 },
    { offset: PIECE, length: PIECE, volume: new Scratched(second as Volume), volumeOffset: 4096 },
  ]);
  const target = Buffer.alloc(1024);
  expect(await errorOf(volume.read(PIECE, target, 0, 512))).toMatchObject({ offset: PIECE + 100 });
  expect(await errorOf(volume.read(PIECE - 512, target, 0, 1024))).toMatchObject({ offset: PIECE + 100 });
  expect(() => volume.readNow(PIECE, target, 0, 512)).toThrow(
    expect.objectContaining({ offset: PIECE + 100 }),
  );
});

test('5: a flush that finds one server away fails, and a later one may succeed', async () => {
  class Away extends FaultVolume {
    away = false;
    flushes = 0;
    override async flush(): Promise<void> {
      this.flushes += 1;
      if (this.away) throw new VolumeError('io', 'nobody there');
    }
  }
  const parts = [0, 1].map(() => new Away(new MemoryVolume(Buffer.alloc(PIECE))));
  const volume = new Concatenation(
    parts.map((part, index) => ({ offset: index * PIECE, length: PIECE, volume: part, volumeOffset: 0 })),
  );
  (parts[1] as Away).away = true;
  expect((await errorOf(volume.flush())).code).toBe('io');
  await volume.write(0, Buffer.alloc(512), 0, 512, false);
  (parts[1] as Away).away = false;
  await volume.flush();
  expect(parts.map(({ flushes }) => flushes)).toEqual([2, 2]);
});

test('6: fast zeroes that a later segment refuses are made slowly; the first one may refuse them', async () => {
  class Slow extends FaultVolume {
    override async writeZeroes(
      ...[offset, length, options]: Parameters<Volume['writeZeroes']>
    ): Promise<void> {
      if (options.fast) throw new VolumeError('not-supported', 'that would be slow');
      await this.inner.writeZeroes(offset, length, options);
    }
  }
  const inner = [0, 1].map(() => new MemoryVolume(Buffer.alloc(PIECE, 1)));
  const segment = (index: number, volume: Volume) => ({
    offset: index * PIECE,
    length: PIECE,
    volume,
    volumeOffset: 0,
  });
  const [a, b] = inner as [MemoryVolume, MemoryVolume];
  const fast = { fua: false, noHole: false, fast: true };
  const slowBehind = new Concatenation([segment(0, a), segment(1, new Slow(b))]);
  await slowBehind.writeZeroes(PIECE - 512, 1024, fast);
  const bytes = Buffer.alloc(1024, 9);
  await slowBehind.read(PIECE - 512, bytes, 0, 1024);
  expect(bytes.equals(Buffer.alloc(1024))).toBe(true);
  const slowBefore = new Concatenation([segment(0, new Slow(a)), segment(1, b)]);
  expect((await errorOf(slowBefore.writeZeroes(PIECE - 1024, 4096, fast))).code).toBe('not-supported');
  const kept = Buffer.alloc(512);
  await slowBefore.read(PIECE + 512, kept, 0, 512);
  expect(kept.equals(Buffer.alloc(512, 1))).toBe(true);
});

test('block status: equal neighbours of different segments are one extent, and there are never too many', async () => {
  const { volume } = pair();
  await volume.trim(PIECE - 4096, 8192, false);
  expect(await volume.blockStatus(0, 2 * PIECE, 10)).toEqual([
    { length: PIECE - 4096, hole: false, zero: false },
    { length: 8192, hole: true, zero: true },
    { length: PIECE - 4096, hole: false, zero: false },
  ]);
  expect(await volume.blockStatus(0, 2 * PIECE, 2)).toEqual([
    { length: PIECE - 4096, hole: false, zero: false },
    { length: 8192, hole: true, zero: true },
  ]);
  expect(volume.mayHaveHoles(0, 4096)).toBe(false);
  expect(volume.mayHaveHoles(PIECE - 8192, 16_384)).toBe(true);
});

test('capabilities are what all have, block sizes what suits all', () => {
  class Poor extends FaultVolume {
    override get capabilities() {
      return { ...this.inner.capabilities, trim: false, cache: false };
    }
    override get blockSizes() {
      return { minimum: 512, preferred: 65_536, maximumPayload: 1024 * 1024 };
    }
  }
  const [rich, poor] = [
    new MemoryVolume(Buffer.alloc(PIECE)),
    new Poor(new MemoryVolume(Buffer.alloc(PIECE))),
  ];
  const volume = new Concatenation([
    { offset: 0, length: PIECE, volume: rich as Volume, volumeOffset: 0 },
    { offset: PIECE, length: PIECE, volume: poor as Volume, volumeOffset: 0 },
  ]);
  expect(volume.capabilities).toEqual({
    ...(rich as Volume).capabilities,
    trim: false,
    cache: false,
    resize: false,
  });
  expect(volume.blockSizes).toEqual({ minimum: 512, preferred: 65_536, maximumPayload: 1024 * 1024 });
});

test('1: what cannot be a segment is refused', () => {
  const inner = new MemoryVolume(Buffer.alloc(PIECE));
  const whole = { offset: 0, length: PIECE, volume: inner, volumeOffset: 0 };
  expect(() => new Concatenation([{ ...whole, length: PIECE + 1 }])).toThrow(VolumeError);
  expect(() => new Concatenation([{ ...whole, volumeOffset: 512 }])).toThrow(VolumeError);
  expect(() => new Concatenation([{ ...whole, offset: 512 }])).toThrow('assertion failed');
});
