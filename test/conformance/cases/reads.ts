/** NBD_CMD_READ and NBD_CMD_CACHE, in every header style. */
import { Buffer } from 'node:buffer';
import {
  Command,
  CommandFlag,
  type HeaderStyle,
  TransmissionFlag,
} from '../../../src/nbd-server-protocol/constants.ts';
import { type Answer, Lacks, type Session } from '../../support/nbd-session.ts';
import type { Count } from '../../support/wire.ts';
import {
  allStyles,
  aroundBorder,
  type Case,
  chunkStyles,
  dataWord,
  errorName,
  requestOutcome,
} from '../lab.ts';
import { disk, GiB, KiB, MiB, pattern, tailOffset } from '../servers.ts';

const READ = 'Request types: NBD_CMD_READ';
const CACHE = 'Request types: NBD_CMD_CACHE';
const ERRORS = 'Error values';
const SIZES = 'Size constraints';
const end = disk.sizeBytes;

interface Range {
  readonly name: string;
  readonly offset: Count;
  readonly length: Count;
  /** What the disk has there; undefined: out of bounds. */
  readonly expected?: Buffer;
}

const within = (name: string, offset: number, length: number, expected?: Buffer): Range => ({
  name,
  offset,
  length,
  expected: expected ?? pattern(offset, length),
});

const border = aroundBorder(8 * KiB);

const goodRanges: readonly Range[] = [
  within('the first byte', 0, 1),
  within('the first 4 KiB', 0, 4 * KiB),
  within('one byte somewhere', 12_345, 1),
  within('an unaligned range', 511, 1026),
  within('1 MiB', 0, MiB),
  within('the last byte', end - 1, 1),
  within('the last 4 KiB', end - 4 * KiB, 4 * KiB),
  within('the last 64 KiB', tailOffset, disk.tailBytes),
  within('from data into a hole', border.offset, 8 * KiB, border.expected),
  within('a hole', disk.hole + 64 * KiB, 64 * KiB, Buffer.alloc(64 * KiB)),
  within('a part of a hole, unaligned', disk.hole + 4097, 3, Buffer.alloc(3)),
  within('data, a hole and data', disk.hole - 4 * KiB, MiB + 8 * KiB, dataHoleData()),
  within('beyond 4 GiB', 4 * GiB + 4 * KiB, 4 * KiB, Buffer.alloc(4 * KiB)),
];

function dataHoleData(): Buffer {
  return Buffer.concat([
    pattern(disk.hole - 4 * KiB, 4 * KiB),
    Buffer.alloc(MiB),
    pattern(disk.dataAgain, 4 * KiB),
  ]);
}

/** Ranges that touch bytes which do not exist; those with a length of 2^32 and more need extended headers. */
export const outside: readonly (Omit<Range, 'expected'> & { readonly wide?: true })[] = [
  { name: 'one byte beyond the end', offset: end, length: 1 },
  { name: 'half beyond the end', offset: end - 2 * KiB, length: 4 * KiB },
  { name: 'the last byte and one more', offset: end - 1, length: 2 },
  { name: 'far beyond the end', offset: 1n << 40n, length: 512 },
  { name: 'an offset of 2^53 + 512', offset: (1n << 53n) + 512n, length: 512 },
  { name: 'an offset of 2^63', offset: 1n << 63n, length: 512 },
  { name: 'an offset of 2^64 - 512, up to the very end', offset: (1n << 64n) - 512n, length: 512 },
  { name: 'an offset of 2^64 - 256, around to 256', offset: (1n << 64n) - 256n, length: 512 },
  { name: 'an offset of 2^64 - 1', offset: (1n << 64n) - 1n, length: 2 },
  { name: 'a length of 2^32 beyond the end', offset: end - GiB, length: 1n << 32n, wide: true },
  { name: 'a length of 2^53', offset: 0, length: 1n << 53n, wide: true },
  { name: 'a length of 2^63', offset: 0, length: 1n << 63n, wide: true },
  { name: 'a length of 2^64 - 1', offset: 0, length: (1n << 64n) - 1n, wide: true },
  { name: 'offset and length that add up to 2^64', offset: 4096, length: (1n << 64n) - 4096n, wide: true },
];

/** One case for each style that can express it. */
export function inStyles(
  name: string,
  section: string,
  permits: readonly string[],
  observe: (session: Session) => Promise<string>,
  styles: readonly HeaderStyle[] = allStyles,
): readonly Case[] {
  return styles.map((style) => ({
    name: `${style}: ${name}`,
    section,
    permits,
    observe: async (lab) => await observe(await lab.session(style)),
  }));
}

const readWord =
  (expected: Buffer) =>
  (answer: Answer): string =>
    answer.error === 0 ? dataWord(answer.data, expected) : errorName(answer.error);

const goodReads = goodRanges.flatMap(({ name, offset, length, expected }) =>
  inStyles(`READ: ${name}`, READ, ['right data'], (session) =>
    requestOutcome(session, { type: Command.read, offset, length }, readWord(expected!)),
  ),
);

/** Cases of one command for every range out of bounds. */
export function outsideCases(command: string, type: number, error: string, section: string): readonly Case[] {
  return outside.flatMap(({ name, offset, length, wide }) =>
    inStyles(
      `${command}: ${name}`,
      section,
      [error],
      (session) => requestOutcome(session, { type, offset, length }),
      wide === true ? ['extended'] : allStyles,
    ),
  );
}

const emptyReads = (
  [
    ['in the midst', 4096],
    ['at the end', end],
  ] as const
).flatMap(([place, offset]) =>
  inStyles(`READ: length 0 ${place}`, READ, ['ok', 'EINVAL'], (session) =>
    requestOutcome(session, { type: Command.read, offset, length: 0 }),
  ),
);

/** Length 0 outside of the export is wrong for its offset. */
const emptyOutside = inStyles('READ: length 0 beyond the end', READ, ['EINVAL', 'ok'], (session) =>
  requestOutcome(session, { type: Command.read, offset: end + 1, length: 0 }),
);

const bigReads = [
  ...inStyles('READ: 32 MiB', SIZES, ['ok'], (session) =>
    requestOutcome(session, { type: Command.read, offset: disk.scratchEnd, length: 32 * MiB }),
  ),
  ...inStyles('READ: 32 MiB of which some is data', SIZES, ['right data'], (session) =>
    requestOutcome(session, { type: Command.read, offset: 0, length: 32 * MiB }, (answer) =>
      answer.error === 0 ? dataWord(answer.data.subarray(0, MiB), pattern(0, MiB)) : errorName(answer.error),
    ),
  ),
  ...inStyles(
    'READ: more than the maximum payload',
    SIZES,
    ['EINVAL', 'EOVERFLOW', 'ok', 'closed'],
    (session) =>
      requestOutcome(session, {
        type: Command.read,
        offset: disk.scratchEnd,
        length: session.terms.maximumPayload + 512,
      }),
  ),
  ...inStyles('READ: 2^32 - 1 bytes', SIZES, ['EINVAL', 'EOVERFLOW', 'closed'], (session) =>
    requestOutcome(session, { type: Command.read, offset: disk.scratchEnd, length: 0xffff_ffff }),
  ),
  ...inStyles(
    'READ: 5 GiB',
    SIZES,
    ['EINVAL', 'EOVERFLOW', 'closed'],
    (session) => requestOutcome(session, { type: Command.read, offset: disk.scratchEnd, length: 5 * GiB }),
    ['extended'],
  ),
];

const holeWords = (answer: Answer): string => {
  if (answer.error !== 0) return errorName(answer.error);
  if (answer.holeChunks === 0) return 'data chunks';
  return answer.dataChunks === 0 ? 'hole chunks' : 'data and hole chunks';
};

const holes = [
  ...inStyles(
    'READ: a hole comes as',
    'Structured reply types: NBD_REPLY_TYPE_OFFSET_HOLE',
    ['hole chunks', 'data chunks'],
    (session) =>
      requestOutcome(session, { type: Command.read, offset: disk.hole, length: 128 * KiB }, holeWords),
    chunkStyles,
  ),
  ...inStyles(
    'READ: data, hole and data come as',
    'Structured reply types: NBD_REPLY_TYPE_OFFSET_HOLE',
    ['data and hole chunks', 'data chunks'],
    (session) =>
      requestOutcome(
        session,
        { type: Command.read, offset: disk.hole - 64 * KiB, length: 2 * MiB },
        holeWords,
      ),
    chunkStyles,
  ),
];

async function dontFragment(session: Session, offset: number, length: number): Promise<string> {
  if (!session.has(TransmissionFlag.sendDf)) throw new Lacks('SEND_DF');
  const request = { type: Command.read, offset, length, flags: CommandFlag.df };
  const expected = Buffer.alloc(length);
  const dataBytes = Math.max(0, Math.min(length, disk.hole - offset));
  pattern(offset, dataBytes).copy(expected);
  return await requestOutcome(session, request, (answer) =>
    answer.error === 0 ? `one chunk, ${dataWord(answer.data, expected)}` : errorName(answer.error),
  );
}

const df = [
  ...inStyles(
    'READ with DF: 64 KiB of data and hole in one chunk',
    READ,
    ['one chunk, right data'],
    (session) => dontFragment(session, disk.hole - 32 * KiB, 64 * KiB),
    chunkStyles,
  ),
  ...inStyles(
    'READ with DF: a hole in one chunk',
    READ,
    ['one chunk, right data'],
    (session) => dontFragment(session, disk.hole, 64 * KiB),
    chunkStyles,
  ),
  ...inStyles(
    'READ with DF: 1 MiB of data and hole',
    READ,
    ['one chunk, right data', 'EOVERFLOW'],
    (session) => dontFragment(session, disk.hole - 512 * KiB, MiB),
    chunkStyles,
  ),
];

const errorTexts = inStyles(
  'READ: an error out of bounds',
  'Structured reply chunk message',
  ['EINVAL', 'EINVAL with text', 'EINVAL with text and offset'],
  (session) =>
    requestOutcome(session, { type: Command.read, offset: end - 512, length: 1024 }, (answer) => {
      const text = answer.text === '' ? '' : ' with text';
      return `${errorName(answer.error)}${text}${answer.errorOffset === undefined ? '' : ' and offset'}`;
    }),
  chunkStyles,
);

async function cache(session: Session, offset: Count, length: Count): Promise<string> {
  if (!session.has(TransmissionFlag.sendCache)) throw new Lacks('SEND_CACHE');
  return await requestOutcome(session, { type: Command.cache, offset, length });
}

const caches = [
  ...inStyles('CACHE: data', CACHE, ['ok'], (session) => cache(session, 0, MiB)),
  ...inStyles('CACHE: a hole', CACHE, ['ok'], (session) => cache(session, disk.hole, MiB)),
  ...inStyles('CACHE: one unaligned byte', CACHE, ['ok'], (session) => cache(session, 777, 1)),
  ...inStyles('CACHE: the last 4 KiB', CACHE, ['ok'], (session) => cache(session, end - 4096, 4096)),
  ...inStyles('CACHE: length 0', CACHE, ['ok', 'EINVAL'], (session) => cache(session, 0, 0)),
  ...inStyles('CACHE: 1 GiB', CACHE, ['ok', 'EINVAL', 'EOVERFLOW'], (session) => cache(session, GiB, GiB)),
  ...inStyles(
    'CACHE: 5 GiB',
    CACHE,
    ['ok', 'EINVAL', 'EOVERFLOW'],
    (session) => cache(session, disk.scratchEnd, 5 * GiB),
    ['extended'],
  ),
];

export const readCases: readonly Case[] = [
  ...goodReads,
  ...outsideCases('READ', Command.read, 'EINVAL', ERRORS),
  ...emptyReads,
  ...emptyOutside,
  ...bigReads,
  ...holes,
  ...df,
  ...errorTexts,
  ...caches,
  ...outsideCases('CACHE', Command.cache, 'EINVAL', SIZES),
];
