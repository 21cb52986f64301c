import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BlockBitmap } from '../../../src/base/block-bitmap.ts';
import type { Range } from '../../../src/base/range.ts';

/** One boolean a block: what a BlockBitmap is to be. */
class Model {
  readonly blockBytes: number;
  sizeBytes: number;
  blocks: boolean[];

  constructor(sizeBytes: number, blockBytes: number) {
    this.blockBytes = blockBytes;
    this.sizeBytes = sizeBytes;
    this.blocks = Array.from({ length: Math.ceil(sizeBytes / blockBytes) }, () => false);
  }

  spanOf(block: number): { start: number; end: number } {
    const start = block * this.blockBytes;
    return { start, end: Math.min(start + this.blockBytes, this.sizeBytes) };
  }

  touched({ offset, length }: Range): number[] {
    return [...this.blocks.keys()].filter((block) => {
      const { start, end } = this.spanOf(block);
      return length > 0 && start < offset + length && offset < end;
    });
  }

  inside({ offset, length }: Range): number[] {
    return [...this.blocks.keys()].filter((block) => {
      const { start, end } = this.spanOf(block);
      return offset <= start && end <= offset + length;
    });
  }

  ranges(): Range[] {
    const runs: { offset: number; length: number }[] = [];
    for (const [block, isSet] of this.blocks.entries()) {
      if (!isSet) continue;
      const { start, end } = this.spanOf(block);
      const last = runs.at(-1);
      if (last !== undefined && last.offset + last.length === start) last.length += end - start;
      else runs.push({ offset: start, length: end - start });
    }
    return runs;
  }
}

type Change =
  | { kind: 'set' | 'clear' | 'has'; range: Range }
  | { kind: 'run'; from: number; maxBytes: number }
  | { kind: 'resize'; sizeBytes: number }
  | { kind: 'merge'; sizeBytes: number; ranges: Range[] }
  | { kind: 'setAll' };

/** Blocks of 4 bytes: three chunks are 384 KiB, and boundaries of chunks, words and blocks are all near. */
const BLOCK = 4;
const CHUNK = 32_768 * BLOCK;
const offsets = fc.oneof(
  fc.integer({ min: 0, max: 3 * CHUNK }),
  fc.integer({ min: 0, max: 600 }),
  fc.integer({ min: CHUNK - 300, max: CHUNK + 300 }),
  fc.integer({ min: 2 * CHUNK - 9, max: 2 * CHUNK + 9 }),
);
const rangesOf = fc
  .tuple(offsets, offsets)
  .map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));
const changes: fc.Arbitrary<Change> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant('set' as const), range: rangesOf }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('clear' as const), range: rangesOf }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('has' as const), range: rangesOf }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('run' as const),
      from: offsets,
      maxBytes: fc.integer({ min: 0, max: CHUNK }),
    }),
  },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('resize' as const), sizeBytes: offsets }) },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('merge' as const),
      sizeBytes: offsets,
      ranges: fc.array(rangesOf, { maxLength: 3 }),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('setAll' as const) }) },
);

function apply(change: Change, bitmap: BlockBitmap, model: Model): void {
  switch (change.kind) {
    case 'set':
      bitmap.set(change.range);
      for (const block of model.touched(change.range)) model.blocks[block] = true;
      return;
    case 'clear':
      bitmap.clear(change.range);
      for (const block of model.inside(change.range)) model.blocks[block] = false;
      return;
    case 'has':
      expect(bitmap.has(change.range)).toBe(model.touched(change.range).some((block) => model.blocks[block]));
      return;
    case 'run': {
      const first = Math.floor(change.from / BLOCK);
      const next = model.blocks.findIndex((isSet, block) => isSet && block >= first);
      const run = bitmap.nextRun(change.from, change.maxBytes);
      if (next < 0 || change.from >= model.sizeBytes) {
        expect(run).toBeUndefined();
        return;
      }
      const blocksMax = Math.max(1, Math.floor(change.maxBytes / BLOCK));
      const gap = model.blocks.findIndex((isSet, block) => !isSet && block > next);
      const end = Math.min(gap < 0 ? model.blocks.length : gap, next + blocksMax);
      const offset = next * BLOCK;
      expect(run).toEqual({ offset, length: Math.min(end * BLOCK, model.sizeBytes) - offset });
      return;
    }
    case 'resize': {
      bitmap.resize(change.sizeBytes);
      const blocks = Math.ceil(change.sizeBytes / BLOCK);
      model.blocks = Array.from({ length: blocks }, (_, block) => model.blocks[block] ?? false);
      model.sizeBytes = change.sizeBytes;
      return;
    }
    case 'merge': {
      const other = new BlockBitmap(change.sizeBytes, BLOCK);
      const theirs = new Model(change.sizeBytes, BLOCK);
      for (const range of change.ranges) apply({ kind: 'set', range }, other, theirs);
      bitmap.merge(other);
      for (const block of model.blocks.keys()) {
        if (theirs.blocks[block] === true) model.blocks[block] = true;
      }
      return;
    }
    case 'setAll':
      bitmap.setAll();
      model.blocks.fill(true);
  }
}

test('a bitmap is what one boolean a block would be, whatever is done to it', () => {
  fc.assert(
    fc.property(offsets, fc.array(changes, { maxLength: 12 }), (sizeBytes, steps) => {
      const bitmap = new BlockBitmap(sizeBytes, BLOCK);
      const model = new Model(sizeBytes, BLOCK);
      for (const step of steps) {
        apply(step, bitmap, model);
        const ranges = model.ranges();
        const countBytes = ranges.reduce((sum, { length }) => sum + length, 0);
        expect([...bitmap.ranges()]).toEqual(ranges);
        expect(bitmap.countBytes).toBe(countBytes);
        expect(bitmap.isEmpty).toBe(countBytes === 0);
        expect(bitmap.sizeBytes).toBe(model.sizeBytes);
      }
    }),
    { numRuns: 150 },
  );
}, 120_000);

const TiB = 2 ** 40;

test('the largest volumes: empty or full they cost next to nothing, and blocks behind 2^32 are found', () => {
  const bitmap = new BlockBitmap(8192 * TiB - 1);
  bitmap.set({ offset: 8191 * TiB + 5, length: 1 });
  expect([...bitmap.ranges()]).toEqual([{ offset: 8191 * TiB, length: 4096 }]);
  const before = process.memoryUsage().arrayBuffers;
  const full = new BlockBitmap(16 * TiB);
  full.setAll();
  expect(full.countBytes).toBe(16 * TiB);
  full.clear({ offset: TiB, length: 4096 });
  expect([...full.ranges()]).toEqual([
    { offset: 0, length: TiB },
    { offset: TiB + 4096, length: 15 * TiB - 4096 },
  ]);
  expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(1024 * 1024);
});

test('a partial last block counts as long as it is, and is cleared by what reaches the end', () => {
  const bitmap = new BlockBitmap(10_000);
  bitmap.set({ offset: 10_000, length: 1 }); // in the last block, if it were whole
  expect(bitmap.isEmpty).toBe(true);
  bitmap.set({ offset: 9999, length: 1 });
  expect(bitmap.countBytes).toBe(10_000 - 8192);
  expect(bitmap.nextRun(0, 1_000_000)).toEqual({ offset: 8192, length: 1808 });
  bitmap.clear({ offset: 8192, length: 1807 });
  expect(bitmap.isEmpty).toBe(false);
  bitmap.clear({ offset: 8192, length: 1808 });
  expect(bitmap.isEmpty).toBe(true);
});

test('sizes and blocks that there cannot be are our own mistakes', () => {
  expect(() => new BlockBitmap(-1)).toThrow(RangeError);
  expect(() => new BlockBitmap(4096, 0)).toThrow(RangeError);
  expect(() => new BlockBitmap(4096).resize(0.5)).toThrow(RangeError);
  expect(() => new BlockBitmap(4096).merge(new BlockBitmap(4096, 512))).toThrow(RangeError);
});
