/**
 * What the script of `volary completion` asks this program for: verbs and options are yargs' business; names of volumes, storage
 * systems, sites and so on are asked for at the directory, shortly, and in silence when it is away.
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
  const current = rest.at(-1) ?? '';
  const what = meantBy(path, rest);
  if (what === undefined || current.startsWith('-')) return [];
  try {
    const directory = new DirectoryClient(directoryUrl(url), { timeoutMs: TIMEOUT_MS });
    return (await listed(directory, what)).filter((name) => name.startsWith(current));
  } catch (error) {
    if (error instanceof VolaryError) return [];
    throw error;
  }
}

/** What the last word is to name: an option's value, or the verb's argument of that place. */
function meantBy(path: readonly Verb[], words: readonly string[]): Completes | undefined {
  const verb = path.at(-1);
  if (verb === undefined) return undefined;
  const before = words.slice(0, -1);
  const ofOption = (word: string | undefined): Completes | undefined => {
    const option = word?.startsWith('--') ? word.slice(2) : '';
    return Object.hasOwn(verb.completesOptions, option) ? verb.completesOptions[option] : undefined;
  };
  const option = ofOption(before.at(-1));
  if (option !== undefined) return option;
  const isPlace = (word: string, at: number): boolean =>
    !word.startsWith('-') && ofOption(before[at - 1]) === undefined;
  return verb.completes[before.filter(isPlace).length - path.length];
}

function withoutDirectory(words: readonly string[]): { url: string | undefined; rest: string[] } {
  const rest = [...words];
  const at = rest.findIndex((word) => /^--directory(=|$)/.test(word));
  if (at < 0) return { url: undefined, rest };
  const [option = '', value] = rest.splice(at, rest[at]?.includes('=') ? 1 : 2);
  return { url: option.includes('=') ? option.replace('--directory=', '') : value, rest };
}

async function listed(directory: DirectoryClient, what: Completes): Promise<string[]> {
  switch (what) {
    case 'volume':
      return namesOf(await directory.volumes());
    case 'storage':
      return namesOf(await directory.storageSystems());
    case 'interface':
      return namesOf(await directory.interfaces());
    case 'group':
      return namesOf(await directory.groups());
    default:
      return [...new Set((await directory.storageSystems()).map(({ site }) => site))];
  }
}

function namesOf(records: readonly { readonly name: string }[]): string[] {
  return records.map(({ name }) => name);
}
