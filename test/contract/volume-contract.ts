/**
 * The suite that every Volume passes: the rules of model/volume.ts, by their numbers. A failing property test
 * prints the seed and the path of fast-check, with which it can be repeated (`fc.assert(…, { seed, path })`).
 */

import * as fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { VolumeError } from '../../src/model/errors.ts';
import type { Volume } from '../../src/model/volume.ts';
import { bytesOf, checkExtents, outcomeOf, runAgainstModel } from './model-run.ts';
import { MODEL_SIZE, steps } from './volume-model.ts';

export interface Subject {
  readonly volume: Volume;
  /** Closes the volume, if it is not closed, and takes away what it left. */
  dispose(): Promise<void>;
}

export interface ContractOptions {
  /** How to make a volume that holds these bytes. */
  make(contents: Buffer): Promise<Subject>;
  /** The volumes take no writes. */
  readonly readOnly?: boolean;
  /** Makes the next flush of the volume fail; without it rule 6 is proved elsewhere. */
  failNextFlush?(volume: Volume): void;
}

const SIZE = MODEL_SIZE;
const contents: Buffer = Buffer.from(
  Array.from({ length: SIZE }, (_, index) => (index * 31 + (index >> 8)) & 0xff),
);

export function volumeContract(name: string, options: ContractOptions): void {
  describe(`${name} keeps the rules of a Volume`, () => {
    const subjects: Subject[] = [];
    const make = async (bytes = contents): Promise<Volume> => {
      const subject = await options.make(bytes);
      subjects.push(subject);
      return subject.volume;
    };
    afterEach(async () => {
      for (const subject of subjects.splice(0)) await subject.dispose();
    });
    rulesOfReading(make);
    if (options.readOnly !== true) rulesOfWriting(make);
    else ruleOfReadOnly(make);
    rulesOfErrors(make);
    const { failNextFlush } = options;
    if (failNextFlush !== undefined) ruleOfFailedFlush(make, failNextFlush);
    test('5: any operations in any order, alone and at the same time, leave the bytes that they should', async () => {
      await fc.assert(
        fc.asyncProperty(steps, async (sequence) => {
          const subject = await options.make(contents);
          try {
            await runAgainstModel(subject.volume, contents, sequence);
          } finally {
            await subject.dispose();
          }
        }),
        { numRuns: 60 },
      );
    });
  });
}

type Make = (bytes?: Buffer) => Promise<Volume>;

function rulesOfReading(make: Make): void {
  test('its shape: block sizes are powers of 2 in their bounds, the size is what was made', async () => {
    const { blockSizes, sizeBytes } = await make();
    expect(sizeBytes).toBe(SIZE);
    expect(Math.log2(blockSizes.minimum) % 1).toBe(0);
    expect(blockSizes.minimum).toBeLessThanOrEqual(65_536);
    expect(Math.log2(blockSizes.preferred) % 1).toBe(0);
    expect(blockSizes.preferred).toBeGreaterThanOrEqual(Math.max(512, blockSizes.minimum));
    expect(blockSizes.maximumPayload).toBeGreaterThanOrEqual(blockSizes.preferred);
  });

  test('1: read fills just target[start, start + length), now or later', async () => {
    const volume = await make();
    for (const [offset, length] of [
      [0, SIZE],
      [4096, 4096],
      [1, 1],
      [SIZE - 1, 1],
      [511, 4098],
      [7, 0],
      [SIZE, 0],
    ] as const) {
      const expected = Buffer.alloc(length + 20, 0xee);
      contents.copy(expected, 10, offset, offset + length);
      const slow = Buffer.alloc(length + 20, 0xee);
      await volume.read(offset, slow, 10, length);
      expect(slow.equals(expected)).toBe(true);
      const fast = Buffer.alloc(length + 20, 0xee);
      if (volume.readNow(offset, fast, 10, length)) expect(fast.equals(expected)).toBe(true);
    }
  });

  test('extents: in order, neighbours differ, not beyond the range, at most as many as asked, zero is zero', async () => {
    const volume = await make();
    if (!volume.capabilities.blockStatus) return;
    const bytes = await bytesOf(volume);
    for (const extentsMax of [1, 2, 100]) {
      for (const [offset, length] of [
        [0, SIZE],
        [1, SIZE - 2],
        [5000, 1],
        [SIZE - 1, 1],
      ] as const) {
        checkExtents(await volume.blockStatus(offset, length, extentsMax), {
          offset,
          length,
          extentsMax,
          bytes,
        });
      }
    }
  });

  test('cache changes nothing', async () => {
    const volume = await make();
    if (volume.capabilities.cache) await volume.cache(4096, SIZE - 4096);
    expect((await bytesOf(volume)).equals(contents)).toBe(true);
  });
}

function rulesOfWriting(make: Make): void {
  test('1, 4: a write takes just source[start, start + length); writeNow never keeps the buffer', async () => {
    const volume = await make();
    const expected = Buffer.from(contents);
    for (const [offset, length] of [
      [0, 4096],
      [8191, 4098],
      [SIZE - 3, 3],
      [5, 0],
    ] as const) {
      const source = Buffer.alloc(length + 20, 0xdd).fill(0xaa, 10, 10 + length);
      const done = volume.writeNow(offset, source, 10, length);
      if (done) source.fill(0x55);
      else await volume.write(offset, source, 10, length, false);
      expected.fill(0xaa, offset, offset + length);
      expect((await bytesOf(volume)).equals(expected)).toBe(true);
      await volume.write(offset, Buffer.alloc(length, 0xbb), 0, length, true);
      expected.fill(0xbb, offset, offset + length);
      expect((await bytesOf(volume)).equals(expected)).toBe(true);
    }
  });

  test('writeZeroes reads as zero with every flag; with noHole too; trim reads the same every time', async () => {
    const volume = await make();
    const can = volume.capabilities;
    if (can.writeZeroes) {
      for (const noHole of [false, true]) {
        await volume.write(0, contents, 0, SIZE, false);
        await volume.writeZeroes(100, 20_000, { fua: true, noHole, fast: false });
        const expected = Buffer.from(contents).fill(0, 100, 20_100);
        expect((await bytesOf(volume)).equals(expected)).toBe(true);
      }
    }
    if (can.trim) {
      await volume.trim(30_000, 20_000, true);
      const after = await bytesOf(volume);
      expect(after.subarray(50_000).equals(contents.subarray(50_000))).toBe(true);
      expect((await bytesOf(volume)).equals(after)).toBe(true);
    }
  });

  test('fast zeroes are made, or refused without a change', async () => {
    const volume = await make();
    if (!volume.capabilities.fastZero) return;
    for (const noHole of [false, true]) {
      const before = await bytesOf(volume);
      const outcome = await outcomeOf(volume.writeZeroes(4096, 8192, { fua: false, noHole, fast: true }));
      expect(['done', 'not-supported']).toContain(outcome);
      const expected = outcome === 'done' ? Buffer.from(before).fill(0, 4096, 12_288) : before;
      expect((await bytesOf(volume)).equals(expected)).toBe(true);
    }
  });

  test('resize: what is added reads as zero, what is cut off is gone for good', async () => {
    const volume = await make();
    if (!volume.capabilities.resize) return;
    await volume.resize(10_000);
    expect(volume.sizeBytes).toBe(10_000);
    await volume.resize(SIZE + 1);
    expect(volume.sizeBytes).toBe(SIZE + 1);
    expect(
      (await bytesOf(volume)).equals(
        Buffer.concat([contents.subarray(0, 10_000), Buffer.alloc(SIZE + 1 - 10_000)]),
      ),
    ).toBe(true);
  });
}

function ruleOfReadOnly(make: Make): void {
  test('7: a read-only volume claims nothing that changes it', async () => {
    const { write, trim, writeZeroes, fastZero, resize } = (await make()).capabilities;
    expect([write, trim, writeZeroes, fastZero, resize]).toEqual([false, false, false, false, false]);
  });
}

function rulesOfErrors(make: Make): void {
  test('3: what lies outside the volume is invalid, and what is no range our own mistake', async () => {
    const volume = await make();
    const buffer = Buffer.alloc(8192);
    for (const [offset, length, failure] of [
      [SIZE, 1, { code: 'invalid' }],
      [SIZE - 1, 2, { code: 'invalid' }],
      [2 ** 52, 1, { code: 'invalid' }],
      [-1, 1, { message: expect.stringContaining('assertion failed') }],
    ] as const) {
      await expect(volume.read(offset, buffer, 0, length)).rejects.toMatchObject(failure);
      await expect(volume.blockStatus(offset, length, 1)).rejects.toMatchObject(failure);
      if (volume.capabilities.write) {
        await expect(volume.write(offset, buffer, 0, length, false)).rejects.toMatchObject(failure);
        await expect(volume.trim(offset, length, false)).rejects.toMatchObject(failure);
        await expect(
          volume.writeZeroes(offset, length, { fua: false, noHole: true, fast: false }),
        ).rejects.toMatchObject(failure);
      }
    }
  });

  test('2: after close everything fails with shutdown; close may be called again', async () => {
    const volume = await make();
    await volume.close();
    await volume.close();
    const buffer = Buffer.alloc(512);
    expect(() => volume.readNow(0, buffer, 0, 512)).toThrow(VolumeError);
    expect(await outcomeOf(volume.read(0, buffer, 0, 512))).toBe('shutdown');
    expect(await outcomeOf(volume.flush())).toBe('shutdown');
    expect(await outcomeOf(volume.cache(0, 512))).toBe('shutdown');
    expect(await outcomeOf(volume.blockStatus(0, 512, 1))).toBe('shutdown');
    if (!volume.capabilities.write) return;
    expect(() => volume.writeNow(0, buffer, 0, 512)).toThrow(VolumeError);
    expect(await outcomeOf(volume.write(0, buffer, 0, 512, false))).toBe('shutdown');
    expect(await outcomeOf(volume.trim(0, 512, false))).toBe('shutdown');
    expect(await outcomeOf(volume.writeZeroes(0, 512, { fua: false, noHole: false, fast: false }))).toBe(
      'shutdown',
    );
    expect(await outcomeOf(volume.resize(0))).toBe('shutdown');
  });

  test('close waits for what is under way', async () => {
    const volume = await make();
    const target = Buffer.alloc(SIZE);
    const order: string[] = [];
    const reading = volume.read(0, target, 0, SIZE).then(() => order.push('read'));
    const work = [reading];
    if (volume.capabilities.write) {
      work.push(volume.write(0, contents, 0, SIZE, true).then(() => order.push('write')));
      work.push(volume.flush().then(() => order.push('flush')));
    }
    await volume.close();
    order.push('closed');
    await Promise.all(work);
    expect(order.at(-1)).toBe('closed');
    expect(target.equals(contents)).toBe(true);
  });
}

function ruleOfFailedFlush(make: Make, failNextFlush: (volume: Volume) => void): void {
  test('6: after a flush has failed, writes and flushes fail, and reads go on', async () => {
    const volume = await make();
    failNextFlush(volume);
    expect(await outcomeOf(volume.flush())).not.toBe('done');
    const buffer = Buffer.alloc(SIZE);
    expect(await outcomeOf(volume.flush())).toBe('failed');
    expect(await outcomeOf(volume.write(0, buffer, 0, 512, false))).toBe('failed');
    expect(() => volume.writeNow(0, buffer, 0, 512)).toThrow(VolumeError);
    expect(await outcomeOf(volume.trim(0, 512, false))).toBe('failed');
    expect((await bytesOf(volume)).equals(contents)).toBe(true);
  });
}
