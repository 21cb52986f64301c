/** `volary group`: consistency groups. */

import type { ConsistencyGroupView } from '../control-protocol/directory-api.ts';
import { GroupName } from '../control-protocol/names.ts';
import { parseSize } from '../model/size.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { formatSize } from './size-text.ts';
import { type Column, formatTable } from './table.ts';
import { parseAs, parseSingle, single } from './values.ts';
import { type Action, family, verb } from './verb.ts';

const COLUMNS: readonly Column<ConsistencyGroupView>[] = [
  { head: 'GROUP', cell: ({ name }) => name },
  { head: 'TRANSFER', cell: ({ transfer }) => transfer },
  { head: 'FENCE', cell: ({ fence }) => fence },
  { head: 'JOURNAL', cell: ({ journal }) => journal ?? '-' },
  { head: 'VOLUMES', cell: ({ volumes }) => volumes.join(', ') || '-' },
];

type Secondary = ConsistencyGroupView['secondaries'][number];

const SECONDARY_COLUMNS: readonly Column<Secondary>[] = [
  { head: 'STORAGE', cell: ({ storage }) => storage },
  { head: 'STORED', align: 'right', cell: ({ stored }) => stored },
  { head: 'TRANSFERRED', align: 'right', cell: ({ transferred }) => transferred },
  { head: 'APPLIED', align: 'right', cell: ({ applied }) => applied },
  { head: 'DISCARDED', align: 'right', cell: ({ discarded }) => discarded },
  {
    head: 'JOURNAL',
    align: 'right',
    cell: ({ journal: { used, size } }) => (size === 0 ? '-' : `${formatSize(used)} of ${formatSize(size)}`),
  },
];

const create = verb({
  command: 'create <name>',
  summary: 'Make a group',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage(
          '$0 group create NAME --transfer sync|async\n\nMake a consistency group: how the copies of its volumes are kept. A ' +
            'volume joins it when it is made (volume create --group).',
        )
        .positional('name', { describe: 'Its name', type: 'string', demandOption: true })
        .option('transfer', {
          describe: 'sync: a write is answered when every copy in step has it. async: before',
          choices: ['sync', 'async'] as const,
          requiresArg: true,
          demandOption: true,
        })
        .option('fence', {
          describe:
            'What becomes of a write when a copy cannot be reached. never: the copy is suspended, hosts go on. status: they ' +
            'fail if that cannot be recorded. data: they fail',
          choices: ['never', 'status', 'data'] as const,
          requiresArg: true,
          defaultDescription: 'never',
        })
        .option('journal', {
          describe: 'async: where writes wait',
          choices: ['memory', 'volume'] as const,
          requiresArg: true,
        })
        .option('journal-size', {
          describe: 'async: how much may wait: bytes, or 512MiB, 10GiB, …',
          type: 'string',
          requiresArg: true,
        })
        .option('fetch', {
          describe: 'async: who moves them',
          choices: ['push', 'pull'] as const,
          requiresArg: true,
        })
        .example('$0 group create bank --transfer sync', 'Copies in step, hosts go on without them')
        .example('$0 group create bank --transfer sync --fence data', 'No write without its copies'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const transfer = single('transfer', given.transfer) ?? 'sync';
    const fence = single('fence', given.fence);
    const journal = single('journal', given.journal);
    const fetch = single('fetch', given.fetch);
    const journalSizeBytes = parseSingle('journal-size', given['journal-size'], parseSize);
    const body = {
      name: parseAs('bad-name', GroupName, given.name),
      transfer,
      ...(fence === undefined ? {} : { fence }),
      ...(journal === undefined ? {} : { journal }),
      ...(journalSizeBytes === undefined ? {} : { journalSizeBytes }),
      ...(fetch === undefined ? {} : { fetch }),
    };
    return async (output) => {
      const group = await directory.createGroup(body);
      output.result(group, `group ${group.name} is there: ${group.transfer}, fence ${group.fence}`);
    };
  },
});

const list = verb({
  command: 'list',
  summary: 'All groups',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 group list\n\nAll consistency groups, and their volumes.')
        .example('$0 group list', 'As a table'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    return async (output) => {
      const groups = await directory.groups();
      const none = 'no groups yet: make one with "volary group create NAME --transfer sync"';
      output.result(groups, formatTable(groups, COLUMNS, none));
    };
  },
});

const show = verb({
  command: 'show <name>',
  summary: 'A group, and how far its copies are',
  completes: ['group'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 group show NAME\n\nA consistency group: its volumes, and how far their copies are.')
        .positional('name', { describe: 'The group', type: 'string', demandOption: true })
        .example('$0 group show bank', 'What there is to know about it'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', GroupName, given.name);
    return async (output) => {
      const group = await directory.group(name);
      output.result(group, formatGroup(group));
    };
  },
});

function formatGroup(group: ConsistencyGroupView): string {
  return [
    formatTable([group], COLUMNS, ''),
    '',
    `${group.sequence} writes so far`,
    '',
    formatTable(group.secondaries, SECONDARY_COLUMNS, 'no copies yet'),
  ].join('\n');
}

export const group = family('group', 'Consistency groups', [create, list, show]);
