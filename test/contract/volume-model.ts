/**
 * The model that the contract's property test holds a volume against: the bytes as they should be, and random
 * operations, some of them at the same time.
 *
 * Where operations of one batch overlap, any of them may have been the last (rule 5); where trim was, anything may
 * be read, but from then on always the same. So a batch is checked byte by byte, and what was read then becomes the
 * model.
 */

import * as fc from 'fast-check';
import type { Volume } from '../../src/model/volume.ts';

export type Operation =
  | { kind: 'read'; offset: number; length: number; now: boolean }
  | { kind: 'write'; offset: number; length: number; byte: number; now: boolean; fua: boolean }
  | { kind: 'trim'; offset: number; length: number; fua: boolean }
  | { kind: 'writeZeroes'; offset: number; length: number; fua: boolean; noHole: boolean; fast: boolean }
  | { kind: 'flush' }
  | { kind: 'cache'; offset: number; length: number }
  | { kind: 'blockStatus'; offset: number; length: number; extentsMax: number };

/** Several operations at the same time, or one change of the size. */
export type Step = { kind: 'batch'; operations: Operation[] } | { kind: 'resize'; sizeBytes: number };

/** Ranges are drawn for this size and cut down to the volume's size of the moment. */
export const MODEL_SIZE = 64 * 1024;

// Edges of pages and of the volume are where mistakes live; 0 is a length as any other.
const place = fc.oneof(
  fc.nat(MODEL_SIZE),
  fc.nat(16).map((page) => page * 4096),
  fc.nat(128).map((sector) => sector * 512),
);
const range = fc.tuple(place, place).map(([a, b]) => ({ offset: Math.min(a, b), length: Math.abs(a - b) }));
const byte = fc.integer({ min: 1, max: 255 });
const flag = fc.boolean();

const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.tuple(range, flag).map(([r, now]) => ({ kind: 'read' as const, ...r, now })),
  fc
    .tuple(range, byte, flag, flag)
    .map(([r, value, now, fua]) => ({ kind: 'write' as const, ...r, byte: value, now, fua })),
  fc.tuple(range, flag).map(([r, fua]) => ({ kind: 'trim' as const, ...r, fua })),
  fc
    .tuple(range, flag, flag, flag)
    .map(([r, fua, noHole, fast]) => ({ kind: 'writeZeroes' as const, ...r, fua, noHole, fast })),
  fc.constant({ kind: 'flush' as const }),
  range.map((r) => ({ kind: 'cache' as const, ...r })),
  fc
    .tuple(range, fc.integer({ min: 1, max: 5 }))
    .map(([r, extentsMax]) => ({ kind: 'blockStatus' as const, ...r, extentsMax })),
);

export const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 8, arbitrary: fc.array(operation, { minLength: 1, maxLength: 4 }).map(batch) },
    { weight: 1, arbitrary: place.map((sizeBytes): Step => ({ kind: 'resize', sizeBytes })) },
  ),
  { minLength: 1, maxLength: 12 },
);

function batch(operations: Operation[]): Step {
  return { kind: 'batch', operations };
}

/** The operation with its range inside the volume, and without what the capabilities deny; undefined: leave it out. */
export function fitting(op: Operation, volume: Volume): Operation | undefined {
  const can = volume.capabilities;
  if (op.kind === 'flush') return can.flush ? op : undefined;
  const allowed = { read: true, write: can.write, trim: can.trim, writeZeroes: can.writeZeroes };
  const capable = { ...allowed, cache: can.cache, blockStatus: can.blockStatus }[op.kind];
  const offset = Math.min(op.offset, volume.sizeBytes);
  const length = Math.min(op.length, volume.sizeBytes - offset);
  if (!capable || (op.kind === 'blockStatus' && length === 0)) return undefined;
  if (op.kind === 'writeZeroes') return { ...op, offset, length, fast: op.fast && can.fastZero };
  return { ...op, offset, length };
}

/** What a byte may be after the operation: one value, or 'any'; undefined: it is not the operation's business. */
export function valueAfter(op: Operation, position: number): number | 'any' | undefined {
  if (op.kind !== 'write' && op.kind !== 'trim' && op.kind !== 'writeZeroes') return undefined;
  if (position < op.offset || position >= op.offset + op.length) return undefined;
  if (op.kind === 'write') return op.byte;
  return op.kind === 'trim' ? 'any' : 0;
}
