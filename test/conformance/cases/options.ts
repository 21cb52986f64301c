/** Options other than those that choose an export or metadata contexts. */
import { Buffer } from 'node:buffer';
import { Option, OptionReply } from '../../../src/nbd-server-protocol/constants.ts';
import { checkedFlags, decodeList, readOptionAnswer } from '../../support/nbd-handshake.ts';
import { Lacks } from '../../support/nbd-session.ts';
import { infoData, optionRequest } from '../../support/wire.ts';
import {
  type Case,
  claimOutcome,
  finalName,
  goWith,
  type Lab,
  memoryWord,
  optionOutcome,
  requestInStep,
} from '../lab.ts';
import { EXPORT, MiB } from '../servers.ts';

const FIXED = 'Fixed newstyle negotiation';
const LIST = 'Option types: NBD_OPT_LIST';
const STRUCTURED = 'Option types: NBD_OPT_STRUCTURED_REPLY';
const EXTENDED = 'Option types: NBD_OPT_EXTENDED_HEADERS';

const one = (
  name: string,
  section: string,
  permits: readonly string[],
  code: number,
  data?: Buffer,
): Case => ({
  name,
  section,
  permits,
  observe: async (lab) => await optionOutcome(await lab.handshake(), code, data),
});

const unknownOptions = [0, 12, 255, 0x7fff_ffff, 0xffff_ffff].flatMap((code) => [
  one(`unknown option ${code}`, FIXED, ['ERR_UNSUP'], code),
  one(`unknown option ${code} with data`, FIXED, ['ERR_UNSUP'], code, Buffer.alloc(100, 0xa5)),
]);

const bigUnknown = (bytes: number): Case =>
  one(
    `unknown option with ${bytes} bytes`,
    FIXED,
    ['ERR_UNSUP', 'ERR_TOO_BIG', 'closed'],
    12,
    Buffer.alloc(bytes, 0x5a),
  );

const list: Case = {
  name: 'LIST names the exports',
  section: LIST,
  permits: ['the export is listed, and can be asked about'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    const answer = await handshake.option(Option.list);
    const names = decodeList(answer.items).map(({ name }) => name);
    const asked = await handshake.choose(Option.info, names[0] ?? 'nothing is listed');
    const seen = names.includes(EXPORT) && asked.final === OptionReply.ack ? 'listed' : 'not listed';
    return `the export is ${seen}, and can be asked about`;
  },
};

const listTwice: Case = {
  name: 'LIST gives the same again',
  section: LIST,
  permits: ['same'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    const [first, second] = [await handshake.option(Option.list), await handshake.option(Option.list)];
    const same = JSON.stringify(decodeList(first.items)) === JSON.stringify(decodeList(second.items));
    return same ? 'same' : `something else, ${finalName(second)}`;
  },
};

/** How the reply to a read looks after the given options. */
async function styleOfRead(lab: Lab, options: readonly [code: number, data?: Buffer][]): Promise<string> {
  const handshake = await lab.handshake();
  const finals: string[] = [];
  for (const [code, data] of options) finals.push(finalName(await handshake.option(code, data)));
  // A simple reply shows itself as a breach of the style that the session was told to expect.
  const session = await goWith(lab, handshake, 'structured');
  const seen = await requestInStep(session, 'structured replies');
  const style = seen.includes('a simple reply') ? 'simple replies' : seen;
  return `${finals.join(', ')}: ${style}`;
}

const structured: Case = {
  name: 'STRUCTURED_REPLY',
  section: STRUCTURED,
  permits: ['ACK: structured replies'],
  observe: (lab) => styleOfRead(lab, [[Option.structuredReply]]),
};

const structuredTwice: Case = {
  name: 'STRUCTURED_REPLY twice',
  section: FIXED,
  permits: ['ACK, ACK: structured replies', 'ACK, ERR_INVALID: structured replies'],
  observe: (lab) => styleOfRead(lab, [[Option.structuredReply], [Option.structuredReply]]),
};

const structuredWithData: Case = {
  name: 'STRUCTURED_REPLY with data changes nothing',
  section: STRUCTURED,
  permits: ['ERR_INVALID: simple replies'],
  observe: (lab) => styleOfRead(lab, [[Option.structuredReply, Buffer.from([1])]]),
};

/** Options after EXTENDED_HEADERS was acknowledged. */
const afterExtended = (
  name: string,
  permits: readonly string[],
  code: number,
  data?: Buffer,
  before: readonly number[] = [],
): Case => ({
  name,
  section: EXTENDED,
  permits,
  observe: async (lab) => {
    const handshake = await lab.handshake();
    for (const earlier of before) await handshake.option(earlier);
    if (!(await handshake.style('extended'))) throw new Lacks('extended headers');
    const seen = await optionOutcome(handshake, code, data);
    const session = await goWith(lab, handshake, 'extended');
    return await requestInStep(session, seen);
  },
});

const extendedWithData: Case = {
  name: 'EXTENDED_HEADERS with data changes nothing',
  section: EXTENDED,
  permits: ['ERR_INVALID: simple replies'],
  observe: async (lab) => {
    await lab.styled('extended');
    return await styleOfRead(lab, [[Option.extendedHeaders, Buffer.alloc(4)]]);
  },
};

const extendedExportName: Case = {
  name: 'EXTENDED_HEADERS, then EXPORT_NAME',
  section: EXTENDED,
  permits: ['closed'],
  observe: async (lab) => {
    const handshake = await lab.styled('extended');
    handshake.wire.send(optionRequest(Option.exportName, Buffer.from(EXPORT)));
    const head = await handshake.wire.read(10);
    checkedFlags(head.readUInt16BE(8));
    return 'served';
  },
};

/** A length that nobody should believe, with 1 MiB of data and then the end of the stream. */
const claims = (name: string, code: number, before: readonly number[] = []): Case => ({
  name: `${name} that claims 4 GiB of data`,
  section: 'Termination of the session during option haggling',
  permits: ['ERR_TOO_BIG, memory bounded', 'ERR_INVALID, memory bounded', 'closed, memory bounded'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    for (const earlier of before) await handshake.option(earlier);
    const bytesBefore = await lab.target.residentBytes();
    const seen = await claimOutcome(handshake, code, 0xffff_ffff, Buffer.alloc(MiB));
    const grown = (await lab.target.residentBytes()) - bytesBefore;
    return `${seen}, ${memoryWord(grown, 256 * MiB)}`;
  },
});

const manyOptions: Case = {
  name: '30 options on one connection',
  section: FIXED,
  permits: ['all answered'],
  observe: async (lab) => {
    const handshake = await lab.handshake();
    for (let count = 0; count < 28; count += 1) await handshake.option(100 + count);
    const session = await goWith(lab, handshake, 'simple');
    return await requestInStep(session, 'all answered');
  },
};

const optionInPieces: Case = {
  name: 'an option split at every byte',
  section: FIXED,
  permits: ['always ACK'],
  observe: async (lab) => {
    const bytes = optionRequest(Option.info, infoData(EXPORT, [3]));
    for (let at = 1; at < bytes.length; at += 1) {
      const handshake = await lab.handshake();
      await handshake.wire.sendInPieces(bytes.subarray(0, at), at);
      handshake.wire.send(bytes.subarray(at));
      const seen = finalName(await readOptionAnswer(handshake.wire, Option.info));
      handshake.wire.destroy();
      if (seen !== 'ACK') return `split at ${at}: ${seen}`;
    }
    return 'always ACK';
  },
};

export const optionCases: readonly Case[] = [
  ...unknownOptions,
  one('PEEK_EXPORT', 'Option types: NBD_OPT_PEEK_EXPORT', ['ERR_UNSUP'], Option.peekExport),
  one(
    'PEEK_EXPORT with data',
    'Option types: NBD_OPT_PEEK_EXPORT',
    ['ERR_UNSUP'],
    Option.peekExport,
    Buffer.from(EXPORT),
  ),
  bigUnknown(8192),
  bigUnknown(128 * 1024),
  list,
  listTwice,
  one('LIST with data', LIST, ['ERR_INVALID'], Option.list, Buffer.from([0])),
  one(
    'STARTTLS with data',
    'Option types: NBD_OPT_STARTTLS',
    ['ERR_INVALID', 'ERR_UNSUP', 'ERR_POLICY'],
    Option.starttls,
    Buffer.from('x'),
  ),
  structured,
  structuredTwice,
  structuredWithData,
  afterExtended('EXTENDED_HEADERS, then STRUCTURED_REPLY', ['ERR_EXT_HEADER_REQD'], Option.structuredReply),
  afterExtended('EXTENDED_HEADERS twice', ['ACK', 'ERR_INVALID'], Option.extendedHeaders),
  afterExtended('STRUCTURED_REPLY, then EXTENDED_HEADERS', ['ACK'], Option.list, undefined, [
    Option.structuredReply,
  ]),
  extendedWithData,
  extendedExportName,
  claims('an unknown option', 12),
  claims('LIST', Option.list),
  claims('ABORT', Option.abort),
  claims('STARTTLS', Option.starttls),
  claims('INFO', Option.info),
  claims('GO', Option.go),
  claims('EXPORT_NAME', Option.exportName),
  claims('SET_META_CONTEXT', Option.setMetaContext, [Option.structuredReply]),
  claims('STRUCTURED_REPLY', Option.structuredReply),
  manyOptions,
  optionInPieces,
];
