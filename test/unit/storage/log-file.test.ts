import { existsSync, readFileSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { LogFile } from '../../../src/storage/log-file.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

let folder: TemporaryFolder;
let path: string;
beforeEach(async () => {
  folder = await temporaryFolder();
  path = folder.file('log');
});
afterEach(() => folder.remove());

test('goes on behind what is there', () => {
  for (const line of ['one', 'two']) {
    const log = new LogFile(path, 1000);
    log.append(line);
    log.close();
  }
  expect(readFileSync(path, 'utf8')).toBe('one\ntwo\n');
});

test('never has more than two files of the size', () => {
  const log = new LogFile(path, 100);
  for (let number = 0; number < 100; number++) log.append(`line ${number}`);
  log.close();
  const [old, now] = [`${path}.old`, path].map((file) => readFileSync(file, 'utf8'));
  expect(old?.length).toBeLessThan(110);
  expect(now?.length).toBeLessThan(110);
  expect(`${old}${now}`).toMatch(/line 98\nline 99\n$/);
});

test('closed, it takes no more, and says nothing', () => {
  const log = new LogFile(path, 100);
  log.close();
  log.append('late');
  log.close();
  expect(readFileSync(path, 'utf8')).toBe('');
  expect(existsSync(`${path}.old`)).toBe(false);
});

test('a full disk loses lines, and keeps nobody from anything', () => {
  const log = new LogFile('/dev/full', 100);
  expect(() => log.append('lost')).not.toThrow();
  log.close();
});

test('a folder that is not there is told', () => {
  expect(() => new LogFile(folder.file('none/log'), 100)).toThrow(
    expect.objectContaining({ code: 'not-found' }),
  );
});
