/** N6, N3: what a Linux kernel learns of an export, and how nbd-client's options get on with the server. */

import { mkdir, open, readFile, truncate, writeFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { freePort } from '../support/ports.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { expectNoKernelErrors, serveFile } from './steps.ts';

const MiB = 1024 * 1024;

let guest: Guest;
let folder: TemporaryFolder;
let port: number;
let server: RunningServer | undefined;

beforeAll(async () => {
  folder = await temporaryFolder();
  guest = await bootGuest();
  port = await freePort();
});

// A test that failed may have left its device connected.
afterEach(async () => {
  await guest.run('umount /mnt; nbd-client -d /dev/nbd0');
  await server?.kill();
  server = undefined;
});

afterAll(async () => {
  await guest?.stop();
  await folder?.remove();
});

function connect(options: string): Promise<string> {
  return guest.ok(`nbd-client ${serverAddress} ${port} /dev/nbd0 ${options}`);
}

function queueValue(name: string): Promise<string> {
  return guest.ok(`cat /sys/block/nbd0/queue/${name}`);
}

/** A file whose 512-byte sectors each begin with their number. */
async function numberedFile(path: string, sizeBytes: number): Promise<void> {
  const content = Buffer.alloc(sizeBytes);
  for (let offset = 0; offset + 8 <= sizeBytes; offset += 512) {
    content.writeBigUInt64BE(BigInt(offset / 512), offset);
  }
  await writeFile(path, content);
}

test('N3: the kernel sees a write-back cache with FUA, discards, and the size in bytes', async () => {
  const file = folder.file('shape.img');
  server = await serveFile({ file, port, sizeBytes: 96 * MiB });
  await connect('-N shape.img -C 2 -t 7');
  expect(await guest.ok('blockdev --getsize64 /dev/nbd0')).toBe(String(96 * MiB));
  expect(await guest.ok('cat /sys/block/nbd0/size')).toBe(String((96 * MiB) / 512));
  expect(await guest.ok('blockdev --getro /dev/nbd0')).toBe('0');
  expect(await queueValue('write_cache')).toBe('write back');
  expect(await queueValue('fua')).toBe('1');
  expect(Number(await queueValue('discard_max_bytes'))).toBeGreaterThan(0);
  expect(Number(await queueValue('discard_granularity'))).toBeGreaterThan(0);
  expect(await queueValue('logical_block_size')).toBe('512');
  expect(await queueValue('io_timeout')).toBe('7000');
  expect((await guest.run('nbd-client -c /dev/nbd0')).status).toBe(0);
  // A kernel that has not been told CAN_MULTI_CONN refuses to start with more than one.
  expect(await guest.ok(`netstat -tn | grep -c ':${port} *ESTABLISHED'`)).toBe('2');
  await guest.ok('nbd-client -d /dev/nbd0');
  expect((await guest.run('nbd-client -c /dev/nbd0')).status).toBe(1);
  await expectNoKernelErrors(guest);
});

test.each(['', '-b 512', '-b 1024', '-b 2048', '-b 4096', '-g', '-g -nonetlink'])(
  'N6: reads and writes arrive in their places with nbd-client %s',
  async (options) => {
    const file = folder.file('places.img');
    await numberedFile(file, 4 * MiB);
    server = await serveFile({ file, port });
    // The default export, and the named one.
    await connect(options === '' ? '' : `-N places.img ${options}`);
    await guest.ok('until [ "$(cat /sys/block/nbd0/size)" = 8192 ]; do usleep 50000; done');
    const blockSize = /-b (\d+)/.exec(options)?.[1] ?? '512';
    expect(await queueValue('logical_block_size')).toBe(blockSize);
    const digest = (await runOk('sha256sum', [file])).stdout.slice(0, 64);
    expect((await guest.ok('sha256sum /dev/nbd0')).slice(0, 64)).toBe(digest);
    await guest.ok('dd if=/dev/zero bs=4096 seek=1000 count=1 of=/dev/nbd0 conv=notrunc,fsync');
    const content = await readFile(file);
    expect(content.subarray(1000 * 4096, 1001 * 4096).equals(Buffer.alloc(4096))).toBe(true);
    expect(content.readBigUInt64BE(1000 * 4096 - 512)).toBe(1000n * 8n - 1n);
    expect(content.readBigUInt64BE(1001 * 4096)).toBe(1001n * 8n);
    await expectNoKernelErrors(guest);
  },
);

test('N6: nbd-client -l lists the exports, and an unknown one is refused in words', async () => {
  const exportsFolder = folder.file('exports');
  await mkdir(exportsFolder);
  for (const name of ['one.img', 'two.img', 'drei ünö.img']) {
    await (await open(`${exportsFolder}/${name}`, 'w')).close();
    await truncate(`${exportsFolder}/${name}`, MiB);
  }
  server = await startServe([exportsFolder, '--listen', `nbd://127.0.0.1:${port}`]);
  const listed = await guest.ok(`nbd-client -l ${serverAddress} ${port}`);
  expect(listed.split('\n').slice(1)).toEqual(expect.arrayContaining(['one.img', 'two.img', 'drei ünö.img']));

  const refused = await guest.run(`nbd-client ${serverAddress} ${port} /dev/nbd0 -N three.img`);
  expect(refused.status).not.toBe(0);
  expect(refused.output).toContain('Server said:');
  expect(await guest.ok('cat /sys/block/nbd0/size')).toBe('0');
  // The server is none the worse for it.
  await connect('-N two.img');
  expect(await guest.ok('blockdev --getsize64 /dev/nbd0')).toBe(String(MiB));
});

test('N6: a read-only export is a read-only device, which can be mounted and not written', async () => {
  const file = folder.file('read-only.img');
  await mkdir(folder.file('content'));
  await writeFile(folder.file('content/greeting'), 'good morning');
  await runOk('truncate', ['-s', '32M', file]);
  await runOk(requireTool('mkfs.ext4', 'e2fsprogs'), ['-q', '-d', folder.file('content'), file]);
  const before = await readFile(file);
  server = await serveFile({ file, port, readOnly: true });
  await connect('-N read-only.img');
  expect(await guest.ok('blockdev --getro /dev/nbd0; cat /sys/block/nbd0/ro')).toBe('1\n1');
  expect((await guest.run('dd if=/dev/zero of=/dev/nbd0 bs=4096 count=1')).status).not.toBe(0);
  await guest.ok('mount -t ext4 -o ro /dev/nbd0 /mnt');
  expect(await guest.ok('cat /mnt/greeting')).toBe('good morning');
  expect((await guest.run('mount -o remount,rw /mnt')).status).not.toBe(0);
  await guest.ok('umount /mnt; nbd-client -d /dev/nbd0');
  expect((await readFile(file)).equals(before)).toBe(true);
});

test('N6: a file that has grown is a larger device to who connects next, and its file system grows', async () => {
  const file = folder.file('grown.img');
  server = await serveFile({ file, port, sizeBytes: 32 * MiB });
  await connect('-N grown.img');
  await guest.ok(`mkfs.ext4 -q /dev/nbd0
    mount /dev/nbd0 /mnt
    echo 'good evening' >/mnt/greeting
    umount /mnt
    nbd-client -d /dev/nbd0`);
  await server.stop();
  await truncate(file, 64 * MiB);
  server = await serveFile({ file, port });
  await connect('-N grown.img');
  await guest.ok(`mount /dev/nbd0 /mnt
    resize2fs /dev/nbd0
    dd if=/dev/zero of=/mnt/more-than-before bs=1M count=40 conv=fsync`);
  expect(await guest.ok('cat /mnt/greeting')).toBe('good evening');
  await guest.ok(`umount /mnt
    fsck.ext4 -fn /dev/nbd0
    nbd-client -d /dev/nbd0`);
  await expectNoKernelErrors(guest);
});
