/** `volary detach`: undoes `volary attach`. Asks nobody but this host's kernel. */

import { VolumeName } from '../control-protocol/names.ts';
import { parseDevice } from './attach.ts';
import { withDirectory } from './directory-option.ts';
import { parseAs } from './values.ts';
import { type Action, verb } from './verb.ts';

export const detach = verb({
  command: 'detach <what>',
  summary: 'Undo an attach',
  flags: ['force'],
  completes: ['volume'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage(
          '$0 detach VOLUME|DEVICE\n\nUndo an attach: save what was written, and give the device back. Needs root.',
        )
        .positional('what', { describe: 'A volume, or its /dev/nbdN', type: 'string', demandOption: true })
        .option('force', {
          describe: 'Also while it is in use; what was written and not saved yet is lost',
          type: 'boolean',
          default: false,
        })
        .example('$0 detach db', 'Refused while it is mounted')
        .example('$0 detach /dev/nbd0', 'When one volume is attached more than once'),
    ),
  parse: (given): Action => {
    const what = given.what.startsWith('/')
      ? parseDevice(given.what)
      : parseAs('bad-name', VolumeName, given.what);
    return async (output) => {
      const { detachDevice } = await import('../runtime/nbd-attach.ts');
      const device = await detachDevice({ what, force: given.force });
      output.result({ device }, `${device} is free`);
    };
  },
});
