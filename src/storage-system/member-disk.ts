/**
 * What a member does on its disk: its file, and beside it what must outlive a crash (CopyFolder). Carries out effects, and tells
 * how they have ended.
 *
 * Invariants
 *  1. What is told once is answered once, whatever fails; a failure of the folder fails the member, which then goes on from
 *     what is durable, as after a crash.
 *  2. An operation is in the journal before a byte of it is written. So what is to be applied waits for `startAll`, and one write of the
 *     journal serves all of it.
 *  3. Every other member of the group has a bitmap, also when it lacks nothing: so one that is not there has been lost (Member).
 */

import { assert, VolaryError, VolumeError, type VolumeErrorCode } from '../model/errors.ts';
import type { Extent } from '../model/volume.ts';
import type { MemberId, Range } from '../peer-protocol/messages.ts';
import type { Effect, Event, Operation, Piece, RequestError, Token } from '../replication/effects.ts';
import type { SparseFile } from '../storage/sparse-file.ts';

/** What is kept beside the file. */
export interface MemberFolder {
  /** The journal of what is unsettled; in the page cache when `writeJournal` returns. */
  begun(token: Token, range: Range): void;
  settled(tokens: readonly Token[]): void;
  writeJournal(): void;
  /** What was unsettled at the start, and a lost cache; durable when it resolves. The file has been flushed since. */
  forgetUnsettled(): Promise<void>;
  /** The activity log; durable. */
  mark(extents: readonly number[]): Promise<void>;
  unmark(extents: readonly number[]): Promise<void>;
  /** What was written to the file, and not flushed, may be lost: the next start is told. */
  loseCache(): void;
  /** The difference bitmaps; in the page cache. `addMember` makes one, empty, if there is none. */
  addMember(member: MemberId): void;
  setBits(member: MemberId, ranges: readonly Range[]): void;
  clearBits(member: MemberId, ranges: readonly Range[]): void;
  forgetMember(member: MemberId): void;
}

export interface MemberDiskOptions {
  readonly file: SparseFile;
  readonly folder: MemberFolder;
  /** Of the group, as it is durable. */
  readonly isMember: (id: MemberId) => boolean;
  /** Something has ended; the rules hear of it when `run` is called. */
  readonly tell: (event: Event) => void;
  readonly run: () => void;
  /** The folder cannot be used any more. */
  readonly failed: (reason: string) => void;
}

type DiskEffect = Extract<
  Effect,
  {
    readonly kind:
      | 'apply'
      | 'settle'
      | 'forget-unsettled'
      | 'mark'
      | 'unmark'
      | 'set-bits'
      | 'clear-bits'
      | 'forget-member'
      | 'read-range'
      | 'find-allocated';
  }
>;

type Apply = Extract<Effect, { readonly kind: 'apply' }>;

const ERRORS: Partial<Record<VolumeErrorCode, RequestError>> = {
  'no-space': 'no-space',
  invalid: 'invalid',
  failed: 'failed',
  shutdown: 'failed', // the file, not the member: it has been closed because it failed
};

/** Looked for at once; and told at most, coarser than they are if there are more. */
const EXTENTS_MAX = 1024;
const ALLOCATED_MAX = 65_536;

export class MemberDisk {
  readonly #options: MemberDiskOptions;
  /** In the order in which the rules want them. */
  #applies: Apply[] = [];
  #underWay = 0;
  #whenIdle = Promise.withResolvers<void>();
  /** Payloads that the thread pool is reading. */
  readonly #writing = new Map<Buffer, Promise<unknown>>();

  constructor(options: MemberDiskOptions) {
    this.#options = options;
  }

  carryOut(effect: DiskEffect): void {
    const { folder } = this.#options;
    switch (effect.kind) {
      case 'apply':
        this.#apply(effect);
        break;
      case 'settle':
        this.#keep(() => folder.settled(effect.tokens));
        break;
      case 'forget-unsettled':
        this.#later(this.#forgetUnsettled(), undefined);
        break;
      case 'mark':
        this.#later(folder.mark(effect.extents), { kind: 'marked', nowMs: 0, token: effect.token });
        break;
      case 'unmark':
        this.#later(this.#unmark(effect.extents), { kind: 'unmarked', nowMs: 0, token: effect.token });
        break;
      case 'set-bits':
        this.#keep(() => folder.setBits(effect.member, effect.ranges));
        break;
      case 'clear-bits':
        this.#keep(() => folder.clearBits(effect.member, effect.ranges));
        break;
      case 'forget-member':
        this.#keep(() => {
          folder.forgetMember(effect.member);
          if (this.#options.isMember(effect.member)) folder.addMember(effect.member);
        });
        break;
      case 'read-range':
        void this.#readRange(effect.token, effect.range);
        break;
      case 'find-allocated':
        void this.#findAllocated(effect.token);
        break;
    }
  }

  /** Starts what is to be applied. What of it has ended at once has been told: there may be new events. */
  startAll(): void {
    const applies = this.#applies;
    if (applies.length === 0) return;
    this.#applies = [];
    if (!this.#keep(() => this.#options.folder.writeJournal())) return;
    for (const { token, operation } of applies) this.#startOne(token, operation);
  }

  /** While the payload is being written: resolves when it is not any more. */
  writing(payload: Buffer): Promise<unknown> | undefined {
    this.startAll();
    return this.#writing.get(payload);
  }

  /** Resolves when nothing is under way. */
  idle(): Promise<void> {
    return this.#underWay === 0 ? Promise.resolve() : this.#whenIdle.promise;
  }

  // --- the file --------------------------------------------------------------------------------------------

  #apply(effect: Apply): void {
    const { token, operation, isJournaled } = effect;
    if (isJournaled && operation.kind !== 'flush') {
      if (!this.#keep(() => this.#options.folder.begun(token, operation))) return;
    }
    this.#applies.push(effect);
  }

  #startOne(token: Token, operation: Operation): void {
    const { file } = this.#options;
    try {
      if (operation.kind === 'write' && !operation.fua) {
        const { offset, payload, length } = operation;
        if (file.writeNow(offset, payload, 0, length)) {
          this.#options.tell({ kind: 'applied', nowMs: 0, token, error: undefined });
          return;
        }
      }
      const running = this.#start(operation).then(
        () => this.#applied(token, operation, undefined),
        (error: unknown) => this.#applied(token, operation, errorOf(error)),
      );
      this.#underWay += 1;
      if (operation.kind === 'write') this.#writing.set(operation.payload, running);
    } catch (error) {
      this.#options.tell({ kind: 'applied', nowMs: 0, token, error: errorOf(error) });
    }
  }

  #start(operation: Operation): Promise<void> {
    const { file } = this.#options;
    switch (operation.kind) {
      case 'write':
        return file.write(operation.offset, operation.payload, 0, operation.length, operation.fua);
      case 'zero': {
        const { offset, length, fua, noHole } = operation;
        return file.writeZeroes(offset, length, { fua, noHole, fast: false });
      }
      case 'trim':
        return this.#trim(operation.offset, operation.length, operation.fua);
      case 'flush':
        return file.flush();
    }
  }

  /** To zeroes, wherever it is done: copies would differ if it were nothing on a file system without holes. */
  #trim(offset: number, length: number, fua: boolean): Promise<void> {
    const { file } = this.#options;
    if (file.capabilities.trim) return file.trim(offset, length, fua);
    return file.writeZeroes(offset, length, { fua, noHole: false, fast: false });
  }

  #applied(token: Token, operation: Operation, error: RequestError | undefined): void {
    if (operation.kind === 'write') this.#writing.delete(operation.payload);
    this.#options.tell({ kind: 'applied', nowMs: 0, token, error });
    this.#ended();
  }

  async #readRange(token: Token, range: Range): Promise<void> {
    this.#underWay += 1;
    let pieces: Piece[] | undefined;
    try {
      pieces = await readPieces(this.#options.file, range);
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
    }
    this.#options.tell({ kind: 'range-read', nowMs: 0, token, pieces });
    this.#ended();
  }

  async #findAllocated(token: Token): Promise<void> {
    this.#underWay += 1;
    let ranges: Range[] | undefined;
    try {
      ranges = await allocatedOf(this.#options.file);
    } catch (error) {
      if (!(error instanceof VolumeError)) throw error;
    }
    this.#options.tell({ kind: 'allocated', nowMs: 0, token, ranges });
    this.#ended();
  }

  // --- the folder ------------------------------------------------------------------------------------------

  /** What is in the extents is to be on the disk first. */
  async #unmark(extents: readonly number[]): Promise<void> {
    await this.#options.file.flush();
    await this.#options.folder.unmark(extents);
  }

  async #forgetUnsettled(): Promise<void> {
    await this.#options.file.flush();
    await this.#options.folder.forgetUnsettled();
  }

  #later(doing: Promise<void>, event: Event | undefined): void {
    this.#underWay += 1;
    doing.then(
      () => {
        if (event !== undefined) this.#options.tell(event);
        this.#ended();
      },
      (error: unknown) => {
        if (!(error instanceof VolaryError)) throw error;
        this.#options.failed(error.message);
        this.#ended();
      },
    );
  }

  #keep(change: () => void): boolean {
    try {
      change();
      return true;
    } catch (error) {
      if (!(error instanceof VolaryError)) throw error;
      this.#options.failed(error.message);
      return false;
    }
  }

  #ended(): void {
    this.#underWay -= 1;
    if (this.#underWay === 0) {
      this.#whenIdle.resolve();
      this.#whenIdle = Promise.withResolvers();
    }
    this.#options.run();
  }
}

function errorOf(error: unknown): RequestError {
  if (!(error instanceof VolumeError)) throw error;
  return ERRORS[error.code] ?? 'io';
}

/** The range as data and holes, in order. */
async function readPieces(file: SparseFile, { offset, length }: Range): Promise<Piece[]> {
  const end = offset + length;
  const pieces: Piece[] = [];
  const add = async (at: number, extent: Extent): Promise<void> => {
    if (extent.hole) {
      pieces.push({ kind: 'hole', offset: at, length: extent.length });
      return;
    }
    const payload = Buffer.allocUnsafeSlow(extent.length);
    if (!file.readNow(at, payload, 0, extent.length)) await file.read(at, payload, 0, extent.length);
    pieces.push({ kind: 'data', offset: at, length: extent.length, payload });
  };
  if (!file.mayHaveHoles(offset, length)) {
    await add(offset, { length, hole: false, zero: false });
    return pieces;
  }
  for (let at = offset; at < end; ) {
    for (const extent of await file.blockStatus(at, end - at, EXTENTS_MAX)) {
      await add(at, extent);
      at += extent.length;
    }
  }
  return pieces;
}

async function allocatedOf(file: SparseFile): Promise<Range[]> {
  const ranges: Range[] = [];
  for (let at = 0; at < file.sizeBytes; ) {
    for (const { length, hole } of await file.blockStatus(at, file.sizeBytes - at, EXTENTS_MAX)) {
      assert(length > 0, 'an extent has a length');
      if (!hole) addRange(ranges, { offset: at, length });
      at += length;
    }
  }
  return ranges;
}

/** In order; the last grows when there are too many. */
function addRange(ranges: Range[], range: Range): void {
  const last = ranges.at(-1);
  if (last === undefined || ranges.length < ALLOCATED_MAX) {
    ranges.push(range);
    return;
  }
  ranges[ranges.length - 1] = { offset: last.offset, length: range.offset + range.length - last.offset };
}
