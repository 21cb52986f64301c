/**
 * S4, S5: what a role keeps in its data folder, and kill -9: at random moments of a load, and right before each
 * system call that changes something. What was promised is there, nothing is there by half, the folder opens.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { openDataFolder } from '../../src/storage/data-folder.ts';
import { type MetadataStore, openMetadataStore } from '../../src/storage/metadata-store.ts';
import { readWholeFile } from '../../src/storage/replace-file.ts';
import { diskFolder, type Folder } from '../support/disk.ts';
import {
  addEntry,
  KEEPER,
  KEEPER_APPLICATION,
  KEEPER_MIGRATIONS,
  NEW_BYTES,
  nextEntry,
  PARTS,
} from '../support/keeper-child.ts';
import { testRandom } from '../support/random.ts';
import { refusalOf } from '../support/refusal.ts';
import { forEachCall } from '../support/strace.ts';
import { projectRoot, type RunResult, requireTool, run } from '../support/tools.ts';

const CHILD = join(projectRoot, 'test/support/keeper-child.ts');
const OLD_BYTES = Buffer.alloc(3000, 'old ');
const KILLS = 25;

/** All that the child was promised, the last of each kind. */
interface Promised {
  id?: string;
  version?: number;
  entry?: number;
  replaced?: true;
  closed?: true;
}

let parent: Folder;
let path: string;
beforeEach(() => {
  parent = diskFolder();
  path = join(parent.path, 'data', 'keeper');
});
afterEach(() => parent.remove());

function promisedIn(printed: string): Promised {
  const whole = printed.slice(0, printed.lastIndexOf('\n') + 1);
  const lines = whole.split('\n').filter((line) => line !== '');
  return Object.assign({}, ...lines.map((line) => JSON.parse(line) as Promised)) as Promised;
}

function openStore(where: string, migrations: readonly string[] = KEEPER_MIGRATIONS): MetadataStore {
  return openMetadataStore(join(where, 'metadata.sqlite'), {
    applicationId: KEEPER_APPLICATION,
    migrations,
  });
}

/** Opens the folder as the next process would, and compares. How many entries there are. */
async function check(where: string, promised: Promised, kept: Buffer | undefined): Promise<number> {
  const folder = await openDataFolder(where, KEEPER);
  try {
    if (promised.id !== undefined) expect(folder.id).toBe(promised.id);
    const store = openStore(where);
    const [entries, parts, marks] = ['entry', 'part', 'mark'].map(
      (table) => store.read<{ n: number }>(`SELECT count(*) AS n FROM ${table}`)[0]?.n ?? -1,
    ) as [number, number, number];
    expect({ parts, marks, next: nextEntry(store) }).toEqual({
      parts: entries * PARTS,
      marks: entries,
      next: entries + 1,
    });
    expect(store.read('SELECT entry FROM part GROUP BY entry HAVING count(*) <> ?', PARTS)).toEqual([]);
    expect(entries).toBeGreaterThanOrEqual(promised.entry ?? 0);
    store.close();
    const bytes = await readWholeFile(folder.file('kept.json'), 100_000);
    const isNew = bytes?.equals(NEW_BYTES) ?? false;
    if (promised.replaced) expect(isNew).toBe(true);
    else expect(isNew || (bytes ?? OLD_BYTES).equals(kept ?? OLD_BYTES)).toBe(true);
    return entries;
  } finally {
    folder.close();
  }
}

function start(mode: string): { child: ChildProcess; ended: Promise<void>; printed: () => string } {
  const child = spawn(process.execPath, [CHILD, mode, path], { stdio: ['ignore', 'pipe', 'inherit'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  let printed = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    printed += text;
  });
  return {
    child,
    ended: new Promise((resolve) => child.once('close', () => resolve())),
    printed: () => printed,
  };
}

test('S4: metadata survives kill -9 at any moment of a load', async () => {
  const random = testRandom('kill -9 of a keeper');
  let before = 0;
  for (let round = 0; round < KILLS; round++) {
    const { child, ended, printed } = start('commit');
    if (random.below(4) > 0) await new Promise((ready) => child.stdout?.once('data', ready));
    await sleep(random.below(200));
    child.kill('SIGKILL');
    await ended;
    const promised = promisedIn(printed());
    const entries = await check(path, promised, undefined);
    const place = `seed ${random.seed}, round ${round}`;
    // One may have been committed, and the process killed before it could say so.
    expect(entries - (promised.entry ?? before), place).toBeOneOf([0, 1]);
    before = entries;
  }
  expect(before, 'there was a load').toBeGreaterThan(KILLS);
});

test('S5: two processes on one folder: the second is told which is the first, until that is killed', async () => {
  const { child, ended } = start('hold');
  await new Promise((ready) => child.stdout?.once('data', ready));
  const open = () => openDataFolder(path, KEEPER);
  expect(await refusalOf(open, path)).toBe('locked');
  await expect(open()).rejects.toThrow(`process ${child.pid}:`);
  child.kill('SIGKILL');
  await ended;
  (await open()).close();
});

/** Runs the child under strace, which looks only at what it does with its data folder. */
function traced(mode: string, where: string, options: readonly string[]): Promise<RunResult> {
  const files = ['', '/lock', '/identity.json', '/identity.json.new', '/kept.json', '/kept.json.new'];
  const database = ['', '-journal', '-wal', '-shm'].map((suffix) => `/metadata.sqlite${suffix}`);
  const paths = [...files, ...database].flatMap((name) => ['-P', `${where}${name}`]);
  // strace counts for each thread apart: with one in the pool, the counts are the same in each run.
  const strace = ['-f', '-qq', ...paths, ...options, process.execPath, CHILD, mode, where];
  return run(requireTool('strace', 'strace'), strace, { env: { UV_THREADPOOL_SIZE: '1' } });
}

test.each([
  ['EIO', 'fsync', '1', ['io', 'done', 'done']], // of the log's header
  ['EIO', 'fsync', '3', ['io', 'done', 'done']], // of the first commit
  ['EIO', 'fsync', '1+', ['io', 'io', 'io']],
  ['EIO', 'pwrite64', '12', ['io', 'done', 'done']], // the log's index takes eight
  ['ENOSPC', 'pwrite64', '12', ['no-space', 'done', 'done']],
])(
  'S5: %s of %s number %s is told, undone, and over when the disk works again',
  async (error, call, when, expected) => {
    expect((await traced('once', path, ['-o', join(parent.path, 'log')])).code).toBe(0);
    const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:error=${error}:when=${when}`];
    const { code, stdout } = await traced('try', path, ['-o', join(parent.path, 'log'), ...inject]);
    expect(code).toBe(0);
    expect(promisedIn(stdout)).toMatchObject({ outcomes: expected });
    const done = expected.filter((outcome) => outcome === 'done').length;
    const entries = await check(path, { entry: 1 + done, replaced: true }, undefined);
    expect(entries).toBe(1 + done);
  },
);

describe('kill -9 right before a system call', () => {
  /** A folder with three entries of version 1 and a file that is to be replaced. */
  async function makeOld(where: string): Promise<void> {
    (await openDataFolder(where, KEEPER)).close();
    const store = openStore(where, KEEPER_MIGRATIONS.slice(0, 1));
    for (let number = 1; number <= 3; number++) addEntry(store, number, false);
    store.close();
    writeFileSync(join(where, 'kept.json'), OLD_BYTES);
  }

  const CALLS = ['/^mkdir', 'write', 'pwrite64', '/^f(data)?sync', 'ftruncate', '/^rename', '/^unlink'];

  test.each([
    ['a new folder', false],
    ['a folder of the version before', true],
  ])('S4: %s opens after each, with all that was promised', async (_, isOld) => {
    let [runs, kills] = [0, 0];
    for (const call of CALLS) {
      await forEachCall(async (nth) => {
        const where = join(parent.path, `${runs++}`, 'keeper');
        if (isOld) await makeOld(where);
        const inject = `inject=${call}:signal=SIGKILL:when=${nth}`;
        const trace = ['-o', `${parent.path}/log-${runs}`, '-e', `trace=${call}`, '-e', inject];
        const { code, stdout, stderr } = await traced('once', where, trace);
        const promised = promisedIn(stdout);
        const entries = await check(where, promised, isOld ? OLD_BYTES : undefined);
        expect(entries, `${call} ${nth}`).toBeOneOf(isOld ? [3, 4] : [0, 1]);
        if (code === 0) {
          expect(promised).toMatchObject({ version: 2, replaced: true, closed: true });
          return 'went to its end';
        }
        expect(stderr, `${call} ${nth}`).toBe('');
        expect(promised.closed, `${call} ${nth}: killed`).toBe(undefined);
        kills += 1;
        return 'was killed';
      });
    }
    expect(kills).toBeGreaterThan(40);
  });

  test('power loss: what is promised was brought to the disk before, files and folders', async () => {
    const log = join(parent.path, 'log');
    const calls = ['mkdir,mkdirat,write,pwrite64,fsync,fdatasync', 'rename,renameat,renameat2'].join();
    const { code } = await traced('once', path, ['-y', '-o', log, '-e', `trace=${calls}`]);
    expect(code).toBe(0);
    const steps = (await readFile(log, 'latin1')).split('\n').flatMap((line) => step(line) ?? []);
    const kept = steps.filter((text) => /kept|sync folder/.test(text));
    expect(kept.slice(kept.indexOf('write kept.json.new'))).toEqual([
      'write kept.json.new',
      'sync kept.json.new',
      'rename kept.json.new',
      'sync folder',
    ]);
    const before = steps.slice(0, steps.indexOf('write kept.json.new')); // all of the metadata's promises
    const written = before.lastIndexOf('write metadata.sqlite-wal');
    expect(before.slice(written + 1), 'a commit is brought to the disk').toContain(
      'sync metadata.sqlite-wal',
    );
    const made = before.indexOf('write metadata.sqlite-wal');
    expect(before.slice(made), 'and so is the name of the file that has it').toContain('sync folder');
  });

  /** "12 fsync(20</tmp/x/keeper/lock>) = 0" is "sync lock". */
  function step(line: string): string | undefined {
    const call = /(rename|write|sync)\w*\((.*)/.exec(line);
    const name = /data\/keeper(?:\/([\w.-]+))?/.exec(call?.[2] ?? '');
    return call === null || name === null ? undefined : `${call[1]} ${name[1] ?? 'folder'}`;
  }
});
