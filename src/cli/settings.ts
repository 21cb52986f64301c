/**
 * The settings of a role, from four places. Invariants:
 *  1. A flag goes before a VOLARY_* variable, that before the file, that before the default.
 *  2. Each place is checked as a whole, what another place overrides too; the message names place and key.
 */

import type { z } from 'zod';
import { variableOf } from '../control-protocol/settings.ts';
import { UsageError, type UsageErrorCode } from '../model/errors.ts';
import { readYamlFile } from './yaml-file.ts';

type Schema = z.ZodObject<z.ZodRawShape>;
type Settings<S extends Schema> = z.output<S>;

export interface SettingSources<S extends Schema> {
  /** As yargs gives them: undefined when not given, an array when given more than once. */
  readonly flags: Readonly<Record<string, unknown>>;
  readonly environment: NodeJS.ProcessEnv;
  /** Path of the YAML file. */
  readonly file: string | undefined;
  /** May look at what the other places say, for example the name. */
  readonly defaults: (given: Partial<Settings<S>>) => Partial<Settings<S>>;
}

/** @throws UsageError */
export function readSettings<S extends Schema>(schema: S, sources: SettingSources<S>): Settings<S> {
  const keys = Object.keys(schema.shape);
  const { file } = sources;
  const inFile = file === undefined ? {} : checked(schema, readYamlFile(file), (key) => `${file}: ${key}`);
  const inEnvironment = checked(
    schema,
    // Compose files set to nothing what is not given.
    pick(keys, (key) => sources.environment[variableOf(key)] || undefined),
    variableOf,
  );
  const inFlags = checked(
    schema,
    pick(keys, (key) => sources.flags[key]),
    (key) => `--${key}`,
  );
  const given = { ...inFile, ...inEnvironment, ...inFlags };
  const settings = { ...sources.defaults(given), ...given };
  const missing = keys.find((key) => !Object.hasOwn(settings, key) && !isOptional(schema, key));
  if (missing !== undefined) {
    throw new UsageError(
      'bad-argument',
      `${missing} is missing: give --${missing}, ${variableOf(missing)}, or ${missing} in the file of --config`,
    );
  }
  return settings as Settings<S>;
}

/** A UsageError that says where, for what zod has found first. */
export function refusal(error: z.ZodError, where: (key: string) => string): UsageError {
  const issue = error.issues[0];
  if (issue === undefined) return new UsageError('bad-argument', error.message, { cause: error });
  const told = issue.code === 'custom' ? (issue.params?.code as UsageErrorCode | undefined) : undefined;
  const unknown = issue.code === 'unrecognized_keys' ? issue.keys : [];
  const keys = issue.path.filter((part) => typeof part === 'string'); // a place in a list is told by the value
  const path = [...keys, ...unknown.slice(0, 1)].join('.');
  const text = unknown.length > 0 ? 'there is no such setting' : sentenceOf(issue);
  return new UsageError(told ?? 'bad-argument', `${where(path)}: ${text}`, { cause: error });
}

/** Behind "Invalid key in record" is what is wrong with the key. */
function sentenceOf(issue: z.core.$ZodIssue): string {
  return issue.code === 'invalid_key' ? (issue.issues[0]?.message ?? issue.message) : issue.message;
}

function checked<S extends Schema>(
  schema: S,
  given: Record<string, unknown>,
  where: (key: string) => string,
): Partial<Settings<S>> {
  const result = schema.partial().safeParse(given);
  if (!result.success) throw refusal(result.error, where);
  return result.data as Partial<Settings<S>>;
}

function pick(keys: readonly string[], lookUp: (key: string) => unknown): Record<string, unknown> {
  return Object.fromEntries(
    keys.flatMap((key) => {
      const value = lookUp(key);
      return value === undefined ? [] : [[key, value]];
    }),
  );
}

function isOptional(schema: Schema, key: string): boolean {
  return (schema.shape[key] as z.ZodType).safeParse(undefined).success;
}
