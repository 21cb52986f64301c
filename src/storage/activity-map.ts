/**
 * ActivityMap: the marks of an activity log as they are in its file: a bit for each extent of the volume, in sectors with a checksum each.
 *
 *     sector n, 512 bytes:
 *       0    4  checksum: CRC-32 of the 508 bytes behind it, begun with that of the real volume's id
 *       4    8  n
 *      12    4  zeros
 *      16  496  marks of 3,968 extents (15.5 GiB), the lowest bit of a byte first
 *     all little-endian
 *
 * Invariant: a sector that is not whole, or not there, counts as marked all over.
 */

import { crc32 } from 'node:zlib';
import { clearBits, setBits } from '../base/bits.ts';
import { BlockBitmap } from '../base/block-bitmap.ts';
import { EXTENT_BYTES } from '../model/copy-granularity.ts';
import { writeWhole } from './write-whole.ts';

const SECTOR_BYTES = 512;
const HEAD_BYTES = 16;
const CHECKED_AT = 4;
const EXTENTS_A_SECTOR = (SECTOR_BYTES - HEAD_BYTES) * 8;

export function extentsOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / EXTENT_BYTES);
}

/** The marked extents, ascending. Not to be changed meanwhile. */
export function* extentsIn(marks: BlockBitmap): Generator<number> {
  for (const range of marks.ranges()) {
    const end = extentsOf(range.offset + range.length);
    for (let extent = range.offset / EXTENT_BYTES; extent < end; extent++) yield extent;
  }
}

export function sectorsFor(sizeBytes: number): number {
  return Math.ceil(extentsOf(sizeBytes) / EXTENTS_A_SECTOR);
}

export interface MapFound {
  /** In blocks of EXTENT_BYTES. */
  readonly marks: BlockBitmap;
  readonly isDamaged: boolean;
}

/** The marks of a volume of that size, from the bytes of the `sectors` that there should be. */
export function readMap(bytes: Buffer, sectors: number, realVolume: string, sizeBytes: number): MapFound {
  const marks = new BlockBitmap(sizeBytes, EXTENT_BYTES);
  const seed = crc32(realVolume);
  let isDamaged = false;
  for (let sector = 0; sector < Math.min(sectors, sectorsFor(sizeBytes)); sector++) {
    const one = bytes.subarray(sector * SECTOR_BYTES, (sector + 1) * SECTOR_BYTES);
    const start = sector * EXTENTS_A_SECTOR;
    if (!isWhole(one, sector, seed)) {
      isDamaged = true;
      marks.set({ offset: start * EXTENT_BYTES, length: EXTENTS_A_SECTOR * EXTENT_BYTES });
      continue;
    }
    for (let bit = 0; bit < EXTENTS_A_SECTOR; bit++) {
      if ((((one[HEAD_BYTES + (bit >>> 3)] as number) >>> (bit & 7)) & 1) === 0) continue;
      marks.set({ offset: (start + bit) * EXTENT_BYTES, length: 1 });
    }
  }
  return { marks, isDamaged };
}

function isWhole(sector: Buffer, number: number, seed: number): boolean {
  if (sector.length < SECTOR_BYTES || sector.readBigUInt64LE(4) !== BigInt(number)) return false;
  return sector.readUInt32LE(0) === crc32(sector.subarray(CHECKED_AT), seed);
}

export class ActivityMap {
  readonly #seed: number;
  #bytes = Buffer.alloc(0);
  readonly #changed = new Set<number>();

  constructor(realVolume: string, sizeBytes: number) {
    this.#seed = crc32(realVolume);
    this.grow(sizeBytes);
  }

  get sectors(): number {
    return this.#bytes.length / SECTOR_BYTES;
  }

  /** All of it, as it is to be in the file. */
  get bytes(): Buffer {
    this.#seal();
    this.#changed.clear();
    return this.#bytes;
  }

  /** Makes room for the marks of a larger volume. */
  grow(sizeBytes: number): void {
    const sectors = sectorsFor(sizeBytes);
    const before = this.sectors;
    if (sectors <= before) return;
    const bytes = Buffer.alloc(sectors * SECTOR_BYTES);
    bytes.set(this.#bytes);
    this.#bytes = bytes;
    for (let sector = before; sector < sectors; sector++) {
      bytes.writeBigUInt64LE(BigInt(sector), sector * SECTOR_BYTES + 4);
      this.#changed.add(sector);
    }
  }

  set(extent: number, isMarked: boolean): void {
    const sector = Math.floor(extent / EXTENTS_A_SECTOR);
    const start = this.#bytes.byteOffset + sector * SECTOR_BYTES + HEAD_BYTES;
    const words = new Uint32Array(this.#bytes.buffer, start, (SECTOR_BYTES - HEAD_BYTES) / 4);
    const bit = extent - sector * EXTENTS_A_SECTOR;
    const changed = isMarked ? setBits(words, bit, bit + 1) : clearBits(words, bit, bit + 1);
    if (changed > 0) this.#changed.add(sector);
  }

  /** Writes the sectors that have changed, `mapAt` being where sector 0 is. @throws StoreError; they are tried again with the next */
  write(fd: number, mapAt: number): void {
    this.#seal();
    for (const sector of this.#changed) {
      const start = sector * SECTOR_BYTES;
      const bytes = { source: this.#bytes, start, length: SECTOR_BYTES };
      writeWhole(fd, mapAt + start, bytes, 'write an activity log');
      this.#changed.delete(sector);
    }
  }

  #seal(): void {
    for (const sector of this.#changed) {
      const start = sector * SECTOR_BYTES;
      const checked = this.#bytes.subarray(start + CHECKED_AT, start + SECTOR_BYTES);
      this.#bytes.writeUInt32LE(crc32(checked, this.#seed), start);
    }
  }
}
