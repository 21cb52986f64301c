/** `volary volume`: virtual volumes. */

import type { VolumeSummary } from '../control-protocol/directory-api.ts';
import { VolumeName } from '../control-protocol/names.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { formatSize } from './size-text.ts';
import { type Column, formatTable } from './table.ts';
import { parseAs, parseVolumeSize } from './values.ts';
import { type Action, family, verb } from './verb.ts';
import { create } from './volume-create.ts';
import { repair } from './volume-repair.ts';
import { formatVolume } from './volume-text.ts';
import { conclude, parseWait, withWait } from './wait-option.ts';

const COLUMNS: readonly Column<VolumeSummary>[] = [
  { head: 'VOLUME', cell: ({ name }) => name },
  { head: 'SIZE', align: 'right', cell: ({ size }) => formatSize(size) },
  { head: 'STATE', cell: ({ state }) => state },
  { head: 'SEGMENTS', align: 'right', cell: ({ segments }) => segments },
  { head: 'STORAGE', cell: ({ storage }) => storage.join(', ') },
  { head: 'GROUP', cell: ({ group }) => group ?? '-' },
];

const list = verb({
  command: 'list',
  summary: 'All volumes',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 volume list\n\nAll virtual volumes of the cluster.')
        .example('$0 volume list', 'As a table')
        .example("$0 volume list --json | jq -r '.[].name'", 'Their names alone'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    return async (output) => {
      const volumes = await directory.volumes();
      const none = 'no volumes yet: make one with "volary volume create NAME --size S"';
      output.result(volumes, formatTable(volumes, COLUMNS, none));
    };
  },
});

const show = verb({
  command: 'show <name>',
  summary: 'A volume: where it lies, and where hosts connect',
  completes: ['volume'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 volume show NAME\n\nA volume: where it lies, and the NBD URIs for hosts.')
        .positional('name', { describe: 'The volume', type: 'string', demandOption: true })
        .example('$0 volume show db', 'What there is to know about it')
        .example(`nbdinfo $($0 volume show db --json | jq -r '.uris[0]')`, 'Handed to an NBD client'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', VolumeName, given.name);
    return async (output) => {
      const volume = await directory.volume(name);
      output.result(volume, formatVolume(volume));
    };
  },
});

const resize = verb({
  command: 'resize <name> <size>',
  summary: 'Give a volume another size',
  flags: ['allow-shrink', 'wait', 'no-wait'],
  completes: ['volume'],
  describe: (yargs) =>
    withWait(
      withDirectory(
        yargs
          .usage('$0 volume resize NAME SIZE\n\nGive a volume another size, while hosts use it.')
          .positional('name', { describe: 'The volume', type: 'string', demandOption: true })
          .positional('size', {
            describe: 'Its new size: bytes, or 512MiB, 10GiB, …',
            type: 'string',
            demandOption: true,
          })
          .option('allow-shrink', {
            describe: 'Also a smaller size: what lies behind it is lost',
            type: 'boolean',
            default: false,
          })
          .example('$0 volume resize db 20GiB', 'Hosts see it when they ask, or connect again'),
      ),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const wait = parseWait(given);
    const name = parseAs('bad-name', VolumeName, given.name);
    const sizeBytes = parseVolumeSize(given.size);
    return async (output) => {
      const allowShrink = given['allow-shrink'];
      const operation = await directory.resizeVolume(name, { sizeBytes, allowShrink });
      await conclude(operation, {
        directory,
        output,
        wait,
        told: async () => {
          const volume = await directory.volume(name);
          output.result(volume, `volume ${name} has ${formatSize(volume.size)} now`);
        },
      });
    };
  },
});

const remove = verb({
  command: 'delete <name>',
  summary: 'Delete a volume and all that is in it',
  flags: ['force', 'wait', 'no-wait'],
  completes: ['volume'],
  describe: (yargs) =>
    withWait(
      withDirectory(
        yargs
          .usage('$0 volume delete NAME\n\nDelete a volume and all that is in it. There is no way back.')
          .positional('name', { describe: 'The volume', type: 'string', demandOption: true })
          .option('force', {
            describe: 'Also while hosts are connected to it',
            type: 'boolean',
            default: false,
          })
          .example('$0 volume delete scratch', 'Refused while a host is connected to it'),
      ),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const wait = parseWait(given);
    const name = parseAs('bad-name', VolumeName, given.name);
    return async (output) => {
      const operation = await directory.deleteVolume(name, given.force);
      await conclude(operation, {
        directory,
        output,
        wait,
        told: (finished) => {
          output.result(finished, `volume ${name} is deleted`);
        },
      });
    };
  },
});

export const volume = family('volume', 'Virtual volumes', [create, list, show, resize, remove, repair]);
