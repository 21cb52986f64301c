import { rmSync, writeFileSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { openSparseFile } from '../../src/storage/open-sparse-file.ts';
import type { Subject } from './volume-contract.ts';

/** A SparseFile with these contents in a new folder in `parent`. */
export async function sparseFile(parent: string, contents: Buffer, readOnly: boolean): Promise<Subject> {
  const folder = await mkdtemp(join(parent, 'volary-contract-'));
  const path = join(folder, 'volume.img');
  writeFileSync(path, contents);
  const volume = await openSparseFile(path, { readOnly });
  return {
    volume,
    dispose: async () => {
      await volume.close();
      rmSync(folder, { recursive: true });
    },
  };
}
