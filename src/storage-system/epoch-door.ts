/**
 * EpochDoor: a real volume's file as the connections of one epoch see it. All of them have the same door, so that the
 * NBD server's fence (SPEC N4) holds among them; those of the next epoch have another.
 *
 * Invariants
 * 1. When `shut` has been called, nothing that is asked of the door reaches the file: it fails as 'shutdown'.
 * 2. When `shut` has resolved, nothing that was asked of the door before is under way at the file, nor will be again.
 *    So what comes through the next door comes later than all that came through this one.
 * 3. Nothing lies behind `sizeBytes`, however long the file is: while a resize is under way the file is the longer of both.
 * 4. The file behind may be closed while nobody uses it: then nothing is done at once, and `read` and the others open it.
 * 5. A door may come to lead elsewhere (`hold`, then `leadTo`): nothing reaches what is behind it then before all that
 *    reached what was behind it has finished. Who comes meanwhile waits, or is refused when the door is shut.
 */

import { assert, VolumeError } from '../model/errors.ts';
import type { BlockSizes, Capabilities, Extent, Volume, WriteZeroesOptions } from '../model/volume.ts';

/** A file that is opened when it is needed. */
export interface DoorFile {
  /** Undefined while it is not open. */
  readonly volume: Volume | undefined;
  /** Rejects with a VolumeError. */
  open(): Promise<Volume>;
}

export interface EpochDoorOptions {
  readonly file: DoorFile;
  readonly sizeBytes: number;
  readonly blockSizes: BlockSizes;
  /** Of the file; the door itself cannot be resized: that is its storage system's to do. */
  readonly capabilities: Capabilities;
  /** A view for looking and checking. */
  readonly readOnly?: boolean;
}

export class EpochDoor implements Volume {
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;
  #file: DoorFile;
  readonly #readOnly: boolean;
  #sizeBytes: number;
  #underWay = 0;
  /** Of those, the ones that have reached what is behind the door. */
  #inside = 0;
  #isShut = false;
  #hold: PromiseWithResolvers<void> | undefined;
  #whenEmpty: (() => void) | undefined;
  #whenIdle: (() => void) | undefined;
  #drained: Promise<void> | undefined;

  constructor(options: EpochDoorOptions) {
    this.#file = options.file;
    this.#readOnly = options.readOnly ?? false;
    this.#sizeBytes = options.sizeBytes;
    this.blockSizes = options.blockSizes;
    this.capabilities = this.#readOnly
      ? { ...options.capabilities, ...DENIED, resize: false }
      : { ...options.capabilities, resize: false };
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  /** The real volume has another size from now on. */
  resized(sizeBytes: number): void {
    this.#sizeBytes = sizeBytes;
  }

  /** From now on everything fails as 'shutdown'; resolves when nothing that was asked for before is under way. */
  shut(): Promise<void> {
    this.#isShut = true;
    this.#release(); // those who wait find it shut
    this.#drained ??= new Promise((resolve) => {
      if (this.#underWay === 0) resolve();
      else this.#whenIdle = () => setImmediate(resolve); // behind the answers to what was under way
    });
    return this.#drained;
  }

  close(): Promise<void> {
    return this.shut();
  }

  /** From now on everything waits, until `leadTo`; resolves when nothing is under way at what is behind the door. */
  async hold(): Promise<void> {
    assert(this.#hold === undefined, 'a door is held once');
    this.#hold = Promise.withResolvers();
    if (this.#inside > 0) {
      await new Promise<void>((resolve) => {
        this.#whenEmpty = resolve;
      });
    }
  }

  /** Ends what `hold` has begun: the door leads there from now on. */
  leadTo(file: DoorFile): void {
    assert(this.#inside === 0, 'nothing is under way when a door comes to lead elsewhere');
    this.#file = file;
    this.#release();
  }

  #release(): void {
    this.#hold?.resolve();
    this.#hold = undefined;
  }

  /** What is behind the door, when it can be used now. */
  #openNow(): Volume | undefined {
    return this.#hold === undefined ? this.#file.volume : undefined;
  }

  readNow(offset: number, target: Buffer, start: number, length: number): boolean {
    this.#check(offset, length);
    return this.#openNow()?.readNow(offset, target, start, length) ?? false;
  }

  writeNow(offset: number, source: Buffer, start: number, length: number): boolean {
    this.#checkChange(offset, length);
    return this.#openNow()?.writeNow(offset, source, start, length) ?? false;
  }

  read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    return this.#run(
      () => this.#check(offset, length),
      (volume) => volume.read(offset, target, start, length),
    );
  }

  /** Without a detour while the file is open: the path of every write to a volume that has copies. */
  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    const volume = this.#openNow();
    if (volume === undefined) {
      return this.#run(
        () => this.#checkChange(offset, length),
        (opened) => opened.write(offset, source, start, length, fua),
      );
    }
    try {
      this.#checkChange(offset, length);
    } catch (error) {
      return Promise.reject(error);
    }
    this.#underWay += 1;
    this.#inside += 1;
    return volume.write(offset, source, start, length, fua).then(this.#ended, this.#failed);
  }

  flush(): Promise<void> {
    return this.#run(
      () => this.#check(0, 0),
      async (volume) => {
        if (!this.#readOnly) await volume.flush(); // through a view nothing has been written
      },
    );
  }

  trim(offset: number, length: number, fua: boolean): Promise<void> {
    return this.#run(
      () => this.#checkChange(offset, length),
      (volume) => volume.trim(offset, length, fua),
    );
  }

  writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    return this.#run(
      () => this.#checkChange(offset, length),
      (volume) => volume.writeZeroes(offset, length, options),
    );
  }

  cache(offset: number, length: number): Promise<void> {
    return this.#run(
      () => this.#check(offset, length),
      (volume) => volume.cache(offset, length),
    );
  }

  blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    return this.#run(
      () => this.#check(offset, length),
      (volume) => volume.blockStatus(offset, length, extentsMax),
    );
  }

  mayHaveHoles(offset: number, length: number): boolean {
    return this.#file.volume?.mayHaveHoles(offset, length) ?? true;
  }

  async resize(): Promise<void> {
    this.#check(0, 0);
    throw new VolumeError(
      'not-supported',
      'the size of a real volume is changed by its storage system alone',
    );
  }

  async #run<T>(check: () => void, operation: (volume: Volume) => Promise<T>): Promise<T> {
    check();
    this.#underWay += 1;
    try {
      let volume = this.#openNow();
      while (volume === undefined) {
        volume = await this.#opened();
        check(); // it may have been shut meanwhile
      }
      this.#inside += 1;
      try {
        return await operation(volume);
      } finally {
        this.#leaves();
      }
    } finally {
      this.#isOver();
    }
  }

  #leaves(): void {
    this.#inside -= 1;
    if (this.#inside === 0) this.#whenEmpty?.();
  }

  #isOver(): void {
    this.#underWay -= 1;
    if (this.#underWay === 0) this.#whenIdle?.();
  }

  readonly #ended = (): void => {
    this.#leaves();
    this.#isOver();
  };

  readonly #failed = (error: unknown): never => {
    this.#ended();
    throw error;
  };

  /** Waits, and then may have to be asked again. */
  async #opened(): Promise<Volume | undefined> {
    if (this.#hold !== undefined) {
      await this.#hold.promise;
      return this.#openNow();
    }
    const file = this.#file;
    const volume = await file.open();
    return this.#hold === undefined && this.#file === file ? volume : undefined;
  }

  #checkChange(offset: number, length: number): void {
    this.#check(offset, length);
    if (this.#readOnly) throw new VolumeError('read-only', 'this is a view for checking: it takes no writes');
  }

  /** What is no range at all is for the file to say. */
  #check(offset: number, length: number): void {
    if (this.#isShut) throw new VolumeError('shutdown', 'this way to the real volume has been shut');
    if (offset + length <= this.#sizeBytes) return;
    throw new VolumeError('invalid', `the volume ends at ${this.#sizeBytes}`, { offset: this.#sizeBytes });
  }
}

const DENIED = { write: false, trim: false, writeZeroes: false, fastZero: false } as const;
