/**
 * `volary completion`: a script for the shell, which then asks this program what could come next. Verbs and options are known
 * here; names of volumes and storage systems are asked for at the directory, shortly, and not at all loudly.
 */

import type * as Yargs from 'yargs';
import type { Argv } from 'yargs';
import { DirectoryClient } from '../control-protocol/directory-client.ts';
import { ControlError, UsageError } from '../model/errors.ts';
import { directoryUrl } from './directory-option.ts';
import { type Completes, type Verb, verbPath } from './verb.ts';

/** A person is waiting with a finger on the Tab key. */
const TIMEOUT_MS = 500;

export function complete(parser: Argv, verbs: readonly Verb[]): void {
  const summary = 'Print a script that completes commands for your shell (bash or zsh)';
  // The last of the words is the one that is being typed, and may be empty.
  const offer: Yargs.FallbackCompletionFunction = (current, given: Typed, usual, done) => {
    usual((error, offered) => {
      if (error !== null) throw error;
      const words = given._.map(String).slice(1);
      namesFor(current, words, verbs, given.directory).then((names) => done([...names, ...(offered ?? [])]));
    });
  };
  parser.completion('completion', summary, offer);
}

interface Typed {
  readonly _: readonly (string | number)[];
  readonly directory?: string;
}

async function namesFor(
  current: string,
  words: readonly string[],
  verbs: readonly Verb[],
  url: string | undefined,
): Promise<string[]> {
  const path = verbPath(verbs, words);
  const what = path.at(-1)?.completes;
  // The word that is being typed must be the one behind the verb.
  if (what === undefined || current.startsWith('-') || words.length > path.length + 1) return [];
  try {
    const directory = new DirectoryClient(directoryUrl(url), { timeoutMs: TIMEOUT_MS });
    return (await listed(directory, what)).filter((name) => name.startsWith(current));
  } catch (error) {
    if (error instanceof ControlError || error instanceof UsageError) return [];
    throw error;
  }
}

async function listed(directory: DirectoryClient, what: Completes): Promise<string[]> {
  const records = what === 'volume' ? await directory.volumes() : await directory.storageSystems();
  return records.map(({ name }) => name);
}
