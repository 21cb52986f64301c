/** NBD_CMD_BLOCK_STATUS: what it says, and the payload form of extended headers. */
import { Buffer } from 'node:buffer';
import {
  BASE_ALLOCATION,
  Command,
  CommandFlag,
  type HeaderStyle,
  State,
  TransmissionFlag,
} from '../../../src/nbd-server-protocol/constants.ts';
import { type Answer, Lacks, type Session, type StatusExtent } from '../../support/nbd-session.ts';
import { type Count, u32, u64 } from '../../support/wire.ts';
import { type Case, chunkStyles, errorName, type Lab, requestOutcome } from '../lab.ts';
import { disk, GiB, KiB, MiB, pattern, tailOffset } from '../servers.ts';
import { outside } from './reads.ts';

const STATUS = 'Request types: NBD_CMD_BLOCK_STATUS';
const CHUNK = 'Structured reply types: NBD_REPLY_TYPE_BLOCK_STATUS';
const PAYLOAD = 'Extended headers: payload form of NBD_CMD_BLOCK_STATUS';
const ALLOCATION = [BASE_ALLOCATION];
const end = disk.sizeBytes;

function inStyles(
  name: string,
  section: string,
  permits: readonly string[],
  observe: (session: Session, lab: Lab) => Promise<string>,
  styles: readonly HeaderStyle[] = chunkStyles,
): readonly Case[] {
  return styles.map((style) => ({
    name: `${style}: ${name}`,
    section,
    permits,
    observe: async (lab) => await observe(await lab.session(style, { contexts: ALLOCATION }), lab),
  }));
}

function extentsOf(answer: Answer): readonly StatusExtent[] {
  return [...answer.statuses.values()][0] ?? [];
}

function kindOf({ flags }: StatusExtent): string {
  if (flags === 0) return 'data';
  if (flags === (State.hole | State.zero)) return 'hole';
  return flags === State.zero ? 'zero' : 'hole of unknown content';
}

const status =
  (offset: Count, length: Count, describe: (answer: Answer) => string, flags = 0) =>
  (session: Session): Promise<string> =>
    requestOutcome(session, { type: Command.blockStatus, offset, length, flags }, (answer) =>
      answer.error === 0 ? describe(answer) : errorName(answer.error),
    );

/** How many bytes the extents cover, when they must not say more than was asked for. */
const covers =
  (length: number) =>
  (answer: Answer): string => {
    const sum = extentsOf(answer).reduce((bytes, extent) => bytes + extent.length, 0n);
    return sum >= BigInt(length) ? 'covered' : `${sum} of ${length} bytes`;
  };

const kinds = (answer: Answer): string => extentsOf(answer).map(kindOf).join(' ');

const first = (answer: Answer): string => {
  const extent = extentsOf(answer)[0]!;
  return `${kindOf(extent)} ${extent.length}`;
};

const truth = [
  ...inStyles('BLOCK_STATUS: data', STATUS, ['data'], status(0, 64 * KiB, kinds)),
  ...inStyles('BLOCK_STATUS: a hole', STATUS, ['hole', 'data'], status(disk.hole, 64 * KiB, kinds)),
  ...inStyles(
    'BLOCK_STATUS: data, hole, data',
    STATUS,
    ['data hole data', 'data'],
    status(0, 3 * MiB, kinds),
  ),
  ...inStyles(
    'BLOCK_STATUS: the border between data and hole',
    STATUS,
    [`data ${MiB}`],
    status(0, 2 * MiB, first),
  ),
  ...inStyles(
    'BLOCK_STATUS: from within data to the border',
    STATUS,
    [`data ${MiB - 4096}`],
    status(4096, 2 * MiB, first),
  ),
  ...inStyles(
    'BLOCK_STATUS: unaligned, with REQ_ONE',
    STATUS,
    ['data 13'],
    status(777, 13, first, CommandFlag.reqOne),
  ),
  ...inStyles('BLOCK_STATUS: the last byte', STATUS, ['data'], status(end - 1, 1, kinds)),
  ...inStyles('BLOCK_STATUS: the last 64 KiB', STATUS, ['data'], status(tailOffset, disk.tailBytes, kinds)),
  ...inStyles('BLOCK_STATUS: 3 MiB are covered', CHUNK, ['covered'], status(0, 3 * MiB, covers(3 * MiB))),
];

const one = [
  ...inStyles(
    'BLOCK_STATUS with REQ_ONE: data and hole',
    CHUNK,
    [`data ${MiB}`],
    status(0, 2 * MiB, first, CommandFlag.reqOne),
  ),
  ...inStyles(
    'BLOCK_STATUS with REQ_ONE: no more than was asked for',
    CHUNK,
    ['data 4096'],
    status(0, 4096, first, CommandFlag.reqOne),
  ),
  ...inStyles(
    'BLOCK_STATUS with REQ_ONE: one byte of a hole',
    CHUNK,
    ['hole 1', 'data 1'],
    status(disk.hole + 1, 1, first, CommandFlag.reqOne),
  ),
];

const wide = [
  ...inStyles(
    'BLOCK_STATUS: 2^32 - 512 bytes of hole',
    CHUNK,
    ['hole'],
    status(disk.scratchEnd, 0xffff_fe00, (answer) => kindOf(extentsOf(answer)[0]!)),
  ),
  ...inStyles(
    'BLOCK_STATUS: the whole export',
    CHUNK,
    ['starts with data, hole'],
    status(0, 0xffff_fe00, (answer) => `starts with ${extentsOf(answer).slice(0, 2).map(kindOf).join(', ')}`),
  ),
  ...inStyles(
    'BLOCK_STATUS: 5 GiB of hole in one extent',
    'Extended headers: NBD_REPLY_TYPE_BLOCK_STATUS_EXT',
    [`hole ${5 * GiB - disk.tailBytes}`],
    status(GiB, 5 * GiB, first),
    ['extended'],
  ),
  ...inStyles(
    'BLOCK_STATUS: 2^32 bytes exactly',
    'Extended headers: NBD_REPLY_TYPE_BLOCK_STATUS_EXT',
    [`hole ${2 ** 32}`],
    status(GiB, 2 ** 32, first, CommandFlag.reqOne),
    ['extended'],
  ),
];

const bounds = [
  ...outside.flatMap(({ name, offset, length, wide: extendedOnly }) =>
    inStyles(
      `BLOCK_STATUS: ${name}`,
      STATUS,
      ['EINVAL'],
      status(offset, length, () => 'ok'),
      extendedOnly === true ? ['extended'] : chunkStyles,
    ),
  ),
  ...inStyles(
    'BLOCK_STATUS: length 0',
    STATUS,
    ['EINVAL', 'ok'],
    status(0, 0, () => 'ok'),
  ),
];

/** What a write and WRITE_ZEROES with NO_HOLE do to a hole. */
const changes = [
  ...inStyles('BLOCK_STATUS: a hole that was written to is data', STATUS, ['data'], async (session, lab) => {
    const offset = lab.scratch(MiB);
    await session.write(offset, pattern(offset, 64 * KiB));
    return await status(offset, 64 * KiB, kinds)(session);
  }),
  ...inStyles(
    'BLOCK_STATUS: zeroes written with NO_HOLE',
    'Command flags: NBD_CMD_FLAG_NO_HOLE',
    // Whether unwritten space counts as a hole is up to the file system, and to what the page cache has of it.
    ['covered'],
    async (session, lab) => {
      const offset = lab.scratch(MiB);
      await session.write(offset, pattern(offset, 64 * KiB));
      const flags = CommandFlag.noHole;
      await session.ask({ type: Command.writeZeroes, offset, length: 64 * KiB, flags });
      return await status(offset, 64 * KiB, covers(64 * KiB))(session);
    },
  ),
  ...inStyles(
    'BLOCK_STATUS: trimmed data',
    'The base:allocation metadata context',
    ['hole', 'data', 'zero'],
    async (session, lab) => {
      const offset = lab.scratch(MiB);
      await session.write(offset, pattern(offset, 128 * KiB));
      await session.ask({ type: Command.trim, offset, length: 128 * KiB });
      return await status(offset, 128 * KiB, kinds)(session);
    },
  ),
];

const readOnlyStatus: readonly Case[] = chunkStyles.map((style) => ({
  name: `${style}, read-only: BLOCK_STATUS`,
  section: STATUS,
  permits: ['data hole', 'data'],
  observe: async (lab) => await status(0, 2 * MiB, kinds)(await lab.readOnlySession(style, ALLOCATION)),
}));

/** BLOCK_STATUS whose length and contexts come in a payload. */
function inPayload(
  name: string,
  permits: readonly string[],
  payload: (id: number) => Buffer,
  offset: Count = 0,
): readonly Case[] {
  return inStyles(
    `BLOCK_STATUS with payload: ${name}`,
    PAYLOAD,
    permits,
    async (session) => {
      if (!session.has(TransmissionFlag.blockStatusPayload)) throw new Lacks('BLOCK_STATUS_PAYLOAD');
      const request = {
        type: Command.blockStatus,
        offset,
        flags: CommandFlag.payloadLen,
        payload: payload(session.contextId(BASE_ALLOCATION)),
      };
      return await requestOutcome(session, request, (answer) =>
        answer.error === 0 ? `${answer.statuses.size} context: ${kinds(answer)}` : errorName(answer.error),
      );
    },
    ['extended'],
  );
}

const ids = (...numbers: number[]): Buffer => Buffer.concat(numbers.map((id) => u32(id)));
const payloads = [
  ...inPayload('the selected context', ['1 context: data hole'], (id) =>
    Buffer.concat([u64(2 * MiB), ids(id)]),
  ),
  ...inPayload(
    'an effect length above 2^32',
    ['1 context: hole'],
    (id) => Buffer.concat([u64(5 * GiB - disk.tailBytes), ids(id)]),
    GiB,
  ),
  ...inPayload('the same context twice', ['EINVAL'], (id) => Buffer.concat([u64(MiB), ids(id, id)])),
  ...inPayload('an unknown context', ['EINVAL'], (id) => Buffer.concat([u64(MiB), ids(id + 1)])),
  ...inPayload('a known and an unknown context', ['EINVAL'], (id) =>
    Buffer.concat([u64(MiB), ids(id, id ^ 0x4000_0000)]),
  ),
  ...inPayload('no context', ['EINVAL', '0 context: '], () => u64(MiB)),
  ...[1, 4, 7].flatMap((bytes) => inPayload(`${bytes} bytes`, ['EINVAL'], () => Buffer.alloc(bytes))),
  ...[9, 10, 11, 13].flatMap((bytes) =>
    inPayload(`${bytes} bytes`, ['EINVAL'], (id) =>
      Buffer.concat([u64(MiB), ids(id), Buffer.alloc(8)]).subarray(0, bytes),
    ),
  ),
  ...inPayload('10000 contexts', ['EINVAL'], (id) =>
    Buffer.concat([u64(MiB), ids(...Array.from({ length: 10_000 }, (_, index) => id + index))]),
  ),
  ...inPayload('8 MiB of contexts', ['EINVAL'], (id) =>
    Buffer.concat([u64(MiB), Buffer.alloc(8 * MiB, u32(id))]),
  ),
  ...inPayload('an effect length beyond the end', ['EINVAL'], (id) => Buffer.concat([u64(end + 1), ids(id)])),
  ...inPayload('an effect length of 2^64 - 1', ['EINVAL'], (id) =>
    Buffer.concat([u64((1n << 64n) - 1n), ids(id)]),
  ),
  ...inPayload('an effect length of 0', ['EINVAL', '1 context: '], (id) => Buffer.concat([u64(0), ids(id)])),
  ...inPayload('an offset beyond the end', ['EINVAL'], (id) => Buffer.concat([u64(1), ids(id)]), end),
];

const flagOnly = inStyles(
  'BLOCK_STATUS with PAYLOAD_LEN and REQ_ONE',
  PAYLOAD,
  ['data 4096'],
  async (session) => {
    if (!session.has(TransmissionFlag.blockStatusPayload)) throw new Lacks('BLOCK_STATUS_PAYLOAD');
    const payload = Buffer.concat([u64(4096), ids(session.contextId(BASE_ALLOCATION))]);
    const flags = CommandFlag.payloadLen | CommandFlag.reqOne;
    return await requestOutcome(session, { type: Command.blockStatus, flags, payload }, (answer) =>
      answer.error === 0 ? first(answer) : errorName(answer.error),
    );
  },
  ['extended'],
);

export const statusCases: readonly Case[] = [
  ...truth,
  ...one,
  ...wide,
  ...bounds,
  ...changes,
  ...readOnlyStatus,
  ...payloads,
  ...flagOnly,
];
