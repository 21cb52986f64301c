import { writeFileSync } from 'node:fs';
import { expect, onTestFinished, test } from 'vitest';
import { openSparseFile } from '../../../src/storage/open-sparse-file.ts';
import { rereadFromDisk } from '../../../src/storage/raw-file.ts';
import { diskFolder } from '../../support/disk.ts';

test('N3: what is read after a failure is what the disk has, not what memory still holds', async () => {
  const folder = diskFolder();
  onTestFinished(() => folder.remove());
  const path = `${folder.path}/raw`;
  writeFileSync(path, Buffer.alloc(1024 * 1024, 7));
  const volume = await openSparseFile(path);
  const target = Buffer.alloc(4096);
  expect(volume.readNow(8192, target, 0, 4096)).toBe(true);
  await rereadFromDisk(path);
  expect(volume.readNow(8192, target, 0, 4096)).toBe(false);
  await volume.read(8192, target, 0, 4096);
  expect(target).toEqual(Buffer.alloc(4096, 7));
  await volume.close();
  await expect(rereadFromDisk(`${folder.path}/none`)).rejects.toMatchObject({ code: 'io' });
});
