/**
 * What a member's process does with its disk. Each piece of work takes its time, is done in part when the process ends meanwhile, and
 * says when it has been done.
 */

import type { MemberId, Range } from '../../src/peer-protocol/messages.ts';
import type { DurableState, Operation, RequestError } from '../../src/replication/effects.ts';
import { blockOf, extentsIn, extentsOf, piecesOf, rangesOf, sectorsOf, valuesOf } from './layout.ts';
import type { MemberDisk } from './member-disk.ts';
import type { EventBody } from './network.ts';
import type { Scheduler } from './scheduler.ts';

export interface DiskPace {
  readonly diskMs: number;
  readonly persistMs: number;
}

interface Work {
  readonly delayMs: number;
  /** All of it. */
  readonly act: () => void;
  /** What remains when the process ends in the middle. */
  readonly tear?: () => void;
  readonly next: () => void;
}

export interface DiskUser {
  readonly id: MemberId;
  readonly isAlive: boolean;
  receive(source: string, event: EventBody): void;
}

export class DiskWorks {
  readonly #user: DiskUser;
  readonly #disk: MemberDisk;
  readonly #scheduler: Scheduler;
  readonly #pace: DiskPace;
  readonly #violation: (text: string) => Error;
  readonly #works = new Set<Work>();
  #count = 0;
  readonly #applying = new Map<number, Range>();

  constructor(
    user: DiskUser,
    disk: MemberDisk,
    scheduler: Scheduler,
    pace: DiskPace,
    violation: (text: string) => Error,
  ) {
    this.#user = user;
    this.#disk = disk;
    this.#scheduler = scheduler;
    this.#pace = pace;
    this.#violation = violation;
  }

  /** Something is being written. */
  get isApplying(): boolean {
    return this.#applying.size > 0;
  }

  end(): void {
    for (const { tear } of this.#works) tear?.();
    this.#works.clear();
  }

  persist(state: DurableState, next: () => void): void {
    const act = (): void => {
      this.#disk.durable = state;
    };
    const delayMs = this.#scheduler.between(0, this.#pace.persistMs);
    this.#begin({ delayMs, act, tear: () => this.#maybe(0.5, act), next });
  }

  /** `entry`: its name in the journal, if it is to be there. */
  apply(token: number, operation: Operation, entry: string | undefined): void {
    const { data } = this.#disk;
    const ended = (error: RequestError | undefined): void => this.#tell({ kind: 'applied', token, error });
    const applied = (): void => ended(undefined);
    if (operation.kind === 'flush') {
      this.#flush(2, applied);
      return;
    }
    const { offset, length } = operation;
    this.#checkOverlaps(operation);
    if (entry !== undefined) this.#checkMarks(operation);
    this.#applying.set(token, { offset, length });
    if (entry !== undefined) this.#disk.journal.set(entry, { offset, length });
    const { first, end } = sectorsOf(operation);
    const values = operation.kind === 'write' ? valuesOf(operation.payload) : undefined;
    if (offset + length > this.#disk.fileBytes) {
      this.#begin({
        delayMs: this.#diskMs(),
        act: () => this.#applying.delete(token),
        next: () => ended('invalid'),
      });
      return;
    }
    const write = (from: number, to: number): void => {
      if (values !== undefined) for (let at = from; at < to; at++) data.set(at, values[at - first] ?? 0);
      else for (const at of [...data.keys()]) if (at >= from && at < to) data.set(at, 0);
    };
    // In two parts, so that one may be looked at, or be lost, without the other.
    const middle = first + Math.floor(((end - first) * this.#scheduler.random.below(5)) / 4);
    const second = (): void =>
      this.#begin({
        delayMs: this.#diskMs() / 2,
        act: () => write(middle, end),
        tear: () => this.#maybe(0.3, () => write(middle, end)),
        next: () => {
          this.#applying.delete(token);
          if (operation.fua) this.#flush(1, applied);
          else applied();
        },
      });
    this.#begin({
      delayMs: this.#diskMs(),
      act: () => write(first, middle),
      tear: () => this.#maybe(0.5, () => write(first, middle)),
      next: () => {
        if (!this.#fails(operation)) return second();
        this.#applying.delete(token);
        ended('no-space');
      },
    });
  }

  mark(token: number, extents: readonly number[]): void {
    const act = (): void => {
      for (const extent of extents)
        if (extent < extentsIn(this.#disk.folderBytes)) this.#disk.marks.add(extent);
    };
    const next = (): void => this.#tell({ kind: 'marked', token });
    this.#begin({ delayMs: this.#diskMs(), act, tear: () => this.#maybe(0.5, act), next });
  }

  unmark(token: number, extents: readonly number[]): void {
    const { data, bits, marks } = this.#disk;
    const version = data.beginFlush();
    const files = [...bits.values()].map((file) => ({ file, version: file.beginFlush() }));
    const act = (): void => {
      data.endFlush(version);
      for (const { file, version: at } of files) file.endFlush(at);
      for (const extent of extents) marks.delete(extent);
    };
    const next = (): void => this.#tell({ kind: 'unmarked', token });
    this.#begin({ delayMs: this.#diskMs() * 3, act, tear: () => this.#maybe(0.3, act), next });
  }

  readRange(token: number, range: Range): void {
    let pieces: ReturnType<typeof piecesOf> | undefined;
    const act = (): void => {
      if (range.offset + range.length > this.#disk.fileBytes || this.#cannotRead()) return;
      pieces = piecesOf(range, (sector) => this.#disk.data.get(sector));
    };
    this.#begin({
      delayMs: this.#diskMs(),
      act,
      next: () => this.#tell({ kind: 'range-read', token, pieces }),
    });
  }

  findAllocated(token: number): void {
    let ranges: Range[] | undefined;
    const act = (): void => {
      if (this.#cannotRead()) return;
      ranges = rangesOf(new Set([...this.#disk.data.keys()].map(blockOf)));
    };
    this.#begin({
      delayMs: this.#diskMs() * 2,
      act,
      next: () => this.#tell({ kind: 'allocated', token, ranges }),
    });
  }

  #flush(times: number, next: () => void): void {
    const { data } = this.#disk;
    const version = data.beginFlush();
    this.#begin({ delayMs: this.#diskMs() * times, act: () => data.endFlush(version), next });
  }

  #checkOverlaps({ offset, length }: Range): void {
    for (const other of this.#applying.values()) {
      if (other.offset >= offset + length || offset >= other.offset + other.length) continue;
      const text = `I1: ${this.#user.id} applies two operations on overlapping ranges, at ${offset} and ${other.offset}`;
      throw this.#violation(text);
    }
  }

  /** As the activity log does. */
  #checkMarks(range: Range): void {
    for (const extent of extentsOf(range)) {
      if (this.#disk.marks.has(extent) || extent >= extentsIn(this.#disk.folderBytes)) continue;
      throw this.#violation(
        `S4: ${this.#user.id} applies an operation in extent ${extent}, which is not marked`,
      );
    }
  }

  /** Where there is no space left, some of a write may be done. */
  #fails({ kind }: Operation): boolean {
    return this.#disk.isFull && kind === 'write' && this.#scheduler.chance(0.6);
  }

  #cannotRead(): boolean {
    return this.#disk.isUnreadable && this.#scheduler.chance(0.5);
  }

  #begin(work: Work): void {
    this.#works.add(work);
    this.#scheduler.after(work.delayMs, () => {
      if (!this.#user.isAlive) return;
      this.#works.delete(work);
      work.act();
      work.next();
    });
  }

  #tell(event: EventBody): void {
    this.#user.receive(`disk ${this.#count++}`, event);
  }

  #maybe(probability: number, act: () => void): void {
    if (this.#scheduler.chance(probability)) act();
  }

  /** Now and then a disk thinks for long. */
  #diskMs(): number {
    return this.#scheduler.between(0, this.#pace.diskMs * (this.#scheduler.chance(0.02) ? 50 : 1));
  }
}
