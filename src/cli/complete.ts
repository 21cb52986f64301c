/**
 * What the script of `volary completion` asks this program for: verbs and options are yargs' business; names of volumes and
 * storage systems are asked for at the directory, shortly, and in silence when it is away.
 */

import { DirectoryClient } from '../control-protocol/directory-client.ts';
import { VolaryError } from '../model/errors.ts';
import { directoryUrl } from './directory-option.ts';
import { type Completes, type Verb, verbPath } from './verb.ts';

/** A person is waiting with a finger on the Tab key. */
const TIMEOUT_MS = 500;

/** Names that the last of the words so far, which is being typed, may become; none when no name is due there. */
export async function completeNames(verbs: readonly Verb[], words: readonly string[]): Promise<string[]> {
  const { url, rest } = withoutDirectory(words);
  const path = verbPath(verbs, rest);
  const what = path.at(-1)?.completes;
  const current = rest.at(-1) ?? '';
  const places = rest.filter((word) => !word.startsWith('-')).length;
  if (what === undefined || current.startsWith('-') || places !== path.length + 1) return [];
  try {
    const directory = new DirectoryClient(directoryUrl(url), { timeoutMs: TIMEOUT_MS });
    return (await listed(directory, what)).filter((name) => name.startsWith(current));
  } catch (error) {
    if (error instanceof VolaryError) return [];
    throw error;
  }
}

function withoutDirectory(words: readonly string[]): { url: string | undefined; rest: string[] } {
  const rest = [...words];
  const at = rest.findIndex((word) => /^--directory(=|$)/.test(word));
  if (at < 0) return { url: undefined, rest };
  const [option = '', value] = rest.splice(at, rest[at]?.includes('=') ? 1 : 2);
  return { url: option.includes('=') ? option.replace('--directory=', '') : value, rest };
}

async function listed(directory: DirectoryClient, what: Completes): Promise<string[]> {
  const records = what === 'volume' ? await directory.volumes() : await directory.storageSystems();
  return records.map(({ name }) => name);
}
