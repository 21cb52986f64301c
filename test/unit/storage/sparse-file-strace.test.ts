/** SparseFile in a process whose system calls are counted, failed and slowed down by strace. */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { diskFolder, type Folder } from '../../support/disk.ts';
import { projectRoot, requireTool, runOk } from '../../support/tools.ts';

let folder: Folder;
beforeEach(() => {
  folder = diskFolder();
});
afterEach(() => folder.remove());

interface Traced {
  printed: unknown;
  /** The fdatasync calls it made. */
  syncs: string[];
}

/** Runs storage-child.ts in that mode; strace looks only at what it does with the volume's file. */
async function traced(mode: string, straceOptions: string[], poolThreads = 1): Promise<Traced> {
  const volume = join(folder.path, 'volume.img');
  const log = join(folder.path, 'strace.log');
  writeFileSync(volume, Buffer.alloc(1024 * 1024));
  const child = [process.execPath, join(projectRoot, 'test/support/storage-child.ts'), mode, volume];
  // strace counts for each thread apart: with one in the pool, the n-th fdatasync is the n-th of all.
  const { stdout } = await runOk(
    requireTool('strace', 'strace'),
    ['-f', '-qq', '-o', log, '-P', volume, ...straceOptions, ...child],
    {
      env: { UV_THREADPOOL_SIZE: String(poolThreads) },
    },
  );
  const syncs = readFileSync(log, 'latin1')
    .split('\n')
    .filter((line) => line.includes('fdatasync('));
  return { printed: JSON.parse(stdout), syncs };
}

test('N3: after a failed fdatasync everything that writes fails, although the kernel would report success', async () => {
  const inject = 'inject=fdatasync:error=EIO:when=2';
  const { printed, syncs } = await traced('failing-flush', ['-e', 'trace=fdatasync', '-e', inject]);
  expect(printed).toEqual({
    before: ['done'],
    failing: ['failed'],
    after: ['failed', 'failed', 'failed', 'failed', 'failed', 'failed'],
    read: 'done',
    state: 'failed',
    failures: [expect.stringContaining('EIO')],
  });
  expect(syncs.length).toBe(2);
});

test('N3: flushes and FUA writes that come together share an fdatasync, but not one that had begun', async () => {
  const { printed, syncs } = await traced('many-flushes', ['-e', 'trace=fdatasync']);
  expect(printed).toEqual(Array(20).fill('done'));
  expect(syncs.length).toBeGreaterThanOrEqual(2);
  expect(syncs.length).toBeLessThanOrEqual(5);
});

test('after a write that was held back, writes go to the pool', async () => {
  const slow = 'inject=pwritev2:delay_enter=20000';
  const { printed } = await traced('slow-writes', ['-e', 'trace=pwritev2,fdatasync', '-e', slow]);
  expect(printed).toEqual(['done', 'not now', 'done']);
});

test('what the kernel did in part is continued from there', async () => {
  // strace answers in the kernel's stead: 1000 bytes, which in truth nobody has written or read.
  const part = ['-e', 'inject=pwrite64,pread64:retval=1000:when=1'];
  const { printed } = await traced('partial-transfers', ['-e', 'trace=pwrite64,pread64', ...part]);
  expect(printed).toEqual({ written: 'done', read: 'done', bytes: [7, 7, 1, 1] });
});

test('a file is cut only when the writes beyond its new end are over: none makes it longer again', async () => {
  const slow = ['-e', 'inject=pwrite64:delay_enter=200000'];
  const { printed } = await traced('resize-under-write', ['-e', 'trace=pwrite64', ...slow], 4);
  expect(printed).toEqual(['done', 'done', 4096]);
});

test('data seen while a trim is under way is not remembered as data', async () => {
  const slow = ['-e', 'inject=fallocate:delay_enter=200000'];
  const { printed } = await traced('status-under-trim', ['-e', 'trace=fallocate', ...slow], 4);
  expect(printed).toEqual({ hole: false, trim: 'done', mayHaveHoles: true });
});
