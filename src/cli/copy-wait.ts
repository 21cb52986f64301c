/** `volary copy wait`. */

import { VolumeName } from '../control-protocol/names.ts';
import { parseDuration } from '../model/duration.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import { untilPairs } from './pair-wait.ts';
import { parseAs, parseSingle, single } from './values.ts';
import { type Action, verb } from './verb.ts';

export const wait = verb({
  command: 'wait <volume>',
  summary: 'Wait until all copies are in a state',
  completes: ['volume'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 copy wait VOLUME --pair duplex\n\nWait until all copies of a volume are in a state.')
        .positional('volume', { describe: 'The volume', type: 'string', demandOption: true })
        .option('pair', {
          describe: 'duplex: equal to the primary, and able to take its place',
          choices: ['copying', 'duplex', 'suspended'] as const,
          requiresArg: true,
          demandOption: true,
        })
        .option('timeout', {
          describe: 'Fail (timeout) after so long: 500ms, 30s, 10m, …',
          type: 'string',
          requiresArg: true,
          defaultDescription: 'none',
        })
        .example('$0 copy wait db --pair duplex', 'Exit status 0: all copies are equal')
        .example('$0 copy wait db --pair duplex --timeout 10m', 'Exit status 1 when that takes longer'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const volume = parseAs('bad-name', VolumeName, given.volume);
    const timeoutMs = parseSingle('timeout', given.timeout, parseDuration);
    const pair = single('pair', given.pair) ?? 'duplex';
    return async (output) => {
      const wish = { directory, volume, pair, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
      const view = await untilPairs(wish);
      output.result(view, `all copies of volume ${volume} are ${pair}`);
    };
  },
});
