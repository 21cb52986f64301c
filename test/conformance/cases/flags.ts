/** Every bit of the command flags on every command, unknown commands, and the payload rules of extended headers. */
import { Buffer } from 'node:buffer';
import {
  BASE_ALLOCATION,
  Command,
  CommandFlag,
  type HeaderStyle,
  TransmissionFlag,
} from '../../../src/nbd-server-protocol/constants.ts';
import type { Session } from '../../support/nbd-session.ts';
import type { Count } from '../../support/wire.ts';
import { allStyles, type Case, errorName, type Lab, requestOutcome, words } from '../lab.ts';
import { disk, KiB, MiB, pattern } from '../servers.ts';

const FLAGS = 'Command flags';
const PAYLOAD_LEN = 'Extended headers: NBD_CMD_FLAG_PAYLOAD_LEN';

const flagNames = ['FUA', 'NO_HOLE', 'DF', 'REQ_ONE', 'FAST_ZERO', 'PAYLOAD_LEN'];
const flagName = (bit: number): string => flagNames[bit] ?? `bit ${bit}`;

const commands = [
  ['READ', Command.read],
  ['WRITE', Command.write],
  ['FLUSH', Command.flush],
  ['TRIM', Command.trim],
  ['CACHE', Command.cache],
  ['WRITE_ZEROES', Command.writeZeroes],
  ['BLOCK_STATUS', Command.blockStatus],
] as const;

/** Requests of one command with each flag alone; PAYLOAD_LEN of extended headers has cases of its own. */
async function eachFlag(session: Session, type: number, offset: number): Promise<string> {
  const accepted: string[] = [];
  const odd: string[] = [];
  const skipped = session.terms.style === 'extended' ? CommandFlag.payloadLen : 0;
  for (let bit = 0; bit < 16; bit += 1) {
    const flag = 1 << bit;
    if (flag === skipped) continue;
    const body = type === Command.write ? { payload: Buffer.alloc(512, bit) } : {};
    const range = type === Command.flush ? {} : { offset, length: 512 };
    const flags = flag | (type === Command.write ? session.payloadFlag : 0);
    const seen = await requestOutcome(session, { type, flags, ...range, ...body });
    if (seen === 'ok' || seen === 'ENOTSUP') accepted.push(flagName(bit));
    else if (seen !== 'EINVAL') odd.push(`${flagName(bit)} ${seen}`);
    if (seen === 'closed') break;
  }
  const rest = odd.length === 0 ? 'EINVAL' : odd.join(', ');
  return `takes ${accepted.join(' ') || 'none'}; else ${rest}`;
}

/** What the document asks for, given what the server advertises. */
function takes(session: Session, type: number): string {
  const names: string[] = [];
  if (session.has(TransmissionFlag.sendFua)) names.push('FUA');
  if (type === Command.writeZeroes) names.push('NO_HOLE');
  if (type === Command.read && session.has(TransmissionFlag.sendDf)) names.push('DF');
  if (type === Command.blockStatus) names.push('REQ_ONE');
  if (type === Command.writeZeroes && session.has(TransmissionFlag.sendFastZero)) names.push('FAST_ZERO');
  return `takes ${names.join(' ') || 'none'}; else EINVAL`;
}

const flagCases: readonly Case[] = allStyles.flatMap((style) =>
  commands
    .filter(([, type]) => type !== Command.blockStatus || style !== 'simple')
    .map(([command, type]) => ({
      name: `${style}: every flag on ${command}`,
      section: FLAGS,
      permits: ['what is documented and advertised; else EINVAL'],
      observe: async (lab: Lab) => {
        const contexts = type === Command.blockStatus ? [BASE_ALLOCATION] : [];
        const session = await lab.session(style, { contexts });
        const seen = await eachFlag(session, type, lab.scratch(MiB));
        return seen === takes(session, type) ? 'what is documented and advertised; else EINVAL' : seen;
      },
    })),
);

const allFlagsAtOnce: readonly Case[] = allStyles.map((style) => ({
  name: `${style}: a read with every flag but PAYLOAD_LEN`,
  section: FLAGS,
  permits: ['EINVAL'],
  observe: async (lab) => {
    const flags = 0xffff & ~CommandFlag.payloadLen;
    return await requestOutcome(await lab.session(style), { type: Command.read, length: 512, flags });
  },
}));

const unknownCommands: readonly Case[] = allStyles.flatMap((style) =>
  [9, 10, 255, 0x8000, 0xffff].map((type) => ({
    name: `${style}: unknown command ${type}`,
    section: 'Error values',
    permits: ['EINVAL'],
    observe: async (lab: Lab) =>
      await requestOutcome(await lab.session(style), { type, offset: 512, length: 4096 }),
  })),
);

const unknownHuge: readonly Case[] = allStyles.map((style) => ({
  name: `${style}: an unknown command about more than there is`,
  section: 'Error values',
  permits: ['EINVAL'],
  observe: async (lab) =>
    await requestOutcome(await lab.session(style), { type: 77, offset: 1n << 63n, length: 0xffff_ffff }),
}));

const badWriteFlags: readonly Case[] = allStyles.map((style) => ({
  name: `${style}: a write with an unknown flag is consumed and changes nothing`,
  section: FLAGS,
  permits: ['EINVAL, unchanged'],
  observe: async (lab) => {
    const session = await lab.session(style);
    const payload = Buffer.alloc(300 * KiB, 0x31);
    const seen = await requestOutcome(session, {
      type: Command.write,
      offset: disk.data,
      payload,
      flags: 0x4000 | session.payloadFlag,
    });
    const { data } = await session.read(disk.data, payload.length);
    return `${seen}, ${data.equals(pattern(disk.data, payload.length)) ? 'unchanged' : 'changed'}`;
  },
}));

// ── extended headers ───────────────────────────────────────────────────────────────────────────────────────

const extended: HeaderStyle = 'extended';

function extendedCase(
  name: string,
  section: string,
  permits: readonly string[],
  observe: (session: Session, lab: Lab) => Promise<string>,
): Case {
  return {
    name: `extended: ${name}`,
    section,
    permits,
    observe: async (lab) => await observe(await lab.session(extended), lab),
  };
}

const unexpectedPayload = [...commands, ['an unknown command', 99] as const]
  .filter(([, type]) => type !== Command.write)
  .flatMap(([command, type]) =>
    [1, 512, 70_000].map((bytes) =>
      extendedCase(
        `${command} with a payload of ${bytes} bytes that it does not take`,
        PAYLOAD_LEN,
        ['EINVAL'],
        (session) =>
          requestOutcome(session, {
            type,
            flags: CommandFlag.payloadLen,
            payload: Buffer.alloc(bytes, 0x25),
          }),
      ),
    ),
  );

/** The offset that must come back, also with errors; the check of replies compares it. */
const echo = (name: string, offset: Count, permits: readonly string[]): Case =>
  extendedCase(
    `the offset ${name} is echoed`,
    'Extended headers: Extended reply chunk message',
    permits,
    (session) => requestOutcome(session, { type: Command.read, offset, length: 512 }),
  );

const payloadTooLong = (bytes: Count): Case =>
  extendedCase(
    `a write that announces a payload of ${bytes} bytes`,
    'Extended headers: Request message',
    ['closed'],
    async (session) => {
      const fields = {
        type: Command.write,
        offset: disk.scratch,
        length: bytes,
        flags: CommandFlag.payloadLen,
        payload: Buffer.alloc(64 * KiB),
      };
      session.wire.send(session.prepare(fields));
      return errorName((await session.next()).error);
    },
  );

const payloadTooLongElsewhere = extendedCase(
  'a READ that announces a payload of 2^40 bytes',
  'Extended headers: Request message',
  ['closed'],
  async (session) => {
    session.send({ type: Command.read, length: 1n << 40n, flags: CommandFlag.payloadLen });
    return errorName((await session.next()).error);
  },
);

const extendedCases: readonly Case[] = [
  extendedCase('WRITE without PAYLOAD_LEN has no payload', PAYLOAD_LEN, ['EINVAL'], (session) =>
    requestOutcome(session, { type: Command.write, offset: disk.scratch, length: 4096 }),
  ),
  extendedCase('WRITE without PAYLOAD_LEN about 2^40 bytes', PAYLOAD_LEN, ['EINVAL'], (session) =>
    requestOutcome(session, { type: Command.write, offset: disk.scratch, length: 1n << 40n }),
  ),
  extendedCase('WRITE with FUA but without PAYLOAD_LEN', PAYLOAD_LEN, ['EINVAL'], (session) =>
    requestOutcome(session, {
      type: Command.write,
      offset: disk.scratch,
      length: 512,
      flags: CommandFlag.fua,
    }),
  ),
  extendedCase('READ with PAYLOAD_LEN and length 0', PAYLOAD_LEN, ['EINVAL'], (session) =>
    requestOutcome(session, { type: Command.read, length: 0, flags: CommandFlag.payloadLen }),
  ),
  ...unexpectedPayload,
  echo('0', 0, ['ok']),
  echo('at the end', disk.sizeBytes, ['EINVAL']),
  echo('2^64 - 1', (1n << 64n) - 1n, ['EINVAL']),
  payloadTooLong(1n << 32n),
  payloadTooLong(1n << 40n),
  payloadTooLong((1n << 64n) - 1n),
  payloadTooLongElsewhere,
];

const payloadLenInCompact: readonly Case[] = (['simple', 'structured'] as const).flatMap((style) => [
  {
    name: `${style}: WRITE with PAYLOAD_LEN`,
    section: 'Request message',
    permits: ['EINVAL'],
    observe: async (lab: Lab) =>
      await requestOutcome(await lab.session(style), {
        type: Command.write,
        offset: lab.scratch(MiB),
        flags: CommandFlag.payloadLen,
        payload: Buffer.alloc(4096, 5),
      }),
  },
]);

// ── magics ─────────────────────────────────────────────────────────────────────────────────────────────────

const magicCases: readonly Case[] = allStyles.flatMap((style) =>
  (
    [
      ['zero', 0],
      ['one bit off', (style === 'extended' ? 0x21e41c71 : 0x25609513) ^ 1],
      ['of the other header size', style === 'extended' ? 0x25609513 : 0x21e41c71],
      ['of a reply', 0x67446698],
      ['of the past', 0x12560953],
    ] as const
  ).map(([name, magic]) => ({
    name: `${style}: request magic ${name}`,
    section: 'Terminating the transmission phase',
    permits: ['closed'],
    observe: async (lab: Lab) => {
      const session = await lab.session(style);
      // As long as an extended header, so that nobody can wait for more of it.
      const bytes = session.prepare({ type: Command.read, length: 512, magic });
      session.wire.send(bytes, Buffer.alloc(32));
      return errorName((await session.next()).error);
    },
  })),
);

const wordsOfDisconnect = async (session: Session): Promise<string> => {
  const rest = await words(async () => `${(await session.wire.readToEnd()).length} bytes`);
  return rest === '0 bytes' ? 'closed' : rest;
};

const disconnects: readonly Case[] = allStyles.flatMap((style) =>
  (
    [
      ['plain', {}],
      ['with FUA', { flags: CommandFlag.fua }],
      ['with an offset and a length', { offset: 4096, length: 4096 }],
      ['with an unknown flag', { flags: 0x800 }],
    ] as const
  ).map(([name, fields]) => ({
    name: `${style}: DISC ${name}`,
    section: 'Request types: NBD_CMD_DISC',
    permits: ['closed'],
    observe: async (lab: Lab) => {
      const session = await lab.session(style);
      session.send({ type: Command.disconnect, ...fields });
      return await wordsOfDisconnect(session);
    },
  })),
);

export const commandCases: readonly Case[] = [
  ...flagCases,
  ...allFlagsAtOnce,
  ...unknownCommands,
  ...unknownHuge,
  ...badWriteFlags,
  ...extendedCases,
  ...payloadLenInCompact,
  ...magicCases,
  ...disconnects,
];
