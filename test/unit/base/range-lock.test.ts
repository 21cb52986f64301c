import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Range } from '../../../src/base/range.ts';
import { type LockEntry, RangeLock } from '../../../src/base/range-lock.ts';

interface Entry {
  readonly holder: number;
  readonly range: Range;
  has: boolean;
}

function overlap(a: Range, b: Range): boolean {
  return Math.max(a.offset, b.offset) < Math.min(a.offset + a.length, b.offset + b.length);
}

/** A list in order of arrival: one has its range when nobody before it in the list overlaps. */
class Model {
  entries: Entry[] = [];

  #grant(): number[] {
    const lucky: number[] = [];
    for (const [at, entry] of this.entries.entries()) {
      if (entry.has || this.entries.slice(0, at).some((before) => overlap(before.range, entry.range)))
        continue;
      entry.has = true;
      lucky.push(entry.holder);
    }
    return lucky;
  }

  acquire(holder: number, range: Range): boolean {
    this.entries.push({ holder, range, has: false });
    return this.#grant().length > 0;
  }

  release(holder: number): number[] {
    this.entries = this.entries.filter((entry) => entry.holder !== holder);
    return this.#grant();
  }
}

class Someone {
  readonly name: number | string;
  entry: LockEntry<Someone> | undefined;

  constructor(name: number | string) {
    this.name = name;
  }
}

function namesOf(holders: readonly Someone[]): (number | string)[] {
  return holders.map(({ name }) => name);
}

const KIB = 1024;
const ranges = fc.oneof(
  // Near one another, and over the boundaries of buckets.
  fc.record({
    offset: fc.integer({ min: 0, max: 300 * KIB }),
    length: fc.integer({ min: 0, max: 70 * KIB }),
  }),
  fc.record({ offset: fc.nat({ max: 80 }).map((n) => n * 4 * KIB), length: fc.constant(4 * KIB) }),
  fc.record({ offset: fc.nat({ max: 900 * KIB }), length: fc.constant(0) }),
  // Some that touch many buckets.
  fc.record({
    offset: fc.integer({ min: 0, max: 900 * KIB }),
    length: fc.integer({ min: 0, max: 2000 * KIB }),
  }),
  fc.record({ offset: fc.constant(2 ** 52), length: fc.integer({ min: 0, max: 9000 * KIB }) }),
);
const steps = fc.oneof(
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('acquire' as const), range: ranges }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constant('release' as const), which: fc.nat({ max: 1000 }) }),
  },
);

test('ranges are given as a list in order of arrival would give them; waiting ones may give up', () => {
  fc.assert(
    fc.property(fc.array(steps, { maxLength: 80 }), (taken) => {
      const lock = new RangeLock<Someone>();
      const model = new Model();
      const holders: Someone[] = [];
      const release = (holder: number) => namesOf(lock.release(holders[holder] as Someone));
      for (const step of taken) {
        if (step.kind === 'acquire') {
          const holder = new Someone(holders.length);
          holders.push(holder);
          expect(lock.acquire(holder, step.range)).toBe(model.acquire(holders.length - 1, step.range));
        } else if (model.entries.length > 0) {
          const { holder } = model.entries[step.which % model.entries.length] as Entry;
          expect(release(holder)).toEqual(model.release(holder));
        }
        expect(lock.size).toBe(model.entries.length);
      }
      for (const { holder } of [...model.entries]) {
        expect(release(holder)).toEqual(model.release(holder));
      }
      expect(lock.size).toBe(0);
      expect(lock.acquire(new Someone('all'), { offset: 0, length: 2 ** 53 - 1 })).toBe(true);
    }),
    { numRuns: 1000 },
  );
});

test('nobody is overtaken: who waits keeps out who comes later and overlaps only the one that waits', () => {
  const lock = new RangeLock<Someone>();
  const [first, second, third] = [new Someone('first'), new Someone('second'), new Someone('third')];
  expect(lock.acquire(first, { offset: 0, length: 4096 })).toBe(true);
  expect(lock.acquire(second, { offset: 0, length: 8192 })).toBe(false);
  expect(lock.acquire(third, { offset: 4096, length: 4096 })).toBe(false);
  expect(lock.release(first)).toEqual([second]);
  expect(lock.release(second)).toEqual([third]);
  expect(lock.release(third)).toEqual([]);
});

test('a second range for one holder, and a release of what is not held, are our own mistakes', () => {
  const lock = new RangeLock<Someone>();
  const [one, other] = [new Someone('one'), new Someone('other')];
  lock.acquire(one, { offset: 0, length: 1 });
  expect(() => lock.acquire(one, { offset: 8192, length: 1 })).toThrow('second range');
  expect(() => lock.release(other)).toThrow('does not hold');
  expect(() => lock.acquire(other, { offset: -1, length: 1 })).toThrow(RangeError);
});
