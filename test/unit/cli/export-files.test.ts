import { execFileSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { findExportFiles } from '../../../src/cli/export-files.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

let folder: TemporaryFolder;
beforeAll(async () => {
  folder = await temporaryFolder();
  mkdirSync(folder.file('images/sub'), { recursive: true });
  for (const name of ['b.img', 'a.img', '.hidden', 'sub/deep.img'])
    writeFileSync(folder.file(`images/${name}`), '');
  symlinkSync('a.img', folder.file('images/link.img'));
  execFileSync('mkfifo', [folder.file('images/fifo')]);
  mkdirSync(folder.file('empty'));
  writeFileSync(folder.file('a.img'), '');
});
afterAll(() => folder.remove());

test('a file is exported under its own name, whether it is there or not', () => {
  expect(findExportFiles(['/nowhere/disk.img', folder.file('a.img')])).toEqual([
    { name: 'disk.img', path: '/nowhere/disk.img' },
    { name: 'a.img', path: folder.file('a.img') },
  ]);
});

test('a folder stands for its regular files by name: nothing hidden, no links, no devices, nothing deeper', () => {
  expect(findExportFiles([folder.file('images')])).toEqual([
    { name: 'a.img', path: folder.file('images/a.img') },
    { name: 'b.img', path: folder.file('images/b.img') },
  ]);
});

test('--name names the one file', () => {
  expect(findExportFiles([folder.file('a.img')], 'other')).toEqual([
    { name: 'other', path: folder.file('a.img') },
  ]);
});

test.each([
  ['--name with two files', () => findExportFiles(['x', 'y'], 'n'), 'bad-argument'],
  ['--name with a folder of two files', () => findExportFiles([folder.file('images')], 'n'), 'bad-argument'],
  ['two files of one name', () => findExportFiles(['x/disk', 'y/disk']), 'duplicate-name'],
  ['one file twice', () => findExportFiles(['x/disk', 'x/disk']), 'duplicate-name'],
  [
    'a file that is also in the folder',
    () => findExportFiles([folder.file('a.img'), folder.file('images')]),
    'duplicate-name',
  ],
  ['an empty folder', () => findExportFiles([folder.file('empty')]), 'not-found'],
])('%s is refused', (_, find, code) => {
  expect(find).toThrow(expect.objectContaining({ code }));
});
