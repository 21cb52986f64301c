/** NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT, and what a selection is worth afterwards. */
import { Buffer } from 'node:buffer';
import {
  Command,
  type HeaderStyle,
  Option,
  OptionReply,
} from '../../../src/nbd-server-protocol/constants.ts';
import { decodeContexts, type Handshake, type OptionAnswer } from '../../support/nbd-handshake.ts';
import { metaData } from '../../support/wire.ts';
import {
  type Case,
  chunkStyles,
  finalName,
  goWith,
  type Lab,
  optionOutcome,
  requestOutcome,
} from '../lab.ts';
import { disk, EXPORT } from '../servers.ts';

const LIST = 'Option types: NBD_OPT_LIST_META_CONTEXT';
const SET = 'Option types: NBD_OPT_SET_META_CONTEXT';
const BASE = 'The base: metadata namespace';
const ALLOCATION = 'base:allocation';

const both = [
  ['LIST_META_CONTEXT', Option.listMetaContext, LIST],
  ['SET_META_CONTEXT', Option.setMetaContext, SET],
] as const;

/** The contexts that came, or the error. */
function contextWords(answer: OptionAnswer): string {
  if (answer.final !== OptionReply.ack) return finalName(answer);
  const contexts = decodeContexts(answer.items);
  if (new Set(contexts.map(({ id, name }) => `${id} ${name}`)).size !== contexts.length)
    return 'a context twice';
  return contexts.length === 0 ? 'none' : contexts.map(({ name }) => name).join(' ');
}

function forBoth(
  name: string,
  permits: readonly string[],
  data: () => Buffer,
  section?: string,
): readonly Case[] {
  return both.map(([option, code, heading]) => ({
    name: `${option}: ${name}`,
    section: section ?? heading,
    permits,
    observe: async (lab) => await optionOutcome(await lab.styled('structured'), code, data(), contextWords),
  }));
}

const query =
  (...queries: (string | Buffer)[]): (() => Buffer) =>
  () =>
    metaData(EXPORT, queries);
const invalid = ['ERR_INVALID'];
const manyQueries = Array.from({ length: 500 }, (_, index) => `x-many:${index}`);

const wellFormed = [
  ...forBoth('base:allocation', [ALLOCATION], query(ALLOCATION), BASE),
  ...forBoth('an unknown leaf of base:', ['none'], query('base:nothing'), BASE),
  ...forBoth('a leaf that only begins like a known one', ['none'], query('base:allocation2'), BASE),
  ...forBoth('a leaf that is cut short', ['none'], query('base:alloc'), BASE),
  ...forBoth('a namespace that only begins like base', ['none'], query('bases:allocation'), BASE),
  ...forBoth('an unknown namespace', ['none'], query('x-volary-test:nothing')),
  ...forBoth('an unknown namespace, empty leaf', ['none'], query('x-volary-test:')),
  ...forBoth('known and unknown together', [ALLOCATION], query('x-a:b', ALLOCATION, 'base:nothing')),
  ...forBoth('the same context twice', [ALLOCATION], query(ALLOCATION, ALLOCATION)),
  ...forBoth('500 queries', [ALLOCATION, 'ERR_TOO_BIG'], query(...manyQueries, ALLOCATION)),
  ...forBoth('a query without colon', ['none', 'ERR_INVALID'], query('allocation')),
  ...forBoth('an empty query', ['none', 'ERR_INVALID'], query('')),
  ...forBoth('a query without namespace', ['none', 'ERR_INVALID'], query(':allocation')),
  ...forBoth('a query that is not UTF-8', ['none', 'ERR_INVALID'], query(Buffer.from('base:\xff', 'latin1'))),
  ...forBoth('a query with NUL', ['none', 'ERR_INVALID'], query(`${ALLOCATION}\0`)),
  ...forBoth('a query of 4096 bytes', ['none', 'ERR_INVALID'], query(`x-a:${'q'.repeat(4092)}`)),
  ...forBoth(
    'a query of 5000 bytes',
    ['none', 'ERR_INVALID', 'ERR_TOO_BIG'],
    query(`x-a:${'q'.repeat(4996)}`),
  ),
  ...forBoth('an unknown export', ['ERR_UNKNOWN'], () => metaData('no-such-export', [ALLOCATION])),
  ...forBoth('an export name that is not UTF-8', ['ERR_UNKNOWN', 'ERR_INVALID'], () =>
    metaData(Buffer.from([0xff]), [ALLOCATION]),
  ),
  ...forBoth('an export name of 5000 bytes', ['ERR_UNKNOWN', 'ERR_INVALID', 'ERR_TOO_BIG'], () =>
    metaData('n'.repeat(5000), [ALLOCATION]),
  ),
];

const broken = [
  ...[0, 3, 4, 7].flatMap((bytes) =>
    forBoth(`${bytes} bytes of data`, invalid, () => metaData('', []).subarray(0, bytes)),
  ),
  ...forBoth('export name beyond the data', invalid, () => metaData(EXPORT, [], { nameLength: 60 })),
  ...forBoth('export name of 4 GiB', invalid, () => metaData(EXPORT, [], { nameLength: 0xffff_ffff })),
  ...forBoth('export name that leaves no room for the count', invalid, () =>
    metaData(EXPORT, [], { nameLength: EXPORT.length + 1 }),
  ),
  ...forBoth('query beyond the data', invalid, () => metaData(EXPORT, [ALLOCATION], { queryLength: 16 })),
  ...forBoth('query of 4 GiB', invalid, () => metaData(EXPORT, [ALLOCATION], { queryLength: 0xffff_ffff })),
  ...forBoth('a length of query that is cut', invalid, () =>
    Buffer.concat([metaData(EXPORT, [], { queryCount: 1 }), Buffer.alloc(3)]),
  ),
  ...forBoth('more queries announced than sent', invalid, () =>
    metaData(EXPORT, [ALLOCATION], { queryCount: 2 }),
  ),
  ...forBoth('2^32 - 1 queries announced', ['ERR_INVALID', 'ERR_TOO_BIG'], () =>
    metaData(EXPORT, [ALLOCATION], { queryCount: 0xffff_ffff }),
  ),
  ...forBoth('fewer queries announced than sent', invalid, () =>
    metaData(EXPORT, [ALLOCATION, 'x-a:b'], { queryCount: 1 }),
  ),
  ...forBoth('no queries announced, one sent', invalid, () =>
    metaData(EXPORT, [ALLOCATION], { queryCount: 0 }),
  ),
  ...forBoth('a byte behind the last query', invalid, () =>
    Buffer.concat([metaData(EXPORT, [ALLOCATION]), Buffer.from([0])]),
  ),
];

const listOne = (name: string, section: string, permits: readonly string[], ...queries: string[]): Case => ({
  name: `LIST_META_CONTEXT: ${name}`,
  section,
  permits,
  observe: async (lab) =>
    await optionOutcome(
      await lab.styled('structured'),
      Option.listMetaContext,
      query(...queries)(),
      contextWords,
    ),
});

const setOne = (name: string, section: string, permits: readonly string[], ...queries: string[]): Case => ({
  name: `SET_META_CONTEXT: ${name}`,
  section,
  permits,
  observe: async (lab) =>
    await optionOutcome(
      await lab.styled('structured'),
      Option.setMetaContext,
      query(...queries)(),
      contextWords,
    ),
});

const tooEarly: readonly Case[] = both.map(([option, code, section]) => ({
  name: `${option}: before structured replies`,
  section,
  permits: code === Option.setMetaContext ? ['ERR_INVALID'] : ['ERR_INVALID', ALLOCATION],
  observe: async (lab) => await optionOutcome(await lab.handshake(), code, query(ALLOCATION)(), contextWords),
}));

/** The reserved ids of a list. */
const listIds: Case = {
  name: 'LIST_META_CONTEXT: the ids are zero',
  section: LIST,
  permits: ['0'],
  observe: async (lab) => {
    const handshake = await lab.styled('structured');
    const answer = await handshake.option(Option.listMetaContext, query(ALLOCATION)());
    return decodeContexts(answer.items)
      .map(({ id }) => id)
      .join(' ');
  },
};

type Step = readonly [code: number, data: Buffer];

const set = (...queries: string[]): Step => [Option.setMetaContext, metaData(EXPORT, queries)];

/** What BLOCK_STATUS is worth after the given options and GO. */
function selection(
  name: string,
  section: string,
  permits: readonly string[],
  steps: (lab: Lab) => readonly Step[],
): readonly Case[] {
  return chunkStyles.map((style) => ({
    name: `selection, ${style}: ${name}`,
    section,
    permits,
    observe: async (lab) => {
      const handshake = await lab.styled(style);
      const selected = await selectedAfter(handshake, steps(lab));
      return await statusOutcome(lab, handshake, style, selected);
    },
  }));
}

async function selectedAfter(
  handshake: Handshake,
  steps: readonly Step[],
): Promise<{ id: number; name: string }[]> {
  let selected: { id: number; name: string }[] = [];
  for (const [code, data] of steps) {
    const answer = await handshake.option(code, data);
    if (code !== Option.setMetaContext) continue;
    // A server may go on answering for contexts of an earlier selection: they are kept, so that this is seen as 'ok'.
    if (answer.final === OptionReply.ack && answer.items.length > 0) selected = decodeContexts(answer.items);
  }
  return selected;
}

async function statusOutcome(
  lab: Lab,
  handshake: Handshake,
  style: HeaderStyle,
  selected: readonly { id: number; name: string }[],
): Promise<string> {
  const session = await goWith(lab, handshake, style, selected);
  return await requestOutcome(session, { type: Command.blockStatus, offset: disk.data, length: 4096 });
}

const selections = [
  ...selection('base:allocation selected', SET, ['ok'], () => [set(ALLOCATION)]),
  ...selection('nothing selected', 'Metadata querying', ['EINVAL'], () => []),
  ...selection('zero queries select nothing', SET, ['EINVAL'], () => [set()]),
  ...selection('zero queries clear what was selected', SET, ['EINVAL'], () => [set(ALLOCATION), set()]),
  ...selection('an unknown context clears what was selected', SET, ['EINVAL'], () => [
    set(ALLOCATION),
    set('x-a:b'),
  ]),
  ...selection('base: clears what was selected', BASE, ['EINVAL'], () => [set(ALLOCATION), set('base:')]),
  ...selection('a failed SET clears what was selected', SET, ['EINVAL'], () => [
    set(ALLOCATION),
    [Option.setMetaContext, metaData(EXPORT, [ALLOCATION], { queryCount: 2 })],
  ]),
  ...selection('a SET for an unknown export clears what was selected', SET, ['EINVAL'], () => [
    set(ALLOCATION),
    [Option.setMetaContext, metaData('no-such-export', [ALLOCATION])],
  ]),
  ...selection('LIST leaves the selection alone', SET, ['ok'], () => [
    set(ALLOCATION),
    [Option.listMetaContext, metaData(EXPORT, [])],
  ]),
  ...selection('INFO leaves the selection alone', SET, ['ok'], () => [
    set(ALLOCATION),
    [Option.info, Buffer.concat([metaData(EXPORT, []).subarray(0, 4 + EXPORT.length), Buffer.alloc(2)])],
  ]),
  ...selection('selected for another export', SET, ['EINVAL'], (lab) => [
    [Option.setMetaContext, metaData(lab.otherExport, [ALLOCATION])],
  ]),
  ...selection('selected for another export, then for this', SET, ['ok'], (lab) => [
    [Option.setMetaContext, metaData(lab.otherExport, [ALLOCATION])],
    set(ALLOCATION),
  ]),
];

const bothStyles: Case = {
  name: 'selection: kept when EXTENDED_HEADERS follows',
  section: 'Option types: NBD_OPT_EXTENDED_HEADERS',
  permits: ['ok', 'EINVAL'],
  observe: async (lab) => {
    await lab.styled('extended');
    const handshake = await lab.styled('structured');
    const selected = await handshake.setContexts(EXPORT, [ALLOCATION]);
    await handshake.style('extended');
    return await statusOutcome(lab, handshake, 'extended', selected);
  },
};

const simpleStatus: Case = {
  name: 'BLOCK_STATUS with simple replies',
  section: 'Metadata querying',
  permits: ['EINVAL'],
  observe: async (lab) =>
    await requestOutcome(await lab.session('simple'), {
      type: Command.blockStatus,
      offset: disk.data,
      length: 4096,
    }),
};

export const metaCases: readonly Case[] = [
  ...wellFormed,
  ...broken,
  listOne('zero queries list all', LIST, [ALLOCATION]),
  listOne('base: is a wildcard', BASE, [ALLOCATION], 'base:'),
  setOne('zero queries', SET, ['none']),
  setOne('base: selects nothing', BASE, ['none'], 'base:'),
  ...tooEarly,
  listIds,
  ...selections,
  bothStyles,
  simpleStatus,
];
