/**
 * DifferenceFile: which blocks of 4 KiB another member may lack, in a sparse file of bits. difference-bitmaps.ts has one for each member.
 *
 *     DATA/copies/rv-ID/lacks-rv-OTHER
 *       0      8192  header (twin-header.ts), magic "VolaryDB", version 1; its payload:
 *                      0   1  1: pages that are holes have all bits set; 0: none
 *                      1   1  1: all bits count as set, whatever the pages say
 *                      4   4  bytes of a block: 4,096
 *                     56   8  size of the volume in bytes: the file is as long as all pages that it needs
 *                      8  24  real volume, ASCII, filled up with zeros
 *                     32  24  the other member
 *       8192  ...    pages of 4,096 bytes: a hole (zeros), or
 *                      0     4  checksum: CRC-32 of the 4,092 bytes behind it, begun with that of "rv-ID rv-OTHER"
 *                      4     8  number of the page
 *                     12    20  zeros
 *                     32  4064  bits of 32,512 blocks (127 MiB), the lowest bit of a byte first
 *     all little-endian
 *
 * Invariants
 * 1. A change is in the page cache when `set` or `clear` returns. Always a whole page is written: no page has to be read first.
 * 2. Durable is what was changed before a `sync` began that has succeeded. Before that, the file may not be there, or any page may be as it
 *    was, or torn: all that is not durable is in extents that the activity log marks, until the caller has synced.
 * 3. A page with a wrong checksum has all bits set. A damaged header, or one of other volumes, or a file that is too short: so has all the
 *    file. A file with a blank header was never durable: its pages count as they are, holes as none.
 * 4. When the disk has no room for a page, the header says that all bits count as set, until there was room.
 * 5. After a failed sync nothing is promised any more.
 */

import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  ftruncate,
  ftruncateSync,
  openSync,
  read,
  renameSync,
  rmSync,
} from 'node:fs';
import { promisify } from 'node:util';
import { crc32 } from 'node:zlib';
import { clearBits, countBits, findBit, setBits } from '../base/bits.ts';
import { BlockBitmap } from '../base/block-bitmap.ts';
import type { Range } from '../base/range.ts';
import { ENXIO, SEEK_DATA, seekAsync } from '../base/syscalls.ts';
import { BLOCK_BYTES } from '../model/copy-granularity.ts';
import { StoreError } from '../model/errors.ts';
import { storeErrorOf, storeErrorOfErrno } from './errors.ts';
import { NEW_SUFFIX, replaceFile } from './replace-file.ts';
import { findHeader, headerBytes, PAYLOAD_BYTES, TWIN_HEADER_BYTES, TwinHeader } from './twin-header.ts';
import { tryWriteWhole, writeWhole } from './write-whole.ts';

const FORMAT = { magic: 'VolaryDB', version: 1 };
const SEQUENCE_WHEN_MADE = 2;

const PAGE_BYTES = 4096;
const HEAD_BYTES = 32;
const CHECKED_AT = 4;
const PAGE_WORDS = (PAGE_BYTES - HEAD_BYTES) / 4;
const PAGE_BLOCKS = PAGE_WORDS * 32;
const READ_BYTES = 64 * PAGE_BYTES;
const FILE_MODE = 0o600;
const ATTEMPT = 'write a difference bitmap';

const { O_CREAT, O_NOFOLLOW, O_RDWR, O_TRUNC } = constants;

const fdatasyncOnPool = promisify(fdatasync);
const ftruncateOnPool = promisify(ftruncate);
const readOnPool = promisify(read);

export interface Pair {
  readonly realVolume: string;
  readonly other: string;
}

interface Fields {
  readonly holesAreSet: boolean;
  readonly allCount: boolean;
  readonly sizeBytes: number;
}

/** Bits of a page; without words all of them are set, or none. */
interface Page {
  count: number;
  words: Uint32Array | undefined;
}

const pageBytes = Buffer.alloc(PAGE_BYTES); // what is written next
const pageWords = new Uint32Array(pageBytes.buffer, pageBytes.byteOffset + HEAD_BYTES, PAGE_WORDS);
const blankPage = Buffer.alloc(PAGE_BYTES); // never written to

export class DifferenceFile {
  readonly #fd: number;
  readonly #pair: Pair;
  readonly #seed: number;
  readonly #header: TwinHeader;
  readonly #pages = new Map<number, Page>();
  /** Pages that the disk had no room for. */
  readonly #owed = new Set<number>();
  #fields: Fields;
  #sizeBytes: number;
  #isDirty = true;
  #failure: StoreError | undefined;

  private constructor(fd: number, pair: Pair, fields: Fields, sequence: number) {
    this.#fd = fd;
    this.#pair = pair;
    this.#seed = seedOf(pair);
    this.#header = new TwinHeader(FORMAT, fd, sequence);
    this.#fields = fields;
    this.#sizeBytes = fields.sizeBytes;
  }

  /** A new one, with no bit set; under its name only with its header. @throws StoreError */
  static make(path: string, pair: Pair, sizeBytes: number): DifferenceFile {
    const source = `${path}${NEW_SUFFIX}`;
    try {
      const fd = openSync(source, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW, FILE_MODE);
      const fields = { holesAreSet: false, allCount: false, sizeBytes };
      try {
        ftruncateSync(fd, placeOf(pagesOf(sizeBytes)));
        const header = headerBytes(FORMAT, payloadOf(pair, fields));
        writeWhole(fd, 0, { source: header, start: 0, length: header.length }, ATTEMPT);
        renameSync(source, path);
      } catch (error) {
        closeSync(fd);
        rmSync(source, { force: true }); // a full disk wants its space back
        throw error;
      }
      return new DifferenceFile(fd, pair, fields, SEQUENCE_WHEN_MADE);
    } catch (error) {
      throw storeErrorOf(error, `make ${path}`);
    }
  }

  /** What is there. @throws UsageError, StoreError */
  static async open(path: string, pair: Pair, sizeBytes: number): Promise<DifferenceFile> {
    let fd: number | undefined;
    try {
      fd = openSync(path, O_RDWR | O_NOFOLLOW);
      const found = await readHeader(fd, path, pair);
      if (found === undefined || found.fields.allCount) {
        closeSync(fd);
        fd = undefined;
        return await DifferenceFile.#makeFull(path, pair, sizeBytes);
      }
      const file = new DifferenceFile(fd, pair, found.fields, found.sequence);
      file.#sizeBytes = sizeBytes;
      await file.#fit();
      await file.#load();
      return file;
    } catch (error) {
      if (fd !== undefined) closeSync(fd);
      throw storeErrorOf(error, `read ${path}`);
    }
  }

  /** One of which all bits are set, in place of what is there. */
  static async #makeFull(path: string, pair: Pair, sizeBytes: number): Promise<DifferenceFile> {
    const fields = { holesAreSet: true, allCount: false, sizeBytes: 0 };
    await replaceFile(path, headerBytes(FORMAT, payloadOf(pair, fields)));
    const file = new DifferenceFile(openSync(path, O_RDWR | O_NOFOLLOW), pair, fields, SEQUENCE_WHEN_MADE);
    file.#sizeBytes = sizeBytes;
    await file.#fit();
    return file;
  }

  /** @throws StoreError */
  set(ranges: readonly Range[]): void {
    this.#changeAll(ranges, true);
  }

  /** Only blocks that are inside a range as a whole. @throws StoreError */
  clear(ranges: readonly Range[]): void {
    this.#changeAll(ranges, false);
  }

  bitmap(): BlockBitmap {
    const bitmap = new BlockBitmap(this.#sizeBytes, BLOCK_BYTES);
    if (this.#fields.holesAreSet) bitmap.setAll();
    for (const [number, page] of this.#pages) addPage(bitmap, number, page);
    return bitmap;
  }

  /** New blocks have no bits; those of blocks that go are forgotten. @throws StoreError */
  async resize(sizeBytes: number): Promise<void> {
    const [from, to] = [Math.min(sizeBytes, this.#sizeBytes), Math.max(sizeBytes, this.#sizeBytes)];
    this.#sizeBytes = to;
    const offset = Math.ceil(from / BLOCK_BYTES) * BLOCK_BYTES;
    if (offset < to) this.clear([{ offset, length: to - offset }]);
    this.#sizeBytes = sizeBytes;
    await this.#fit();
  }

  /** Durably what it is now. @throws StoreError */
  async sync(): Promise<void> {
    if (this.#failure !== undefined) throw this.#failure;
    if (!this.#isDirty && this.#owed.size === 0) return;
    this.#isDirty = false;
    for (const number of this.#owed) {
      if (this.#tryWritePage(number) === undefined) this.#owed.delete(number);
    }
    const wereWritten = this.#owed.size === 0; // one that is written from here on is not of this sync
    await this.#syncOnce();
    if (!this.#fields.allCount || !wereWritten || this.#owed.size > 0) return;
    this.#writeFields({ ...this.#fields, allCount: false }); // the pages are durable by now
    await this.#syncOnce();
  }

  close(): void {
    closeSync(this.#fd);
  }

  async #syncOnce(): Promise<void> {
    try {
      await fdatasyncOnPool(this.#fd);
    } catch (cause) {
      const text = 'a difference bitmap could not be brought to the disk: look into the disk first';
      this.#failure = new StoreError('io', text, { cause });
      throw this.#failure;
    }
  }

  // ── bits ─────────────────────────────────────────────────────────────────────────────────────────────────

  #changeAll(ranges: readonly Range[], isSet: boolean): void {
    const changed = new Set<number>();
    const blocks = Math.ceil(this.#sizeBytes / BLOCK_BYTES);
    for (const { offset, length } of ranges) {
      if (length === 0 || offset >= this.#sizeBytes) continue;
      const end = Math.min(offset + length, this.#sizeBytes);
      const first = isSet ? Math.floor(offset / BLOCK_BYTES) : Math.ceil(offset / BLOCK_BYTES);
      const isToEnd = end === this.#sizeBytes;
      const last = isSet || isToEnd ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES);
      this.#change(first, Math.min(last, blocks), isSet, changed);
    }
    for (const number of changed) this.#writePage(number);
  }

  #change(first: number, end: number, isSet: boolean, changed: Set<number>): void {
    for (let block = first; block < end; ) {
      const number = Math.floor(block / PAGE_BLOCKS);
      const from = block - number * PAGE_BLOCKS;
      const to = Math.min(end - number * PAGE_BLOCKS, PAGE_BLOCKS);
      if (this.#changePage(number, from, to, isSet)) changed.add(number);
      block += to - from;
    }
  }

  /** Whether anything has changed. */
  #changePage(number: number, from: number, to: number, isSet: boolean): boolean {
    const known = this.#pages.get(number);
    const page = known ?? { count: this.#fields.holesAreSet ? PAGE_BLOCKS : 0, words: undefined };
    if (page.count === (isSet ? PAGE_BLOCKS : 0)) return false;
    if (to - from === PAGE_BLOCKS) {
      page.count = isSet ? PAGE_BLOCKS : 0;
    } else {
      page.words ??= new Uint32Array(PAGE_WORDS).fill(page.count === 0 ? 0 : 0xffff_ffff);
      const changed = isSet ? setBits(page.words, from, to) : clearBits(page.words, from, to);
      if (changed === 0) return false;
      page.count += isSet ? changed : -changed;
    }
    if (page.count === 0 || page.count === PAGE_BLOCKS) page.words = undefined;
    if (known === undefined) this.#pages.set(number, page);
    return true;
  }

  // ── the file ─────────────────────────────────────────────────────────────────────────────────────────────

  #writePage(number: number): void {
    if (this.#failure !== undefined) throw this.#failure;
    this.#isDirty = true;
    const error = this.#tryWritePage(number);
    if (error === undefined) {
      this.#owed.delete(number);
      return;
    }
    if (error.code !== 'no-space') {
      this.#failure = error;
      throw error;
    }
    this.#owed.add(number);
    if (!this.#fields.allCount) this.#writeFields({ ...this.#fields, allCount: true });
  }

  #tryWritePage(number: number): StoreError | undefined {
    const page = this.#pages.get(number) as Page;
    if (page.words === undefined) pageWords.fill(page.count === 0 ? 0 : 0xffff_ffff);
    else pageWords.set(page.words);
    pageBytes.writeBigUInt64LE(BigInt(number), CHECKED_AT);
    pageBytes.writeUInt32LE(crc32(pageBytes.subarray(CHECKED_AT), this.#seed), 0);
    const bytes = { source: pageBytes, start: 0, length: PAGE_BYTES };
    return tryWriteWhole(this.#fd, placeOf(number), bytes, ATTEMPT);
  }

  #writeFields(fields: Fields): void {
    this.#isDirty = true;
    this.#header.write(payloadOf(this.#pair, fields));
    this.#fields = fields;
  }

  async #load(): Promise<void> {
    const bytes = Buffer.alloc(READ_BYTES);
    const sizeBytes = fstatSync(this.#fd).size;
    for (let at = TWIN_HEADER_BYTES; at < sizeBytes; ) {
      const data = await seekAsync(this.#fd, at, SEEK_DATA);
      if (data === -ENXIO) return;
      if (data < 0) throw storeErrorOfErrno(data, 'find the pages of a difference bitmap');
      at = Math.max(at, Math.floor(data / PAGE_BYTES) * PAGE_BYTES);
      const { bytesRead } = await readOnPool(this.#fd, bytes, 0, READ_BYTES, at);
      if (bytesRead === 0) return;
      bytes.fill(0, bytesRead);
      for (let start = 0; start < bytesRead; start += PAGE_BYTES) {
        const number = (at + start - TWIN_HEADER_BYTES) / PAGE_BYTES;
        this.#loadPage(number, bytes.subarray(start, start + PAGE_BYTES));
      }
      at += READ_BYTES;
    }
  }

  #loadPage(number: number, bytes: Buffer): void {
    if (bytes.equals(blankPage)) return;
    const isWhole =
      bytes.readBigUInt64LE(CHECKED_AT) === BigInt(number) &&
      bytes.readUInt32LE(0) === crc32(bytes.subarray(CHECKED_AT), this.#seed);
    if (!isWhole) {
      this.#pages.set(number, { count: PAGE_BLOCKS, words: undefined });
      this.#writePage(number);
      return;
    }
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset + HEAD_BYTES, PAGE_WORDS).slice();
    let count = 0;
    for (const word of words) count += countBits(word);
    const isMixed = count > 0 && count < PAGE_BLOCKS;
    this.#pages.set(number, { count, words: isMixed ? words : undefined });
  }

  /** Makes the file as long as the volume needs it. It is never shorter than its header says. */
  async #fit(): Promise<void> {
    const sizeBytes = this.#sizeBytes;
    const pages = pagesOf(sizeBytes);
    for (const set of [this.#pages, this.#owed]) {
      for (const number of set.keys()) {
        if (number >= pages) set.delete(number);
      }
    }
    if (this.#fields.sizeBytes > sizeBytes) this.#writeFields({ ...this.#fields, sizeBytes });
    if (fstatSync(this.#fd).size !== placeOf(pages)) {
      this.#isDirty = true;
      await ftruncateOnPool(this.#fd, placeOf(pages));
    }
    if (this.#fields.sizeBytes < sizeBytes) this.#writeFields({ ...this.#fields, sizeBytes });
  }
}

function pagesOf(sizeBytes: number): number {
  return Math.ceil(sizeBytes / BLOCK_BYTES / PAGE_BLOCKS);
}

function placeOf(page: number): number {
  return TWIN_HEADER_BYTES + page * PAGE_BYTES;
}

function seedOf({ realVolume, other }: Pair): number {
  return crc32(`${realVolume} ${other}`);
}

function payloadOf({ realVolume, other }: Pair, { holesAreSet, allCount, sizeBytes }: Fields): Buffer {
  const payload = Buffer.alloc(PAYLOAD_BYTES);
  payload[0] = holesAreSet ? 1 : 0;
  payload[1] = allCount ? 1 : 0;
  payload.writeUInt32LE(BLOCK_BYTES, 4);
  payload.write(realVolume, 8, 24, 'latin1');
  payload.write(other, 32, 24, 'latin1');
  payload.writeBigUInt64LE(BigInt(sizeBytes), 56);
  return payload;
}

/** Undefined: it cannot be understood. */
async function readHeader(
  fd: number,
  path: string,
  pair: Pair,
): Promise<{ fields: Fields; sequence: number } | undefined> {
  const bytes = Buffer.alloc(TWIN_HEADER_BYTES);
  await readOnPool(fd, bytes, 0, TWIN_HEADER_BYTES, 0);
  const found = findHeader(FORMAT, bytes, path);
  if (found.kind === 'blank') {
    return { fields: { holesAreSet: false, allCount: false, sizeBytes: 0 }, sequence: 0 };
  }
  if (found.kind === 'damaged') return undefined;
  const { payload, sequence } = found;
  const sizeBytes = Number(payload.readBigUInt64LE(56));
  const fields = { holesAreSet: payload[0] === 1, allCount: payload[1] === 1, sizeBytes };
  if (!payloadOf(pair, fields).equals(payload)) return undefined;
  return fstatSync(fd).size < placeOf(pagesOf(sizeBytes)) ? undefined : { fields, sequence };
}

function addPage(bitmap: BlockBitmap, number: number, { count, words }: Page): void {
  const rangeOf = (from: number, to: number): Range => {
    const offset = (number * PAGE_BLOCKS + from) * BLOCK_BYTES;
    return { offset, length: (to - from) * BLOCK_BYTES };
  };
  if (words === undefined) {
    if (count === 0) bitmap.clear(rangeOf(0, PAGE_BLOCKS));
    else bitmap.set(rangeOf(0, PAGE_BLOCKS));
    return;
  }
  bitmap.clear(rangeOf(0, PAGE_BLOCKS));
  for (let from = findBit(words, 0, PAGE_BLOCKS, 0); from < PAGE_BLOCKS; ) {
    const to = findBit(words, from, PAGE_BLOCKS, -1);
    bitmap.set(rangeOf(from, to));
    from = findBit(words, to, PAGE_BLOCKS, 0);
  }
}
