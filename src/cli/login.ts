/** `volary login`: where a host connects, with the nearest copy as primary. */

import { InterfaceName, VolumeName } from '../control-protocol/names.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { withProgress } from './progress.ts';
import { parseAs, parseSingle } from './values.ts';
import { type Action, verb } from './verb.ts';

export const login = verb({
  command: 'login <volume>',
  summary: 'Have the nearest copy be primary, and say where to connect',
  completes: ['volume'],
  completesOptions: { interface: 'interface' },
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage(
          '$0 login VOLUME --interface NAME\n\nHave the copy of a volume be its primary that is nearest to an interface, and ' +
            'say where a host there connects. (A host that just connects has its gateway do the same.)',
        )
        .positional('volume', { describe: 'The volume', type: 'string', demandOption: true })
        .option('interface', {
          describe: 'Where the host is: see "volary interface"',
          type: 'string',
          requiresArg: true,
          demandOption: true,
        })
        .example('$0 login db --interface rack7', 'Prints the NBD URI')
        .example('nbdinfo "$($0 login db --interface rack7)"', 'Handed to an NBD client'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const name = parseInterface(given.interface);
    return async (output) => {
      const asked = directory.login(volume, { interface: name });
      const view = await withProgress(asked, () => `logging in to volume ${volume}`);
      output.result(view, view.uri);
    };
  },
});

/** Of an option that must be there. @throws UsageError */
export function parseInterface(given: string): InterfaceName;
export function parseInterface(given: string | undefined): InterfaceName | undefined;
export function parseInterface(given: string | undefined): InterfaceName | undefined {
  return parseSingle('interface', given, (text) => parseAs('bad-name', InterfaceName, text));
}
