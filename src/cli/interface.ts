/** `volary interface`: where hosts are attached, and which sites are near. */

import type { InterfaceRecord } from '../control-protocol/catalog.ts';
import { InterfaceName, SiteName } from '../control-protocol/names.ts';
import { UsageError } from '../model/errors.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { type Column, formatTable } from './table.ts';
import { parseAs } from './values.ts';
import { type Action, family, verb } from './verb.ts';

const COLUMNS: readonly Column<InterfaceRecord>[] = [
  { head: 'INTERFACE', cell: ({ name }) => name },
  { head: 'SITES, NEAREST FIRST', cell: ({ sites }) => sites.join(', ') },
];

const set = verb({
  command: 'set <name> [sites..]',
  summary: 'Say which sites are near an interface',
  completes: ['interface', 'site'],
  completesOptions: { site: 'site' },
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage(
          '$0 interface set NAME --site SITE...\n\nSay which sites are near an interface (a place where hosts are attached), ' +
            'nearest first. "volary login" chooses copies by it.',
        )
        .positional('name', { describe: 'The interface', type: 'string', demandOption: true })
        .positional('sites', { describe: 'Further sites, farther away', type: 'string', array: true })
        .option('site', {
          describe: 'A site; several, nearest first: --site a b, or --site a --site b',
          type: 'string',
          array: true,
          requiresArg: true,
          demandOption: true,
        })
        .example('$0 interface set rack7 --site east', 'Copies in east are near')
        .example('$0 interface set rack7 --site east west', 'Those in west come next'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', InterfaceName, given.name);
    const sites = parseSites(given.site, given.sites ?? []);
    return async (output) => {
      const record = await directory.setInterface(name, { sites });
      output.result(record, `interface ${name}: ${record.sites.join(', ')}`);
    };
  },
});

/** `--site a b c` is an option with one value and two words behind it. @throws UsageError */
export function parseSites(options: readonly string[], words: readonly string[]): SiteName[] {
  if (options.length > 1 && words.length > 0) {
    throw new UsageError(
      'bad-argument',
      'which site is nearest? Give --site a b c, or --site a --site b --site c',
    );
  }
  const sites = [...options, ...words].map((text) => parseAs('bad-name', SiteName, text));
  const twice = sites.find((site, index) => sites.indexOf(site) < index);
  if (twice === undefined) return sites;
  throw new UsageError('bad-argument', `site ${twice} is given more than once: give it once`);
}

const list = verb({
  command: 'list',
  summary: 'All interfaces',
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 interface list\n\nAll interfaces, and the sites that are near.')
        .example('$0 interface list', 'As a table'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    return async (output) => {
      const interfaces = await directory.interfaces();
      const none = 'no interfaces yet: make one with "volary interface set NAME --site SITE..."';
      output.result(interfaces, formatTable(interfaces, COLUMNS, none));
    };
  },
});

const remove = verb({
  command: 'remove <name>',
  summary: 'Forget an interface',
  completes: ['interface'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 interface remove NAME\n\nForget an interface.')
        .positional('name', { describe: 'The interface', type: 'string', demandOption: true })
        .example('$0 interface remove rack7', 'Nobody logs in by it any more'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const name = parseAs('bad-name', InterfaceName, given.name);
    return async (output) => {
      await directory.removeInterface(name);
      output.result({ name }, `interface ${name} is forgotten`);
    };
  },
});

export const interfaces = family('interface', 'Where hosts are attached', [set, list, remove]);
