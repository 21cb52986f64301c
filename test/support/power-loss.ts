/**
 * What a file may be after a power loss: it was durably `before`, and `after` was written since and not synced. The disk has heard of any of
 * the sectors that differ, and may have been in the middle of one.
 */

import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { SeededRandom } from './random.ts';

const SECTOR_BYTES = 512;

interface Both {
  readonly length: number;
  readonly old: Buffer;
  readonly now: Buffer;
  /** Offsets of the sectors that differ. */
  readonly differing: readonly number[];
}

/** Both in whole sectors, and equally long. */
function compared(before: Buffer, after: Buffer): Both {
  const length = Math.max(before.length, after.length);
  const rounded = Math.ceil(length / SECTOR_BYTES) * SECTOR_BYTES;
  const [old, now] = [before, after].map((bytes) => Buffer.concat([bytes], rounded)) as [Buffer, Buffer];
  const offsets = Array.from({ length: rounded / SECTOR_BYTES }, (_, sector) => sector * SECTOR_BYTES);
  const differing = offsets.filter(
    (at) => old.compare(now, at, at + SECTOR_BYTES, at, at + SECTOR_BYTES) !== 0,
  );
  return { length, old, now, differing };
}

/** `before` with the changes in it, cut off after each byte of them that makes a difference: one sector behind the other. */
export function tornPrefixes(before: Buffer, after: Buffer): Buffer[] {
  const { length, old, now, differing } = compared(before, after);
  const prefixes = [Buffer.from(old.subarray(0, length))];
  for (const sector of differing) {
    for (let at = sector; at < sector + SECTOR_BYTES; at++) {
      if (old[at] === now[at]) continue;
      old[at] = now[at] as number;
      prefixes.push(Buffer.from(old.subarray(0, length)));
    }
  }
  return prefixes;
}

/** Of each sector that differs the old one, the new one, or a torn one: any end of the new in the old, or nothing that makes sense. */
export function afterPowerLoss(before: Buffer, after: Buffer, random: SeededRandom): Buffer {
  const { length, old, now, differing } = compared(before, after);
  for (const at of differing) {
    const kind = random.below(6);
    const from = at + random.below(SECTOR_BYTES);
    if (kind <= 2) now.copy(old, at, at, at + SECTOR_BYTES);
    else if (kind === 3) now.copy(old, from, from, at + SECTOR_BYTES);
    else if (kind === 4 && random.below(4) === 0) old.fill(0xa5, at, from);
  }
  return old.subarray(0, random.below(2) === 0 ? length : before.length);
}

export type FolderImage = ReadonlyMap<string, Buffer>;

/** The bytes of the files in a folder. */
export function imageOf(folder: string): FolderImage {
  return new Map(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name))]));
}

/** Puts the files there. */
export function putImage(folder: string, image: FolderImage): void {
  for (const [name, bytes] of image) writeFileSync(join(folder, name), bytes);
}
