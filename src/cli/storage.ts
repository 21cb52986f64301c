/** `volary storage`: storage systems. */

import type { StorageView } from '../control-protocol/directory-api.ts';
import { StorageName } from '../control-protocol/names.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { formatSize } from './size-text.ts';
import { type Column, formatTable } from './table.ts';
import { parseAs } from './values.ts';
import { type Action, family, verb } from './verb.ts';

export const STORAGE_COLUMNS: readonly Column<StorageView>[] = [
  { head: 'STORAGE', cell: ({ name }) => name },
  { head: 'SITE', cell: ({ site }) => site },
  {
    head: 'STATE',
    cell: ({ state, failed }) => (failed.length === 0 ? state : `${state}, ${failed.length} failed`),
  },
  { head: 'CAPACITY', align: 'right', cell: ({ capacityBytes }) => formatSize(capacityBytes) },
  { head: 'PROVISIONED', align: 'right', cell: ({ provisionedBytes }) => formatSize(provisionedBytes) },
  { head: 'FREE', align: 'right', cell: ({ freeBytes }) => formatSize(freeBytes) },
  { head: 'USED', align: 'right', cell: ({ usedBytes }) => formatSize(usedBytes) },
  { head: 'REAL VOLUMES', align: 'right', cell: ({ realVolumes }) => realVolumes },
];

const list = verb({
  command: 'list',
  summary: 'All storage systems',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 storage list\n\nAll storage systems of the cluster, and what room they have.')
        .example('$0 storage list', 'As a table'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    return async (output) => {
      const systems = await directory.storageSystems();
      output.result(systems, formatTable(systems, STORAGE_COLUMNS, 'no storage systems yet'));
    };
  },
});

const show = verb({
  command: 'show <name>',
  summary: 'A storage system',
  completes: ['storage'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 storage show NAME\n\nA storage system: its state, its room, its addresses.')
        .positional('name', { describe: 'The storage system', type: 'string', demandOption: true })
        .example('$0 storage show east-1', 'What there is to know about it'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', StorageName, given.name);
    return async (output) => {
      const system = await directory.storageSystem(name);
      output.result(system, formatStorage(system));
    };
  },
});

function formatStorage(system: StorageView): string {
  return [
    formatTable([system], STORAGE_COLUMNS, ''),
    '',
    `last heard of   ${system.lastSeenAt ?? 'never'}`,
    `NBD             ${system.uri}`,
    `other storage   ${system.peer.host}:${system.peer.port}`,
    `management      ${system.manage}`,
    `data folder     ${system.folder}`,
    ...system.failed.map(({ realVolume, reason }) => `failed          ${realVolume}: ${reason}`),
  ].join('\n');
}

export const storage = family('storage', 'Storage systems', [list, show]);
