/**
 * WrappedVolume: a Volume that does something around the operations of another. Subclasses say what; this keeps the
 * rules of model/volume.ts: nothing starts after close, and close waits for what has started.
 */

import { VolumeError } from '../../../src/model/errors.ts';
import type {
  BlockSizes,
  Capabilities,
  Extent,
  Volume,
  WriteZeroesOptions,
} from '../../../src/model/volume.ts';

export type OperationName =
  | 'read'
  | 'write'
  | 'flush'
  | 'trim'
  | 'writeZeroes'
  | 'cache'
  | 'blockStatus'
  | 'resize';

/** One operation as it was asked for. `offset` and `length` are 0 where there are none; resize has its size as length. */
export interface Call {
  readonly operation: OperationName;
  readonly offset: number;
  readonly length: number;
  readonly fua: boolean;
  /** What a write brings: the caller's buffer, to be copied by whoever keeps it. */
  readonly data?: Buffer;
}

export abstract class WrappedVolume implements Volume {
  protected readonly inner: Volume;
  readonly #underWay = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined;

  constructor(inner: Volume) {
    this.inner = inner;
  }

  /** Runs the operation of the inner volume, or not; before, after or instead of it, whatever the subclass is for. */
  protected abstract around<T>(call: Call, operation: () => Promise<T>): Promise<T>;

  /** The same for readNow and writeNow. */
  protected abstract aroundNow(call: Call, operation: () => boolean): boolean;

  get sizeBytes(): number {
    return this.inner.sizeBytes;
  }

  get blockSizes(): BlockSizes {
    return this.inner.blockSizes;
  }

  get capabilities(): Capabilities {
    return this.inner.capabilities;
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    this.#refuseWhenClosing();
    return this.aroundNow({ operation: 'read', offset, length, fua: false }, () =>
      this.inner.readNow(offset, target, start, length),
    );
  }

  read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    return this.#run({ operation: 'read', offset, length, fua: false }, () =>
      this.inner.read(offset, target, start, length),
    );
  }

  writeNow(offset: number, source: Buffer, start: number, length: number): boolean {
    this.#refuseWhenClosing();
    const data = source.subarray(start, start + length);
    return this.aroundNow({ operation: 'write', offset, length, fua: false, data }, () =>
      this.inner.writeNow(offset, source, start, length),
    );
  }

  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    const data = source.subarray(start, start + length);
    return this.#run({ operation: 'write', offset, length, fua, data }, () =>
      this.inner.write(offset, source, start, length, fua),
    );
  }

  flush(): Promise<void> {
    return this.#run({ operation: 'flush', offset: 0, length: 0, fua: false }, () => this.inner.flush());
  }

  trim(offset: number, length: number, fua: boolean): Promise<void> {
    return this.#run({ operation: 'trim', offset, length, fua }, () => this.inner.trim(offset, length, fua));
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    return this.#run({ operation: 'writeZeroes', offset, length, fua: options.fua }, () =>
      this.inner.writeZeroes(offset, length, options),
    );
  }

  cache(offset: number, length: number): Promise<void> {
    return this.#run({ operation: 'cache', offset, length, fua: false }, () =>
      this.inner.cache(offset, length),
    );
  }

  blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    return this.#run({ operation: 'blockStatus', offset, length, fua: false }, () =>
      this.inner.blockStatus(offset, length, extentsMax),
    );
  }

  mayHaveHoles(offset: number, length: number): boolean {
    return this.inner.mayHaveHoles(offset, length);
  }

  resize(sizeBytes: number): Promise<void> {
    return this.#run({ operation: 'resize', offset: 0, length: sizeBytes, fua: false }, () =>
      this.inner.resize(sizeBytes),
    );
  }

  close(): Promise<void> {
    this.#closing ??= this.#closeWhenIdle();
    return this.#closing;
  }

  async #closeWhenIdle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay);
    await this.inner.close();
  }

  async #run<T>(call: Call, operation: () => Promise<T>): Promise<T> {
    this.#refuseWhenClosing();
    const running = this.around(call, operation);
    this.#underWay.add(running);
    try {
      return await running;
    } finally {
      this.#underWay.delete(running);
    }
  }

  #refuseWhenClosing(): void {
    if (this.#closing !== undefined) throw new VolumeError('shutdown', 'the volume is being closed');
  }
}
