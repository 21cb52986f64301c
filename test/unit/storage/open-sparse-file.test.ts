/** Everything that can be wrong with a file is told as a UsageError, and leaves nothing behind. */

import { spawn } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import { UsageError } from '../../../src/model/errors.ts';
import { type OpenOptions, openSparseFile } from '../../../src/storage/open-sparse-file.ts';
import type { SparseFile } from '../../../src/storage/sparse-file.ts';
import { diskFolder, type Folder, memoryFolder, mountTmpfs } from '../../support/disk.ts';
import { projectRoot, requireTool, runOk } from '../../support/tools.ts';

const GIB = 2 ** 30;
let folder: Folder;
let path: string;
const opened: SparseFile[] = [];

beforeEach(() => {
  folder = diskFolder();
  path = join(folder.path, 'volume.img');
});
afterEach(async () => {
  for (const volume of opened.splice(0)) await volume.close();
  await folder.remove();
});

async function open(which: string, options: OpenOptions = {}): Promise<SparseFile> {
  const volume = await openSparseFile(which, options);
  opened.push(volume);
  return volume;
}

/** The code of the UsageError; its text must be one sentence that speaks of the file and of what to do. */
async function refusal(which: string, options: OpenOptions = {}): Promise<string> {
  try {
    await open(which, options);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    expect(error.message).toMatch(/^[^\n]+$/);
    expect(error.message).toContain(which);
    expect(error.message).toMatch(/: [a-z]/);
    return error.code;
  }
  return 'opened';
}

test('a missing file is made, sparse, when there is a size, and not without', async () => {
  expect(await refusal(path)).toBe('not-found');
  expect(await refusal(path, { sizeBytes: GIB, readOnly: true })).toBe('not-found');
  expect(existsSync(path)).toBe(false);
  expect((await open(path, { sizeBytes: GIB })).sizeBytes).toBe(GIB);
  expect(statSync(path)).toMatchObject({ size: GIB, blocks: 0 });
});

test('an existing file keeps its bytes, and a size that is not its own is refused', async () => {
  writeFileSync(path, 'x'.repeat(5000));
  expect(await refusal(path, { sizeBytes: 5001 })).toBe('too-small');
  expect(await refusal(path, { sizeBytes: 4999 })).toBe('bad-size');
  expect(readFileSync(path, 'latin1')).toBe('x'.repeat(5000));
  expect((await open(path, { sizeBytes: 5000 })).sizeBytes).toBe(5000);
});

test('an empty file is a volume of size 0', async () => {
  writeFileSync(path, '');
  const volume = await open(path);
  expect(volume.sizeBytes).toBe(0);
  expect(volume.readNow(0, Buffer.alloc(1), 0, 0)).toBe(true);
});

test('a size that no volume can have, or no file here, is refused, and no half-made file stays', async () => {
  for (const sizeBytes of [-1, 1.5, Number.NaN, 2 ** 53]) {
    expect(await refusal(path, { sizeBytes })).toBe('bad-size');
  }
  expect(await refusal(path, { sizeBytes: 2 ** 53 - 1 })).toBe('bad-size'); // ext4 and xfs end before that
  expect(readdirSync(folder.path)).toEqual([]);
});

test('what is no regular file is refused at once, a pipe without hanging', async () => {
  const fifo = join(folder.path, 'fifo');
  await runOk(requireTool('mkfifo', 'coreutils'), [fifo]);
  const socket = join(folder.path, 'socket');
  const server = createServer();
  await new Promise<void>((ready) => server.listen(socket, ready));
  for (const other of [folder.path, '/dev/null', fifo, socket]) {
    expect(await refusal(other)).toBe('not-a-file');
    expect(await refusal(other, { sizeBytes: 4096, readOnly: true })).toBe('not-a-file');
  }
  server.close();
});

test('symbolic links are followed; one that leads nowhere is not created through', async () => {
  const link = join(folder.path, 'link');
  symlinkSync(path, link);
  expect(await refusal(link, { sizeBytes: 4096 })).toBe('not-found');
  writeFileSync(path, 'x'.repeat(4096));
  expect((await open(link)).sizeBytes).toBe(4096);
  const loop = join(folder.path, 'loop');
  symlinkSync(loop, loop);
  expect(await refusal(loop)).toBe('not-found');
});

test('a path through nothing, or through a file, is not found', async () => {
  writeFileSync(path, '');
  expect(await refusal(join(folder.path, 'missing', 'file'), { sizeBytes: 4096 })).toBe('not-found');
  expect(await refusal(join(path, 'file'), { sizeBytes: 4096 })).toBe('not-found');
  expect(await refusal(join(folder.path, 'n'.repeat(300)), { sizeBytes: 4096 })).toBe('not-found');
});

test('no permission: to the file, to make one, and by the immutable attribute', async () => {
  writeFileSync(path, 'x', { mode: 0o600 });
  chmodSync(folder.path, 0o755);
  const { seteuid } = process;
  if (seteuid === undefined || process.getuid?.() !== 0) throw new Error('this test has to run as root');
  seteuid(65_534);
  try {
    expect(await refusal(path)).toBe('permission-denied');
    expect(await refusal(path, { readOnly: true })).toBe('permission-denied');
    expect(await refusal(join(folder.path, 'new'), { sizeBytes: 4096 })).toBe('permission-denied');
  } finally {
    seteuid(0);
  }
  const chattr = requireTool('chattr', 'e2fsprogs');
  await runOk(chattr, ['+i', path]);
  try {
    expect(await refusal(path)).toBe('permission-denied');
  } finally {
    await runOk(chattr, ['-i', path]);
  }
});

test('a read-only file system: refused, with the way out in the text, and served with readOnly', async () => {
  const mount = await mountTmpfs('size=1m');
  try {
    const file = join(mount.path, 'volume.img');
    writeFileSync(file, 'x'.repeat(4096));
    await mount.remount('ro');
    expect(await refusal(file)).toBe('read-only-filesystem');
    expect(await refusal(join(mount.path, 'new'), { sizeBytes: 4096 })).toBe('read-only-filesystem');
    await expect(openSparseFile(file)).rejects.toThrow('--read-only');
    const volume = await openSparseFile(file, { readOnly: true });
    const target = Buffer.alloc(4096);
    const read = volume.readNow(0, target, 0, 4096);
    await volume.close(); // or a failure would leave it mounted
    expect(read).toBe(true);
    expect(target.toString('latin1')).toBe('x'.repeat(4096));
  } finally {
    await mount.remove();
  }
});

test('no space to make the file', async () => {
  const mount = await mountTmpfs('size=1m,nr_inodes=1'); // the folder itself is the one
  try {
    expect(await refusal(join(mount.path, 'volume.img'), { sizeBytes: 4096 })).toBe('no-space');
  } finally {
    await mount.remove();
  }
});

test('one writer or many readers, also across processes; the lock goes with a process that is killed', async () => {
  const child = spawn(process.execPath, [join(projectRoot, 'test/support/storage-child.ts'), 'hold', path], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  await new Promise((ready) => child.stdout.once('data', ready));
  expect(await refusal(path)).toBe('locked');
  expect(await refusal(path, { readOnly: true })).toBe('locked');
  expect(await refusal(path, { sizeBytes: 1024 * 1024 })).toBe('locked');
  child.kill('SIGKILL');
  await new Promise((ended) => child.once('close', ended));
  const first = await openSparseFile(path, { readOnly: true });
  await open(path, { readOnly: true });
  expect(await refusal(path)).toBe('locked');
  await first.close();
  expect(await refusal(path)).toBe('locked');
});

test('close lets go of the lock', async () => {
  await (await open(path, { sizeBytes: 4096 })).close();
  await open(path);
});

test('4 TiB on disk, and 2^53 - 1 bytes in memory, open at once and work to their ends', async () => {
  const memory = memoryFolder();
  try {
    for (const [file, sizeBytes] of [
      [path, 4 * 2 ** 40],
      [join(memory.path, 'volume.img'), 2 ** 53 - 1],
    ] as const) {
      const volume = await open(file, { sizeBytes });
      const page = Buffer.alloc(4096, 7);
      await volume.write(sizeBytes - 4096, page, 0, 4096, true);
      const target = Buffer.alloc(4096);
      await volume.read(sizeBytes - 4096, target, 0, 4096);
      expect(target.equals(page)).toBe(true);
      const all = await volume.blockStatus(0, sizeBytes, 10);
      expect(all.map(({ hole }) => hole)).toEqual([true, false]);
      expect(all.reduce((sum, { length }) => sum + length, 0)).toBe(sizeBytes);
      await volume.trim(sizeBytes - 2 ** 33, 2 ** 32 - 512, true);
      expect((await volume.blockStatus(0, sizeBytes, 10)).length).toBe(2);
      await volume.trim(0, sizeBytes, false);
      const [first] = await volume.blockStatus(0, sizeBytes, 10);
      expect(first?.hole).toBe(true);
      expect(first?.length).toBe(sizeBytes - (sizeBytes % 4096)); // a piece of a page stays, as zeroes
      await volume.read(sizeBytes - 4096, target, 0, 4096);
      expect(target.every((byte) => byte === 0)).toBe(true);
      await volume.close();
    }
  } finally {
    await memory.remove();
  }
});
