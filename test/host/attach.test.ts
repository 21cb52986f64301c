/** `volary attach` and `detach` on a real kernel: the command itself, and what can go wrong around it. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { VolumeName } from '../../src/control-protocol/names.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { guestNode, guestVolary, installSoftware } from '../support/guest-software.ts';
import { portOf, type RunningServer } from '../support/server.ts';
import { freePort, requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { expectNoKernelErrors } from './steps.ts';

const MiB = 2 ** 20;
const qemuIo = requireTool('qemu-io', 'qemu-utils');

let guest: Guest;
let folder: TemporaryFolder;
let software: RunningServer;
let cluster: Cluster;
let uri: string;

beforeAll(async () => {
  folder = await temporaryFolder();
  const flags = ['--advertise', serverAddress];
  cluster = await startCluster({
    storage: { 'east-1': {}, 'east-2': {} },
    gateways: { 'a-gw': { site: 'east', flags }, 'b-gw': { site: 'east', flags } },
  });
  const segments = ['--segment', 'east-1', '--segment', 'east-2'];
  await cluster.volary('volume', 'create', 'db', '--size', '64MiB', ...segments);
  await cluster.volary('volume', 'create', 'logs', '--size', '64MiB');
  uri = cluster.gateway('b-gw').uri.replace('127.0.0.1', serverAddress);
  guest = await bootGuest();
  software = await installSoftware(guest, folder);
});

afterAll(async () => {
  await guest?.stop();
  await cluster?.end();
  await software?.kill();
  await folder?.remove();
});

test('attach, mkfs, mount, detach: refused while mounted, then nothing that was written is lost', async () => {
  const { uris } = await cluster.client.volume(VolumeName.parse('db'));
  expect(uris.length, 'one a gateway').toBe(2);
  await cluster.gateway('a-gw').kill(); // the next is taken
  const volary = `VOLARY_DIRECTORY=${cluster.directory.url.replace('127.0.0.1', serverAddress)} ${guestVolary}`;
  expect(await guest.ok(`${volary} attach db`)).toBe('/dev/nbd0');
  expect(await guest.ok('blockdev --getsize64 /dev/nbd0')).toBe(String(64 * MiB));
  expect(await guest.ok(`netstat -tn | grep -c ':${portOf(uri)} *ESTABLISHED'`)).toBe('4');
  await guest.ok('mkfs.ext4 -q /dev/nbd0; mkdir "/mnt/a b"; mount /dev/nbd0 "/mnt/a b"');
  const refused = await guest.run(`${volary} detach db`);
  expect(refused.output).toBe(
    'error: in-use: /dev/nbd0 is in use: it is mounted on /mnt/a b: umount it first\n',
  );
  expect(refused.status).toBe(1);
  await guest.ok(`umount "/mnt/a b"
    printf 'not synced' | dd of=/dev/nbd0 bs=512 seek=100000 conv=notrunc`);
  expect(await guest.ok(`${volary} detach db --json`)).toBe('{"device":"/dev/nbd0"}');
  expect(await guest.ok('cat /sys/block/nbd0/size; ls /sys/block/nbd0')).toMatch(/^0\n(?!.*\bpid\b)/s);
  const read = `read -v ${100_000 * 512} 16`;
  const { stdout } = await runOk(qemuIo, ['-r', '-f', 'raw', '-c', read, cluster.uri('db', 'b-gw')]);
  expect(stdout).toMatch(/not.synced/);
  await expectNoKernelErrors(guest);
});

/** Runs JavaScript in the guest, in one process: starting one takes long there. @returns the value of `body` */
async function inGuest(body: string): Promise<unknown> {
  const script = `
    import { attachDevice, detachDevice } from '/software/src/runtime/nbd-attach.ts';
    import { nbdDevices } from '/software/src/runtime/nbd-devices.ts';
    const attach = (name, more) => attachDevice({ uris: ['${uri}/' + name], connections: 2, ...more });
    const code = (promise) => promise.then((value) => value, ({ code, message }) => code + ': ' + message);
    const state = async () => (await nbdDevices()).map(({ connected, exportName }) => (connected ? exportName : null));
    console.log(JSON.stringify(await (async () => {${body}})()));`;
  const encoded = Buffer.from(script).toString('base64');
  return JSON.parse(
    await guest.ok(`echo ${encoded} | base64 -d >/tmp/script.mjs; ${guestNode} /tmp/script.mjs`),
  );
}

test('two at once take two devices; a volume on two devices is detached by device', async () => {
  expect(
    await inGuest(`
      const both = await Promise.all([attach('db'), attach('logs')]);
      const states = [await state()];
      await attach('db', { device: '/dev/nbd2' });
      states.push(await state());
      const full = await code(attach('db'));
      const twice = await code(detachDevice({ what: 'db', force: false }));
      for (const { device } of [...both, { device: '/dev/nbd2' }]) await detachDevice({ what: device, force: false });
      return { devices: both.map(({ device }) => device).sort(), states: states.map((names) => names.slice().sort()), full, twice, last: await state() };
    `),
  ).toEqual({
    devices: ['/dev/nbd0', '/dev/nbd1'],
    states: [
      ['db', 'logs', null, 'software.img'],
      ['db', 'db', 'logs', 'software.img'],
    ],
    full: expect.stringMatching(/^in-use: all 4 NBD devices are connected/),
    twice: expect.stringMatching(/^conflict: volume db is \/dev\/nbd[01] and \/dev\/nbd2: say which/),
    last: [null, null, null, 'software.img'],
  });
});

test('what fails leaves nothing behind, and touches no device that is connected', async () => {
  const silent = await freePort();
  expect(
    await inGuest(`
      const { device } = await attach('db');
      return {
        taken: await code(attach('logs', { device })),
        missing: await code(attach('logs', { device: '/dev/nbd9' })),
        unknown: await code(attach('no-such-export')),
        away: await code(attach('logs', { uris: ['nbd://${serverAddress}:${silent}/logs'] })),
        option: await code(attach('logs', { uris: ['nbd://-d:1/logs'] })),
        state: await state(),
        detached: await code(detachDevice({ what: 'db', force: true })),
        again: await code(detachDevice({ what: 'db', force: false })),
        free: await code(detachDevice({ what: '/dev/nbd1', force: false })),
      };
    `),
  ).toEqual({
    taken: expect.stringMatching(/^in-use: \/dev\/nbd0 is connected already/),
    missing: expect.stringMatching(/^not-found: there is no \/dev\/nbd9/),
    unknown: expect.stringMatching(
      /^failed: \/dev\/nbd1 cannot be connected: .*Server said: .*no-such-export/,
    ),
    away: expect.stringMatching(/^failed: .*nbd:.*logs: /),
    option: expect.stringMatching(/^bad-uri: /),
    state: ['db', null, null, 'software.img'],
    detached: '/dev/nbd0',
    again: expect.stringMatching(/^not-found: no device of this host is volume db/),
    free: expect.stringMatching(/^not-found: \/dev\/nbd1 is not connected/),
  });
  await expectNoKernelErrors(guest);
});
