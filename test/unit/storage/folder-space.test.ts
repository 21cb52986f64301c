import { existsSync, mkdirSync, statSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { folderSpace, listFiles, prepareFolder, removeFile } from '../../../src/storage/folder-space.ts';
import { diskFolder, type Folder, mountTmpfs } from '../../support/disk.ts';
import { refusalOf } from '../../support/refusal.ts';

let folder: Folder;
beforeEach(() => {
  folder = diskFolder();
});
afterEach(() => folder.remove());

test('the space of a file system, and what is free of it', async () => {
  const mount = await mountTmpfs('size=1m');
  try {
    expect(folderSpace(mount.path)).toEqual({ totalBytes: 1024 * 1024, freeBytes: 1024 * 1024 });
    writeFileSync(join(mount.path, 'half'), Buffer.alloc(512 * 1024));
    expect(folderSpace(mount.path)).toEqual({ totalBytes: 1024 * 1024, freeBytes: 512 * 1024 });
  } finally {
    await mount.remove();
  }
  const gone = join(folder.path, 'gone');
  expect(await refusalOf(() => folderSpace(gone), gone)).toBe('io');
});

test('folders are made as deep as needed, for this user alone; one that is there stays as it is', async () => {
  const deep = join(folder.path, 'a', 'b', 'c');
  await prepareFolder(deep);
  expect(statSync(deep).mode & 0o777).toBe(0o700);
  expect(statSync(join(folder.path, 'a')).mode & 0o777).toBe(0o700);
  writeFileSync(join(deep, 'file'), '');
  await prepareFolder(deep);
  expect(await listFiles(deep)).toEqual(['file']);
});

test('files are listed, sorted, without what is no regular file', async () => {
  for (const name of ['b.raw', 'a.raw', 'C.raw']) writeFileSync(join(folder.path, name), '');
  mkdirSync(join(folder.path, 'folder'));
  symlinkSync(join(folder.path, 'a.raw'), join(folder.path, 'link'));
  expect(await listFiles(folder.path)).toEqual(['C.raw', 'a.raw', 'b.raw']);
  const gone = join(folder.path, 'gone');
  expect(await refusalOf(() => listFiles(gone), gone)).toBe('io');
});

test('a file is removed once or again, a folder never', async () => {
  const file = join(folder.path, 'a.raw');
  writeFileSync(file, 'x');
  await removeFile(file);
  expect(existsSync(file)).toBe(false);
  await removeFile(file);
  expect(await refusalOf(() => removeFile(folder.path), folder.path)).toBe('io');
});
