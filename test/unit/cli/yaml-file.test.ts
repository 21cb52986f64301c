/** readYamlFile: what is no file of settings is refused, and never read to an end that it does not have. */

import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { readYamlFile } from '../../../src/cli/yaml-file.ts';
import { diskFolder } from '../../support/disk.ts';

function fileWith(text: string): string {
  const folder = diskFolder();
  onTestFinished(() => folder.remove());
  const path = join(folder.path, 'settings.yaml');
  writeFileSync(path, text);
  return path;
}

test('a mapping is read, and an empty file is an empty one', () => {
  expect(readYamlFile(fileWith('site: düne\nworkers: 2\n'))).toEqual({ site: 'düne', workers: 2 });
  expect(readYamlFile(fileWith(''))).toEqual({});
});

test('a file of 1 MiB is read, one byte more is too much, and so is a device without an end', () => {
  const path = fileWith(`site: east\n#${'x'.repeat(1024 * 1024 - 12)}`);
  expect(readYamlFile(path)).toEqual({ site: 'east' });
  truncateSync(path, 1024 * 1024 + 1);
  for (const tooLong of [path, '/dev/zero']) {
    expect(() => readYamlFile(tooLong)).toThrow(`${tooLong} has more than 1048576 bytes`);
  }
});

test('a missing file, and a folder', () => {
  expect(() => readYamlFile('/nowhere.yaml')).toThrow('there is no file /nowhere.yaml');
  expect(() => readYamlFile('/')).toThrow('/ cannot be read');
});
