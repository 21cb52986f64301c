/** YAML files that a person wrote: read whole, within a limit, and told by name and key when something is wrong. */

import { closeSync, openSync, readSync } from 'node:fs';
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
    const fd = openSync(path, 'r');
    try {
      return readWithin(fd, path);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new UsageError('not-found', `there is no file ${path}`, { cause: error });
    throw new UsageError('io', `${path} cannot be read: ${message}`, { cause: error });
  }
}

/** What the file says of its size is not asked: that of a pipe is 0, and that of a device, which has no end. */
function readWithin(fd: number, path: string): string {
  const bytes = Buffer.alloc(FILE_BYTES_MAX + 1);
  let length = 0;
  for (;;) {
    const count = readSync(fd, bytes, length, bytes.length - length, null);
    length += count;
    if (length > FILE_BYTES_MAX) {
      const text = `${path} has more than ${FILE_BYTES_MAX} bytes: is it the right file?`;
      throw new UsageError('bad-argument', text);
    }
    if (count === 0) return bytes.toString('utf8', 0, length);
  }
}
