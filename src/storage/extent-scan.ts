/**
 * ExtentScan: the walk over a file's data and holes by SEEK_DATA and SEEK_HOLE, without the seeking: says
 * which seek it needs next, and is given its outcome. So the seeks may run on any thread.
 *
 * Invariant: a range is called a hole only when SEEK_DATA passed over it. Whatever is unclear, because a seek
 * failed or the file changed between two of them, counts as data, which is never wrong.
 */

import { ENXIO, SEEK_DATA, SEEK_HOLE } from '../base/syscalls.ts';
import type { Extent } from '../model/volume.ts';

export class ExtentScan {
  readonly extents: Extent[] = [];
  /** What was found to be data, as far as the kernel said, past the end of the range too: start, end, … */
  readonly data: number[] = [];
  readonly #end: number;
  readonly #extentsMax: number;
  #position: number;
  #whence = SEEK_DATA;

  constructor(offset: number, length: number, extentsMax: number) {
    this.#position = offset;
    this.#end = offset + length;
    this.#extentsMax = extentsMax;
  }

  get done(): boolean {
    return this.#position >= this.#end || this.extents.length >= this.#extentsMax;
  }

  /** Where the next seek starts. */
  get position(): number {
    return this.#position;
  }

  get whence(): number {
    return this.#whence;
  }

  /** The outcome of that seek: an offset or -errno. */
  take(found: number): void {
    if (this.#whence === SEEK_DATA) {
      if (found === -ENXIO) this.#push(this.#end, true);
      else if (found < 0) this.#push(this.#end, false);
      else this.#push(found, true);
      this.#whence = SEEK_HOLE;
    } else if (found > this.#position) {
      this.data.push(this.#position, found);
      this.#push(found, false);
      this.#whence = SEEK_DATA;
    } else {
      this.#push(this.#end, false);
    }
  }

  #push(to: number, hole: boolean): void {
    const end = Math.min(to, this.#end);
    let length = end - this.#position;
    if (length <= 0) return;
    const last = this.extents.at(-1);
    if (last?.hole === hole) {
      length += last.length;
      this.extents.pop();
    }
    this.extents.push({ length, hole, zero: hole });
    this.#position = end;
  }
}
