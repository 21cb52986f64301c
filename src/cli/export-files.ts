/**
 * From the paths of a command line to what is exported: which file under which name. Looks, opens nothing: what
 * is wrong with a file itself is told when it is opened.
 */

import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { UsageError } from '../model/errors.ts';
import { parseExportName } from './export-name.ts';

export interface ExportFile {
  readonly name: string;
  readonly path: string;
}

/**
 * A file stands for itself; a folder for every regular file directly in it, by name, less hidden ones (`.name`) and
 * symbolic links (what is put into a folder must not decide about files elsewhere).
 */
export function findExportFiles(paths: readonly string[], name?: string): ExportFile[] {
  const found = paths.flatMap((path) => (isFolder(path) ? filesIn(path) : [path]));
  if (name !== undefined && found.length !== 1) {
    throw new UsageError(
      'bad-argument',
      `--name is for one file, and there are ${found.length}: leave it out`,
    );
  }
  const files = found.map((path) => ({ path, name: parseExportName(name ?? basename(path)) }));
  const seen = new Map<string, string>();
  for (const file of files) {
    const other = seen.get(file.name);
    if (other !== undefined) throw duplicate(file.name, other, file.path);
    seen.set(file.name, file.path);
  }
  return files;
}

function isFolder(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() ?? false;
  } catch {
    return false; // opening it as a file will say what is wrong
  }
}

function filesIn(folder: string): string[] {
  let entries: string[];
  try {
    entries = readdirSync(folder, { withFileTypes: true })
      .filter((entry) => entry.isFile() && !entry.name.startsWith('.'))
      .map((entry) => entry.name);
  } catch (error) {
    throw new UsageError(
      'permission-denied',
      `the folder ${folder} cannot be read: change its mode, or its owner`,
      {
        cause: error,
      },
    );
  }
  if (entries.length === 0) {
    throw new UsageError(
      'not-found',
      `the folder ${folder} has no regular file to export (hidden ones are left out)`,
    );
  }
  return entries.sort().map((entry) => join(folder, entry));
}

function duplicate(name: string, one: string, other: string): UsageError {
  const text =
    one === other
      ? `${one} is given twice: give it once`
      : `${one} and ${other} would both be exported as "${name}": rename one, or serve it by a server of its own`;
  return new UsageError('duplicate-name', text);
}
