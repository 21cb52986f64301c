import { createHash } from 'node:crypto';
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { BlockBitmap } from '../../../src/base/block-bitmap.ts';
import type { Range } from '../../../src/base/range.ts';
import { DifferenceBitmaps } from '../../../src/storage/difference-bitmaps.ts';
import { type Folder, memoryFolder, mountTmpfs } from '../../support/disk.ts';
import { afterPowerLoss, tornPrefixes } from '../../support/power-loss.ts';
import { seededRandom } from '../../support/random.ts';

const REAL_VOLUME = 'rv-0123456789abcdef';
const OTHER = 'rv-aaaaaaaaaaaaaaaa';
const THIRD = 'rv-bbbbbbbbbbbbbbbb';
const PAGE = 32_512 * 4096; // what one page of bits stands for
const SIZE = 3 * PAGE + 10_000;

let folder: Folder;
let path: string;
beforeEach(() => {
  folder = memoryFolder();
  path = join(folder.path, `lacks-${OTHER}`);
});
afterEach(() => folder.remove());

function open(sizeBytes = SIZE): Promise<DifferenceBitmaps> {
  return DifferenceBitmaps.open(folder.path, REAL_VOLUME, sizeBytes);
}

/** What the next process finds that the other lacks; undefined: it has no file. */
async function loaded(sizeBytes = SIZE): Promise<Range[] | undefined> {
  const bitmaps = await open(sizeBytes);
  const bitmap = bitmaps.load().get(OTHER);
  await bitmaps.close();
  return bitmap === undefined ? undefined : [...bitmap.ranges()];
}

async function changed(change: (bitmaps: DifferenceBitmaps) => unknown, sizeBytes = SIZE): Promise<void> {
  const bitmaps = await open(sizeBytes);
  await change(bitmaps);
  await bitmaps.close();
}

const everything = [{ offset: 0, length: SIZE }];
const first = { offset: 8192, length: 4096 };
const second = { offset: PAGE - 4096, length: 8192 };
const last = { offset: 3 * PAGE + 8192, length: 1808 };

test('what is set is there in the next process, for each member by itself, and what is cleared is not', async () => {
  await changed((bitmaps) => {
    bitmaps.set(OTHER, [first, second, last]);
    bitmaps.set(THIRD, [{ offset: 1, length: 4096 }]);
    bitmaps.clear(OTHER, [{ offset: PAGE, length: 4096 }]);
    bitmaps.clear('rv-cccccccccccccccc', [first]);
  });
  const bitmaps = await open();
  expect([...bitmaps.load()].map(([member, bitmap]) => [member, [...bitmap.ranges()]])).toEqual([
    [OTHER, [first, { offset: PAGE - 4096, length: 4096 }, last]],
    [THIRD, [{ offset: 0, length: 8192 }]],
  ]);
  bitmaps.forget(OTHER);
  bitmaps.forget(OTHER);
  bitmaps.set(OTHER, [last]);
  await bitmaps.flush();
  bitmaps.forget(THIRD);
  await bitmaps.flush();
  await bitmaps.close();
  expect(await loaded()).toEqual([last]);
  await expect(bitmaps.flush()).rejects.toThrow('open them again');
});

test('a member that is added has a file and lacks nothing; names that are no members are our own mistake', async () => {
  await changed((bitmaps) => {
    bitmaps.add(OTHER);
    bitmaps.add(OTHER);
    expect(() => bitmaps.set('../rv-aaaaaaaaaaaaaaaa', [first])).toThrow('is no real volume');
  });
  expect(await loaded()).toEqual([]);
});

// ── as a bitmap in memory ──────────────────────────────────────────────────────────────────────────────────

const offsets = fc.oneof(
  fc.nat({ max: SIZE }),
  fc.nat({ max: 20_000 }),
  fc.integer({ min: PAGE - 9000, max: PAGE + 9000 }),
  fc.constantFrom(0, PAGE, 2 * PAGE, 3 * PAGE, SIZE),
);
const ranges = fc
  .tuple(offsets, offsets)
  .map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));
const changes = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom('set' as const, 'clear' as const),
      ranges: fc.array(ranges, { maxLength: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('resize' as const), sizeBytes: offsets }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constantFrom('flush' as const, 'reopen' as const, 'spoil' as const) }),
  },
);

test('it is what a bitmap in memory would be, in files, too, of which everything is set', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(changes, { maxLength: 25 }), async (taken) => {
      rmSync(path, { force: true });
      let bitmaps = await open();
      bitmaps.add(OTHER);
      const model = new BlockBitmap(SIZE);
      for (const change of taken) {
        if (change.kind === 'set' || change.kind === 'clear') {
          bitmaps[change.kind](OTHER, change.ranges);
          for (const range of change.ranges) model[change.kind](range);
        } else if (change.kind === 'resize') {
          await bitmaps.resize(change.sizeBytes);
          model.resize(change.sizeBytes);
        } else if (change.kind === 'flush') {
          await bitmaps.flush();
        } else {
          await bitmaps.close();
          if (change.kind === 'spoil') {
            writeFileSync(path, 'damaged');
            model.setAll();
          }
          bitmaps = await open(model.sizeBytes);
        }
        expect([...(bitmaps.load().get(OTHER)?.ranges() ?? [])]).toEqual([...model.ranges()]);
      }
      await bitmaps.close();
    }),
    { numRuns: 200 },
  );
}, 60_000);

test('a file of a large volume is as sparse as its bits', async () => {
  const TiB = 2 ** 40;
  await changed((bitmaps) => {
    bitmaps.set(OTHER, [first, { offset: 15 * TiB, length: 4096 }]);
  }, 16 * TiB);
  expect(statSync(path).blocks * 512).toBeLessThan(64 * 1024);
  expect(await loaded(16 * TiB)).toEqual([first, { offset: 15 * TiB, length: 4096 }]);
});

// ── power loss and damage ──────────────────────────────────────────────────────────────────────────────────

function blocksOf(ranges: readonly Range[]): BlockBitmap {
  const bitmap = new BlockBitmap(SIZE);
  for (const range of ranges) bitmap.set(range);
  return bitmap;
}

describe('torn by power loss', () => {
  async function torn(change: (bitmaps: DifferenceBitmaps) => unknown): Promise<[Buffer, Buffer]> {
    await changed(async (bitmaps) => {
      bitmaps.set(OTHER, [first, second]);
      await bitmaps.flush();
    });
    const before = readFileSync(path);
    await changed(change);
    return [before, readFileSync(path)];
  }

  test('set: what was set before is there after every byte of the change', async () => {
    const [before, after] = await torn((bitmaps) =>
      bitmaps.set(OTHER, [{ offset: 40_960, length: 81_920 }, last]),
    );
    for (const bytes of tornPrefixes(before, after)) {
      writeFileSync(path, bytes);
      const found = blocksOf((await loaded()) ?? []);
      expect(found.has(first) && found.has(second)).toBe(true);
    }
  });

  test('cleared: what has not been cleared is there after every byte of the change', async () => {
    const [before, after] = await torn((bitmaps) =>
      bitmaps.clear(OTHER, [{ offset: PAGE - 4096, length: 4096 }]),
    );
    for (const bytes of tornPrefixes(before, after)) {
      writeFileSync(path, bytes);
      const found = blocksOf((await loaded()) ?? []);
      expect(found.has(first) && found.has({ offset: PAGE, length: 4096 })).toBe(true);
    }
  });

  test('everything at once: what is set before and after is set', async () => {
    for (let seed = 0; seed < 300; seed++) {
      const random = seededRandom(seed);
      const some = (): Range[] =>
        Array.from({ length: 1 + random.below(4) }, () => {
          return {
            offset: random.below(SIZE),
            length: 1 + random.below(random.below(9) === 0 ? SIZE : 90_000),
          };
        });
      rmSync(path, { force: true });
      await changed(async (bitmaps) => {
        bitmaps.set(OTHER, some());
        await bitmaps.flush();
      });
      const [before, wasSet] = [readFileSync(path), blocksOf((await loaded()) ?? [])];
      await changed((bitmaps) => {
        bitmaps.set(OTHER, some());
        bitmaps.clear(OTHER, some());
      });
      const [after, isSet] = [readFileSync(path), (await loaded()) ?? []];
      writeFileSync(path, afterPowerLoss(before, after, random));
      const found = blocksOf((await loaded()) ?? []);
      for (const { offset, length } of isSet) {
        for (let block = offset; block < offset + length; block += 4096) {
          const range = { offset: block, length: 1 };
          if (wasSet.has(range) && !found.has(range)) throw new Error(`seed ${seed}: lost ${block}`);
        }
      }
    }
  });
});

describe('damage', () => {
  beforeEach(() => changed((bitmaps) => bitmaps.set(OTHER, [first, second, last])));

  test('no byte of both headers can change unseen: everything differs then', async () => {
    const whole = readFileSync(path);
    for (let at = 0; at < 512; at++) {
      const bytes = Buffer.from(whole);
      for (const start of [0, 4096]) bytes[start + at] = (bytes[start + at] as number) ^ 1;
      writeFileSync(path, bytes);
      expect({ at, found: await loaded() }).toEqual({ at, found: everything });
      expect({ at, found: await loaded() }).toEqual({ at, found: everything }); // and stays so
    }
  });

  test('no byte of a page can change unseen: all of its blocks differ then', async () => {
    const whole = readFileSync(path);
    for (let at = 0; at < 4096; at += at < 40 ? 1 : 61) {
      const bytes = Buffer.from(whole);
      bytes[8192 + at] = (bytes[8192 + at] as number) ^ 0x80;
      writeFileSync(path, bytes);
      const found = [{ offset: 0, length: PAGE + 4096 }, last];
      expect({ at, found: await loaded() }).toEqual({ at, found });
    }
  });

  test('cut short, exchanged or of another pair: everything differs', async () => {
    const whole = readFileSync(path);
    for (const length of [whole.length - 1, 12_288, 8192, 511, 32]) {
      writeFileSync(path, whole);
      truncateSync(path, length);
      expect({ length, found: await loaded() }).toEqual({ length, found: everything });
    }
    for (const bytes of [Buffer.alloc(20_000, 9), Buffer.from('x')]) {
      writeFileSync(path, bytes);
      expect(await loaded()).toEqual(everything);
    }
    writeFileSync(path, whole);
    const other = await DifferenceBitmaps.open(folder.path, THIRD, SIZE);
    expect([...(other.load().get(OTHER)?.ranges() ?? [])]).toEqual(everything);
    await other.close();
  });

  test('a page in the place of another counts as damaged', async () => {
    const whole = readFileSync(path);
    whole.copyWithin(8192 + 4096, 8192, 8192 + 4096);
    writeFileSync(path, whole);
    expect(await loaded()).toEqual([first, { offset: PAGE - 4096, length: PAGE + 4096 }, last]);
  });

  test('a file that was never durable has what it has', async () => {
    const whole = readFileSync(path);
    whole.fill(0, 0, 8192);
    writeFileSync(path, whole);
    expect(await loaded()).toEqual([first, second, last]);
    truncateSync(path, 0);
    expect(await loaded()).toEqual([]);
    await changed((bitmaps) => bitmaps.set(OTHER, [first]));
    expect(await loaded()).toEqual([first]);
  });
});

test('a full disk: everything counts as set as long as there is no room, and what is set when there is', async () => {
  const mount = await mountTmpfs('size=64k,mode=0700');
  try {
    const bitmaps = await DifferenceBitmaps.open(mount.path, REAL_VOLUME, 100 * PAGE);
    bitmaps.add(OTHER);
    await bitmaps.flush();
    const filler = join(mount.path, 'filler');
    try {
      writeFileSync(filler, Buffer.alloc(65_536));
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
    }
    const ranges = [3, 50, 99].map((page) => ({ offset: page * PAGE, length: 4096 }));
    bitmaps.set(OTHER, ranges);
    await bitmaps.flush();
    expect([...(bitmaps.load().get(OTHER)?.ranges() ?? [])]).toEqual(ranges); // this process knows it
    const look = async () => {
      const bytes = readFileSync(join(mount.path, `lacks-${OTHER}`));
      writeFileSync(path, bytes);
      return loaded(100 * PAGE);
    };
    expect(await look()).toEqual([{ offset: 0, length: 100 * PAGE }]);
    rmSync(filler);
    await bitmaps.flush();
    expect(await look()).toEqual(ranges);
    await bitmaps.close();
  } finally {
    await mount.remove();
  }
});

test('the file has the layout that its comment draws', async () => {
  await changed((bitmaps) =>
    bitmaps.set(OTHER, [
      { offset: 8192, length: 4096 },
      { offset: 2 * PAGE, length: PAGE },
    ]),
  );
  const bytes = readFileSync(path);
  expect(bytes.length).toBe(8192 + 4 * 4096);
  expect(bytes.readBigUInt64LE(32 + 56)).toBe(BigInt(SIZE));
  for (const at of [0, 4096]) {
    expect(bytes.toString('latin1', at, at + 8)).toBe('VolaryDB');
    expect([bytes[at + 32], bytes[at + 33], bytes.readUInt32LE(at + 36)]).toEqual([0, 0, 4096]);
    expect(bytes.toString('latin1', at + 40, at + 59)).toBe(REAL_VOLUME);
    expect(bytes.toString('latin1', at + 64, at + 83)).toBe(OTHER);
  }
  expect(bytes[8192 + 32]).toBe(0b100);
  expect(bytes.subarray(12_288, 16_384).every((byte) => byte === 0)).toBe(true);
  expect(bytes.readBigUInt64LE(16_384 + 4)).toBe(2n);
  expect(bytes.subarray(16_384 + 32, 20_480).every((byte) => byte === 0xff)).toBe(true);
  expect(createHash('sha256').update(bytes).digest('hex')).toMatchInlineSnapshot(
    `"b954659ac08ebf1d74d32a460a8d00040be7d49805aaef1613981fa891fc4508"`,
  );
});
