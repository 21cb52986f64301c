/** NBD_CMD_WRITE, WRITE_ZEROES, TRIM and FLUSH, in every header style, on an export that can be written and one that cannot. */
import { Buffer } from 'node:buffer';
import {
  Command,
  CommandFlag,
  type HeaderStyle,
  TransmissionFlag,
} from '../../../src/nbd-server-protocol/constants.ts';
import { Lacks, type Session } from '../../support/nbd-session.ts';
import {
  allStyles,
  type Case,
  dataWord,
  errorName,
  type Lab,
  memoryWord,
  requestInStep,
  requestOutcome,
  words,
} from '../lab.ts';
import { disk, GiB, KiB, MiB, pattern } from '../servers.ts';
import { inStyles, outside, outsideCases } from './reads.ts';

const WRITE = 'Request types: NBD_CMD_WRITE';
const ZEROES = 'Request types: NBD_CMD_WRITE_ZEROES';
const TRIM = 'Request types: NBD_CMD_TRIM';
const FLUSH = 'Request types: NBD_CMD_FLUSH';
const ERRORS = 'Error values';
const SIZES = 'Size constraints';
const end = disk.sizeBytes;

function onScratch(
  name: string,
  section: string,
  permits: readonly string[],
  observe: (session: Session, lab: Lab) => Promise<string>,
  styles: readonly HeaderStyle[] = allStyles,
): readonly Case[] {
  return styles.map((style) => ({
    name: `${style}: ${name}`,
    section,
    permits,
    observe: async (lab) => await observe(await lab.session(style), lab),
  }));
}

/** Writes, and reads back what was written and what lies around it. */
async function writeAndLook(session: Session, offset: number, length: number, flags = 0): Promise<string> {
  const payload = pattern(offset + 8192, length);
  const answer = await session.write(offset, payload, flags);
  if (answer.error !== 0) return errorName(answer.error);
  const before = Math.min(16, offset);
  const after = Math.min(16, end - offset - length);
  const pieces: Buffer[] = [];
  for (let at = offset - before; at < offset + length + after; at += 16 * MiB)
    pieces.push((await session.read(at, Math.min(16 * MiB, offset + length + after - at))).data);
  const data = Buffer.concat(pieces);
  const expected = Buffer.concat([Buffer.alloc(before), payload, Buffer.alloc(after)]);
  return dataWord(data, expected);
}

const goodWrites = [
  ...onScratch('WRITE: 4 KiB', WRITE, ['right data'], (session, lab) =>
    writeAndLook(session, lab.scratch(MiB) + 4096, 4096),
  ),
  ...onScratch('WRITE: one unaligned byte', WRITE, ['right data'], (session, lab) =>
    writeAndLook(session, lab.scratch(MiB) + 4097, 1),
  ),
  ...onScratch('WRITE: an unaligned range over many blocks', WRITE, ['right data'], (session, lab) =>
    writeAndLook(session, lab.scratch(MiB) + 4095, 70_001),
  ),
  ...onScratch('WRITE: 3 MiB and 5 bytes', WRITE, ['right data'], (session, lab) =>
    writeAndLook(session, lab.scratch(4 * MiB) + 4096, 3 * MiB + 5),
  ),
  ...onScratch('WRITE: with FUA', 'Ordering of messages and writes', ['right data'], (session, lab) =>
    writeAndLook(session, lab.scratch(MiB) + 4096, 8192, session.fuaFlag),
  ),
  ...onScratch('WRITE: 32 MiB', SIZES, ['right data'], (session, lab) =>
    writeAndLook(session, lab.scratch(33 * MiB) + 4096, 32 * MiB),
  ),
];

/** The very end of the export, put back as it was. */
const writeAtEnd = onScratch('WRITE: the last 512 bytes', WRITE, ['right data'], async (session) => {
  const old = pattern(end - 512, 512);
  await session.write(end - 512, Buffer.alloc(512, 0xee));
  const { data } = await session.read(end - 512, 512);
  const seen = dataWord(data, Buffer.alloc(512, 0xee));
  const restored = await session.write(end - 512, old);
  return restored.error === 0 ? seen : 'cannot be restored';
});

const outsideWrites = outside
  .filter(({ length }) => BigInt(length) < 1_000_000n)
  .flatMap(({ name, offset, length }) =>
    onScratch(`WRITE: ${name}`, ERRORS, ['ENOSPC'], (session) =>
      requestOutcome(session, {
        type: Command.write,
        offset,
        payload: Buffer.alloc(Number(length), 0x77),
        flags: session.payloadFlag,
      }),
    ),
  );

/** A write that is refused must not have touched the part of it that exists. */
const outsideWriteLeavesDisk = onScratch(
  'WRITE: half beyond the end changes nothing',
  ERRORS,
  ['ENOSPC, right data'],
  async (session) => {
    const answer = await session.write(end - 512, Buffer.alloc(1024, 0x77));
    const { data } = await session.read(end - 512, 512);
    return `${errorName(answer.error)}, ${dataWord(data, pattern(end - 512, 512))}`;
  },
);

const emptyWrites = [
  ...onScratch('WRITE: length 0', WRITE, ['ok', 'EINVAL', 'ENOSPC'], (session) =>
    requestOutcome(session, {
      type: Command.write,
      offset: disk.scratch,
      payload: Buffer.alloc(0),
      flags: session.payloadFlag,
    }),
  ),
  ...onScratch('WRITE: length 0 at the end', WRITE, ['ok', 'EINVAL', 'ENOSPC'], (session) =>
    requestOutcome(session, {
      type: Command.write,
      offset: end,
      payload: Buffer.alloc(0),
      flags: session.payloadFlag,
    }),
  ),
];

/** The header of a write of 4 GiB, 1 MiB of it, and the end of the stream. */
async function announcesTooMuch(session: Session, lab: Lab): Promise<string> {
  const before = await lab.target.residentBytes();
  const request = {
    type: Command.write,
    offset: disk.scratch,
    length: 0xffff_ffff,
    flags: session.payloadFlag,
    payload: Buffer.alloc(MiB),
  };
  await session.wire.sendAll(session.prepare(request));
  session.wire.halfClose();
  const first = await words(async () => `${errorName((await session.next()).error)} and `);
  const rest = await words(async () => errorName((await session.next()).error));
  const grown = (await lab.target.residentBytes()) - before;
  return `${first === 'closed' ? '' : first}${rest}, ${memoryWord(grown, 256 * MiB)}`;
}

const oversizeWrites = [
  ...onScratch(
    'WRITE: 512 bytes more than the maximum payload',
    SIZES,
    ['EINVAL', 'EOVERFLOW', 'ok', 'closed'],
    async (session, lab) => {
      const payload = Buffer.alloc(session.terms.maximumPayload + 512);
      const offset = lab.scratch(payload.length);
      const seen = await words(async () => errorName((await session.write(offset, payload)).error));
      if (seen === 'closed') return seen;
      // An error and then the end is a disconnect too: whether the error is seen is up to the network.
      const end = await requestInStep(session, seen);
      return end === `${seen}, then closed` ? 'closed' : end;
    },
  ),
  ...onScratch(
    'WRITE: announces 2^32 - 1 bytes',
    SIZES,
    ['closed, memory bounded', 'EINVAL and closed, memory bounded'],
    announcesTooMuch,
  ),
];

/** Puts data somewhere, runs a command on its middle, and tells how the middle and its surroundings read then. */
async function overData(
  session: Session,
  lab: Lab,
  type: number,
  flags: number,
  mayKeep: boolean,
): Promise<string> {
  const offset = lab.scratch(MiB);
  const data = pattern(offset, 192 * KiB);
  await session.write(offset, data);
  const [from, length] = [offset + 64 * KiB, 64 * KiB];
  const answer = await session.ask({ type, offset: from, length, flags });
  const after = (await session.read(offset, data.length)).data;
  const outer = [
    after.subarray(0, 64 * KiB).equals(data.subarray(0, 64 * KiB)),
    after.subarray(128 * KiB).equals(data.subarray(128 * KiB)),
  ];
  if (outer.includes(false)) return `${errorName(answer.error)}, but data beside it has changed`;
  const middle = after.subarray(64 * KiB, 128 * KiB);
  const kept = middle.equals(data.subarray(64 * KiB, 128 * KiB));
  const zero = middle.equals(Buffer.alloc(length));
  const now = kept ? 'kept' : zero ? 'zeroes' : 'neither kept nor zeroes';
  if (mayKeep) return `${errorName(answer.error)}${kept || zero ? '' : `, ${now}`}`;
  return `${errorName(answer.error)}, ${now}`;
}

const needs = (session: Session, flag: number, name: string): void => {
  if (!session.has(flag)) throw new Lacks(name);
};

async function zeroes(session: Session, lab: Lab, flags: number): Promise<string> {
  needs(session, TransmissionFlag.sendWriteZeroes, 'SEND_WRITE_ZEROES');
  if ((flags & CommandFlag.fastZero) !== 0) needs(session, TransmissionFlag.sendFastZero, 'SEND_FAST_ZERO');
  return await overData(session, lab, Command.writeZeroes, flags, false);
}

const fast = ['ok, zeroes', 'ENOTSUP, kept'];
const zeroCases = [
  ...onScratch('WRITE_ZEROES', ZEROES, ['ok, zeroes'], (session, lab) => zeroes(session, lab, 0)),
  ...onScratch('WRITE_ZEROES with FUA', ZEROES, ['ok, zeroes'], (session, lab) =>
    zeroes(session, lab, session.fuaFlag),
  ),
  ...onScratch('WRITE_ZEROES with NO_HOLE', ZEROES, ['ok, zeroes'], (session, lab) =>
    zeroes(session, lab, CommandFlag.noHole),
  ),
  ...onScratch('WRITE_ZEROES with FAST_ZERO', ZEROES, fast, (session, lab) =>
    zeroes(session, lab, CommandFlag.fastZero),
  ),
  ...onScratch('WRITE_ZEROES with FAST_ZERO and NO_HOLE', ZEROES, fast, (session, lab) =>
    zeroes(session, lab, CommandFlag.fastZero | CommandFlag.noHole),
  ),
  ...onScratch('WRITE_ZEROES: length 0', ZEROES, ['ok', 'EINVAL', 'ENOSPC'], (session) =>
    requestOutcome(session, { type: Command.writeZeroes, offset: disk.scratch, length: 0 }),
  ),
  ...onScratch('WRITE_ZEROES: 2^32 - 512 bytes', SIZES, ['ok', 'EINVAL', 'EOVERFLOW'], (session) =>
    requestOutcome(session, { type: Command.writeZeroes, offset: disk.scratchEnd, length: 0xffff_fe00 }),
  ),
  ...onScratch(
    'WRITE_ZEROES: 4.5 GiB',
    SIZES,
    ['ok', 'EINVAL', 'EOVERFLOW'],
    (session) =>
      requestOutcome(session, {
        type: Command.writeZeroes,
        offset: disk.scratchEnd,
        length: 4.5 * GiB,
      }),
    ['extended'],
  ),
  ...outsideCases('WRITE_ZEROES', Command.writeZeroes, 'ENOSPC', ZEROES),
];

async function trim(session: Session, lab: Lab, flags: number): Promise<string> {
  needs(session, TransmissionFlag.sendTrim, 'SEND_TRIM');
  return await overData(session, lab, Command.trim, flags, true);
}

const trimCases = [
  ...onScratch('TRIM', TRIM, ['ok'], (session, lab) => trim(session, lab, 0)),
  ...onScratch('TRIM with FUA', TRIM, ['ok'], (session, lab) => trim(session, lab, session.fuaFlag)),
  ...onScratch('TRIM: one unaligned byte', TRIM, ['ok'], (session, lab) =>
    requestOutcome(session, { type: Command.trim, offset: lab.scratch(MiB) + 5, length: 1 }),
  ),
  ...onScratch('TRIM: length 0', TRIM, ['ok', 'EINVAL'], (session) =>
    requestOutcome(session, { type: Command.trim, offset: disk.scratch, length: 0 }),
  ),
  ...onScratch('TRIM: 2^32 - 512 bytes', SIZES, ['ok', 'EINVAL', 'EOVERFLOW'], (session) =>
    requestOutcome(session, { type: Command.trim, offset: disk.scratchEnd, length: 0xffff_fe00 }),
  ),
  ...onScratch(
    'TRIM: 4.5 GiB',
    SIZES,
    ['ok', 'EINVAL', 'EOVERFLOW'],
    (session) => requestOutcome(session, { type: Command.trim, offset: disk.scratchEnd, length: 4.5 * GiB }),
    ['extended'],
  ),
  ...outsideCases('TRIM', Command.trim, 'EINVAL', ERRORS),
];

const flushCases = [
  ...inStyles('FLUSH', FLUSH, ['ok'], (session) => requestOutcome(session, { type: Command.flush })),
  ...inStyles('FLUSH with an offset', FLUSH, ['EINVAL', 'ok'], (session) =>
    requestOutcome(session, { type: Command.flush, offset: 512 }),
  ),
  ...inStyles('FLUSH with a length', FLUSH, ['EINVAL', 'ok'], (session) =>
    requestOutcome(session, { type: Command.flush, length: 512 }),
  ),
  ...inStyles('FLUSH with an offset and a length beyond the end', FLUSH, ['EINVAL', 'ok'], (session) =>
    requestOutcome(session, { type: Command.flush, offset: end, length: 4096 }),
  ),
];

/** Commands that a read-only export must refuse, and those that it serves. */
function readOnly(
  name: string,
  section: string,
  permits: readonly string[],
  type: number,
  payload?: Buffer,
): readonly Case[] {
  return allStyles.map((style) => ({
    name: `${style}, read-only: ${name}`,
    section,
    permits,
    observe: async (lab) => {
      const session = await lab.readOnlySession(style);
      const flags = payload === undefined ? 0 : session.payloadFlag;
      const body = payload === undefined ? { length: type === Command.flush ? 0 : 4096 } : { payload };
      return await requestOutcome(session, { type, offset: 0, flags, ...body });
    },
  }));
}

const readOnlyCases = [
  ...readOnly('READ', 'Transmission flags: READ_ONLY', ['ok'], Command.read),
  ...readOnly('WRITE', ERRORS, ['EPERM'], Command.write, Buffer.alloc(4096, 1)),
  ...readOnly('WRITE of 1 MiB', ERRORS, ['EPERM'], Command.write, Buffer.alloc(MiB, 1)),
  ...readOnly('WRITE of nothing', ERRORS, ['EPERM', 'ok', 'EINVAL'], Command.write, Buffer.alloc(0)),
  ...readOnly('TRIM', ERRORS, ['EPERM'], Command.trim),
  ...readOnly('WRITE_ZEROES', ZEROES, ['EPERM'], Command.writeZeroes),
  ...readOnly('FLUSH', FLUSH, ['ok', 'EINVAL'], Command.flush),
];

const notAdvertised: readonly Case[] = allStyles.map((style) => ({
  name: `${style}: RESIZE when it is not advertised`,
  section: 'Request types: NBD_CMD_RESIZE',
  permits: ['EINVAL'],
  observe: async (lab) => {
    const session = await lab.session(style);
    if (session.has(TransmissionFlag.sendResize)) throw new Lacks('a reason to refuse RESIZE');
    return await requestOutcome(session, { type: Command.resize, offset: 2 * end });
  },
}));

export const writeCases: readonly Case[] = [
  ...goodWrites,
  ...writeAtEnd,
  ...outsideWrites,
  ...outsideWriteLeavesDisk,
  ...emptyWrites,
  ...oversizeWrites,
  ...zeroCases,
  ...trimCases,
  ...flushCases,
  ...readOnlyCases,
  ...notAdvertised,
];
