/** Choosing an export: NBD_OPT_INFO, NBD_OPT_GO, NBD_OPT_EXPORT_NAME. */
import { Buffer } from 'node:buffer';
import { Info, Option, OptionReply, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { decodeInfos, decodeList, type ExportInfo } from '../../support/nbd-handshake.ts';
import { Lacks } from '../../support/nbd-session.ts';
import { infoData, u16, u32 } from '../../support/wire.ts';
import { type Case, finalName, goWith, type Lab, optionOutcome, requestInStep } from '../lab.ts';
import { disk, EXPORT } from '../servers.ts';
import { exportName } from './greeting.ts';

const CHOOSE = 'Option types: NBD_OPT_INFO and NBD_OPT_GO';
const STRINGS = 'Conventions: strings';
const EXPORT_NAME = 'Option types: NBD_OPT_EXPORT_NAME';

const both = [
  ['INFO', Option.info],
  ['GO', Option.go],
] as const;

/** One case for INFO and one for GO, with data that must be refused. */
function refused(
  name: string,
  section: string,
  permits: readonly string[],
  data: () => Buffer,
): readonly Case[] {
  return both.map(([option, code]) => ({
    name: `${option}: ${name}`,
    section,
    permits,
    observe: async (lab) =>
      await optionOutcome(await lab.handshake(), code, data(), (answer) => {
        const infos = answer.items.length === 0 ? '' : ` after ${answer.items.length} replies`;
        return finalName(answer) + infos;
      }),
  }));
}

const longName = (bytes: number): Buffer => Buffer.alloc(bytes, 'n');

/** Names that no export has; those that are not proper strings of the protocol are Buffers, or have a NUL. */

const badNames: readonly [name: string, bytes: string | Buffer, permits: readonly string[]][] = [
  ['an unknown export', 'no-such-export', ['ERR_UNKNOWN']],
  ['a path out of the folder', `../${EXPORT}`, ['ERR_UNKNOWN']],
  ['a path to the export', `./${EXPORT}`, ['ERR_UNKNOWN']],
  ['an absolute path', '/etc/passwd', ['ERR_UNKNOWN']],
  ['the name with a slash behind', `${EXPORT}/`, ['ERR_UNKNOWN']],
  ['the name with a space behind', `${EXPORT} `, ['ERR_UNKNOWN']],
  ['the name cut short', EXPORT.slice(0, -1), ['ERR_UNKNOWN']],
  ['the name in capitals', EXPORT.toUpperCase(), ['ERR_UNKNOWN']],
  ['a name of an object property', '__proto__', ['ERR_UNKNOWN']],
  ['another name of an object property', 'constructor', ['ERR_UNKNOWN']],
  ['a name that is not UTF-8', Buffer.from([0xff, 0xfe, 0x80]), ['ERR_INVALID', 'ERR_UNKNOWN']],
  ['a name that ends in half a character', Buffer.from([0x61, 0xe2, 0x82]), ['ERR_INVALID', 'ERR_UNKNOWN']],
  ['a surrogate in UTF-8', Buffer.from([0xed, 0xa0, 0x80]), ['ERR_INVALID', 'ERR_UNKNOWN']],
  ['a name with NUL behind', `${EXPORT}\0`, ['ERR_INVALID', 'ERR_UNKNOWN']],
  ['a name with NUL within', `${EXPORT}\0.bak`, ['ERR_INVALID', 'ERR_UNKNOWN']],
  ['a name of one NUL', '\0', ['ERR_INVALID', 'ERR_UNKNOWN']],
  ['a name of 4096 bytes', longName(4096), ['ERR_UNKNOWN']],
  ['a name of 4097 bytes', longName(4097), ['ERR_INVALID', 'ERR_TOO_BIG', 'ERR_UNKNOWN']],
  ['a name of 30000 bytes', longName(30_000), ['ERR_INVALID', 'ERR_TOO_BIG', 'ERR_UNKNOWN']],
];

const nameCases = badNames.flatMap(([name, bytes, permits]) =>
  refused(name, typeof bytes === 'string' && !bytes.includes('\0') ? CHOOSE : STRINGS, permits, () =>
    infoData(bytes),
  ),
);

const invalid = ['ERR_INVALID'];
const brokenCases = [
  ...[0, 1, 3, 4, 5].flatMap((bytes) =>
    refused(`${bytes} bytes of data`, CHOOSE, invalid, () => infoData('').subarray(0, bytes)),
  ),
  ...refused('name one byte longer than the data holds', CHOOSE, invalid, () =>
    infoData(EXPORT, [], { nameLength: EXPORT.length + 1 }),
  ),
  ...refused('name into the information requests', CHOOSE, invalid, () =>
    infoData(EXPORT, [3], { nameLength: EXPORT.length + 3 }),
  ),
  ...refused('name longer than the option', CHOOSE, invalid, () => infoData(EXPORT, [], { nameLength: 500 })),
  ...refused('name of 4 GiB', CHOOSE, invalid, () => infoData(EXPORT, [], { nameLength: 0xffff_ffff })),
  ...refused('name of 2 GiB', CHOOSE, invalid, () => infoData(EXPORT, [], { nameLength: 0x8000_0000 })),
  ...refused('more information requests announced than sent', CHOOSE, invalid, () =>
    infoData(EXPORT, [3], { infoCount: 2 }),
  ),
  ...refused('65535 information requests announced, one sent', CHOOSE, invalid, () =>
    infoData(EXPORT, [3], { infoCount: 0xffff }),
  ),
  ...refused('fewer information requests announced than sent', CHOOSE, invalid, () =>
    infoData(EXPORT, [3, 1], { infoCount: 1 }),
  ),
  ...refused('an odd byte behind the information requests', CHOOSE, invalid, () =>
    Buffer.concat([infoData(EXPORT, [3]), Buffer.from([0])]),
  ),
];

/** The information that came, in words. */
function infoWords(info: ExportInfo): string {
  const names = ['EXPORT', 'NAME', 'DESCRIPTION', 'BLOCK_SIZE'];
  const kinds = info.types.toSorted((a, b) => a - b).map((type) => names[type]);
  const size = info.sizeBytes === BigInt(disk.sizeBytes) ? '' : ` (size ${info.sizeBytes})`;
  const name = info.name === undefined || info.name === EXPORT ? '' : ` (name ${info.name})`;
  return `${kinds.join(' ')}${size}${name}`;
}

function wellFormed(
  name: string,
  permits: readonly string[],
  infos: readonly number[],
  permitsMore: readonly string[] = [],
): readonly Case[] {
  return both.map(([option, code]) => ({
    name: `${option}: ${name}`,
    section: CHOOSE,
    permits: [...permits.map((words) => `ACK: ${words}`), ...permitsMore],
    observe: async (lab) => {
      const handshake = await lab.handshake();
      return await optionOutcome(handshake, code, infoData(EXPORT, infos), (answer) =>
        answer.final === OptionReply.ack ? `ACK: ${infoWords(decodeInfos(answer.items))}` : finalName(answer),
      );
    },
  }));
}

/** GO ends the haggling, so the step check of `wellFormed` must be a request there. */
function chosen(
  name: string,
  permits: readonly string[],
  infos: readonly number[],
  more: readonly string[] = [],
): readonly Case[] {
  const [info, go] = wellFormed(name, permits, infos, more) as [Case, Case];
  return [
    info,
    {
      ...go,
      observe: async (lab) => {
        const handshake = await lab.handshake();
        const answer = await handshake.option(Option.go, infoData(EXPORT, infos));
        if (answer.final !== OptionReply.ack) return finalName(answer);
        const info = decodeInfos(answer.items);
        const session = lab.transmission(handshake, info, 'simple');
        return await requestInStep(session, `ACK: ${infoWords(info)}`);
      },
    },
  ];
}

const many = (count: number): number[] => Array.from({ length: count }, (_, index) => 0x100 + index);
const anyOf = (...kinds: string[]): string[] => {
  const lists = kinds.reduce<string[][]>(
    (all, kind) => all.flatMap((list) => [list, [...list, kind]]),
    [['EXPORT']],
  );
  return lists.map((list) => list.join(' '));
};

const infoCases = [
  ...chosen('no information requests', anyOf('NAME', 'DESCRIPTION', 'BLOCK_SIZE'), []),
  ...chosen('EXPORT asked for', anyOf('BLOCK_SIZE'), [Info.export]),
  ...chosen(
    'NAME asked for',
    ['EXPORT', 'EXPORT NAME', 'EXPORT NAME BLOCK_SIZE', 'EXPORT BLOCK_SIZE'],
    [Info.name],
  ),
  ...chosen('DESCRIPTION asked for', anyOf('DESCRIPTION', 'BLOCK_SIZE'), [Info.description]),
  ...chosen('BLOCK_SIZE asked for', anyOf('BLOCK_SIZE'), [Info.blockSize]),
  ...chosen('everything asked for', anyOf('NAME', 'DESCRIPTION', 'BLOCK_SIZE'), [0, 1, 2, 3]),
  ...chosen('unknown information', anyOf('BLOCK_SIZE'), [4, 0x7fff, 0xffff]),
  ...chosen('information asked for twice', anyOf('BLOCK_SIZE'), [3, 3], ['ERR_INVALID']),
  ...chosen('1000 unknown information requests', anyOf('BLOCK_SIZE'), many(1000), ['ERR_TOO_BIG']),
  ...chosen('65000 unknown information requests', anyOf('BLOCK_SIZE'), many(65_000), [
    'ERR_TOO_BIG',
    'closed',
  ]),
];

const emptyName: readonly Case[] = both.map(([option, code]) => ({
  name: `${option}: the empty name is the default export`,
  section: CHOOSE,
  permits: ['ACK', 'ERR_UNKNOWN'],
  observe: async (lab) => {
    const { final, info } = await (await lab.handshake()).choose(code, '', [Info.name]);
    if (final !== OptionReply.ack) return 'ERR_UNKNOWN';
    return infoWords(info).startsWith('EXPORT NAME') || info.name === undefined ? 'ACK' : infoWords(info);
  },
}));

const canonicalName: Case = {
  name: 'INFO: the default export tells its canonical name',
  section: 'Option reply types: NBD_INFO_NAME',
  permits: ['a name that LIST has'],
  observe: async (lab) => {
    if (!lab.target.hasDefaultExport) throw new Lacks('a default export');
    const handshake = await lab.handshake();
    const { info } = await handshake.choose(Option.info, '', [Info.name]);
    const listed = decodeList((await handshake.option(Option.list)).items).map(({ name }) => name);
    return info.name !== undefined && listed.includes(info.name) ? 'a name that LIST has' : `${info.name}`;
  },
};

const infoThenGo: Case = {
  name: 'INFO, then GO with the same parameters',
  section: CHOOSE,
  permits: ['same information'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    const first = await handshake.choose(Option.info, EXPORT, [3, 1, 2]);
    const second = await handshake.choose(Option.go, EXPORT, [3, 1, 2]);
    const sorted = (info: ExportInfo): string =>
      JSON.stringify([infoWords(info), info.flags, info.blockSize, info.description, info.name]);
    return sorted(first.info) === sorted(second.info) ? 'same information' : 'other information';
  },
};

const goAfterErrors: Case = {
  name: 'GO after GO has failed',
  section: CHOOSE,
  permits: ['ERR_UNKNOWN, ERR_INVALID, served'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    const unknown = finalName(await handshake.choose(Option.go, 'nothing'));
    const broken = finalName(await handshake.option(Option.go, u32(9)));
    const session = await goWith(lab, handshake, 'simple');
    return `${unknown}, ${broken}, ${await requestInStep(session, 'served')}`;
  },
};

const flagsFit: Case = {
  name: 'transmission flags: SEND_DF only with chunked replies, BLOCK_STATUS_PAYLOAD only with extended ones',
  section: 'Transmission flags',
  permits: ['fit'],
  observe: async (lab) => {
    const simple = await lab.session('simple');
    if (simple.has(TransmissionFlag.sendDf)) return 'SEND_DF with simple replies';
    const structured = await lab.session('structured', { contexts: ['base:allocation'] });
    if (structured.has(TransmissionFlag.blockStatusPayload)) return 'BLOCK_STATUS_PAYLOAD without extended';
    return 'fit';
  },
};

const readOnlyFlag: Case = {
  name: 'transmission flags: READ_ONLY',
  section: 'Transmission flags',
  permits: ['writable, read-only'],
  observe: async (lab) => {
    const word = (flags: number): string =>
      (flags & TransmissionFlag.readOnly) === 0 ? 'writable' : 'read-only';
    const writable = await lab.session('simple');
    const readOnly = await lab.readOnlySession('simple');
    return `${word(writable.terms.flags)}, ${word(readOnly.terms.flags)}`;
  },
};

const byName = (name: string, bytes: string | Buffer, permits: readonly string[]): Case => ({
  name: `EXPORT_NAME: ${name}`,
  section: EXPORT_NAME,
  permits,
  observe: async (lab) => exportName((await lab.handshake()).wire, bytes, false),
});

const exportNameStructured: Case = {
  name: 'EXPORT_NAME after STRUCTURED_REPLY',
  section: EXPORT_NAME,
  permits: ['violation: a structured reply in a session with simple headers'],
  // The session that EXPORT_NAME opens here expects simple replies, so the chunk shows itself as a breach.
  observe: async (lab) => {
    const handshake = await lab.styled('structured');
    const seen = await exportName(handshake.wire, EXPORT, false);
    return seen.replace('exported, then ', '');
  },
};

const hugeInfoCount = (lab: Lab): Promise<string> =>
  lab.handshake().then((handshake) => {
    const data = Buffer.concat([
      u32(EXPORT.length),
      Buffer.from(EXPORT),
      u16(0xffff),
      Buffer.alloc(2 * 0xffff),
    ]);
    return optionOutcome(handshake, Option.info, data);
  });

export const exportCases: readonly Case[] = [
  ...nameCases,
  ...brokenCases,
  ...infoCases,
  ...emptyName,
  canonicalName,
  infoThenGo,
  goAfterErrors,
  flagsFit,
  readOnlyFlag,
  {
    name: 'INFO: 65535 times the same information',
    section: CHOOSE,
    permits: ['ACK', 'ERR_TOO_BIG', 'ERR_INVALID', 'closed'],
    observe: hugeInfoCount,
  },
  byName('the export', EXPORT, ['exported']),
  byName('the default export', '', ['exported', 'closed']),
  ...badNames.map(([name, bytes]) => byName(name, bytes as string | Buffer, ['closed'])),
  exportNameStructured,
];
