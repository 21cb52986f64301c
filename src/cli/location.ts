/** `volary location`: which real volumes hold a range of a volume, for direct access. */

import type { Location } from '../control-protocol/directory-api.ts';
import { VolumeName } from '../control-protocol/names.ts';
import { parseSize } from '../model/size.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { type Column, formatTable } from './table.ts';
import { parseAs, parseOffset, parseSingle } from './values.ts';
import { type Action, verb } from './verb.ts';

const COLUMNS: readonly Column<Location>[] = [
  { head: 'OFFSET', align: 'right', cell: ({ offset }) => offset },
  { head: 'LENGTH', align: 'right', cell: ({ length }) => length },
  { head: 'STORAGE', cell: ({ storage }) => storage },
  { head: 'SITE', cell: ({ site }) => site },
  { head: 'ROLE', cell: ({ role }) => role },
  { head: 'REAL OFFSET', align: 'right', cell: ({ realOffset }) => realOffset },
  { head: 'URI', cell: ({ uri }) => uri },
];

export const location = verb({
  command: 'location <volume>',
  summary: 'The real volumes behind a range of a volume',
  completes: ['volume'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 location VOLUME\n\nThe real volumes behind a volume, or a range of it, for direct access.')
        .positional('volume', { describe: 'The volume', type: 'string', demandOption: true })
        .option('offset', {
          describe: 'Where the range begins: bytes, or 512MiB, 10GiB, …',
          type: 'string',
          requiresArg: true,
          defaultDescription: '0',
        })
        .option('length', {
          describe: 'How long it is',
          type: 'string',
          requiresArg: true,
          defaultDescription: 'to the end',
        })
        .example('$0 location db', 'All of it')
        .example('$0 location db --offset 4GiB --length 4096', 'Where one page lies'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', VolumeName, given.volume);
    const offset = parseSingle('offset', given.offset, parseOffset);
    const length = parseSingle('length', given.length, parseSize);
    return async (output) => {
      const range = {
        ...(offset === undefined ? {} : { offset }),
        ...(length === undefined ? {} : { length }),
      };
      const places = await directory.location(name, range);
      output.result(places, formatTable(places, COLUMNS, 'nothing lies there'));
    };
  },
});
