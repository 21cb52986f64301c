/**
 * V1, V3, V5, N6: a Linux host on a volume that lies on two storage systems, while the processes behind it are killed.
 *
 * nbd-client of Debian 12 does not reconnect (see guest/nbd-reconnect.py), so that program keeps the device.
 */

import { readdir, readFile, readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { allDuplex, expectEqualFiles } from '../support/copies.ts';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { childrenOf } from '../support/process.ts';
import { eventually, requireTool, runOk } from '../support/tools.ts';
import { expectNoKernelErrors, fio, guestDigest, writesFinished } from './steps.ts';

const CONNECTIONS = 4;
/** How long the host waits before it sends a request again on another connection. */
const RESEND_SECONDS = 10;

let guest: Guest;
let cluster: Cluster;

beforeAll(async () => {
  [guest, cluster] = await Promise.all([
    bootGuest(),
    startCluster({
      storage: { 'east-1': {}, 'east-2': {} },
      gateways: { 'east-gw': { workers: 2 } },
    }),
  ]);
});

afterAll(async () => {
  await guest?.stop();
  await cluster?.end();
});

/** The worker that hosts are connected to, told by the sockets that it has on the gateway's port. */
async function workerInUse(port: number): Promise<number> {
  const sockets = new Set<string>();
  for (const line of (await readFile('/proc/net/tcp', 'utf8')).split('\n').slice(1)) {
    const [, local = '', , state, , , , , , inode = ''] = line.trim().split(/\s+/);
    if (state === '01' && Number.parseInt(local.split(':')[1] ?? '', 16) === port)
      sockets.add(`socket:[${inode}]`);
  }
  for (const pid of childrenOf(cluster.gateway('east-gw').pid())) {
    for (const fd of await readdir(`/proc/${pid}/fd`)) {
      const target = await readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
      if (sockets.has(target)) return pid;
    }
  }
  throw new Error('no worker has a connection of a host');
}

function gatewayPort(): number {
  return Number(new URL(cluster.gateway('east-gw').uri.replace('nbd:', 'http:')).port);
}

/** An export of east-gw as a device of the guest that outlives the gateway, with a new file system, mounted. */
async function mountNew(
  name: string,
  { device, connections }: { device: number; connections: number },
): Promise<void> {
  const log = `/run/keeper${device}.log`;
  await guest.ok(`python3 /nbd-reconnect.py ${serverAddress} ${gatewayPort()} ${name} ${device} ${connections} ${RESEND_SECONDS} >${log} 2>&1 &
    until grep -q ^connected ${log}; do usleep 50000; done
    mkfs.ext4 -q /dev/nbd${device}
    mkdir /mnt/${name}
    mount /dev/nbd${device} /mnt/${name}`);
}

test('a mounted volume over two storage systems: a worker, a storage system and the directory are killed, the host sees no error', async () => {
  await cluster.volary(
    'volume',
    'create',
    'demo',
    '--size',
    '160MiB',
    '--segment',
    'east-1:80MiB',
    '--segment',
    'east-2',
  );
  await mountNew('demo', { device: 0, connections: CONNECTIONS });
  // Longer than a half, so that it lies on both storage systems whatever the file system chooses.
  await guest.ok('dd if=/dev/urandom of=/mnt/demo/across bs=1M count=100 conv=fsync', 240_000);
  const digest = await guestDigest(guest, '/mnt/demo/across');

  const rewriting = { path: '/mnt/demo/random', sizeMiB: 4, writtenMiB: 20, writesPerSecond: 200 };
  await Promise.all([
    guest.ok(fio(rewriting), 400_000),
    (async () => {
      await writesFinished(guest, 'nbd0', 300);
      const worker = await workerInUse(gatewayPort());
      process.kill(worker, 'SIGKILL');
      await eventually(
        'the host is back',
        async () => {
          const now = await workerInUse(gatewayPort()).catch(() => worker);
          return now === worker ? undefined : true;
        },
        60_000,
      );
      await writesFinished(guest, 'nbd0', 300);
      await cluster.storage('east-1').kill();
      await sleep(2000);
      await cluster.storage('east-1').start();
      await writesFinished(guest, 'nbd0', 300);
      await cluster.directory.kill();
      await cluster.storage('east-2').restart();
      await writesFinished(guest, 'nbd0', 300);
      await cluster.directory.start();
    })(),
  ]);

  await guest.ok('echo 3 >/proc/sys/vm/drop_caches');
  expect(await guestDigest(guest, '/mnt/demo/across')).toBe(digest);
  await guest.ok(`umount /mnt/demo
    fsck.ext4 -fn /dev/nbd0
    nbd-client -d /dev/nbd0`);
  await expectNoKernelErrors(guest);
});

test('a gateway killed and started again under a mounted file system; the volume made larger while it is mounted', async () => {
  await cluster.volary(
    'volume',
    'create',
    'grow',
    '--size',
    '64MiB',
    '--segment',
    'east-1:32MiB',
    '--segment',
    'east-2',
  );
  await mountNew('grow', { device: 1, connections: 2 });
  await Promise.all([
    guest.ok(fio({ path: '/mnt/grow/random', sizeMiB: 2, writtenMiB: 10, writesPerSecond: 200 }), 240_000),
    (async () => {
      await writesFinished(guest, 'nbd1', 200);
      await cluster.gateway('east-gw').restart();
      await writesFinished(guest, 'nbd1', 200);
      await cluster.volary('volume', 'resize', 'grow', '128MiB');
    })(),
  ]);
  await guest.ok(`umount /mnt/grow
    fsck.ext4 -fn /dev/nbd1
    nbd-client -d /dev/nbd1`);
  // A host that connects anew has the new size.
  await guest.ok(
    `nbd-client ${serverAddress} ${gatewayPort()} /dev/nbd2 -N grow -C 2
    test "$(cat /sys/block/nbd2/size)" = 262144
    fsck.ext4 -fp /dev/nbd2
    resize2fs /dev/nbd2
    mount /dev/nbd2 /mnt/grow
    dd if=/dev/zero of=/mnt/grow/more bs=1M count=80 conv=fsync
    fstrim -v /mnt/grow
    umount /mnt/grow
    nbd-client -d /dev/nbd2`,
    240_000,
  );
  await expectNoKernelErrors(guest);
});

test('a mounted volume with a copy: switched, then its primary killed and failed over; the host sees no error, and both copies are the file system', async () => {
  await cluster.volary(
    'volume',
    'create',
    'twice',
    '--size',
    '64MiB',
    '--segment',
    'east-1',
    '--copy',
    'east-2',
  );
  await allDuplex(cluster, 'twice');
  await mountNew('twice', { device: 3, connections: 2 });
  await guest.ok('dd if=/dev/urandom of=/mnt/twice/kept bs=1M count=16 conv=fsync');
  const digest = await guestDigest(guest, '/mnt/twice/kept');
  await Promise.all([
    guest.ok(fio({ path: '/mnt/twice/random', sizeMiB: 2, writtenMiB: 8, writesPerSecond: 200 }), 240_000),
    (async () => {
      await writesFinished(guest, 'nbd3', 200);
      await cluster.volary('copy', 'switch', 'twice', 'east-2');
      await writesFinished(guest, 'nbd3', 200);
      await cluster.storage('east-2').kill();
      await cluster.volary('copy', 'failover', 'twice', 'east-1');
      await writesFinished(guest, 'nbd3', 200);
      await cluster.storage('east-2').start();
    })(),
  ]);
  await guest.ok('echo 3 >/proc/sys/vm/drop_caches');
  expect(await guestDigest(guest, '/mnt/twice/kept')).toBe(digest);
  await guest.ok(`umount /mnt/twice
    fsck.ext4 -fn /dev/nbd3
    nbd-client -d /dev/nbd3`);
  await expectNoKernelErrors(guest);
  const view = await allDuplex(cluster, 'twice');
  expect(await expectEqualFiles(view)).toBe(1);
  for (const { file } of view.segments.flatMap(({ copies }) => copies)) {
    await runOk(requireTool('fsck.ext4', 'e2fsprogs'), ['-fn', file ?? 'no file']);
  }
});
