/** `volary attach` and `detach` on a real kernel: the command itself, and what can go wrong around it. */

import { afterAll, beforeAll, expect, test } from 'vitest';
import { VolumeName } from '../../src/control-protocol/names.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { bootGuest, type Guest, serverAddress } from '../support/guest.ts';
import { guestNode, guestVolary, installSoftware, makeSoftware } from '../support/guest-software.ts';
import { freePort } from '../support/ports.ts';
import { portOf, type RunningServer } from '../support/server.ts';
import { requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
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
  await Promise.all([startWithVolumes(), bootWithSoftware()]);
});

async function bootWithSoftware(): Promise<void> {
  const [booted, image] = await Promise.all([bootGuest(), makeSoftware(folder)]);
  guest = booted;
  software = await installSoftware(guest, image);
}

async function startWithVolumes(): Promise<void> {
  const flags = ['--advertise', serverAddress];
  cluster = await startCluster({
    storage: { 'east-1': {}, 'east-2': {} },
    gateways: { 'a-gw': { site: 'east', flags }, 'b-gw': { site: 'east', flags } },
  });
  const segments = ['--segment', 'east-1', '--segment', 'east-2'];
  await cluster.volary('volume', 'create', 'db', '--size', '64MiB', ...segments);
  await cluster.volary('volume', 'create', 'logs', '--size', '64MiB');
  uri = cluster.gateway('b-gw').uri.replace('127.0.0.1', serverAddress);
}

afterAll(async () => {
  await guest?.stop();
  await cluster?.end();
  await software?.kill();
  await folder?.remove();
});

/**
 * Runs JavaScript in the guest, all of it in one process: under emulation, starting one takes as long as everything else.
 * @returns the value of `body`
 */
async function inGuest(body: string): Promise<unknown> {
  const script = `
    import { execFileSync } from 'node:child_process';
    import { attachDevice, detachDevice } from '/software/src/runtime/nbd-attach.ts';
    import { nbdDevices } from '/software/src/runtime/nbd-devices.ts';
    const sh = (line) => execFileSync('sh', ['-ec', line], { encoding: 'utf8' }).trim();
    const attach = (name, more) => attachDevice({ uris: ['${uri}/' + name], connections: 2, ...more });
    const detach = (what, force = false) => detachDevice({ what, force });
    const told = (promise) => promise.then((value) => value, ({ code, message }) => code + ': ' + message);
    const state = async () => (await nbdDevices()).map(({ connected, exportName }) => (connected ? exportName : null));
    console.log(JSON.stringify(await (async () => {${body}})()));`;
  const encoded = Buffer.from(script).toString('base64');
  return JSON.parse(
    await guest.ok(`echo ${encoded} | base64 -d >/tmp/script.mjs; ${guestNode} /tmp/script.mjs`),
  );
}

test('attach a volume, write to it, detach it: what was written and not synced is there', async () => {
  const { uris } = await cluster.client.volume(VolumeName.parse('db'));
  expect(uris.length, 'one a gateway').toBe(2);
  await cluster.gateway('a-gw').kill(); // the next is taken
  const volary = `VOLARY_DIRECTORY=${cluster.directory.url.replace('127.0.0.1', serverAddress)} ${guestVolary}`;
  expect(await guest.ok(`${volary} attach db`)).toBe('/dev/nbd0');
  expect(await guest.ok('blockdev --getsize64 /dev/nbd0')).toBe(String(64 * MiB));
  // The kernel's list of sockets may miss one that moves while it is read.
  const established = `netstat -tn | grep -c ':${portOf(uri)} *ESTABLISHED'`;
  await expect.poll(() => guest.ok(established), { timeout: 20_000 }).toBe('4');
  await guest.ok("printf 'not synced' | dd of=/dev/nbd0 bs=512 seek=100000 conv=notrunc");
  expect(await guest.ok(`${volary} detach db --json`)).toBe('{"device":"/dev/nbd0"}');
  expect(await guest.ok('cat /sys/block/nbd0/size; ls /sys/block/nbd0')).toMatch(/^0\n(?!.*\bpid\b)/s);
  const read = `read -v ${100_000 * 512} 16`;
  const { stdout } = await runOk(qemuIo, ['-r', '-f', 'raw', '-c', read, cluster.uri('db', 'b-gw')]);
  expect(stdout).toMatch(/not.synced/);
  await expectNoKernelErrors(guest);
});

test('devices: two at once, one that is mounted, one too many; what fails leaves nothing behind', async () => {
  const silent = await freePort();
  expect(
    await inGuest(`
      const two = await Promise.all([attach('db'), attach('logs')]);
      const [db] = two.map(({ device }) => device);
      const results = { two: two.map(({ device }) => device).sort(), connected: (await state()).sort() };
      results.taken = await told(attach('logs', { device: db }));
      results.missing = await told(attach('logs', { device: '/dev/nbd9' }));
      results.unknown = await told(attach('no-such-export'));
      results.away = await told(attach('logs', { uris: ['nbd://${serverAddress}:${silent}/logs'] }));
      results.option = await told(attach('logs', { uris: ['nbd://-d:1/logs'] }));
      results.untouched = (await state()).sort();
      sh('mkfs.ext4 -q ' + db + '; mkdir "/mnt/a b"; mount ' + db + ' "/mnt/a b"');
      results.mounted = (await told(detach('db'))).replace(db, 'DEVICE');
      sh('umount "/mnt/a b"');
      results.third = await told(attach('db', { device: '/dev/nbd2' }));
      results.full = await told(attach('db'));
      results.ambiguous = await told(detach('db'));
      for (const { device } of two) await detach(device);
      await detach('db', true);
      results.again = await told(detach('db'));
      results.free = await told(detach('/dev/nbd1'));
      results.last = await state();
      return results;
    `),
  ).toEqual({
    two: ['/dev/nbd0', '/dev/nbd1'],
    connected: ['db', 'logs', null, 'software.img'],
    taken: expect.stringMatching(/^in-use: \/dev\/nbd[01] is connected already/),
    missing: expect.stringMatching(/^not-found: there is no \/dev\/nbd9/),
    unknown: expect.stringMatching(
      /^failed: \/dev\/nbd2 cannot be connected: .*Server said: .*no-such-export/,
    ),
    away: expect.stringMatching(/^failed: .*nbd:.*logs: /),
    option: expect.stringMatching(/^bad-uri: /),
    untouched: ['db', 'logs', null, 'software.img'],
    mounted: 'in-use: DEVICE is in use: it is mounted on /mnt/a b: umount it first',
    third: { device: '/dev/nbd2', uri: `${uri}/db` },
    full: expect.stringMatching(/^in-use: all 4 NBD devices are connected/),
    ambiguous: expect.stringMatching(/^conflict: volume db is \/dev\/nbd[01] and \/dev\/nbd2: say which/),
    again: expect.stringMatching(/^not-found: no device of this host is volume db/),
    free: expect.stringMatching(/^not-found: \/dev\/nbd1 is not connected/),
    last: [null, null, null, 'software.img'],
  });
  await expectNoKernelErrors(guest);
});
