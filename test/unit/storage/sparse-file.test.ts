/** What a SparseFile does beyond the contract: memory and pool, holes, a file that changes under it. */

import { rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { VolumeError } from '../../../src/model/errors.ts';
import { type OpenOptions, openSparseFile } from '../../../src/storage/open-sparse-file.ts';
import type { SparseFile } from '../../../src/storage/sparse-file.ts';
import { diskFolder, dropFromPageCache, type Folder, memoryFolder, mountTmpfs } from '../../support/disk.ts';

const MIB = 1024 * 1024;
const cleanUps: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const cleanUp of cleanUps.splice(0).reverse()) await cleanUp();
});

async function make(folder: Folder, contents: Buffer, options: OpenOptions = {}) {
  cleanUps.push(folder.remove);
  const path = join(folder.path, 'volume.img');
  writeFileSync(path, contents);
  const volume = await openSparseFile(path, options);
  cleanUps.push(() => volume.close());
  return { volume, path };
}

async function outcome(operation: Promise<unknown>): Promise<string> {
  try {
    await operation;
    return 'done';
  } catch (error) {
    if (error instanceof VolumeError) return error.code;
    throw error;
  }
}

async function bytesAt(volume: SparseFile, offset: number, length: number): Promise<Buffer> {
  const target = Buffer.alloc(length);
  await volume.read(offset, target, 0, length);
  return target;
}

describe('on a disk', () => {
  const contents = Buffer.alloc(2 * MIB, 'cold');

  test('a read that misses the page cache is not done now; on the pool it is, and from then on now', async () => {
    const { volume, path } = await make(diskFolder(), contents);
    await dropFromPageCache(path);
    const target = Buffer.alloc(4096);
    expect(volume.readNow(MIB, target, 0, 4096)).toBe(false);
    await volume.read(MIB, target, 0, 4096);
    expect(target.equals(contents.subarray(0, 4096))).toBe(true);
    target.fill(0);
    expect(volume.readNow(MIB, target, 0, 4096)).toBe(true);
    expect(target.equals(contents.subarray(0, 4096))).toBe(true);
  });

  // A fresh file for each: looking starts reading ahead, and a write that took long sends the next to the pool.
  test.each([
    ['into the middle of a page', 100, 200],
    ['up to the end of a page', 100, 3996],
    ['from the start of a page', 0, 100],
    ['with a part of a page behind whole ones', 4096, 4196],
  ])(
    'a write %s that is not in memory is not done now; on the pool it is right',
    async (_, offset, length) => {
      const { volume, path } = await make(diskFolder(), contents);
      const source = Buffer.alloc(length, 'new!');
      await dropFromPageCache(path);
      expect(volume.writeNow(offset, source, 0, length)).toBe(false);
      await volume.write(offset, source, 0, length, false);
      const expected = Buffer.from(contents);
      source.copy(expected, offset);
      expect((await bytesAt(volume, 0, 2 * MIB)).equals(expected)).toBe(true);
    },
  );

  test('a write into part of a page that is in memory is done now', async () => {
    const { volume } = await make(diskFolder(), contents);
    await bytesAt(volume, 0, 8192);
    expect(volume.writeNow(100, Buffer.alloc(200, 'new!'), 0, 200)).toBe(true);
    expect((await bytesAt(volume, 98, 6)).toString('latin1')).toBe('ldnew!');
  });

  test('a write of whole pages that are not in memory is done now', async () => {
    const { volume, path } = await make(diskFolder(), contents);
    await dropFromPageCache(path);
    expect(volume.writeNow(MIB, Buffer.alloc(8192, 'new!'), 0, 8192)).toBe(true);
    expect((await bytesAt(volume, MIB + 8190, 4)).toString('latin1')).toBe('w!co');
  });

  test('more than 1 MiB is never copied on the event loop', async () => {
    const { volume } = await make(diskFolder(), contents);
    const large = Buffer.alloc(MIB + 1);
    await volume.read(0, large, 0, large.length);
    expect(volume.readNow(0, large, 0, MIB)).toBe(true);
    expect(volume.readNow(0, large, 0, large.length)).toBe(false);
    expect(volume.writeNow(0, large, 0, large.length)).toBe(false);
  });

  test('trim and zeroes give blocks back, noHole takes them; the length of the file stays', async () => {
    const { volume, path } = await make(diskFolder(), contents);
    await volume.flush();
    const blocks = () => statSync(path).blocks * 512;
    expect(blocks()).toBeGreaterThanOrEqual(2 * MIB);
    await volume.trim(0, MIB, true);
    expect(blocks()).toBeLessThan(1.1 * MIB);
    await volume.writeZeroes(MIB, MIB, { fua: true, noHole: false, fast: true });
    expect(blocks()).toBeLessThan(MIB / 10);
    await volume.writeZeroes(MIB / 2, MIB, { fua: true, noHole: true, fast: true });
    expect(blocks()).toBeGreaterThanOrEqual(MIB);
    expect(statSync(path).size).toBe(2 * MIB);
    expect((await bytesAt(volume, 0, 2 * MIB)).every((byte) => byte === 0)).toBe(true);
  });

  test('what no file here can hold is too big to resize to, and the volume is as before', async () => {
    const { volume } = await make(diskFolder(), contents);
    expect(await outcome(volume.resize(2 ** 53 - 1))).toBe('too-big');
    expect([volume.sizeBytes, volume.state]).toEqual([2 * MIB, 'ok']);
  });

  test('asking whether a file system has holes leaves the file as it is', async () => {
    const { volume, path } = await make(diskFolder(), contents.subarray(0, 5000));
    expect(volume.capabilities).toMatchObject({ trim: true, writeZeroes: true, fastZero: true });
    expect(statSync(path).size).toBe(5000);
    expect((await bytesAt(volume, 0, 5000)).equals(contents.subarray(0, 5000))).toBe(true);
  });
});

for (const [where, folder] of [
  ['on a disk', diskFolder],
  ['in memory', memoryFolder],
] as const) {
  describe(`block status ${where}`, () => {
    test('data is learned as far as it reaches, also before the place that was asked for', async () => {
      const { volume } = await make(folder(), Buffer.alloc(2 * MIB, 1));
      expect(volume.mayHaveHoles(MIB, 4096)).toBe(true);
      expect(await volume.blockStatus(MIB, 4096, 1)).toEqual([{ length: 4096, hole: false, zero: false }]);
      expect(volume.mayHaveHoles(0, 2 * MIB)).toBe(false);
      await volume.trim(MIB, 4096, false);
      expect(volume.mayHaveHoles(MIB, 1)).toBe(true);
      expect(volume.mayHaveHoles(0, MIB)).toBe(false);
      expect(volume.mayHaveHoles(MIB + 4096, MIB - 4096)).toBe(false);
    });

    test('a hole is told although what comes before and after is known to be data', async () => {
      const { volume } = await make(folder(), Buffer.alloc(MIB, 1));
      await volume.blockStatus(0, MIB, 1);
      await volume.writeZeroes(8192, 4096, { fua: false, noHole: false, fast: false });
      const target = Buffer.alloc(4096);
      await volume.read(8192, target, 0, 4096);
      expect(await volume.blockStatus(8192, 4096, 9)).toEqual([{ length: 4096, hole: true, zero: true }]);
      expect(await volume.blockStatus(4096, 12_288, 9)).toEqual([
        { length: 4096, hole: false, zero: false },
        { length: 4096, hole: true, zero: true },
        { length: 4096, hole: false, zero: false },
      ]);
    });

    test('data that is being trimmed while it is asked for is not remembered as data', async () => {
      const { volume } = await make(folder(), Buffer.alloc(4 * MIB, 1));
      for (let at = 0; at < 4 * MIB; at += 65_536) {
        const answers = [
          volume.blockStatus(at, 65_536, 9),
          volume.trim(at, 65_536, false),
          volume.blockStatus(at, 65_536, 9),
        ];
        await Promise.all(answers);
        expect(volume.mayHaveHoles(at, 65_536)).toBe(true);
      }
    });

    test('what a resize cut off and added again may have holes', async () => {
      const { volume } = await make(folder(), Buffer.alloc(2 * MIB, 1));
      await volume.blockStatus(0, 2 * MIB, 1);
      expect(volume.mayHaveHoles(0, 2 * MIB)).toBe(false);
      await volume.resize(MIB);
      await volume.resize(2 * MIB);
      expect(volume.mayHaveHoles(MIB, 4096)).toBe(true);
      expect(volume.mayHaveHoles(0, MIB)).toBe(false);
    });

    test('a file of many pieces is told piece by piece', async () => {
      const { volume } = await make(folder(), Buffer.alloc(0));
      await volume.resize(2 * MIB);
      const page = Buffer.alloc(4096, 1);
      for (let at = 0; at < 2 * MIB; at += 8192) await volume.write(at, page, 0, 4096, false);
      const extents = await volume.blockStatus(0, 2 * MIB, 1000);
      expect(extents.length).toBe(512);
      expect(extents.every(({ length, hole }, index) => length === 4096 && hole === (index % 2 === 1))).toBe(
        true,
      );
      expect((await volume.blockStatus(0, 2 * MIB, 7)).length).toBe(7);
    });
  });

  describe(`a file that is cut short by somebody else, ${where}`, () => {
    test('a read behind its end fails with the place, writes are refused, reads of the rest go on', async () => {
      const reasons: string[] = [];
      const onFailed = (reason: string) => reasons.push(reason);
      const { volume, path } = await make(folder(), Buffer.alloc(65_536, 5), { onFailed });
      truncateSync(path, 8192);
      const target = Buffer.alloc(16_384);
      expect(volume.readNow(0, target, 0, 16_384)).toBe(false);
      expect(volume.state).toBe('ok');
      await expect(volume.read(0, target, 0, 16_384)).rejects.toMatchObject({ code: 'io', offset: 8192 });
      await expect(volume.read(32_768, target, 0, 512)).rejects.toMatchObject({ code: 'io', offset: 32_768 });
      expect([volume.state, reasons.length]).toEqual(['failed', 1]);
      expect(volume.failure).toBe(reasons[0]);
      expect(await outcome(volume.write(0, target, 0, 512, false))).toBe('failed');
      expect(() => volume.writeNow(0, target, 0, 512)).toThrow(VolumeError);
      expect(await outcome(volume.flush())).toBe('failed');
      expect((await bytesAt(volume, 0, 8192)).equals(Buffer.alloc(8192, 5))).toBe(true);
    });

    test('block status finds it: what was cut off is lost, and no hole', async () => {
      const { volume, path } = await make(folder(), Buffer.alloc(65_536, 5));
      truncateSync(path, 8192);
      expect(await volume.blockStatus(0, 8192, 9)).toEqual([{ length: 8192, hole: false, zero: false }]);
      await expect(volume.blockStatus(0, 65_536, 9)).rejects.toMatchObject({ code: 'io', offset: 8192 });
      expect(volume.state).toBe('failed');
    });

    test('a flush finds it', async () => {
      const { volume, path } = await make(folder(), Buffer.alloc(65_536));
      await volume.flush();
      truncateSync(path, 65_535);
      expect(await outcome(volume.flush())).toBe('failed');
      expect(volume.state).toBe('failed');
      truncateSync(path, 65_536);
      expect(await outcome(volume.flush())).toBe('failed');
    });

    test('our own resize is none, however many writes and reads run beside it', async () => {
      const { volume, path } = await make(folder(), Buffer.alloc(8 * MIB, 1));
      const source = Buffer.alloc(MIB, 2);
      const writes = [6, 7].map((mib) => volume.write(mib * MIB, source, 0, MIB, true));
      const reads = [6, 7].map((mib) => outcome(volume.read(mib * MIB, Buffer.alloc(MIB), 0, MIB)));
      const resizes = [volume.resize(MIB), volume.resize(4 * MIB), volume.resize(3 * MIB)];
      await Promise.all([...writes, ...resizes]);
      for (const result of await Promise.all(reads)) expect(['done', 'invalid']).toContain(result);
      await volume.flush();
      expect([volume.sizeBytes, statSync(path).size, volume.state]).toEqual([3 * MIB, 3 * MIB, 'ok']);
      expect((await bytesAt(volume, MIB, 2 * MIB)).every((byte) => byte === 0)).toBe(true);
    });
  });
}

test('a full disk: no-space, the volume and its bytes stay, and with space freed writes work again', async () => {
  const { volume } = await make(await mountTmpfs('size=1m'), Buffer.alloc(0));
  await volume.resize(4 * MIB);
  const piece = Buffer.alloc(65_536, 3);
  let written = 0;
  while (volume.writeNow(written, piece, 0, piece.length)) written += piece.length;
  expect(written).toBeGreaterThan(MIB / 2);
  await expect(volume.write(written, piece, 0, piece.length, true)).rejects.toMatchObject({
    code: 'no-space',
  });
  const zero = { fua: false, noHole: true, fast: false };
  expect(await outcome(volume.writeZeroes(2 * MIB, MIB, zero))).toBe('no-space');
  expect(volume.state).toBe('ok');
  await volume.flush();
  expect((await bytesAt(volume, 0, written)).every((byte) => byte === 3)).toBe(true);
  expect(await outcome(volume.writeZeroes(0, 2 * MIB, zero))).toBe('no-space'); // before anything was zeroed
  expect((await bytesAt(volume, 0, written)).every((byte) => byte === 3)).toBe(true);
  await volume.trim(0, 4 * piece.length, true);
  await volume.write(3 * MIB, piece, 0, piece.length, true);
  expect((await bytesAt(volume, 3 * MIB, piece.length)).equals(piece)).toBe(true);
  // One write that fits in part goes on from there, and only then finds that there is no more.
  const large = Buffer.alloc(2 * MIB, 4);
  await expect(volume.write(0, large, 0, large.length, false)).rejects.toMatchObject({ code: 'no-space' });
});

test('a read-only volume refuses to change', async () => {
  const { volume } = await make(memoryFolder(), Buffer.alloc(4096), { readOnly: true });
  const source = Buffer.alloc(512);
  expect(() => volume.writeNow(0, source, 0, 512)).toThrow(VolumeError);
  expect(await outcome(volume.write(0, source, 0, 512, false))).toBe('read-only');
  expect(await outcome(volume.trim(0, 512, false))).toBe('read-only');
  expect(await outcome(volume.resize(0))).toBe('read-only');
  expect(await outcome(volume.flush())).toBe('done');
});

describe.each([
  ['on a disk', diskFolder],
  ['in memory', memoryFolder],
] as const)('%s', (_, folder) => {
  test('while the kernel holds the lock of the file for a trim, no write is done on the event loop', async () => {
    const { volume } = await make(folder(), Buffer.alloc(2 * MIB, 1));
    const source = Buffer.alloc(4096, 2);
    const trimming = volume.trim(MIB, MIB, false);
    expect(volume.writeNow(0, source, 0, 4096)).toBe(false);
    await volume.write(0, source, 0, 4096, false);
    await trimming;
    expect(volume.writeNow(4096, source, 0, 4096)).toBe(true);
    expect((await bytesAt(volume, 0, 8192)).equals(Buffer.alloc(8192, 2))).toBe(true);
  });

  test('S5: a flush of a file that has been removed fails, and says why', async () => {
    const { volume, path } = await make(folder(), Buffer.alloc(MIB, 1));
    await volume.flush();
    rmSync(path);
    expect(await outcome(volume.flush())).toBe('failed');
    expect(volume.failure).toContain('removed');
  });
});
