/**
 * What the command line is made of: verbs (`attach VOLUME`), and families of them (`volume create NAME`).
 *
 * A verb's `parse` turns the words into values, and throws a UsageError (exit 2) before anything is asked or changed;
 * the action that it returns does the work, and whatever goes wrong there is a failure (exit 1). What only the action
 * needs, and is large (servers, system calls), it imports itself: every command starts as fast as it can.
 */

import type { ArgumentsCamelCase, Argv } from 'yargs';
import type { Output } from './output.ts';

export type Action = (output: Output) => Promise<void>;

/** Names that the shell can complete, and that only the directory knows. */
export type Completes = 'volume' | 'storage' | 'site' | 'interface' | 'group';

export interface Verb {
  readonly name: string;
  /** Of a family. */
  readonly verbs: readonly Verb[];
  /** Options that are either there or not, less those of every verb. */
  readonly flags: readonly string[];
  /** What its arguments name, as many as can be told. */
  readonly completes: readonly Completes[];
  /** What its options name. */
  readonly completesOptions: Readonly<Record<string, Completes>>;
  readonly register: (yargs: Argv, chosen: (action: Action) => void) => Argv;
}

export interface VerbOptions<T> {
  /** As yargs takes it: `create <name>`. */
  readonly command: string;
  readonly summary: string;
  readonly flags?: readonly string[];
  readonly completes?: readonly Completes[];
  readonly completesOptions?: Readonly<Record<string, Completes>>;
  readonly describe: (yargs: Argv) => Argv<T>;
  /** @throws UsageError */
  readonly parse: (given: ArgumentsCamelCase<T>) => Action;
}

export function verb<T>(options: VerbOptions<T>): Verb {
  const { command, summary, flags = [], completes = [], completesOptions = {}, describe, parse } = options;
  return {
    name: command.split(' ', 1).join(),
    verbs: [],
    flags,
    completes,
    completesOptions,
    register: (yargs, chosen) =>
      yargs.command(command, summary, describe, (given) => chosen(parse(given))) as Argv,
  };
}

/** Verbs behind a common word. `summary` says what they are about. */
export function family(name: string, summary: string, verbs: readonly Verb[]): Verb {
  const names = verbs.map((member) => member.name).join(', ');
  return {
    name,
    verbs,
    flags: [],
    completes: [],
    completesOptions: {},
    register: (yargs, chosen) =>
      yargs.command(name, `${summary}: ${names}`, (inner) => {
        for (const member of verbs) member.register(inner, chosen);
        return inner.usage(`$0 ${name} COMMAND\n\n${summary}.`).demandCommand(1, `say what to do: ${names}`);
      }),
  };
}

/** The verb that the words name, with the family before it; as much as can be told. */
export function verbPath(verbs: readonly Verb[], words: readonly string[]): Verb[] {
  const [word, ...rest] = words.filter((candidate) => !candidate.startsWith('-'));
  const found = verbs.find(({ name }) => name === word);
  return found === undefined ? [] : [found, ...verbPath(found.verbs, rest)];
}
