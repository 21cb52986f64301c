/**
 * UnsettledJournal: which ranges a member had begun to change and did not know to be settled, for the process after this one. It lives in the
 * page cache: that survives a process, however it ended, and not the machine. What the machine loses, the activity log covers.
 *
 *     DATA/copies/rv-ID/unsettled
 *       0      8192  header (twin-header.ts), magic "VolaryUJ", version 1; its payload:
 *                      0  16  boot id of the machine when the file was made
 *                     16   1  1: more was unsettled at once than there are slots, so all marked extents count
 *                     24  24  real volume, ASCII, filled up with zeros
 *       8192  ...    slots of 32 bytes: first EARLIER_SLOTS for what was unsettled when the file was opened, then SLOTS for what is now.
 *                    Zeros when free, else:
 *                      0   8  offset
 *                      8   8  length, not 0
 *                     16  12  zeros
 *                     28   4  checksum: FNV-1a of the seven 32-bit words before, begun with the CRC-32 of the real volume's id
 *     all little-endian
 *
 * Invariants
 * 1. A slot is in the file, by `write`, before its operation begins to be applied, and is free there only after the operation is settled.
 * 2. No slot crosses a page: a process that is killed within a write leaves each slot as it was or as it should be.
 * 3. The file is made as a whole (replace-file.ts), with what was unsettled until then; that stays until `settleEarlier`.
 * 4. Nothing is synced but for a clean close. A journal counts in the boot that it was made in, or after a clean close; a slot with a wrong
 *    checksum makes it count not at all. What to do then is the activity log's.
 * 5. Nobody waits for a slot: without a free one the header says so, before the operation begins, until there is no such operation any more.
 */

import { crc32 } from 'node:zlib';
import { coarsened, type Range } from '../base/range.ts';
import { writeAt } from '../base/syscalls.ts';
import { assert } from '../model/errors.ts';
import { storeErrorOfErrno } from './errors.ts';
import { readWholeFile, replaceFile } from './replace-file.ts';
import { findHeader, headerBytes, PAYLOAD_BYTES, TWIN_HEADER_BYTES, TwinHeader } from './twin-header.ts';

const FORMAT = { magic: 'VolaryUJ', version: 1 };
const SEQUENCE_WHEN_MADE = 2;

export const EARLIER_SLOTS = 1024;
export const SLOTS = 4096;
const SLOT_BYTES = 32;
const SLOT_WORDS = SLOT_BYTES / 4;
const FILE_BYTES = TWIN_HEADER_BYTES + (EARLIER_SLOTS + SLOTS) * SLOT_BYTES;
/** One that is longer than it can be is damaged; this much longer it is not even read. */
const READ_BYTES_MAX = 64 * 1024 * 1024;
const TWO_32 = 0x1_0000_0000;

/** What has changed is written by pages: those in use are few. */
const PAGE_SLOTS = 4096 / SLOT_BYTES;
const PAGES = Math.ceil((EARLIER_SLOTS + SLOTS) / PAGE_SLOTS);
const NONE = 0xffff;

/** What `begin` gives for `settle`. */
export type Slot = number;
const NO_SLOT: Slot = -1;

export interface JournalOwner {
  readonly realVolume: string;
  readonly bootId: string;
}

export interface JournalFound {
  readonly bootId: string;
  readonly ranges: readonly Range[];
  /** More was unsettled than is told. */
  readonly hasOverflowed: boolean;
}

/** What the process before has left; undefined when it is not there or not whole. @throws UsageError, StoreError */
export async function readJournal(path: string, realVolume: string): Promise<JournalFound | undefined> {
  const bytes = await readWholeFile(path, READ_BYTES_MAX);
  if (bytes === undefined) return undefined;
  const header = findHeader(FORMAT, bytes, path);
  if (header.kind !== 'valid' || bytes.length !== FILE_BYTES) return undefined;
  if (
    !header.payload.subarray(24, 48).equals(payloadOf({ realVolume, bootId: '' }, false).subarray(24, 48))
  ) {
    return undefined;
  }
  const seed = crc32(realVolume);
  const ranges: Range[] = [];
  for (let at = TWIN_HEADER_BYTES; at < FILE_BYTES; at += SLOT_BYTES) {
    const slot = bytes.subarray(at, at + SLOT_BYTES);
    if (slot.every((byte) => byte === 0)) continue;
    if (checksumOf(wordsOf(slot), 0, seed) !== slot.readUInt32LE(28)) return undefined;
    ranges.push({ offset: Number(slot.readBigUInt64LE(0)), length: Number(slot.readBigUInt64LE(8)) });
  }
  const bootId = header.payload.toString('hex', 0, 16);
  return { bootId, ranges, hasOverflowed: header.payload[16] !== 0 };
}

/** Makes the file anew, with `earlier` or a little more in it: what it then has. @throws StoreError */
export async function makeJournal(
  path: string,
  owner: JournalOwner,
  earlier: readonly Range[],
): Promise<readonly Range[]> {
  const kept = coarsened(earlier, EARLIER_SLOTS);
  const bytes = Buffer.alloc(FILE_BYTES);
  bytes.set(headerBytes(FORMAT, payloadOf(owner, false)));
  const slots = new SlotTable(owner.realVolume);
  for (const [slot, range] of kept.entries()) slots.fill(slot, range);
  bytes.set(slots.bytes, TWIN_HEADER_BYTES);
  await replaceFile(path, bytes);
  return kept;
}

function payloadOf({ realVolume, bootId }: JournalOwner, hasOverflowed: boolean): Buffer {
  const payload = Buffer.alloc(PAYLOAD_BYTES);
  payload.write(bootId, 'hex');
  payload[16] = hasOverflowed ? 1 : 0;
  payload.write(realVolume, 24, 24, 'latin1');
  return payload;
}

/** Of the slot that begins at that word. The path of every write: less than a call into zlib, and no change of one word escapes it. */
function checksumOf(words: Uint32Array, at: number, seed: number): number {
  let sum = seed;
  for (let word = 0; word < SLOT_WORDS - 1; word++)
    sum = Math.imul(sum ^ (words[at + word] as number), 0x01000193);
  return sum >>> 0;
}

function wordsOf(slot: Buffer): Uint32Array {
  return Uint32Array.from({ length: SLOT_WORDS }, (_, word) => slot.readUInt32LE(word * 4));
}

/** The slots as they are in the file. */
class SlotTable {
  readonly bytes = Buffer.alloc((EARLIER_SLOTS + SLOTS) * SLOT_BYTES);
  readonly #words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, this.bytes.length / 4);
  readonly #seed: number;

  constructor(realVolume: string) {
    this.#seed = crc32(realVolume);
  }

  fill(slot: number, { offset, length }: Range): void {
    const words = this.#words;
    const at = slot * SLOT_WORDS;
    words[at] = offset;
    words[at + 1] = offset / TWO_32;
    words[at + 2] = length;
    words[at + 3] = length / TWO_32;
    words[at + 7] = checksumOf(words, at, this.#seed);
  }

  free(slot: number, count: number): void {
    this.#words.fill(0, slot * SLOT_WORDS, (slot + count) * SLOT_WORDS);
  }

  isFree(slot: number): boolean {
    return this.#words[slot * SLOT_WORDS + 2] === 0 && this.#words[slot * SLOT_WORDS + 3] === 0;
  }

  rangeOf(slot: number): Range {
    const at = slot * SLOT_BYTES;
    return {
      offset: Number(this.bytes.readBigUInt64LE(at)),
      length: Number(this.bytes.readBigUInt64LE(at + 8)),
    };
  }
}

export class UnsettledJournal {
  readonly #fd: number;
  readonly #owner: JournalOwner;
  readonly #header: TwinHeader;
  readonly #table: SlotTable;
  /** The free ones; the last freed is taken first, so that those in use are near one another. */
  readonly #free = new Uint16Array(SLOTS);
  #freeCount = SLOTS;
  #withoutSlot = 0;
  /** The pages in which slots have changed since the last `write`, and of each the first and the last of these. */
  readonly #changedPages: number[] = [];
  readonly #firstChanged = new Uint16Array(PAGES).fill(NONE);
  readonly #lastChanged = new Uint16Array(PAGES);

  /** Of a file that has just been made, with `earlier` in it; the descriptor stays the caller's. */
  constructor(fd: number, owner: JournalOwner, earlier: readonly Range[]) {
    this.#fd = fd;
    this.#owner = owner;
    this.#header = new TwinHeader(FORMAT, fd, SEQUENCE_WHEN_MADE);
    this.#table = new SlotTable(owner.realVolume);
    for (const [slot, range] of earlier.entries()) this.#table.fill(slot, range);
    for (let at = 0; at < SLOTS; at++) this.#free[at] = EARLIER_SLOTS + SLOTS - 1 - at;
  }

  get hasOverflowed(): boolean {
    return this.#withoutSlot > 0;
  }

  /** The range is unsettled from the next `write` on: nothing may be applied before. @throws StoreError: then it is not */
  begin(range: Range): Slot {
    assert(range.length > 0, 'an operation on nothing is not journaled');
    if (this.#freeCount === 0) {
      if (this.#withoutSlot === 0) this.#header.write(payloadOf(this.#owner, true));
      this.#withoutSlot += 1;
      return NO_SLOT;
    }
    this.#freeCount -= 1;
    const slot = this.#free[this.#freeCount] as number;
    this.#table.fill(slot, range);
    this.#changed(slot);
    return slot;
  }

  /** Each once; in the file from the next `write` on. @throws StoreError: they may yet be told as unsettled after a crash */
  settle(slots: readonly Slot[]): void {
    const before = this.#withoutSlot;
    for (const slot of slots) {
      if (slot === NO_SLOT) {
        this.#withoutSlot -= 1;
        continue;
      }
      assert(slot >= EARLIER_SLOTS && !this.#table.isFree(slot), 'settled twice');
      this.#table.free(slot, 1);
      this.#free[this.#freeCount] = slot;
      this.#freeCount += 1;
      this.#changed(slot);
    }
    if (before > 0 && this.#withoutSlot === 0) this.#header.write(payloadOf(this.#owner, false));
  }

  /** What has begun and was settled since the last time is in the file, in the page cache, when it returns. @throws StoreError: nothing of it may be applied */
  write(): void {
    const pages = this.#changedPages;
    for (let page = pages.at(-1); page !== undefined; page = pages.at(-1)) {
      const first = this.#firstChanged[page] as number;
      this.#write(first, (this.#lastChanged[page] as number) - first + 1);
      this.#firstChanged[page] = NONE;
      pages.pop(); // not before: what could not be written is to be written yet
    }
  }

  /** What was unsettled when the file was made need not be known any more. @throws StoreError */
  settleEarlier(): void {
    this.#table.free(0, EARLIER_SLOTS);
    this.#write(0, EARLIER_SLOTS);
  }

  /** All that has a slot. */
  ranges(): Range[] {
    const slots = Array.from({ length: EARLIER_SLOTS + SLOTS }, (_, slot) => slot);
    return slots.filter((slot) => !this.#table.isFree(slot)).map((slot) => this.#table.rangeOf(slot));
  }

  #changed(slot: number): void {
    const page = Math.floor(slot / PAGE_SLOTS);
    if (this.#firstChanged[page] === NONE) {
      this.#firstChanged[page] = slot;
      this.#lastChanged[page] = slot;
      this.#changedPages.push(page);
    } else if (slot < (this.#firstChanged[page] as number)) this.#firstChanged[page] = slot;
    else if (slot > (this.#lastChanged[page] as number)) this.#lastChanged[page] = slot;
  }

  #write(slot: number, count: number): void {
    const start = slot * SLOT_BYTES;
    const length = count * SLOT_BYTES;
    const written = writeAt(this.#fd, TWIN_HEADER_BYTES + start, this.#table.bytes, start, length, 0);
    if (written !== length) throw storeErrorOfErrno(Math.min(written, 0), 'journal an operation');
  }
}
