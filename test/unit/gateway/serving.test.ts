/** A gateway between a directory and storage systems: what hosts see. */

import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { GatewayLab } from '../../support/cluster/gateway-lab.ts';
import { realVolumeId } from '../../support/cluster/storage-stand-in.ts';
import { eventually } from '../../support/tools.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { pattern } from '../nbd/lab.ts';

const MIB = 1024 * 1024;

let lab: GatewayLab;
beforeEach(async () => {
  lab = await GatewayLab.start();
});
afterEach(() => lab.stop());

async function readAll(volume: RemoteVolume, length = volume.sizeBytes): Promise<Buffer> {
  const bytes = Buffer.alloc(length);
  await volume.read(0, bytes, 0, length);
  return bytes;
}

test('V1: a volume on two storage systems is one disk, also across the border', async () => {
  lab.volume('disk', [lab.real(0, MIB), lab.real(1, MIB)]);
  const host = await lab.host(await lab.gateway(), 'disk');
  expect(host.sizeBytes).toBe(2 * MIB);
  const bytes = pattern(2 * MIB);
  await host.write(0, bytes, 0, bytes.length, true);
  expect((await readAll(host)).equals(bytes)).toBe(true);
  await host.writeZeroes(MIB - 8192, 16_384, { fua: true, noHole: false, fast: false });
  bytes.fill(0, MIB - 8192, MIB + 8192);
  expect((await readAll(host)).equals(bytes)).toBe(true);
  expect(await host.blockStatus(0, 2 * MIB, 10)).toEqual([
    { length: MIB - 8192, hole: false, zero: false },
    { length: 16_384, hole: true, zero: true },
    { length: MIB - 8192, hole: false, zero: false },
  ]);
});

test('V2: two gateways on one volume: what is written through one is read through the other', async () => {
  lab.volume('disk', [lab.real(0, MIB), lab.real(1, MIB)]);
  const hosts = [
    await lab.host(await lab.gateway('east-gw'), 'disk'),
    await lab.host(await lab.gateway('west-gw'), 'disk'),
  ] as const;
  for (const [index, offset] of [0, MIB - 2048, 2 * MIB - 4096].entries()) {
    const [writer, reader] = index % 2 === 0 ? hosts : [hosts[1], hosts[0]];
    await writer.write(offset, Buffer.alloc(4096, index + 1), 0, 4096, false);
    await writer.flush();
    const target = Buffer.alloc(4096);
    await reader.read(offset, target, 0, 4096);
    expect(target.equals(Buffer.alloc(4096, index + 1))).toBe(true);
  }
});

test('a volume that was made a moment ago can be used at once, also when the watch is late', async () => {
  const gateway = await lab.gateway();
  lab.directory.muted = true;
  lab.volume('new', [lab.real(0, MIB)]);
  expect((await lab.host(gateway, 'new')).sizeBytes).toBe(MIB);
});

test.each(['', 'unknown', '../x', 'a\u0301', 'x'.repeat(300)])('there is no volume %j', async (name) => {
  await expect(lab.host(await lab.gateway(), name)).rejects.toMatchObject({ code: 'invalid' });
});

test('a name in Unicode is a name', async () => {
  lab.volume('データ', [lab.real(0, MIB)]);
  expect((await lab.host(await lab.gateway(), 'データ')).sizeBytes).toBe(MIB);
});

test('a volume that is being made or deleted is not given to hosts', async () => {
  const gateway = await lab.gateway();
  for (const state of ['creating', 'deleting']) {
    lab.volume(state, [lab.real(0, MIB)], { state });
    await expect(lab.host(gateway, state)).rejects.toMatchObject({ code: 'invalid' });
  }
});

test('a deleted volume is taken from its hosts, and one of the same name is another', async () => {
  const gateway = await lab.gateway();
  lab.volume('disk', [lab.real(0, MIB)]);
  const host = await lab.host(gateway, 'disk');
  await host.write(0, Buffer.alloc(4096, 1), 0, 4096, false);
  lab.volume('disk', [lab.real(0, 2 * MIB)], { createdAt: '2026-02-02T00:00:00.000Z' });
  await eventually('the host comes again', () => (host.sizeBytes === 2 * MIB ? true : undefined));
  expect((await readAll(host)).equals(Buffer.alloc(2 * MIB))).toBe(true);
  lab.directory.removeVolume('disk');
  await eventually('the host is cut off', () => (host.state === 'reconnecting' ? true : undefined));
});

test('resize: hosts see the new size at once, and may ask for it', async () => {
  const gateway = await lab.gateway();
  const segment = lab.real(0, MIB);
  lab.volume('disk', [segment]);
  const host = await lab.host(gateway, 'disk');
  expect(host.capabilities.resize).toBe(true);
  const added = lab.real(1, MIB);
  lab.directory.onResize = async (name, sizeBytes) => {
    if (sizeBytes > 2 * MIB) return { code: 'no-space', message: 'no storage system has room' };
    lab.volume(name, [segment, added]);
    return null;
  };
  await host.resize(2 * MIB);
  await host.write(MIB - 512, Buffer.alloc(1024, 5), 0, 1024, false);
  expect((await readAll(host)).subarray(MIB - 512, MIB + 512).equals(Buffer.alloc(1024, 5))).toBe(true);
  expect(await outcomeOf(host.resize(3 * MIB))).toBe('no-space');
  expect(await outcomeOf(host.resize(MIB))).toBe('invalid');
});

test('resize: the last real volume itself may have grown', async () => {
  const gateway = await lab.gateway();
  const inner = new MemoryVolume(Buffer.alloc(MIB));
  const segment = lab.real(0, inner);
  lab.volume('disk', [segment]);
  const host = await lab.host(gateway, 'disk');
  lab.directory.onResize = async (name, sizeBytes) => {
    await inner.resize(sizeBytes);
    lab.volume(name, [{ ...segment, length: sizeBytes }]);
    return null;
  };
  await host.resize(2 * MIB);
  const bytes = pattern(2 * MIB);
  await host.write(0, bytes, 0, 2 * MIB, true);
  expect((await readAll(host)).equals(bytes)).toBe(true);
});

test('a volume that the directory has made smaller ends there, and what is left is unharmed', async () => {
  const gateway = await lab.gateway();
  const segments = [lab.real(0, MIB), lab.real(1, MIB)] as const;
  lab.volume('disk', segments);
  const host = await lab.host(gateway, 'disk');
  const bytes = pattern(2 * MIB);
  await host.write(0, bytes, 0, 2 * MIB, false);
  lab.volume('disk', [segments[0]]);
  const target = Buffer.alloc(4096);
  await eventually('the end', async () =>
    (await outcomeOf(host.read(MIB, target, 0, 4096))) === 'invalid' ? true : undefined,
  );
  expect((await readAll(host, MIB)).equals(bytes.subarray(0, MIB))).toBe(true);
});

test('the management API tells of hosts, metrics and health', async () => {
  const gateway = await lab.gateway();
  lab.volume('disk', [lab.real(0, MIB)]);
  const ask = async (path: string): Promise<string> => (await fetch(`${gateway.manage}${path}`)).text();
  expect(JSON.parse(await ask('/volumes/disk/hosts'))).toEqual({ volume: 'disk', connections: 0 });
  const host = await lab.host(gateway, 'disk', 2);
  await eventually('both connections', async () =>
    (await ask('/volumes/disk/hosts')).includes('"connections":2') ? true : undefined,
  );
  expect((await fetch(`${gateway.manage}/readyz`)).status).toBe(200);
  const metrics = await ask('/metrics');
  expect(metrics).toContain('volary_gateway_hosts 2');
  expect(metrics).toContain('volary_gateway_paths{state="connected"} 1');
  expect(metrics).toContain('volary_gateway_paths_to{storage="east-1"} 1');
  expect(metrics).toContain('volary_gateway_path_moves 0');
  await eventually('a report of it', () =>
    lab.directory.reports.get('east-gw')?.hosts === 2 ? true : undefined,
  );
  expect(lab.directory.reports.get('east-gw')).toMatchObject({
    site: 'east',
    clusterId: lab.directory.clusterId,
  });
  const [volume] = lab.directory.volumes.values();
  lab.directory.putVolume({ ...volume, segments: volume?.segments.map((one) => ({ ...one, epoch: 2 })) });
  await eventually('a path that has moved', async () =>
    (await ask('/metrics')).includes('volary_gateway_path_moves 1') ? true : undefined,
  );
  await lab.storage[0].raiseEpoch(realVolumeId(1));
  await host.close();
  await eventually('the paths are closed', async () =>
    (await ask('/metrics')).includes('volary_gateway_volumes_in_use 0') ? true : undefined,
  );
});
