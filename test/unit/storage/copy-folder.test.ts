import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { EXTENT_BYTES } from '../../../src/model/copy-granularity.ts';
import { listCopyFolders, openCopyFolder, removeCopyFolder } from '../../../src/storage/copy-folder.ts';
import { OTHER, optionsOf, REAL_VOLUME } from '../../support/copy-folder-child.ts';
import { diskFolder, type Folder } from '../../support/disk.ts';
import { projectRoot, requireTool, runOk } from '../../support/tools.ts';

let folder: Folder;
let copies: string;
beforeEach(() => {
  folder = diskFolder();
  copies = join(folder.path, 'copies');
});
afterEach(() => folder.remove());

const block = { offset: 8192, length: 4096 };

function open(isNew = false, bootId = optionsOf(false).bootId) {
  return openCopyFolder(copies, { ...optionsOf(isNew), bootId });
}

test('what is kept of a member is there after it was closed, and gone when it is made anew or removed', async () => {
  expect(await listCopyFolders(copies)).toEqual([]);
  const made = await open(true);
  expect(made).toMatchObject({ unsettled: [], hasLostCache: false, lacks: new Map() });
  await made.folder.mark([0]);
  made.folder.begin(block);
  made.folder.writeJournal();
  made.folder.setBits(OTHER, [block]);
  await made.folder.close();
  mkdirSync(join(copies, 'else'));
  expect(await listCopyFolders(copies)).toEqual([REAL_VOLUME]);
  const again = await open(false, 'f'.repeat(32));
  expect(again).toMatchObject({ unsettled: [block], hasLostCache: false });
  expect([...(again.lacks.get(OTHER)?.ranges() ?? [])]).toEqual([block]);
  await again.folder.abandon();
  const anew = await open(true);
  expect(anew).toMatchObject({ unsettled: [], hasLostCache: false, lacks: new Map() });
  await anew.folder.close();
  await removeCopyFolder(copies, REAL_VOLUME);
  await removeCopyFolder(copies, REAL_VOLUME);
  expect(readdirSync(copies)).toEqual(['else']);
});

test('a folder that is not there, of a member that is not new: everything is in doubt', async () => {
  const { folder: made, unsettled, hasLostCache } = await open(false);
  expect({ unsettled, hasLostCache }).toEqual({
    unsettled: [{ offset: 0, length: optionsOf(false).sizeBytes }],
    hasLostCache: true,
  });
  await made.settleEarlier();
  await made.abandon();
  const again = await open();
  expect(again).toMatchObject({ unsettled: [], hasLostCache: false });
  await again.folder.close();
});

test('bitmaps follow a new size together with the log', async () => {
  const { folder: made } = await open(true);
  const { sizeBytes } = optionsOf(true);
  const behind = { offset: sizeBytes + EXTENT_BYTES, length: 4096 };
  await made.resize(sizeBytes + 2 * EXTENT_BYTES);
  const extent = behind.offset / EXTENT_BYTES;
  await made.mark([extent]);
  made.begin(behind);
  made.setBits(OTHER, [behind]);
  await made.close();
  const again = await openCopyFolder(copies, {
    ...optionsOf(false),
    sizeBytes: sizeBytes + 2 * EXTENT_BYTES,
  });
  expect(again.unsettled).toEqual([behind]);
  expect([...(again.lacks.get(OTHER)?.ranges() ?? [])]).toEqual([behind]);
  await again.folder.resize(sizeBytes);
  await again.folder.close();
  const small = await open();
  expect(small.unsettled).toEqual([]);
  expect(small.lacks.get(OTHER)?.isEmpty).toBe(true);
  await small.folder.close();
});

test('a name that is no real volume never becomes a path', async () => {
  const options = { ...optionsOf(true), realVolume: '../rv-0123456789abcdef' };
  await expect(openCopyFolder(copies, options)).rejects.toThrow('is no real volume');
  await expect(removeCopyFolder(copies, '..')).rejects.toThrow('is no real volume');
  expect(existsSync(copies)).toBe(false);
});

test('something else in place of a file is refused, and nothing stays open', async () => {
  mkdirSync(join(copies, REAL_VOLUME, `activity`), { recursive: true });
  await expect(open()).rejects.toMatchObject({ code: 'not-a-file' });
  writeFileSync(join(folder.path, 'file'), '');
  await expect(openCopyFolder(join(folder.path, 'file'), optionsOf(false))).rejects.toMatchObject({
    code: 'not-found',
  });
});

// ── under strace ───────────────────────────────────────────────────────────────────────────────────────────

const FILES = ['activity', 'unsettled', `lacks-${OTHER}`];

/** What the child did with these files, one word and a place for each call that had ended, among what it told. */
async function traced(
  mode: string,
  files: readonly string[],
  options: readonly string[] = [],
): Promise<string[]> {
  const log = join(folder.path, 'strace.log');
  const paths = [join(folder.path, 'told'), ...files.map((name) => join(copies, REAL_VOLUME, name))];
  const child = [process.execPath, join(projectRoot, 'test/support/copy-folder-child.ts'), mode, folder.path];
  const looksAt = ['-e', 'trace=write,pwritev2,fdatasync', ...paths.flatMap((path) => ['-P', path])];
  await runOk(
    requireTool('strace', 'strace'),
    ['-f', '-qq', '-y', '-o', log, ...looksAt, ...options, ...child],
    {
      env: { UV_THREADPOOL_SIZE: '1' },
    },
  );
  const names = new Map<string, string>(); // of the file of a call that has not ended, by thread
  return readFileSync(log, 'latin1')
    .split('\n')
    .flatMap((line) => {
      const [thread = ''] = line.split(' ', 1);
      const name = /\d<[^>]*\/([\w-]+)>/.exec(line)?.[1] ?? names.get(thread) ?? '';
      if (line.includes('<unfinished')) {
        names.set(thread, name);
        return [];
      }
      const told = /"([^"]*)\\n"/.exec(line)?.[1];
      if (name === 'told') return told === undefined ? [] : [`-- ${told}`];
      const call = /(pwritev2|fdatasync)[( ]/.exec(line)?.[1];
      if (call === undefined) return [];
      const at = /, (\d+), 0\) += /.exec(line)?.[1];
      return [`${call === 'fdatasync' ? 'sync' : 'write'} ${name}${at === undefined ? '' : ` ${at}`}`];
    });
}

describe('what reaches the disk, and when', () => {
  test('every barrier is where the invariants have it, and no sync is where none is needed', async () => {
    const calls = await traced('once', FILES);
    const slots = 8192 + 1024 * 32;
    expect(calls.slice(calls.indexOf('-- open'))).toEqual([
      '-- open',
      'write activity 8192',
      'sync activity',
      '-- marked',
      `write unsettled ${slots}`,
      '-- begun',
      '-- marked-again',
      `write lacks-${OTHER} 8192`,
      '-- has-set',
      `write unsettled ${slots}`,
      '-- settled',
      `sync lacks-${OTHER}`,
      'write activity 8192',
      '-- unmarked',
      `write unsettled ${slots + 32}`,
      '-- begun-again',
      'write activity 8192',
      'sync activity',
      '-- marked-anew',
      'sync unsettled',
      'write activity 8192', // the marks where nothing is unsettled are taken away
      'sync activity',
      'write activity 0',
      'sync activity',
      '-- closed',
    ]);
  });

  test('a mark that cannot be brought to the disk is no mark, nor is any after it', async () => {
    await traced('failing', ['activity'], ['-e', 'inject=fdatasync:error=EIO:when=1']);
    expect(readFileSync(join(folder.path, 'told'), 'utf8').trim().split('\n')).toEqual([
      'mark io',
      'begin io',
      'unmark io',
      'unmark again io',
      'mark more io',
      'close io',
    ]);
  });

  test('a bitmap that cannot be brought to the disk keeps the mark, and the cache counts as lost', async () => {
    await traced('failing', [`lacks-${OTHER}`], ['-e', 'inject=fdatasync:error=EIO:when=2']);
    expect(readFileSync(join(folder.path, 'told'), 'utf8').trim().split('\n')).toEqual([
      'mark done',
      'begin done',
      'unmark io',
      'unmark again io',
      'mark more done',
      'close io',
    ]);
    const { folder: opened, unsettled, hasLostCache } = await open();
    expect({ unsettled, hasLostCache }).toEqual({
      unsettled: [{ offset: 0, length: 2 * EXTENT_BYTES }],
      hasLostCache: true,
    });
    await opened.close();
  });
});
