/** `volary events`: what has happened in the cluster, and what happens. */

import type { EventRecord } from '../control-protocol/catalog.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { eventsAfter } from '../control-protocol/events-after.ts';
import { firstStopSignal } from '../runtime/stop-signal.ts';
import { parseDirectory, withDirectory } from './directory-option.ts';
import type { Output } from './output.ts';
import { parseCount, parseSingle } from './values.ts';
import { type Action, verb } from './verb.ts';

const LIMIT_DEFAULT = 20;
const LIMIT_MAX = 100_000;
/** How many are asked for at a time. */
const PAGE = 1_000;

export const events = verb({
  command: 'events',
  summary: 'What has happened in the cluster',
  flags: ['follow'],
  describe: (yargs) =>
    withDirectory(
      yargs
        .usage('$0 events\n\nWhat has happened in the cluster, oldest first.')
        .option('follow', {
          describe: 'And what happens from now on, until Ctrl-C (with --json: a document a line)',
          type: 'boolean',
          default: false,
        })
        .option('since', {
          describe: 'Only events after the one with this id',
          type: 'string',
          requiresArg: true,
        })
        .option('limit', {
          describe: 'At most so many that have happened: the newest, or the first after --since',
          type: 'string',
          requiresArg: true,
          defaultDescription: `${LIMIT_DEFAULT}, or all after --since`,
        })
        .example('$0 events', 'The newest')
        .example('$0 events --follow', 'The newest, and then what happens')
        .example('$0 events --follow --limit 0 --json', 'Only what happens, for programs')
        .example('$0 events --since 1200', 'What was missed'),
    ),
  parse: (given): Action => {
    const directory = parseDirectory(given);
    const since = parseSingle('since', given.since, (text) =>
      parseCount('since', text, Number.MAX_SAFE_INTEGER),
    );
    const limit = parseSingle('limit', given.limit, (text) => parseCount('limit', text, LIMIT_MAX));
    if (given.follow) return (output) => follow(directory, since, limit, output);
    return async (output) => {
      const happened = await happenedBefore(directory, since, limit);
      output.result(happened, happened.map(formatEvent).join('\n') || 'nothing has happened');
    };
  },
});

/** The newest, or those after `since`. */
async function happenedBefore(
  directory: DirectoryClient,
  since: number | undefined,
  limit: number | undefined,
): Promise<EventRecord[]> {
  if (limit === 0) return [];
  if (since === undefined) return directory.events({ limit: limit ?? LIMIT_DEFAULT });
  const happened: EventRecord[] = [];
  const wanted = limit ?? Number.POSITIVE_INFINITY;
  let last = since;
  while (happened.length < wanted) {
    const page = await directory.events({ since: last, limit: Math.min(PAGE, wanted - happened.length) });
    const newest = page.at(-1);
    if (newest === undefined) break;
    happened.push(...page);
    last = newest.id;
  }
  return happened;
}

async function follow(
  directory: DirectoryClient,
  since: number | undefined,
  limit: number | undefined,
  output: Output,
): Promise<void> {
  const happened = since === undefined ? await happenedBefore(directory, since, limit ?? LIMIT_DEFAULT) : [];
  const [newest] = happened.length === 0 && since === undefined ? await directory.events({ limit: 1 }) : [];
  const stop = new AbortController();
  void firstStopSignal().then(() => stop.abort());
  for (const event of happened) if (!output.result(event, formatEvent(event))) return;
  const last = happened.at(-1)?.id ?? newest?.id ?? since ?? 0;
  for await (const event of eventsAfter(directory, last, stop.signal)) {
    if (!output.result(event, formatEvent(event))) return;
  }
}

function formatEvent({ id, at, kind, subject, text }: EventRecord): string {
  return `${id}  ${at}  ${kind}  ${subject}: ${text}`;
}
