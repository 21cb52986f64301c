/** The project's own text files, as the rules see them: path from the root (with /) -> text. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectRoot } from '../support/tools.ts';

export type Tree = ReadonlyMap<string, string>;

const NOT_OURS = new Set([
  '.git',
  'node_modules',
  'dist',
  'coverage',
  'volary-data',
  'package-lock.json',
  'LICENSE',
]);

export function readTree(): Tree {
  const tree = new Map<string, string>();
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(projectRoot, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (NOT_OURS.has(entry.name) || entry.name.endsWith('.log')) continue;
      if (entry.isDirectory()) visit(path);
      else if (entry.isFile()) {
        const bytes = readFileSync(join(projectRoot, path));
        if (!bytes.includes(0)) tree.set(path, bytes.toString());
      }
    }
  };
  visit('');
  return tree;
}

export interface Import {
  readonly from: string;
  /** As written: a package, `node:…`, or a relative path. */
  readonly what: string;
  /** For a relative path: which file, from the root. */
  readonly file: string | undefined;
}

const IMPORT =
  /(?:^|\s|\()(?:import|export)\b[^'";]*?\bfrom\s*['"]([^'"]+)['"]|\bimport\s*\(?\s*['"]([^'"]+)['"]/g;

/** Static and dynamic imports and re-exports of the TypeScript files under `prefix`. */
export function importsOf(tree: Tree, prefix: string): Import[] {
  const imports: Import[] = [];
  for (const [from, text] of tree) {
    if (!from.startsWith(prefix) || !from.endsWith('.ts')) continue;
    for (const match of text.matchAll(IMPORT)) {
      const what = match[1] ?? match[2] ?? '';
      imports.push({ from, what, file: what.startsWith('.') ? join(from, '..', what) : undefined });
    }
  }
  return imports;
}
