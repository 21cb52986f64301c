/** `volary status`: the whole cluster at a glance, once or for as long as one looks. */

import { parseDirectory, withDirectory } from './directory-option.ts';
import { formatStatus } from './status-text.ts';
import { type Action, verb } from './verb.ts';
import { watchStatus } from './watch-status.ts';

export const status = verb({
  command: 'status',
  summary: 'The whole cluster at a glance',
  flags: ['watch'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 status\n\nThe whole cluster at a glance: storage systems, gateways, volumes, operations.')
        .option('watch', {
          describe: 'Show it again whenever it changes, until Ctrl-C (with --json: a document a line)',
          type: 'boolean',
          default: false,
        })
        .example('$0 status', 'How things are')
        .example('$0 status --watch', 'How they change')
        .example("$0 status --json | jq -r '.health'", '"ok" or "degraded"'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    if (given.watch) return (output) => watchStatus(directory, output);
    return async (output) => {
      const view = await directory.status();
      output.result(view, formatStatus(view));
    };
  },
});
