import { closeSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { FileExtents } from '../../../src/storage/file-extents.ts';
import { memoryFolder } from '../../support/disk.ts';

test('an answer that is older than a forget is given, but not remembered', async () => {
  const folder = memoryFolder();
  const path = join(folder.path, 'file');
  writeFileSync(path, Buffer.alloc(4 * 1024 * 1024, 1));
  const fd = openSync(path, 'r');
  onTestFinished(async () => {
    closeSync(fd);
    await folder.remove();
  });
  const extents = new FileExtents(fd, () => false);
  for (const length of [4096, 4 * 1024 * 1024]) {
    const asked = extents.find(0, length, 9);
    extents.forget(0, 4096); // the seek is on its way
    expect(await asked).toEqual([{ length, hole: false, zero: false }]);
    expect(extents.mayHaveHoles(0, 4096)).toBe(true);
  }
  await extents.find(0, 4096, 9);
  expect(extents.mayHaveHoles(0, 4096)).toBe(false);
});
