/**
 * What a simulated volume looks like. It is three extents long at most, and hosts use a few clusters of blocks in them, so that writes meet often.
 * Contents count in sectors: a sector holds the number of the write that it comes from, and 0 is zeros.
 */

import type { Range } from '../../src/peer-protocol/messages.ts';
import type { Piece } from '../../src/replication/effects.ts';

export const SECTOR_BYTES = 512;
export const BLOCK_BYTES = 4096;
export const EXTENT_BYTES = 4 * 1024 * 1024;
export const BLOCK_SECTORS = BLOCK_BYTES / SECTOR_BYTES;
const EXTENT_BLOCKS = EXTENT_BYTES / BLOCK_BYTES;

/** The last extent is a short one. */
export const VOLUME_BYTES = 2 * EXTENT_BYTES + 12 * BLOCK_BYTES;
export const CLUSTER_BLOCKS = 12;
/** First blocks of what hosts use: one cluster in the middle of an extent, one across a border of extents, and the end of the volume. */
export const CLUSTERS: readonly number[] = [40, EXTENT_BLOCKS - 6, 2 * EXTENT_BLOCKS];

export const HOT_SECTORS: readonly number[] = CLUSTERS.flatMap((first) =>
  Array.from({ length: CLUSTER_BLOCKS * BLOCK_SECTORS }, (_, index) => first * BLOCK_SECTORS + index),
);

/** What a volume may be cut to, and grow to again: within a block, at an end of an extent, and so that a cluster across a border loses its end. */
export const SIZES: readonly number[] = [
  VOLUME_BYTES,
  2 * EXTENT_BYTES + 4 * BLOCK_BYTES + 3 * SECTOR_BYTES,
  2 * EXTENT_BYTES,
  EXTENT_BYTES + 2 * BLOCK_BYTES,
];

export function blockOf(sector: number): number {
  return Math.floor(sector / BLOCK_SECTORS);
}

/** How many extents there are in so many bytes. */
export function extentsIn(sizeBytes: number): number {
  return Math.ceil(sizeBytes / EXTENT_BYTES);
}

/** Those of a range. */
export function extentsOf({ offset, length }: Range): number[] {
  const first = Math.floor(offset / EXTENT_BYTES);
  return Array.from({ length: extentsIn(offset + length) - first }, (_, index) => first + index);
}

/** As much of them as is inside. */
export function clip(ranges: readonly Range[], sizeBytes: number): Range[] {
  return ranges
    .filter(({ offset }) => offset < sizeBytes)
    .map(({ offset, length }) => ({ offset, length: Math.min(length, sizeBytes - offset) }));
}

export function extentRange(extent: number): Range {
  const offset = extent * EXTENT_BYTES;
  return { offset, length: Math.min(EXTENT_BYTES, VOLUME_BYTES - offset) };
}

/** Blocks that a range touches. */
export function blocksOf(range: Range): number[] {
  const first = Math.floor(range.offset / BLOCK_BYTES);
  const end = Math.ceil((range.offset + range.length) / BLOCK_BYTES);
  return Array.from({ length: Math.max(0, end - first) }, (_, index) => first + index);
}

export function rangesOf(blocks: Iterable<number>): Range[] {
  const ranges: { offset: number; length: number }[] = [];
  for (const block of [...blocks].sort((one, other) => one - other)) {
    const last = ranges.at(-1);
    if (last !== undefined && last.offset + last.length === block * BLOCK_BYTES) last.length += BLOCK_BYTES;
    else ranges.push({ offset: block * BLOCK_BYTES, length: BLOCK_BYTES });
  }
  for (const range of ranges) range.length = Math.min(range.length, VOLUME_BYTES - range.offset);
  return ranges;
}

/** Bytes of sectors: only the first four of each say something. */
export function payloadOf(values: readonly number[]): Buffer {
  const payload = Buffer.allocUnsafe(values.length * SECTOR_BYTES);
  for (const [index, value] of values.entries()) payload.writeUInt32LE(value, index * SECTOR_BYTES);
  return payload;
}

export function valuesOf(payload: Buffer): number[] {
  return Array.from({ length: payload.length / SECTOR_BYTES }, (_, index) =>
    payload.readUInt32LE(index * SECTOR_BYTES),
  );
}

export function sectorsOf(range: Range): { readonly first: number; readonly end: number } {
  return { first: range.offset / SECTOR_BYTES, end: (range.offset + range.length) / SECTOR_BYTES };
}

/** What a range holds: whole blocks of zeros are holes. */
export function piecesOf(range: Range, valueAt: (sector: number) => number): Piece[] {
  const pieces: Piece[] = [];
  const end = range.offset + range.length;
  let values: number[] = [];
  let holeBytes = 0;
  const flush = (at: number): void => {
    if (values.length > 0) {
      const length = values.length * SECTOR_BYTES;
      pieces.push({ kind: 'data', offset: at - length, length, payload: payloadOf(values) });
      values = [];
    }
    if (holeBytes > 0) pieces.push({ kind: 'hole', offset: at - holeBytes, length: holeBytes });
    holeBytes = 0;
  };
  for (let at = range.offset; at < end; ) {
    const next = Math.min(end, (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES);
    const block: number[] = [];
    for (let sector = at / SECTOR_BYTES; sector < next / SECTOR_BYTES; sector++) block.push(valueAt(sector));
    const isHole = block.every((value) => value === 0);
    if (isHole ? values.length > 0 : holeBytes > 0) flush(at);
    if (isHole) holeBytes += next - at;
    else values.push(...block);
    at = next;
  }
  flush(end);
  return pieces;
}
