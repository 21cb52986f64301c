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

/** What the mode of storage-child.ts printed, and how many fdatasync calls it made. */
async function traced(mode: string, straceOptions: string[]): Promise<{ printed: unknown; syncs: string[] }> {
  const volume = join(folder.path, 'volume.img');
  const log = join(folder.path, 'strace.log');
  writeFileSync(volume, Buffer.alloc(1024 * 1024));
  const child = [process.execPath, join(projectRoot, 'test/support/storage-child.ts'), mode, volume];
  // strace counts for each thread apart: with one in the pool, the n-th fdatasync is the n-th of all.
  const { stdout } = await runOk(
    requireTool('strace', 'strace'),
    ['-f', '-qq', '-o', log, ...straceOptions, ...child],
    {
      env: { UV_THREADPOOL_SIZE: '1' },
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
  expect(syncs.length).toBeLessThanOrEqual(3);
});

test('after a write that was held back, writes go to the pool', async () => {
  const slow = 'inject=pwritev2:delay_enter=20000';
  const { printed } = await traced('slow-writes', ['-e', 'trace=pwritev2,fdatasync', '-e', slow]);
  expect(printed).toEqual(['done', 'not now', 'done']);
});
