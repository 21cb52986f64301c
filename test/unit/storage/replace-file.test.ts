/** A file that is replaced is always whole: the old one or the new one. */

import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { StoreError } from '../../../src/model/errors.ts';
import { readWholeFile, replaceFile } from '../../../src/storage/replace-file.ts';
import { diskFolder, type Folder, mountTmpfs } from '../../support/disk.ts';
import { refusalOf } from '../../support/refusal.ts';

let folder: Folder;
let path: string;
beforeEach(() => {
  folder = diskFolder();
  path = join(folder.path, 'paths.json');
});
afterEach(() => folder.remove());

test('what was written is read, and nothing is left beside it', async () => {
  expect(await readWholeFile(path, 100)).toBe(undefined);
  for (const text of ['first', 'a longer second', '']) {
    await replaceFile(path, Buffer.from(text));
    expect((await readWholeFile(path, 15))?.toString()).toBe(text);
  }
  expect(readdirSync(folder.path)).toEqual(['paths.json']);
});

test('what a crash has left half-written is neither read nor in the way', async () => {
  await replaceFile(path, Buffer.from('old'));
  writeFileSync(`${path}.new`, 'half of something lon');
  expect((await readWholeFile(path, 100))?.toString()).toBe('old');
  await replaceFile(path, Buffer.from('new'));
  expect((await readWholeFile(path, 100))?.toString()).toBe('new');
});

test('more than the most, and what is no file, is refused unread', async () => {
  writeFileSync(path, 'x'.repeat(101));
  expect(await refusalOf(() => readWholeFile(path, 100), path)).toBe('corrupt-metadata');
  expect(await refusalOf(() => readWholeFile(folder.path, 100), folder.path)).toBe('not-a-file');
});

test('nothing is written through a link that somebody has put there', async () => {
  const elsewhere = join(folder.path, 'elsewhere');
  writeFileSync(elsewhere, 'precious');
  symlinkSync(elsewhere, `${path}.new`);
  expect(await refusalOf(() => replaceFile(path, Buffer.from('x')), path)).toBe('io');
  expect(readFileSync(elsewhere, 'utf8')).toBe('precious');
});

test('two replacements of one file at a time are our own mistake', async () => {
  const first = replaceFile(path, Buffer.from('first'));
  await expect(replaceFile(path, Buffer.from('second'))).rejects.toThrow('assertion failed');
  await first;
  expect(readFileSync(path, 'utf8')).toBe('first');
});

test('S5: a full disk leaves the old bytes, takes no space for the new ones, and is no longer than it lasts', async () => {
  const mount = await mountTmpfs('size=64k');
  try {
    const file = join(mount.path, 'paths.json');
    const old = Buffer.alloc(20_000, 'o');
    await replaceFile(file, old);
    const failed = replaceFile(file, Buffer.alloc(60_000, 'n'));
    await expect(failed).rejects.toBeInstanceOf(StoreError);
    await expect(failed).rejects.toMatchObject({ code: 'no-space' });
    expect(readdirSync(mount.path)).toEqual(['paths.json']);
    expect((await readWholeFile(file, 100_000))?.equals(old)).toBe(true);
    await replaceFile(file, Buffer.from('small'));
    expect((await readWholeFile(file, 100_000))?.toString()).toBe('small');
  } finally {
    await mount.remove();
  }
});

test('a folder that is gone is an error of the store', async () => {
  mkdirSync(join(folder.path, 'a'));
  const missing = join(folder.path, 'b', 'paths.json');
  expect(await refusalOf(() => replaceFile(missing, Buffer.from('x')), missing)).toBe('io');
});
