/**
 * TwinHeader: the few fields of a file that change in place, so that a change that power loss has torn leaves those of before.
 *
 * There are two copies, in pages of their own: the one with the higher sequence counts. A change is written to the other one.
 *
 *     byte 0, and byte 4096:
 *       0    8  magic, ASCII
 *       8    4  version of the file's format
 *      12    4  checksum: CRC-32 of the 512 bytes with zeros in this place
 *      16    8  sequence: 1 for the first, one more for each change
 *      24    8  zeros
 *      32  480  payload: the fields of the format
 *     all little-endian; from 512 to the end of each page zeros
 *
 * Invariants
 * 1. A copy counts only with its magic and a right checksum.
 * 2. The copy with the higher sequence is never written to. So there is always one that counts, once both have been durable.
 * 3. Nothing here is durable before the file's next sync.
 */

import { crc32 } from 'node:zlib';
import { assert, UsageError } from '../model/errors.ts';
import { writeWhole } from './write-whole.ts';

const PAGE_BYTES = 4096;
const COPY_BYTES = 512;
const CHECKSUM_AT = 12;
const SEQUENCE_AT = 16;
const PAYLOAD_AT = 32;

export const TWIN_HEADER_BYTES = 2 * PAGE_BYTES;
export const PAYLOAD_BYTES = COPY_BYTES - PAYLOAD_AT;

export interface HeaderFormat {
  /** Eight characters of ASCII. */
  readonly magic: string;
  readonly version: number;
}

export type HeaderFound =
  | { readonly kind: 'valid'; readonly sequence: number; readonly payload: Buffer }
  /** Nothing but zeros, or no bytes at all: nothing has ever been durable. */
  | { readonly kind: 'blank' }
  | { readonly kind: 'damaged' };

/** What the file's first bytes say. @throws UsageError for a format of a later version */
export function findHeader(format: HeaderFormat, bytes: Buffer, path: string): HeaderFound {
  const head = bytes.subarray(0, TWIN_HEADER_BYTES);
  if (head.every((byte) => byte === 0)) return { kind: 'blank' };
  let best: HeaderFound = { kind: 'damaged' };
  for (const at of [0, PAGE_BYTES]) {
    const copy = Buffer.from(head.subarray(at, at + COPY_BYTES));
    if (copy.length < COPY_BYTES || copy.toString('latin1', 0, 8) !== format.magic) continue;
    if (copy.readUInt32LE(CHECKSUM_AT) !== checksumOf(copy)) continue;
    const version = copy.readUInt32LE(8);
    if (version > format.version) {
      const text = `${path} was written by a later version of Volary (format ${version}): use that version`;
      throw new UsageError('newer-format', text);
    }
    const sequence = Number(copy.readBigUInt64LE(SEQUENCE_AT));
    if (best.kind === 'valid' && best.sequence > sequence) continue;
    best = { kind: 'valid', sequence, payload: copy.subarray(PAYLOAD_AT) };
  }
  return best;
}

/** Both copies, for a file that is written as a whole; sequences 1 and 2. */
export function headerBytes(format: HeaderFormat, payload: Buffer): Buffer {
  const bytes = Buffer.alloc(TWIN_HEADER_BYTES);
  fillCopy(bytes, 0, format, payload, 1);
  fillCopy(bytes, PAGE_BYTES, format, payload, 2);
  return bytes;
}

export class TwinHeader {
  readonly #format: HeaderFormat;
  readonly #fd: number;
  readonly #bytes = Buffer.alloc(TWIN_HEADER_BYTES);
  #sequence: number;

  /** Of a file that has a header of that sequence already. */
  constructor(format: HeaderFormat, fd: number, sequence: number) {
    this.#format = format;
    this.#fd = fd;
    this.#sequence = sequence;
  }

  /** Writes the fields, into the page cache. @throws StoreError */
  write(payload: Buffer): void {
    this.#sequence += 1;
    const at = this.#sequence % 2 === 1 ? 0 : PAGE_BYTES;
    fillCopy(this.#bytes, at, this.#format, payload, this.#sequence);
    const bytes = { source: this.#bytes, start: at, length: PAGE_BYTES };
    writeWhole(this.#fd, at, bytes, 'write a header');
  }
}

function fillCopy(bytes: Buffer, at: number, format: HeaderFormat, payload: Buffer, sequence: number): void {
  assert(format.magic.length === 8 && payload.length <= PAYLOAD_BYTES, 'a header that does not fit');
  const copy = bytes.subarray(at, at + COPY_BYTES).fill(0);
  copy.write(format.magic, 'latin1');
  copy.writeUInt32LE(format.version, 8);
  copy.writeBigUInt64LE(BigInt(sequence), SEQUENCE_AT);
  copy.set(payload, PAYLOAD_AT);
  copy.writeUInt32LE(checksumOf(copy), CHECKSUM_AT);
}

function checksumOf(copy: Buffer): number {
  const zeroed = Buffer.from(copy);
  zeroed.writeUInt32LE(0, CHECKSUM_AT);
  return crc32(zeroed);
}
