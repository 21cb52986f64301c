/** N6: a Linux kernel keeps file systems on our exports, by nbd-client in each of its ways to connect. */

import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { freePort } from '../support/ports.ts';
import type { RunningServer } from '../support/server.ts';
import { eventually, requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { expectNoKernelErrors, fio, guestDigest, serveFile } from './steps.ts';

const MiB = 1024 * 1024;

let guest: Guest;
let folder: TemporaryFolder;
let server: RunningServer | undefined;

beforeAll(async () => {
  folder = await temporaryFolder();
  guest = await bootGuest();
});

afterEach(async () => {
  await server?.kill();
  server = undefined;
});

afterAll(async () => {
  await guest?.stop();
  await folder?.remove();
});

interface Case {
  readonly type: 'ext4' | 'xfs';
  readonly way: string;
  readonly device: string;
  readonly options: string;
  readonly disconnectOptions: string;
  readonly sizeMiB: number;
}

const cases: readonly Case[] = [
  {
    type: 'ext4',
    way: 'one connection, ioctl, -persist',
    device: 'nbd0',
    options: '-nonetlink -persist',
    disconnectOptions: '-nonetlink',
    sizeMiB: 96,
  },
  // Its mkfs wants 300 MiB.
  {
    type: 'xfs',
    way: 'four connections, netlink, -t',
    device: 'nbd1',
    options: '-C 4 -t 60',
    disconnectOptions: '',
    sizeMiB: 320,
  },
];

describe.each(cases)('$type over $way', ({ type, device, options, disconnectOptions, sizeMiB }) => {
  test('N6: keeps what is written, gives back what is trimmed, and is clean afterwards', async () => {
    const file = folder.file(`${type}.img`);
    const port = await freePort();
    const path = `/mnt/${type}`;
    const random = { path: `${path}/random`, sizeMiB: 8 };
    const connect = `nbd-client ${serverAddress} ${port} /dev/${device} -N ${type}.img ${options} >/dev/null
      until [ "$(cat /sys/block/${device}/size)" -gt 0 ]; do usleep 50000; done`;
    const disconnect = `nbd-client ${disconnectOptions} -d /dev/${device}
      until [ "$(cat /sys/block/${device}/size)" = 0 ]; do usleep 50000; done`;
    server = await serveFile({ file, port, sizeBytes: sizeMiB * MiB });
    await guest.ok(`${connect}
      mkfs.${type} -q /dev/${device}
      mkdir ${path}
      mount /dev/${device} ${path}`);

    await guest.ok(fio(random));
    await guest.ok(`dd if=/dev/urandom of=${path}/kept bs=1M count=12
      dd if=/dev/urandom of=${path}/lost bs=1M count=32`);
    const digest = await guestDigest(guest, `${path}/kept`);
    await guest.ok('sync; echo 3 >/proc/sys/vm/drop_caches');
    expect(await guestDigest(guest, `${path}/kept`)).toBe(digest);
    await guest.ok(fio({ ...random, verifyOnly: true }));

    const before = await stat(file);
    await guest.ok(`rm ${path}/lost; sync`);
    // XFS frees a file's blocks some time after it has been removed, and trims only what is free.
    await eventually("the file's blocks have gone", async () => {
      await guest.ok(`fstrim ${path}`);
      const freed = (before.blocks - (await stat(file)).blocks) * 512;
      return freed >= 31 * MiB ? freed : undefined;
    });
    expect((await stat(file)).size).toBe(sizeMiB * MiB);

    const check = type === 'ext4' ? 'fsck.ext4 -fn' : 'xfs_repair -n';
    await guest.ok(`umount ${path}
      ${check} /dev/${device}
      ${disconnect}`);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    await expectCleanFile(type, file, digest);

    // Another process of the server has nothing but the file.
    server = await serveFile({ file, port });
    await guest.ok(`${connect}
      mount /dev/${device} ${path}`);
    expect(await guestDigest(guest, `${path}/kept`)).toBe(digest);
    await guest.ok(fio({ ...random, verifyOnly: true }));
    await guest.ok(`umount ${path}
      ${disconnect}`);
    await expectNoKernelErrors(guest);
  });
});

/** Looks at the raw file on this machine, without the server: the file system is whole, and so is /kept. */
async function expectCleanFile(type: Case['type'], file: string, digest: string): Promise<void> {
  if (type === 'xfs') {
    await runOk(requireTool('xfs_repair', 'xfsprogs'), ['-n', '-f', file]);
    return;
  }
  await runOk(requireTool('fsck.ext4', 'e2fsprogs'), ['-fn', file]);
  const copy = folder.file('kept');
  await runOk(requireTool('debugfs', 'e2fsprogs'), ['-R', `dump /kept ${copy}`, file]);
  expect(
    createHash('sha256')
      .update(await readFile(copy))
      .digest('hex'),
  ).toBe(digest);
}
