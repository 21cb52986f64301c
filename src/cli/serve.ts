/** `volary serve`: raw files as NBD exports, in one process. Here is what its command line looks like. */

import type { Argv } from 'yargs';
import { UsageError } from '../model/errors.ts';
import { DEFAULT_LISTEN_URI, type ListenAddress, parseListenUri } from '../model/nbd-uri.ts';
import { parseSize } from '../model/size.ts';
import { parseExportName } from './export-name.ts';
import { parseBusyPoll, parseSingle } from './values.ts';
import { verb } from './verb.ts';

export const serve = verb({
  command: 'serve [path..]',
  summary: 'Serve raw files over NBD, in one process',
  flags: ['read-only'],
  describe: describeServe,
  parse: (given) => {
    const options = parseServe(given);
    return async (output) => {
      const { serveFiles } = await import('./serve-files.ts');
      await serveFiles(options, output);
    };
  },
});

export interface ServeOptions {
  readonly paths: readonly string[];
  readonly sizeBytes?: number | undefined;
  readonly name?: string | undefined;
  readonly readOnly: boolean;
  readonly listen: readonly ListenAddress[];
  readonly busyPollUs?: number | undefined;
}

function describeServe(yargs: Argv) {
  return yargs
    .usage('$0 serve PATH...\n\nServe raw files over NBD, each under its file name.')
    .positional('path', {
      describe:
        'A raw FILE, or a FOLDER that stands for every regular file in it, less hidden ones and links',
      type: 'string',
      array: true,
    })
    .option('size', {
      describe: 'Make files that are missing, of this size (bytes, or 512MiB, 10GiB, …); others must have it',
      type: 'string',
      requiresArg: true,
    })
    .option('name', {
      describe: 'Name of the export, when there is one file (otherwise the name of the file)',
      type: 'string',
      requiresArg: true,
    })
    .option('read-only', { describe: 'Take no writes', type: 'boolean', default: false })
    .option('listen', {
      describe: 'Where to listen: nbd://HOST:PORT or nbd+unix:///?socket=PATH; may be repeated',
      type: 'string',
      array: true,
      requiresArg: true,
      defaultDescription: DEFAULT_LISTEN_URI,
    })
    .option('busy-poll', {
      describe:
        'Microseconds to stay awake after a request, 0 to sleep at once (otherwise the server chooses)',
      type: 'string',
      requiresArg: true,
    })
    .example('$0 serve disk.img --size 10GiB', 'Make a sparse file, and serve it to this machine')
    .example('$0 serve /srv/images --read-only', 'Every image of a folder, each under its file name')
    .example("$0 serve disk.img --listen 'nbd+unix:///?socket=/run/disk.sock'", 'On a unix socket')
    .example('$0 serve disk.img --listen nbd://0.0.0.0:10809', 'To everybody who can reach this machine')
    .epilogue(
      'The first file is also the default export. Prints "ready URI..." once it accepts connections. SIGTERM and SIGINT ' +
        'answer what is in flight, flush, and end it; a second one ends it at once. VOLARY_LOG_LEVEL (debug, info, warn, ' +
        'error, silent; default info) says how much goes to stderr.',
    );
}

type Described = ReturnType<ReturnType<typeof describeServe>['parseSync']>;

/** The values of the command line, as the domain's own. */
function parseServe(given: Described): ServeOptions {
  const behindDashes = given._.slice(1).map(String); // `serve -- -odd-name`
  const paths = [...(given.path ?? []), ...behindDashes];
  const uris = given.listen ?? [DEFAULT_LISTEN_URI];
  if (paths.length === 0) throw new UsageError('bad-argument', 'name at least one file or folder to serve');
  return {
    paths,
    sizeBytes: parseSingle('size', given.size, parseSize),
    name: parseSingle('name', given.name, parseExportName),
    readOnly: given['read-only'],
    listen: uris.map(parseListenUri),
    busyPollUs: parseSingle('busy-poll', given['busy-poll'], parseBusyPoll),
  };
}
