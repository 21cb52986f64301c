/** Whom a command asks: `--directory`, then VOLARY_DIRECTORY, then this machine. */

import type { Argv } from 'yargs';
import { DirectoryClient } from '../control-protocol/directory-client.ts';
import { UsageError } from '../model/errors.ts';
import { parseSingle } from './values.ts';

const DEFAULT_DIRECTORY_URL = 'http://127.0.0.1:9800';

/** Without an answer, this is what to look at. */
const ADVICE = 'is the cluster running? Start it with "volary up", or say where it is with --directory';

export function withDirectory<T>(yargs: Argv<T>) {
  return yargs.option('directory', {
    describe: 'URL of the directory (otherwise VOLARY_DIRECTORY)',
    type: 'string',
    requiresArg: true,
    defaultDescription: DEFAULT_DIRECTORY_URL,
  });
}

/** @throws UsageError */
export function parseDirectory(given: { readonly directory?: string | undefined }): DirectoryClient {
  return new DirectoryClient(directoryUrl(given.directory), { advice: ADVICE });
}

/** @throws UsageError */
export function directoryUrl(given: string | readonly string[] | undefined): string {
  return (
    parseSingle('directory', given, (text) => parseUrl('--directory', text)) ??
    parseUrl('VOLARY_DIRECTORY', process.env.VOLARY_DIRECTORY || DEFAULT_DIRECTORY_URL)
  );
}

function parseUrl(what: string, text: string): string {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol !== 'http:' || url.href !== `${url.origin}/`) {
    throw new UsageError('bad-uri', `${what} is "${text}": give a URL such as ${DEFAULT_DIRECTORY_URL}`);
  }
  return url.origin;
}
