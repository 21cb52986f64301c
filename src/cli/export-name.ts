/** Names of exports: what the protocol allows, less what no client could ask for. */

import { UsageError } from '../model/errors.ts';

const NAME_BYTES_MAX = 4096;

/** `name` itself, when it can be the name of an export: 1 to 4,096 bytes of UTF-8 without a zero byte. */
export function parseExportName(name: string): string {
  if (name === '') {
    throw new UsageError(
      'bad-name',
      'an export name has at least one character: the first file is the default export anyway',
    );
  }
  if (name.includes('\0')) throw new UsageError('bad-name', 'an export name has no zero byte in it');
  // What is not UTF-8 comes to us with replacement characters, and leads back to no file.
  if (name.includes('\uFFFD') || !name.isWellFormed()) {
    throw new UsageError(
      'bad-name',
      `the name "${name}" is not valid UTF-8: rename the file, or give --name`,
    );
  }
  const bytes = Buffer.byteLength(name);
  if (bytes > NAME_BYTES_MAX) {
    throw new UsageError(
      'bad-name',
      `an export name has at most ${NAME_BYTES_MAX} bytes, this one has ${bytes}`,
    );
  }
  return name;
}
