/** Whatever is done to an activity log, killed and robbed of its power at any time: what it says afterwards covers what is in doubt. */

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type Range, unionOf } from '../../../src/base/range.ts';
import { EXTENT_BYTES } from '../../../src/model/copy-granularity.ts';
import type { ActivityLog } from '../../../src/storage/activity-log.ts';
import { type OpenedActivityLog, openActivityLog } from '../../../src/storage/open-activity-log.ts';
import type { Slot } from '../../../src/storage/unsettled-journal.ts';
import { memoryFolder } from '../../support/disk.ts';
import { begin, settle } from '../../support/journaled.ts';
import { afterPowerLoss, imageOf, putImage } from '../../support/power-loss.ts';
import { seededRandom } from '../../support/random.ts';

const A_SECTOR = 3968;
const SIZE = (A_SECTOR + 100) * EXTENT_BYTES;
const EXTENTS = [0, 1, 2, A_SECTOR - 1, A_SECTOR, A_SECTOR + 99];

const extents = fc.constantFrom(...EXTENTS);
const steps = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('write' as const),
      extent: extents,
      block: fc.nat({ max: 900 }),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant('settle' as const), which: fc.nat() }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('unmark' as const), extent: extents }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('kill' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('settleEarlier' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('loseCache' as const) }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('power' as const), seed: fc.nat(), isClosed: fc.boolean() }),
  },
);
type Step = typeof steps extends fc.Arbitrary<infer Taken> ? Taken : never;

function extent(number: number): Range {
  return { offset: number * EXTENT_BYTES, length: EXTENT_BYTES };
}

function extentsOf(ranges: readonly Range[]): number[] {
  return EXTENTS.filter((number) => ranges.some((range) => overlap(range, extent(number))));
}

function overlap(a: Range, b: Range): boolean {
  return Math.max(a.offset, b.offset) < Math.min(a.offset + a.length, b.offset + b.length);
}

function covers(ranges: readonly Range[], one: Range): boolean {
  return ranges.some(
    ({ offset, length }) => offset <= one.offset && one.offset + one.length <= offset + length,
  );
}

class World {
  readonly #path: string;
  #boot = 1;
  #log: ActivityLog;
  /** The file `activity` as it is on the disk for certain. */
  #durable: Buffer;
  readonly #underWay = new Map<Slot, Range>();
  #earlier: readonly Range[] = [];
  #isLost = false;
  /** Marks in the file; of those the ones of before; and the ones of this process. */
  #marks = new Set<number>();
  #earlierMarks = new Set<number>();
  #marked = new Set<number>();
  /** Extents that hold something not flushed, or not settled. */
  #dirty = new Set<number>();

  constructor(path: string, log: ActivityLog) {
    this.#path = path;
    this.#log = log;
    this.#durable = this.#activity();
  }

  async take(step: Step): Promise<void> {
    switch (step.kind) {
      case 'write':
        return this.#write(step.extent, step.block);
      case 'settle': {
        const slots = [...this.#underWay.keys()];
        if (slots.length === 0) return;
        const some = slots.slice(step.which % slots.length).slice(0, 1 + (step.which % 3));
        settle(this.#log, some);
        for (const slot of some) this.#underWay.delete(slot);
        return;
      }
      case 'unmark':
        return this.#unmark(step.extent);
      case 'settleEarlier':
        return this.#settleEarlier();
      case 'loseCache':
        this.#log.loseCache();
        this.#isLost = true;
        for (const number of this.#marks) this.#dirty.add(number);
        return;
      case 'kill':
        await this.#log.abandon();
        return this.#opened(await openAt(this.#path, this.#boot), { isKept: !this.#isLost });
      case 'power':
        return this.#losePower(step.seed, step.isClosed);
    }
  }

  async end(): Promise<void> {
    await this.#log.abandon();
  }

  #activity(): Buffer {
    return imageOf(this.#path).get('activity') as Buffer;
  }

  async #write(number: number, block: number): Promise<void> {
    const isFresh = !this.#marked.has(number) && !this.#earlierMarks.has(number);
    await this.#log.mark([number]);
    if (isFresh) this.#durable = this.#activity(); // there was a sync: strace says so in another test
    this.#marked.add(number);
    this.#marks.add(number);
    const range = { offset: number * EXTENT_BYTES + block * 4096, length: 4096 };
    this.#underWay.set(begin(this.#log, range), range);
    this.#dirty.add(number);
  }

  async #unmark(number: number): Promise<void> {
    if (!this.#marked.has(number) || extentsOf([...this.#underWay.values()]).includes(number)) return;
    await this.#log.unmark([number]);
    this.#marked.delete(number);
    if (extentsOf(this.#earlier).includes(number)) return;
    this.#earlierMarks.delete(number);
    this.#marks.delete(number);
    this.#dirty.delete(number);
  }

  async #settleEarlier(): Promise<void> {
    await this.#log.settleEarlier();
    this.#durable = this.#activity();
    for (const number of this.#earlierMarks) {
      if (this.#marked.has(number)) continue;
      this.#marks.delete(number);
      this.#dirty.delete(number);
    }
    this.#earlierMarks.clear();
    this.#earlier = [];
    this.#isLost = false;
  }

  async #losePower(seed: number, isClosed: boolean): Promise<void> {
    const random = seededRandom(seed);
    if (isClosed) await this.#log.close();
    const written = imageOf(this.#path);
    if (!isClosed) await this.#log.abandon();
    const isClean = isClosed && !this.#isLost;
    if (isClean) {
      this.#dirty.clear(); // who closes has flushed
      this.#marks = new Set(extentsOf([...this.#earlier, ...this.#underWay.values()]));
    } else {
      const activity = afterPowerLoss(this.#durable, written.get('activity') as Buffer, random);
      const journal = afterPowerLoss(Buffer.alloc(0), written.get('unsettled') as Buffer, random);
      putImage(
        this.#path,
        new Map([
          ['activity', activity],
          ['unsettled', journal],
        ]),
      );
    }
    this.#boot += 1;
    return this.#opened(await openAt(this.#path, this.#boot), { isKept: isClean });
  }

  #opened(
    { log, unsettled, marked, hasLostCache }: OpenedActivityLog,
    { isKept }: { isKept: boolean },
  ): void {
    if (isKept) {
      expect({ unsettled, hasLostCache }).toEqual({
        unsettled: unionOf([...this.#earlier, ...this.#underWay.values()]),
        hasLostCache: false,
      });
    } else {
      for (const number of this.#dirty) expect(covers(unsettled, extent(number))).toBe(true);
      expect(hasLostCache).toBe(unsettled.length > 0);
    }
    const doubtful = extentsOf(unsettled);
    this.#log = log;
    this.#earlier = unsettled;
    this.#isLost = hasLostCache;
    this.#dirty = new Set(isKept ? [...this.#dirty, ...doubtful] : doubtful);
    if (!isKept) this.#marks = new Set(doubtful);
    // A torn sector is marked all over.
    expect(EXTENTS.filter((number) => marked.includes(number))).toEqual(
      [...this.#marks].sort((a, b) => a - b),
    );
    this.#earlierMarks = new Set(this.#marks);
    this.#marked.clear();
    this.#underWay.clear();
    this.#durable = this.#activity();
  }
}

function openAt(path: string, boot: number, isNew = false): Promise<OpenedActivityLog> {
  const bootId = boot.toString(16).padStart(32, '0');
  return openActivityLog(path, { realVolume: 'rv-0123456789abcdef', sizeBytes: SIZE, bootId, isNew });
}

test('I6, I17: after kill -9 exactly what was unsettled is known, after power loss all that may be', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(steps, { maxLength: 40 }), async (taken) => {
      const folder = memoryFolder();
      const { log } = await openAt(folder.path, 1, true);
      const world = new World(folder.path, log);
      try {
        for (const step of taken) await world.take(step);
        await world.take({ kind: 'power', seed: taken.length, isClosed: false });
      } finally {
        await world.end();
        await folder.remove();
      }
    }),
    { numRuns: 150 },
  );
}, 120_000);
