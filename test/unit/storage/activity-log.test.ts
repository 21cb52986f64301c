import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Range } from '../../../src/base/range.ts';
import { EXTENT_BYTES } from '../../../src/model/copy-granularity.ts';
import { UsageError } from '../../../src/model/errors.ts';
import type { ActivityLog } from '../../../src/storage/activity-log.ts';
import { type OpenedActivityLog, openActivityLog } from '../../../src/storage/open-activity-log.ts';
import { SLOTS } from '../../../src/storage/unsettled-journal.ts';
import { type Folder, memoryFolder } from '../../support/disk.ts';
import { begin, settle } from '../../support/journaled.ts';
import { imageOf, putImage, tornPrefixes } from '../../support/power-loss.ts';

const BOOT = '00112233445566778899aabbccddeeff';
const THIRD_BOOT = '99999999999999999999999999999999';
const NEXT_BOOT = 'ffeeddccbbaa99887766554433221100';
const REAL_VOLUME = 'rv-0123456789abcdef';
const A_SECTOR = 3968;
const SIZE = (A_SECTOR + 100) * EXTENT_BYTES - 4096;

let folder: Folder;
beforeEach(() => {
  folder = memoryFolder();
});
afterEach(() => folder.remove());

function open(bootId = BOOT, isNew = false, sizeBytes = SIZE): Promise<OpenedActivityLog> {
  return openActivityLog(folder.path, { realVolume: REAL_VOLUME, sizeBytes, bootId, isNew });
}

async function make(): Promise<ActivityLog> {
  return (await open(BOOT, true)).log;
}

function extent(number: number): Range {
  return { offset: number * EXTENT_BYTES, length: EXTENT_BYTES };
}

type Told = Pick<OpenedActivityLog, 'unsettled' | 'hasLostCache'>;

/** What the next process is told. */
async function told(bootId = BOOT): Promise<Told> {
  const { log, unsettled, hasLostCache } = await open(bootId);
  await log.abandon();
  return { unsettled, hasLostCache };
}

const first = { offset: 8192, length: 4096 };
const second = { offset: A_SECTOR * EXTENT_BYTES + 4096, length: 12_288 };

describe('the process has ended, the machine goes on', () => {
  test('what had begun and was not settled is known, and nothing else', async () => {
    const log = await make();
    await log.mark([0, 7, A_SECTOR]);
    const slots = [first, { offset: 0, length: 512 }, second].map((range) => begin(log, range));
    settle(log, [slots[1] as number]);
    await log.abandon();
    expect(await told()).toEqual({ unsettled: [first, second], hasLostCache: false });
  });

  test('it is told again by every open until it is settled', async () => {
    const log = await make();
    await log.mark([0, A_SECTOR]);
    begin(log, first);
    await log.abandon();
    const again = await open();
    await again.log.mark([A_SECTOR]);
    begin(again.log, second);
    await again.log.abandon();
    expect(await told()).toEqual({ unsettled: [first, second], hasLostCache: false });
    const last = await open();
    await last.log.settleEarlier();
    await last.log.abandon();
    expect(await told()).toEqual({ unsettled: [], hasLostCache: false });
    expect(await told(NEXT_BOOT)).toEqual({ unsettled: [], hasLostCache: false });
  });

  test('more than there are slots for: all marked extents count, as long as that lasts', async () => {
    const log = await make();
    await log.mark([0, 1, 9]);
    const slots = Array.from({ length: SLOTS + 2 }, (_, n) => begin(log, { offset: n * 512, length: 512 }));
    settle(log, slots.slice(2));
    const files = imageOf(folder.path);
    settle(log, slots.slice(0, 2));
    await log.abandon();
    expect(await told()).toEqual({ unsettled: [], hasLostCache: false });
    const full = await open(BOOT, true);
    await full.log.mark([0, 9]);
    const many = Array.from({ length: SLOTS + 1 }, (_, n) =>
      begin(full.log, { offset: n * 512, length: 512 }),
    );
    const overflowing = imageOf(folder.path);
    settle(full.log, many);
    await full.log.abandon();
    putImage(folder.path, files);
    // The ones that had no slot are settled: the two that are left have theirs.
    expect(await told()).toEqual({ unsettled: [{ offset: 0, length: 1024 }], hasLostCache: false });
    putImage(folder.path, overflowing);
    expect(await told()).toEqual({ unsettled: [extent(0), extent(9)], hasLostCache: false });
  });

  test('many pieces are kept as fewer, larger ones', async () => {
    const log = await make();
    await log.mark([0, 1, 2, 3]);
    const pieces = Array.from({ length: 2000 }, (_, n) => ({ offset: n * 8192, length: 4096 }));
    for (const piece of pieces) begin(log, piece);
    await log.abandon();
    expect((await told()).unsettled).toEqual(pieces);
    const { unsettled } = await told();
    expect(unsettled.length).toBe(1024);
    const covers = ({ offset, length }: Range) =>
      unsettled.some((range) => range.offset <= offset && offset + length <= range.offset + range.length);
    expect(pieces.every(covers)).toBe(true);
  });
});

describe('the machine has lost its page cache', () => {
  test('all marked extents count, in every process that follows, until that is settled', async () => {
    const log = await make();
    await log.mark([0, 5, A_SECTOR + 99]);
    begin(log, first);
    await log.unmark([5]);
    await log.abandon();
    const last = { offset: (A_SECTOR + 99) * EXTENT_BYTES, length: EXTENT_BYTES - 4096 };
    const lost = { unsettled: [extent(0), last], hasLostCache: true };
    expect(await told(NEXT_BOOT)).toEqual(lost);
    expect(await told(NEXT_BOOT)).toEqual(lost);
    const settled = await open(NEXT_BOOT);
    await settled.log.mark([0, 1]);
    const slot = begin(settled.log, { offset: 0, length: 512 });
    await settled.log.settleEarlier();
    settle(settled.log, [slot]);
    await settled.log.abandon();
    expect(await told(NEXT_BOOT)).toEqual({ unsettled: [], hasLostCache: false });
    expect(await told(BOOT)).toEqual({
      unsettled: [{ offset: 0, length: 2 * EXTENT_BYTES }],
      hasLostCache: true,
    });
  });

  test('nothing was marked: nothing is lost', async () => {
    const log = await make();
    await log.mark([3]);
    await log.unmark([3]);
    await log.abandon();
    expect(await told(NEXT_BOOT)).toEqual({ unsettled: [], hasLostCache: false });
  });

  test('a failed flush of the volume is as a lost cache, in the same boot, too', async () => {
    const log = await make();
    await log.mark([3]);
    log.loseCache();
    await log.close();
    expect(await told()).toEqual({ unsettled: [extent(3)], hasLostCache: true });
  });

  test('marks of before stay where something is unsettled, the others go when they are taken away', async () => {
    const log = await make();
    await log.mark([3, 4, 5, 6]);
    begin(log, { offset: extent(3).offset, length: 4096 });
    await log.abandon();
    const again = await open();
    expect(again.marked).toEqual([3, 4, 5, 6]);
    await again.log.mark([3, 4, 5]);
    await again.log.unmark([3, 5]);
    expect(() => begin(again.log, extent(3))).toThrow('not marked');
    const before = imageOf(folder.path);
    await again.log.settleEarlier();
    await again.log.abandon();
    expect((await told(NEXT_BOOT)).unsettled).toEqual([extent(4)]);
    putImage(folder.path, before);
    expect((await told(NEXT_BOOT)).unsettled).toEqual([
      { offset: extent(3).offset, length: 2 * EXTENT_BYTES },
      extent(6),
    ]);
  });
});

describe('closed after a flush', () => {
  test('nothing is in doubt, whatever the machine does; unsettled ranges are still known', async () => {
    const log = await make();
    await log.mark([0, 5, A_SECTOR]);
    const slot = begin(log, first);
    begin(log, second);
    settle(log, [slot]);
    await log.close();
    const closed = imageOf(folder.path);
    expect(await told()).toEqual({ unsettled: [second], hasLostCache: false });
    putImage(folder.path, closed);
    expect(await told(NEXT_BOOT)).toEqual({ unsettled: [second], hasLostCache: false });
    expect(await told(BOOT)).toEqual({ unsettled: [extent(A_SECTOR)], hasLostCache: true });
  });
});

describe('damage', () => {
  const everything = { unsettled: [{ offset: 0, length: SIZE }], hasLostCache: true };

  async function spoiled(spoil: (activity: string, journal: string) => void, state: 'clean' | 'open') {
    const log = await make();
    await log.mark([0]);
    begin(log, first);
    if (state === 'clean') await log.close();
    else await log.abandon();
    spoil(join(folder.path, 'activity'), join(folder.path, 'unsettled'));
    return told();
  }

  for (const state of ['clean', 'open'] as const) {
    test(`${state}: without the log all of the volume is in doubt; without the journal what is marked`, async () => {
      expect(await spoiled((activity) => rmSync(activity), state)).toEqual(everything);
      expect(await spoiled((activity) => truncateSync(activity, 0), state)).toEqual(everything);
      expect(await spoiled((activity) => truncateSync(activity, 4096), state)).not.toEqual({
        unsettled: [first],
        hasLostCache: false,
      });
      expect(await spoiled((activity) => writeFileSync(activity, Buffer.alloc(20_000, 7)), state)).toEqual(
        everything,
      );
      const marked = { unsettled: [extent(0)], hasLostCache: true };
      expect(await spoiled((_, journal) => rmSync(journal), state)).toEqual(marked);
      expect(await spoiled((_, journal) => truncateSync(journal, 20_000), state)).toEqual(marked);
      expect(await spoiled((_, journal) => truncateSync(journal, 1_000_000), state)).toEqual(marked);
    });
  }

  test('no byte of a slot, of a map sector or of both headers can change unseen', async () => {
    const log = await make();
    await log.mark([0]);
    begin(log, first);
    await log.abandon();
    const whole = imageOf(folder.path);
    const slot = (whole.get('unsettled') as Buffer).findIndex((byte, at) => at >= 8192 && byte !== 0) & ~31;
    const places: [string, number[], number][] = [
      ['unsettled', [slot], 32],
      ['activity', [8192], 512],
      ['activity', [0, 4096], 64],
    ];
    for (const [name, starts, length] of places) {
      for (let at = 0; at < length; at++) {
        const bytes = Buffer.from(whole.get(name) as Buffer);
        for (const start of starts) bytes[start + at] = (bytes[start + at] as number) ^ 0x10;
        putImage(folder.path, new Map([...whole, [name, bytes]]));
        const { unsettled, hasLostCache } = await told();
        expect({ name, at, hasLostCache }).toEqual({ name, at, hasLostCache: true });
        expect(unsettled[0]?.offset).toBe(0);
      }
    }
  });

  test('a lost cache is told again when the process that has found it ended before it had said so itself', async () => {
    for (const state of ['clean', 'open'] as const) {
      const [activity, journal] = ['activity', 'unsettled'].map((name) => join(folder.path, name)) as [
        string,
        string,
      ];
      const log = await make();
      await log.mark([0]);
      begin(log, first);
      if (state === 'clean') await log.close();
      else await log.abandon();
      truncateSync(journal, 4096);
      // One of the two files can be replaced, and not the other, whichever comes first.
      for (const path of [activity, journal]) {
        mkdirSync(`${path}.new/in-the-way`, { recursive: true });
        await expect(open()).rejects.toThrow();
        rmSync(`${path}.new`, { recursive: true });
      }
      expect(await told()).toEqual({ unsettled: [extent(0)], hasLostCache: true });
    }
  });

  test('the files of another volume count as damaged, a later format is refused', async () => {
    const log = await make();
    await log.mark([0]);
    await log.close();
    const bytes = readFileSync(join(folder.path, 'activity'));
    const options = { sizeBytes: SIZE, bootId: BOOT, isNew: false };
    const other = await openActivityLog(folder.path, { ...options, realVolume: 'rv-ffffffffffffffff' });
    await other.log.abandon();
    expect(other.unsettled).toEqual(everything.unsettled);
    const { crc32 } = await import('node:zlib');
    for (const at of [0, 4096]) {
      bytes.writeUInt32LE(2, at + 8);
      bytes.writeUInt32LE(0, at + 12);
      bytes.writeUInt32LE(crc32(bytes.subarray(at, at + 512)), at + 12);
    }
    writeFileSync(join(folder.path, 'activity'), bytes);
    const error = await open().catch((cause: unknown) => cause);
    expect(error).toBeInstanceOf(UsageError);
    expect((error as UsageError).code).toBe('newer-format');
  });
});

describe('torn by power loss', () => {
  /** Opens what a power loss may have left of `change` after every byte of it that reached the disk. */
  async function everyTornPrefix(
    change: (log: ActivityLog) => Promise<unknown>,
    check: (opened: Told) => void,
    prepare: () => Promise<ActivityLog>,
  ): Promise<void> {
    const log = await prepare();
    const before = imageOf(folder.path);
    await change(log);
    const after = imageOf(folder.path);
    await log.abandon();
    const [old, now] = [before, after].map((image) => image.get('activity') as Buffer) as [Buffer, Buffer];
    const prefixes = tornPrefixes(old, now);
    expect(prefixes.length).toBeGreaterThan(1);
    for (const torn of prefixes) {
      putImage(folder.path, new Map([...after, ['activity', torn]]));
      check(await told(THIRD_BOOT));
    }
  }

  function covers(unsettled: readonly Range[], { offset, length }: Range): boolean {
    return unsettled.some(
      (range) => range.offset <= offset && offset + length <= range.offset + range.length,
    );
  }

  async function marked(...extents: number[]): Promise<ActivityLog> {
    const log = await make();
    await log.mark(extents);
    return log;
  }

  test('a mark: those before it are there after every byte of it', async () => {
    await everyTornPrefix(
      (log) => log.mark([1, A_SECTOR + 1]),
      ({ unsettled, hasLostCache }) => {
        expect(hasLostCache).toBe(true);
        expect(covers(unsettled, extent(0)) && covers(unsettled, extent(A_SECTOR))).toBe(true);
      },
      () => marked(0, A_SECTOR),
    );
  });

  test('a mark that is taken away: the others are there', async () => {
    await everyTornPrefix(
      (log) => log.unmark([1]),
      ({ unsettled }) => expect(covers(unsettled, extent(0)) && covers(unsettled, extent(2))).toBe(true),
      () => marked(0, 1, 2),
    );
  });

  test('all that was before is settled: what is marked since is there', async () => {
    await everyTornPrefix(
      (log) => log.settleEarlier(),
      ({ unsettled }) => expect(covers(unsettled, extent(9))).toBe(true),
      async () => {
        await (await marked(0, 1)).abandon();
        const { log } = await open(NEXT_BOOT);
        await log.mark([9]);
        return log;
      },
    );
  });

  test('a lost cache: told all the same', async () => {
    await everyTornPrefix(
      async (log) => log.loseCache(),
      (opened) => expect(opened).toEqual({ unsettled: [extent(2)], hasLostCache: true }),
      () => marked(2),
    );
  });
});

test('resized: marks behind the old end are kept, those behind the new end are gone for good', async () => {
  const { log } = await open(BOOT, true, 10 * EXTENT_BYTES);
  await log.mark([10]); // nothing: nobody writes there
  await log.resize(SIZE);
  await log.mark([9, A_SECTOR + 50]);
  const large = imageOf(folder.path);
  await log.resize(9 * EXTENT_BYTES + 1);
  await log.resize(SIZE);
  await log.abandon();
  expect((await told(NEXT_BOOT)).unsettled).toEqual([extent(9)]);
  putImage(folder.path, large);
  expect((await told(NEXT_BOOT)).unsettled).toEqual([extent(9), extent(A_SECTOR + 50)]);
  // The volume has become larger, and the log has not been told: it was as large as it was.
  const { log: small } = await open(BOOT, true, EXTENT_BYTES);
  await small.mark([0]);
  await small.abandon();
  expect((await told(NEXT_BOOT)).unsettled).toEqual([extent(0)]);
});

test('an operation where nothing is marked, one settled twice, and use after the end are our own mistakes', async () => {
  const log = await make();
  await log.mark([0]);
  expect(() => begin(log, { offset: EXTENT_BYTES - 1, length: 2 })).toThrow('not marked');
  const slot = begin(log, first);
  settle(log, [slot]);
  expect(() => settle(log, [slot])).toThrow('settled twice');
  await log.unmark([0]);
  expect(() => begin(log, first)).toThrow('not marked');
  await log.close();
  expect(() => begin(log, first)).toThrow('after its end');
});

test('who waits for a mark when the log is abandoned is told so', async () => {
  const log = await make();
  const marks = [0, 1, 2].map((extents) => log.mark([extents]));
  await log.abandon();
  const outcomes = (await Promise.allSettled(marks)).map(({ status }) => status);
  expect(outcomes[0]).toBe('fulfilled');
  expect(outcomes.slice(1)).toEqual(['rejected', 'rejected']);
});

test('an extent that is unmarked while its mark is under way is not marked', async () => {
  const log = await make();
  const mark = log.mark([4]);
  await log.unmark([4]);
  await mark;
  expect(() => begin(log, extent(4))).toThrow('not marked');
  await log.abandon();
});

test('the files have the layout that their comments draw', async () => {
  const log = await make();
  await log.mark([0, 9, A_SECTOR]);
  begin(log, { offset: A_SECTOR * EXTENT_BYTES + 0x3000, length: 0x1000 });
  await log.abandon();
  const activity = readFileSync(join(folder.path, 'activity'));
  const journal = readFileSync(join(folder.path, 'unsettled'));
  expect(activity.length).toBe(8192 + 2 * 512);
  expect(activity.toString('latin1', 4096, 4104)).toBe('VolaryAL');
  expect(activity.toString('hex', 4096 + 32, 4096 + 48)).toBe(BOOT);
  expect(activity[4096 + 48]).toBe(2);
  expect(activity.toString('latin1', 4096 + 56, 4096 + 75)).toBe(REAL_VOLUME);
  expect(activity.subarray(8192 + 16, 8192 + 18)).toEqual(Buffer.of(0b1, 0b10));
  expect(activity[8192 + 512 + 16]).toBe(1);
  expect(journal.length).toBe(8192 + (1024 + 4096) * 32);
  const slot = journal.findIndex((byte, at) => at >= 8192 && byte !== 0) & ~31;
  expect(slot).toBe(8192 + 1024 * 32);
  expect(journal.readBigUInt64LE(slot)).toBe(BigInt(A_SECTOR * EXTENT_BYTES + 0x3000));
  expect(journal.readBigUInt64LE(slot + 8)).toBe(0x1000n);
  const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  expect([hash(activity), hash(journal)]).toMatchInlineSnapshot(`
    [
      "b8c6b0b86439d090e3126b19966f679700f0b93a57f1d1769d57148a056381b4",
      "b14a9ae6865c260960d6ff1f6e09ad9cdf999e1a3ccd254823dffa02d6e58cb2",
    ]
  `);
});
