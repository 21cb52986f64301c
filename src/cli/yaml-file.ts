/** YAML files that a person wrote: read whole, within a limit, and told by name and key when something is wrong. */

import { readFileSync, statSync } from 'node:fs';
import { parse, YAMLError } from 'yaml';
import { UsageError } from '../model/errors.ts';

const FILE_BYTES_MAX = 1024 * 1024;

/** The mapping that the file has at its top; an empty file is an empty one. @throws UsageError */
export function readYamlFile(path: string): Record<string, unknown> {
  let document: unknown;
  try {
    document = parse(readText(path));
  } catch (error) {
    if (!(error instanceof YAMLError)) throw error;
    throw new UsageError('bad-argument', `${path} is no YAML: ${error.message.trim()}`, { cause: error });
  }
  if (document === null || document === undefined) return {};
  if (typeof document !== 'object' || Array.isArray(document)) {
    throw new UsageError('bad-argument', `${path} has no "key: value" lines at its top`);
  }
  return { ...document };
}

function readText(path: string): string {
  try {
    if (statSync(path).size > FILE_BYTES_MAX) {
      throw new UsageError(
        'bad-argument',
        `${path} has more than ${FILE_BYTES_MAX} bytes: is it the right file?`,
      );
    }
    return readFileSync(path, 'utf8');
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new UsageError('not-found', `there is no file ${path}`, { cause: error });
    throw new UsageError('io', `${path} cannot be read: ${message}`, { cause: error });
  }
}
