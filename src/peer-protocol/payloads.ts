/**
 * What follows a header, where that is no data. Numbers are big-endian.
 *
 *   string   length 2, UTF-8
 *   ranges   (offset 8, length 8) x n
 *   hello    version from 2, version to 2, authentication 2 (0: by the access key alone), reserved 2,
 *            then strings: cluster, access key, source, target, proof (empty with authentication 0).
 *            What a sender of later versions adds behind them is skipped.
 *   members  count 2, strings
 *   lacks    string, ranges
 */

import { assert } from '../model/errors.ts';
import { Limit, RANGE_BYTES, VERSION_MAX, VERSION_MIN } from './constants.ts';
import { PeerError } from './errors.ts';
import { checkRange, get53, put53 } from './header.ts';
import {
  DIFFERENCE_RANGES_MAX,
  type Hello,
  type MemberId,
  type OperationMessage,
  type Range,
} from './messages.ts';

const MEMBER = /^rv-[0-9a-f]{16}$/;
/** An id as a string. */
const MEMBER_BYTES = 2 + 'rv-0123456789abcdef'.length;
const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export interface Versions {
  readonly from: number;
  readonly to: number;
}
export const SPOKEN: Versions = { from: VERSION_MIN, to: VERSION_MAX };

// --- making ------------------------------------------------------------------------------------------------

function stringBytes(text: string): Buffer {
  const bytes = Buffer.from(text);
  assert(bytes.length <= Limit.stringBytes, `a string of ${bytes.length} bytes is not sent`);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

/** For people: what is too long is cut off. */
export function textPayload(text: string): Buffer {
  let bytes = Buffer.from(text.toWellFormed());
  if (bytes.length > Limit.stringBytes) {
    let end: number = Limit.stringBytes;
    while (((bytes[end] as number) & 0xc0) === 0x80) end -= 1; // not within a character
    bytes = bytes.subarray(0, end);
  }
  return stringBytes(bytes.toString());
}

export function helloPayload(hello: Hello, versions: Versions): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(versions.from, 0);
  head.writeUInt16BE(versions.to, 2);
  const { clusterId, accessKey, source, target } = hello;
  return Buffer.concat([head, ...[clusterId, accessKey, source, target, ''].map(stringBytes)]);
}

export function rangesPayload(ranges: readonly Range[]): Buffer {
  assert(ranges.length <= DIFFERENCE_RANGES_MAX, `${ranges.length} ranges are not one message`);
  const payload = Buffer.allocUnsafe(ranges.length * RANGE_BYTES);
  let at = 0;
  for (const { offset, length } of ranges) {
    assert(length > 0 && Number.isSafeInteger(offset + length) && offset >= 0, 'a range is one');
    put53(payload, at, offset);
    put53(payload, at + 8, length);
    at += RANGE_BYTES;
  }
  return payload;
}

export function membersPayload(members: readonly MemberId[]): Buffer {
  assert(members.length <= Limit.members, `${members.length} members are not one group`);
  const count = Buffer.alloc(2);
  count.writeUInt16BE(members.length);
  return Buffer.concat([count, ...members.map(memberBytes)]);
}

export function lacksPayload(member: MemberId, ranges: readonly Range[] | undefined): Buffer {
  return Buffer.concat([memberBytes(member), rangesPayload(ranges ?? [])]);
}

function memberBytes(member: MemberId): Buffer {
  assert(MEMBER.test(member), 'a member is called by its id');
  return stringBytes(member);
}

/** What an operation takes of the window: its payload. Known without making it. */
export function operationBytes(message: OperationMessage): number {
  switch (message.kind) {
    case 'write':
      return message.payload.length;
    case 'members':
      return 2 + MEMBER_BYTES * message.differing.length;
    case 'lacks':
      return MEMBER_BYTES + RANGE_BYTES * (message.ranges?.length ?? 0);
    default:
      return 0;
  }
}

// --- reading -----------------------------------------------------------------------------------------------

/** Reads a payload from its start to its end. */
export class PayloadReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  uint16(): number {
    const at = this.#advance(2);
    return this.#bytes.readUInt16BE(at);
  }

  string(): string {
    const length = this.uint16();
    if (length > Limit.stringBytes) throw new PeerError('too-big', `a string of ${length} bytes`);
    const at = this.#advance(length);
    try {
      return utf8.decode(this.#bytes.subarray(at, at + length));
    } catch (error) {
      throw new PeerError('bad-message', 'a string that is no UTF-8', { cause: error });
    }
  }

  member(): MemberId {
    const id = this.string();
    if (!MEMBER.test(id)) throw new PeerError('bad-message', `${JSON.stringify(id)} is no real volume's id`);
    return id;
  }

  /** All that is left. */
  ranges(): Range[] {
    const left = this.#bytes.length - this.#at;
    if (left % RANGE_BYTES !== 0) throw new PeerError('bad-message', `ranges in ${left} bytes`);
    const count = left / RANGE_BYTES;
    if (count > DIFFERENCE_RANGES_MAX) throw new PeerError('too-big', `${count} ranges in one message`);
    const ranges: Range[] = [];
    for (let i = 0; i < count; i++) {
      const at = this.#advance(RANGE_BYTES);
      const range = { offset: get53(this.#bytes, at), length: get53(this.#bytes, at + 8) };
      checkRange(range.offset, range.length);
      ranges.push(range);
    }
    return ranges;
  }

  /** Nothing may be left. */
  end(): void {
    const left = this.#bytes.length - this.#at;
    if (left > 0) throw new PeerError('bad-message', `${left} bytes too many behind a message`);
  }

  #advance(bytes: number): number {
    const at = this.#at;
    this.#at += bytes;
    if (this.#at > this.#bytes.length) throw new PeerError('bad-message', 'a payload that ends too early');
    return at;
  }
}

export function readHello(payload: Buffer): Pick<Hello, 'clusterId' | 'accessKey' | 'source' | 'target'> & {
  readonly versions: Versions;
} {
  const reader = new PayloadReader(payload);
  const versions = { from: reader.uint16(), to: reader.uint16() };
  if (versions.from > versions.to) throw new PeerError('bad-message', 'a range of versions without any');
  const authentication = reader.uint16();
  const reserved = reader.uint16();
  const names = {
    clusterId: reader.string(),
    accessKey: reader.string(),
    source: reader.member(),
    target: reader.member(),
  };
  const proof = reader.string();
  if (authentication !== 0 || reserved !== 0 || proof !== '') {
    throw new PeerError('version', `authentication ${authentication} is not spoken here`);
  }
  if (versions.to <= VERSION_MAX) reader.end();
  return { versions, ...names };
}

export function readMembers(payload: Buffer): MemberId[] {
  const reader = new PayloadReader(payload);
  const count = reader.uint16();
  if (count > Limit.members) throw new PeerError('too-big', `${count} members in one group`);
  const members: MemberId[] = [];
  for (let i = 0; i < count; i++) members.push(reader.member());
  reader.end();
  return members;
}

/**
 * At most `most` ranges that cover all of `ranges`: in order, without touching one another, and with the smallest gaps closed
 * where that is needed.
 */
export function coarsened(ranges: readonly Range[], most: number): Range[] {
  const merged = closeGaps(
    ranges.toSorted((a, b) => a.offset - b.offset),
    0,
  );
  if (merged.length <= most) return merged;
  const gaps = merged.slice(1).map(({ offset }, i) => offset - endOf(merged[i] as Range));
  gaps.sort((a, b) => a - b);
  // As many gaps as are too many, and those as large as the last of them.
  return closeGaps(merged, gaps[merged.length - most - 1] as number);
}

function endOf({ offset, length }: Range): number {
  return offset + length;
}

function closeGaps(sorted: readonly Range[], gapMax: number): Range[] {
  const closed: Range[] = [];
  for (const range of sorted) {
    const last = closed.at(-1);
    if (last === undefined || range.offset - endOf(last) > gapMax) closed.push(range);
    else
      closed[closed.length - 1] = {
        offset: last.offset,
        length: Math.max(endOf(last), endOf(range)) - last.offset,
      };
  }
  return closed;
}
