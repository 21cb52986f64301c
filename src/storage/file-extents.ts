/**
 * FileExtents: which ranges of an open file are data and which are holes, by SEEK_DATA and SEEK_HOLE, and what of
 * that is known without asking.
 *
 * Invariant: the seeks run on the thread pool, since they may have to read metadata or walk over millions of pages;
 * only one, of a place that is in memory, is tried at once.
 */

import { SEEK_DATA, SEEK_HOLE, seek, seekAsync } from '../base/syscalls.ts';
import type { Extent } from '../model/volume.ts';
import { DataExtents } from './data-extents.ts';
import { ExtentScan } from './extent-scan.ts';

const MIB = 1024 * 1024;

// The status of a range up to this length is what a read asks; how much data lies around it is learned then.
const SHORT_RANGE = MIB;
const LOOK_BACK = 64 * MIB;

export class FileExtents {
  readonly #fd: number;
  readonly #isCached: (offset: number) => boolean;
  readonly #data = new DataExtents();

  /** `isCached` tells whether the byte there is in memory. */
  constructor(fd: number, isCached: (offset: number) => boolean) {
    this.#fd = fd;
    this.#isCached = isCached;
  }

  /** False only when the range is known to be data. */
  mayHaveHoles(offset: number, length: number): boolean {
    return !this.#data.covers(offset, offset + length);
  }

  /** To be called before something that can make a hole in the range starts, and again when it has ended. */
  forget(start: number, end: number): void {
    this.#data.forget(start, end);
  }

  /** As Volume.blockStatus. */
  async find(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    const end = offset + length;
    const allData: Extent[] = [{ length, hole: false, zero: false }];
    if (this.#data.covers(offset, end)) return allData;
    const scan = new ExtentScan(offset, length, extentsMax);
    const { generation } = this.#data;
    if (length <= SHORT_RANGE) {
      // Asked for what has just been read, so it is in memory, and most likely its metadata too.
      if (this.#isCached(offset)) scan.take(seek(this.#fd, offset, SEEK_DATA));
      if (scan.done) return scan.extents;
      // One seek from a good way before the range tells of all the reads that may come there.
      const from = offset - (offset % LOOK_BACK);
      const hole = await seekAsync(this.#fd, from, SEEK_HOLE);
      if (hole >= end) {
        this.#learn(generation, [from, hole]);
        return allData;
      }
    }
    while (!scan.done) scan.take(await seekAsync(this.#fd, scan.position, scan.whence));
    this.#learn(generation, scan.data);
    return scan.extents;
  }

  /** start, end, start, end, … of data, asked for in that generation. */
  #learn(generation: number, data: readonly number[]): void {
    if (generation !== this.#data.generation) return; // there may be holes in it by now
    for (let index = 0; index < data.length; index += 2) {
      this.#data.add(data[index] as number, data[index + 1] as number);
    }
  }
}
