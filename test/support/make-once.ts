/** Folders that take long to make and are kept in node_modules/.cache from one test run to the next. */

import { existsSync } from 'node:fs';
import { mkdtemp, readdir, rename, rm, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

const outdatedAfterMs = 24 * 3600 * 1000;

/**
 * Fills a new folder and gives it its name when all is there; who comes second throws its own work away. What was
 * made from other versions, or was left half-made, goes when it is old enough to have no user.
 */
export async function makeOnce(kept: string, fill: (folder: string) => Promise<void>): Promise<void> {
  if (existsSync(kept)) return;
  const kind = basename(kept).split('-')[0]!;
  for (const name of await readdir(dirname(kept))) {
    if (!name.startsWith(kind)) continue;
    const old = join(dirname(kept), name);
    // Another run may have been here first.
    const { mtimeMs } = await stat(old).catch(() => ({ mtimeMs: Date.now() }));
    if (Date.now() - mtimeMs > outdatedAfterMs) await rm(old, { recursive: true, force: true });
  }
  const folder = await mkdtemp(`${kept}.part-`);
  try {
    await fill(folder);
    await rename(folder, kept).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOTEMPTY' && error.code !== 'EEXIST') throw error;
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
