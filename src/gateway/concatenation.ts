/**
 * Concatenation: several ranges of volumes, one behind the other, as one Volume.
 *
 *     offset 0                                        sizeBytes
 *     | segment 0           | segment 1     | segment 2        |
 *         |                     |               |
 *         v volumeOffset        v               v              in a volume each, or in the same one
 *
 * Invariants
 *  1. The segments follow one another from 0 without gaps, and never change: another order is another Concatenation.
 *  2. A request inside one segment is handed on as it is: no copy, and no promise of its own but one where the offset of an
 *     error must be put right.
 *  3. A request over several is one: its parts run at the same time, and it ends when all have ended (the memory is
 *     theirs until then), with the failure of the first part in the volume's order.
 *  4. An offset in an error is one of this volume's, and inside the request.
 *  5. A flush is one at every segment: somebody else may have written through any of them (several gateways). When one has
 *     failed for good, all of this volume takes no more writes (rule 6 of model/volume.ts); when its server was merely
 *     away, a later flush covers the same writes.
 *  6. A fast zero that the first segment refuses changes nothing; one that a later segment refuses is finished slowly.
 */

import { assert, VolumeError } from '../model/errors.ts';
import type { BlockSizes, Capabilities, Extent, Volume, WriteZeroesOptions } from '../model/volume.ts';
import { appendExtent } from '../nbd-client/operation.ts';

/** Bytes [volumeOffset, volumeOffset + length) of `volume` are the ones from `offset` on here. */
export interface Segment {
  readonly offset: number;
  readonly length: number;
  readonly volume: Volume;
  readonly volumeOffset: number;
}

/** A segment, with what is wanted often. */
class Stretch {
  readonly offset: number;
  readonly end: number;
  readonly volume: Volume;
  /** What is at `offset` here is at `offset + shift` in the volume. */
  readonly shift: number;

  constructor({ offset, length, volume, volumeOffset }: Segment) {
    this.offset = offset;
    this.end = offset + length;
    this.volume = volume;
    this.shift = volumeOffset - offset;
  }

  /** The promise, with the offset of its error put right. */
  placed<T>(result: Promise<T>): Promise<T> {
    return this.shift === 0 ? result : result.then(undefined, this.#replace);
  }

  /** The error as one of the whole volume; `at` is where, when it does not say. */
  errorHere(error: unknown, at?: number): unknown {
    if (!(error instanceof VolumeError)) return error;
    const offset = error.offset === undefined ? at : error.offset - this.shift;
    if (offset === error.offset || offset === undefined) return error;
    return new VolumeError(error.code, error.message, { cause: error, offset });
  }

  readonly #replace = (error: unknown): never => {
    throw this.errorHere(error);
  };
}

/** A part of a request: bytes [offset, offset + length) of the whole, inside one stretch. */
interface Part {
  readonly stretch: Stretch;
  readonly offset: number;
  readonly length: number;
}

const NOTHING = Buffer.alloc(0);

export class Concatenation implements Volume {
  readonly sizeBytes: number;
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;
  readonly #stretches: readonly Stretch[];
  readonly #volumes: readonly Volume[];
  /** The stretch of the last request: the next is often there, too. */
  #last: Stretch;
  #failure: VolumeError | undefined;
  #closing: Promise<void> | undefined;

  constructor(segments: readonly Segment[]) {
    const [first] = segments;
    assert(first !== undefined, 'a concatenation has at least one segment');
    this.#stretches = segments.map((segment) => new Stretch(segment));
    this.#volumes = [...new Set(segments.map(({ volume }) => volume))];
    this.#last = this.#stretches[0] as Stretch;
    this.capabilities = commonCapabilities(this.#volumes);
    this.blockSizes = commonBlockSizes(this.#volumes);
    let end = 0;
    for (const { offset, length, volume, volumeOffset } of segments) {
      assert(offset === end && length > 0 && volumeOffset >= 0, 'segments follow one another');
      if (volumeOffset + length > volume.sizeBytes) {
        throw new VolumeError('invalid', `a segment of ${length} bytes ends behind its volume`, { offset });
      }
      if (offset % this.blockSizes.minimum !== 0 || volumeOffset % this.blockSizes.minimum !== 0) {
        const text = `a segment does not start at a multiple of ${this.blockSizes.minimum}, a block`;
        throw new VolumeError('not-supported', text, { offset });
      }
      end += length;
    }
    this.sizeBytes = end;
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    const stretch = this.#stretchOf(offset, length);
    if (stretch === undefined) return false; // the pieces would be read again if the last of them had to wait
    try {
      return stretch.volume.readNow(offset + stretch.shift, target, start, length);
    } catch (error) {
      throw stretch.errorHere(error);
    }
  }

  read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    let stretch: Stretch | undefined;
    try {
      stretch = this.#stretchOf(offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    if (stretch !== undefined) {
      return stretch.placed(stretch.volume.read(offset + stretch.shift, target, start, length));
    }
    return this.#inParts(offset, length, (volume, at, done, bytes) =>
      volume.read(at, target, start + done, bytes),
    );
  }

  writeNow(offset: number, source: Buffer, start: number, length: number): boolean {
    const stretch = this.#stretchOf(offset, length);
    if (this.#failure !== undefined) throw this.#failure;
    if (stretch === undefined) return false;
    try {
      return stretch.volume.writeNow(offset + stretch.shift, source, start, length);
    } catch (error) {
      throw stretch.errorHere(error);
    }
  }

  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    let stretch: Stretch | undefined;
    try {
      stretch = this.#stretchOf(offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (stretch !== undefined) {
      return stretch.placed(stretch.volume.write(offset + stretch.shift, source, start, length, fua));
    }
    return this.#inParts(offset, length, (volume, at, done, bytes) =>
      volume.write(at, source, start + done, bytes, fua),
    );
  }

  async flush(): Promise<void> {
    this.#refuseWhenClosing();
    if (this.#failure !== undefined) throw this.#failure;
    const outcomes = await Promise.allSettled(this.#volumes.map((volume) => volume.flush()));
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed === undefined) return;
    this.#failure ??= this.#failureForGood();
    throw withoutOffset(failed.reason);
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    this.#checkChange(offset, length);
    await this.#inParts(offset, length, (volume, at, _done, bytes) => volume.trim(at, bytes, fua));
  }

  async writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    this.#checkChange(offset, length);
    if (options.fast && this.#stretchOf(offset, length) === undefined) {
      await this.#zeroFast(offset, length, options);
      return;
    }
    await this.#inParts(offset, length, (volume, at, _done, bytes) => volume.writeZeroes(at, bytes, options));
  }

  /** One after the other (invariant 6). */
  async #zeroFast(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    let slow = false;
    for (const part of this.#partsOf(offset, length)) {
      const { stretch, offset: from, length: bytes } = part;
      const at = from + stretch.shift;
      try {
        if (!slow) await stretch.volume.writeZeroes(at, bytes, options);
      } catch (error) {
        const isRefusal = error instanceof VolumeError && error.code === 'not-supported';
        if (!isRefusal || from === offset) throw stretch.errorHere(error);
        slow = true;
      }
      if (!slow) continue;
      await stretch.placed(stretch.volume.writeZeroes(at, bytes, { ...options, fast: false }));
    }
  }

  async cache(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    await this.#inParts(offset, length, (volume, at, _done, bytes) => volume.cache(at, bytes));
  }

  async blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    this.#check(offset, length);
    assert(length > 0 && extentsMax > 0, 'block status of nothing');
    const extents: Extent[] = [];
    for (const { stretch, offset: from, length: bytes } of this.#partsOf(offset, length)) {
      // The first one here may be of a kind with the last one before.
      const max = extentsMax - extents.length + Math.min(extents.length, 1);
      const found = await stretch.placed(stretch.volume.blockStatus(from + stretch.shift, bytes, max));
      let covered = 0;
      for (const extent of found) {
        if (!appendExtent(extents, extent, extentsMax)) return extents;
        covered += extent.length;
      }
      if (covered < bytes) break;
    }
    return extents;
  }

  mayHaveHoles(offset: number, length: number): boolean {
    if (!this.capabilities.blockStatus) return false;
    return this.#partsOf(offset, length).some(({ stretch, offset: from, length: bytes }) =>
      stretch.volume.mayHaveHoles(from + stretch.shift, bytes),
    );
  }

  async resize(_sizeBytes: number): Promise<void> {
    this.#refuseWhenClosing();
    assert(this.capabilities.resize, 'a concatenation cannot be resized');
  }

  /** Closes the volumes. */
  close(): Promise<void> {
    this.#closing ??= Promise.all(this.#volumes.map((volume) => volume.close())).then(() => undefined);
    return this.#closing;
  }

  // --- parts -----------------------------------------------------------------------------------------------

  /** The stretch that the whole range is in; undefined: there are several. Checks the range. */
  #stretchOf(offset: number, length: number): Stretch | undefined {
    const last = this.#last;
    if (offset >= last.offset && offset + length <= last.end && length >= 0 && this.#closing === undefined) {
      return last;
    }
    this.#check(offset, length);
    const stretch = this.#at(offset);
    if (offset + length > stretch.end) return undefined;
    this.#last = stretch;
    return stretch;
  }

  /** The stretch of a byte; of the end of the volume: the last one. */
  #at(offset: number): Stretch {
    return this.#stretches[this.#indexOf(offset)] as Stretch;
  }

  #indexOf(offset: number): number {
    const stretches = this.#stretches;
    let low = 0;
    let high = stretches.length - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (offset < (stretches[middle] as Stretch).end) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  #partsOf(offset: number, length: number): Part[] {
    const parts: Part[] = [];
    const end = offset + length;
    let index = this.#indexOf(offset);
    for (let from = offset; from < end || parts.length === 0; index++) {
      const stretch = this.#stretches[index];
      assert(stretch !== undefined, 'the segments cover the volume');
      const to = Math.min(end, stretch.end);
      parts.push({ stretch, offset: from, length: to - from });
      from = to;
    }
    return parts;
  }

  async #inParts(
    offset: number,
    length: number,
    run: (volume: Volume, at: number, done: number, bytes: number) => Promise<void>,
  ): Promise<void> {
    const parts = this.#partsOf(offset, length);
    const outcomes = await Promise.allSettled(
      parts.map(({ stretch, offset: from, length: bytes }) =>
        run(stretch.volume, from + stretch.shift, from - offset, bytes),
      ),
    );
    for (const [index, outcome] of outcomes.entries()) {
      if (outcome.status === 'fulfilled') continue;
      const { stretch, offset: from } = parts[index] as Part;
      throw stretch.errorHere(outcome.reason, parts.length > 1 ? from : undefined);
    }
  }

  // --- checks ----------------------------------------------------------------------------------------------

  #refuseWhenClosing(): void {
    if (this.#closing !== undefined) throw new VolumeError('shutdown', 'the volume is being closed');
  }

  #check(offset: number, length: number): void {
    this.#refuseWhenClosing();
    assert(Number.isSafeInteger(offset) && offset >= 0 && length >= 0, 'a range is of whole bytes');
    if (offset + length > this.sizeBytes) {
      throw new VolumeError('invalid', `the volume ends at ${this.sizeBytes}`, { offset: this.sizeBytes });
    }
  }

  #checkChange(offset: number, length: number): void {
    this.#check(offset, length);
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Which of the volumes takes no more writes: each says so when it is asked for one. */
  #failureForGood(): VolumeError | undefined {
    for (const { volume, offset, shift } of this.#stretches) {
      try {
        volume.writeNow(offset + shift, NOTHING, 0, 0);
      } catch (error) {
        if (error instanceof VolumeError && error.code === 'failed')
          return withoutOffset(error) as VolumeError;
        if (!(error instanceof VolumeError)) throw error;
      }
    }
    return undefined;
  }
}

/** A flush has no place in the volume. */
function withoutOffset(error: unknown): unknown {
  if (!(error instanceof VolumeError) || error.offset === undefined) return error;
  return new VolumeError(error.code, error.message, { cause: error });
}

/** What all have. The size is the concatenation's own. */
function commonCapabilities(volumes: readonly Volume[]): Capabilities {
  const all = (name: keyof Capabilities): boolean => volumes.every(({ capabilities }) => capabilities[name]);
  return {
    write: all('write'),
    flush: all('flush'),
    trim: all('trim'),
    writeZeroes: all('writeZeroes'),
    fastZero: all('fastZero'),
    blockStatus: all('blockStatus'),
    cache: all('cache'),
    resize: false,
  };
}

function commonBlockSizes(volumes: readonly Volume[]): BlockSizes {
  const sizes = volumes.map(({ blockSizes }) => blockSizes);
  return {
    minimum: Math.max(...sizes.map(({ minimum }) => minimum)),
    preferred: Math.max(...sizes.map(({ preferred }) => preferred)),
    maximumPayload: Math.min(...sizes.map(({ maximumPayload }) => maximumPayload)),
  };
}
