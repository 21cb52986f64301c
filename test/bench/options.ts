/** The command line of `npm run bench`. Pure. */

import { parseArgs } from 'node:util';
import { jobNames } from './jobs.ts';
import { type PlaceName, placeNames } from './places.ts';
import { type ServerName, serverNames } from './servers.ts';

export interface BenchOptions {
  readonly rounds: number;
  /** Before those: not counted. */
  readonly warmUpRounds: number;
  /** Of each fio run. */
  readonly seconds: number;
  readonly jobs: readonly string[];
  readonly places: readonly PlaceName[];
  readonly servers: readonly ServerName[];
  readonly json: boolean;
}

export class UsageError extends Error {}

export const usage = `npm run bench -- [--rounds N] [--warm-up N] [--seconds S] [--jobs NAME,…] [--where PLACE,…] [--servers NAME,…] [--quick] [--json]

  --rounds N    how often each job is run on each server; medians are shown (default 5)
  --warm-up N   rounds before those, which do not count: servers run for long (default 1)
  --seconds S   how long each run of fio lasts (default 3)
  --jobs        of ${jobNames.join(', ')}
                (default: all)
  --where       of ${placeNames.join(', ')} (default: both)
  --servers     of ${serverNames.join(', ')} (default: all)
  --quick       one round of one second, without a warm-up: shows that everything runs, measures nothing
  --json        one JSON document on stdout instead of tables
`;

/** Throws UsageError; resolves to 'help' when that was asked for. */
export function parseOptions(args: readonly string[]): BenchOptions | 'help' {
  const { values } = parse(args);
  if (values.help === true) return 'help';
  const quick = values.quick === true;
  return {
    rounds: count('--rounds', values.rounds ?? (quick ? '1' : '5')),
    warmUpRounds: count('--warm-up', values['warm-up'] ?? (quick ? '0' : '1'), 0),
    seconds: count('--seconds', values.seconds ?? (quick ? '1' : '3')),
    jobs: names('--jobs', values.jobs, jobNames),
    places: names('--where', values.where, placeNames),
    servers: names('--servers', values.servers, serverNames),
    json: values.json === true,
  };
}

function parse(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        rounds: { type: 'string' },
        'warm-up': { type: 'string' },
        seconds: { type: 'string' },
        jobs: { type: 'string' },
        where: { type: 'string' },
        servers: { type: 'string' },
        quick: { type: 'boolean' },
        json: { type: 'boolean' },
        help: { type: 'boolean', short: 'h' },
      },
    });
  } catch (error) {
    throw new UsageError((error as Error).message, { cause: error });
  }
}

function count(option: string, text: string, least = 1): number {
  const number = /^[0-9]{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(number >= least)) throw new UsageError(`${option} ${text}: a whole number from ${least} on`);
  return number;
}

/** The chosen names in the order of `all`, whatever order they were given in. */
function names<Name extends string>(
  option: string,
  text: string | undefined,
  all: readonly Name[],
): readonly Name[] {
  if (text === undefined) return all;
  const chosen = text.split(',');
  const unknown = chosen.find((name) => !all.some((known) => known === name));
  if (unknown !== undefined) throw new UsageError(`${option} ${unknown}: choose of ${all.join(', ')}`);
  return all.filter((name) => chosen.includes(name));
}
