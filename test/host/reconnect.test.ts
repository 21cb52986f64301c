/** N4, N6: a Linux host whose connections break, while fio writes and then checks every block. */

import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { freePort } from '../support/ports.ts';
import { eventually, requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { startRelay } from './relay.ts';
import { expectNoKernelErrors, fio, serveFile, writesFinished } from './steps.ts';

const MiB = 1024 * 1024;

let guest: Guest;
let folder: TemporaryFolder;

beforeAll(async () => {
  folder = await temporaryFolder();
  guest = await bootGuest();
});

afterAll(async () => {
  await guest?.stop();
  await folder?.remove();
});

/** How long the host waits before it sends a request again on another connection. */
const resendSeconds = 5;

/** Small enough that every block is written many times: a write that comes late would undo a newer one. */
const rewriting = { sizeMiB: 1, writtenMiB: 10, writesPerSecond: 200 };

/** Does something while fio writes. What fio finds wrong comes first, also when it then keeps the rest from happening. */
async function whileWriting(path: string, act: () => Promise<void>): Promise<void> {
  await Promise.all([guest.ok(fio({ path, ...rewriting }), 240_000), act()]);
}

async function expectCleanExt4(file: string): Promise<void> {
  await runOk(requireTool('fsck.ext4', 'e2fsprogs'), ['-fn', file]);
}

// Keeping a device through the loss of the server needs a program that hands new connections to the kernel.
// nbd-client 3.24 is none (see guest/nbd-reconnect.py), so this one stands in for it.
describe.each([
  { connections: 1, device: 'nbd0' },
  { connections: 4, device: 'nbd1' },
])('$connections connection(s), each replaced when it dies', ({ connections, device }) => {
  test('N4: a server killed, and one that stands still, in the midst of writes cost the host no error and no block', async () => {
    const file = folder.file(`${device}.img`);
    const log = `/run/${device}.log`;
    const port = await freePort();
    let server = await serveFile({ file, port, sizeBytes: 64 * MiB });
    onTestFinished(async () => {
      await server.kill();
    });
    const keeper = `python3 /nbd-reconnect.py ${serverAddress} ${port} ${device}.img`;
    await guest.ok(`${keeper} ${device.slice(3)} ${connections} ${resendSeconds} >${log} 2>&1 &
      until grep -q ^connected ${log}; do usleep 50000; done
      mkfs.ext4 -q /dev/${device}
      mkdir /mnt/${device}
      mount /dev/${device} /mnt/${device}`);
    const reconnected = async () => Number(await guest.ok(`grep -c ^reconnected ${log} || true`));

    const timeouts = async () =>
      Number(await guest.ok(`dmesg | grep -c '${device}: Connection timed out' || true`));
    await whileWriting(`/mnt/${device}/random`, async () => {
      await writesFinished(guest, device, 300);
      expect(await server.kill()).toEqual({ code: null, signal: 'SIGKILL' });
      server = await serveFile({ file, port });
      await eventually(
        'every connection has been replaced',
        async () => ((await reconnected()) >= connections ? true : undefined),
        60_000,
      );

      // The host gives up a connection while the server holds its writes, and sends them again on a new one.
      await writesFinished(guest, device, 300);
      const [timeoutsBefore, reconnectedBefore] = [await timeouts(), await reconnected()];
      server.process.kill('SIGSTOP');
      await eventually('the kernel has timed out', async () =>
        (await timeouts()) > timeoutsBefore ? true : undefined,
      );
      server.process.kill('SIGCONT');
      await eventually('a connection has been replaced', async () =>
        (await reconnected()) > reconnectedBefore ? true : undefined,
      );
    });
    await guest.ok(`umount /mnt/${device}
      fsck.ext4 -fn /dev/${device}
      nbd-client -d /dev/${device}`);
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    await expectCleanExt4(file);
    await expectNoKernelErrors(guest);
  });
});

test('N4: three of four connections of nbd-client are cut one by one; the writes go on over the last', async () => {
  const file = folder.file('cut.img');
  const port = await freePort();
  const server = await serveFile({ file, port, sizeBytes: 64 * MiB });
  const relay = await startRelay(port);
  onTestFinished(async () => {
    await relay.close();
    await server.kill();
  });
  await guest.ok(`nbd-client ${serverAddress} ${relay.port} /dev/nbd2 -N cut.img -C 4 -t ${resendSeconds}
    mkfs.ext4 -q /dev/nbd2
    mkdir /mnt/nbd2
    mount /dev/nbd2 /mnt/nbd2`);
  expect(relay.accepted()).toBe(4);
  await whileWriting('/mnt/nbd2/random', async () => {
    for (const index of [1, 3, 0]) {
      await writesFinished(guest, 'nbd2', 200);
      relay.cut(index);
    }
  });
  expect(relay.accepted()).toBe(4);
  await guest.ok(`umount /mnt/nbd2
    fsck.ext4 -fn /dev/nbd2
    nbd-client -d /dev/nbd2`);
  expect(await server.stop()).toEqual({ code: 0, signal: null });
  await expectCleanExt4(file);
  await expectNoKernelErrors(guest);
});

// This one expects I/O errors in the kernel's log, so it comes last.
test('N4: nbd-client -t: a server that does not answer in time is an error, and what it held back undoes nothing', async () => {
  const port = await freePort();
  const server = await serveFile({ file: folder.file('late.img'), port, sizeBytes: 16 * MiB });
  onTestFinished(async () => {
    await server.kill();
  });
  const connect = `nbd-client ${serverAddress} ${port} /dev/nbd3 -N late.img -t ${resendSeconds}`;
  // One write of dd is many requests, all in flight at once.
  const copy = (options: string) => `dd ${options} bs=2M oflag=direct`;
  await guest.ok(`${connect}
    dd if=/dev/urandom of=/run/old bs=1M count=2
    dd if=/dev/urandom of=/run/new bs=1M count=2`);
  server.process.kill('SIGSTOP');
  expect((await guest.run(copy('if=/run/old of=/dev/nbd3'))).status).not.toBe(0);
  await guest.ok(
    'nbd-client -d /dev/nbd3; until [ "$(cat /sys/block/nbd3/size)" = 0 ]; do usleep 50000; done',
  );
  server.process.kill('SIGCONT');
  await guest.ok(`${connect}
    ${copy('if=/run/new of=/dev/nbd3')}
    sleep 1
    echo 3 >/proc/sys/vm/drop_caches
    cmp -n 2097152 /run/new /dev/nbd3
    nbd-client -d /dev/nbd3`);
  expect(await server.stop()).toEqual({ code: 0, signal: null });
});
