/** The first host that uses a volume with copies has the nearest one be its primary. */

import { afterEach, beforeEach, expect, test } from 'vitest';
import { Option } from '../../../src/nbd-server-protocol/constants.ts';
import { GatewayLab } from '../../support/cluster/gateway-lab.ts';
import type { SegmentOf } from '../../support/cluster/records.ts';
import { Handshake } from '../../support/nbd-handshake.ts';
import { eventually } from '../../support/tools.ts';
import { LogVolume } from '../../support/volumes/log-volume.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';

const MIB = 1024 * 1024;
const block = Buffer.alloc(4096, 5);

let lab: GatewayLab;
let logs: readonly [LogVolume, LogVolume];
let copies: readonly [SegmentOf, SegmentOf];
beforeEach(async () => {
  lab = await GatewayLab.start();
  const memory = new MemoryVolume(Buffer.alloc(MIB));
  logs = [new LogVolume(memory), new LogVolume(memory)];
  copies = [lab.real(0, logs[0]), lab.real(1, logs[1])];
  lab.volume('disk', [{ ...copies[0], secondaries: [copies[1]] }]);
});
afterEach(() => lab.stop());

/** Once, in the end. */
async function loggedIn(): Promise<void> {
  await eventually('a log-in', async () => (lab.directory.logins.length > 0 ? true : undefined));
  expect(lab.directory.logins).toEqual(['disk by east-gw']);
}

function makeSecondPrimary(): void {
  lab.storage[0].setEpoch(copies[0].realVolume as never, undefined);
  lab.storage[1].setEpoch(copies[1].realVolume as never, 2);
  lab.volume('disk', [{ ...copies[1], secondaries: [copies[0]], epoch: 2 }]);
}

test('once for hosts that come together, and not for one that comes to an open volume', async () => {
  const gateway = await lab.gateway();
  await Promise.all([lab.host(gateway, 'disk'), lab.host(gateway, 'disk')]);
  await lab.host(gateway, 'disk');
  await loggedIn();
});

test('not by who only looks', async () => {
  const gateway = await lab.gateway();
  const looking = await Handshake.open({ host: '127.0.0.1', port: gateway.port });
  const { info } = await looking.choose(Option.info, 'disk');
  expect(info.sizeBytes).toBe(BigInt(MIB));
  expect(lab.directory.logins).toEqual([]);
  await looking.choose(Option.go, 'disk');
  await loggedIn();
  looking.wire.destroy();
});

test('not for a volume without copies', async () => {
  lab.volume('plain', [lab.real(0, MIB)]);
  await lab.host(await lab.gateway(), 'plain');
  expect(lab.directory.logins).toEqual([]);
});

test('hosts are served by the copy that has become primary, and nobody has waited for that', async () => {
  let answer = (): void => undefined;
  lab.directory.onLogin = async () => {
    await new Promise<void>((resolve) => {
      answer = resolve;
    });
    makeSecondPrimary();
    return undefined;
  };
  const host = await lab.host(await lab.gateway(), 'disk');
  await host.write(0, block, 0, 4096, true);
  expect(logs[1].entries).toHaveLength(0);
  await loggedIn();
  answer();
  await eventually('the other copy', async () => {
    await host.write(4096, block, 0, 4096, true);
    return logs[1].entries.length > 0 ? true : undefined;
  });
});

test('refused: the volume is served as it is', async () => {
  lab.directory.onLogin = async () => 'the copy there is not duplex';
  const host = await lab.host(await lab.gateway(), 'disk');
  await host.write(0, block, 0, 4096, true);
  await loggedIn();
});

test('the directory is away: the volume is served as it is', async () => {
  const gateway = await lab.gateway();
  await lab.directory.stop();
  const host = await lab.host(gateway, 'disk');
  await host.write(0, block, 0, 4096, true);
});

test('by a worker, through the primary process', async () => {
  const host = await lab.host(await lab.gateway('east-gw', { workers: 2 }), 'disk');
  await host.write(0, block, 0, 4096, true);
  await loggedIn();
});
