/** Lives of storage systems (instances.ts), as far as what they say depends on them. */

import { randomUUID } from 'node:crypto';
import { expect, test } from 'vitest';
import type { LeaseVerdict } from '../../../src/control-protocol/copy-groups.ts';
import type { InstanceClaim } from '../../../src/control-protocol/directory-api.ts';
import { Epoch } from '../../../src/control-protocol/names.ts';
import { MiB, until } from '../../support/directory-lab.ts';
import { B, becomes, makeCopyLab, realVolumeAt, standing, V } from './copy-lab.ts';

function lifeAfter(follows: readonly string[]): InstanceClaim {
  return { id: randomUUID(), acknowledged: follows.length, follows: [...follows], isSamePlace: false };
}

/** A volume with its primary on a, and a copy in step on b, which has had a life. */
async function makePair() {
  const lab = await makeCopyLab({ leaseMs: 1_000 });
  const { directory, a, b } = lab;
  await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
  await becomes(directory, 'a primary, b duplex');
  const [first, then] = [lifeAfter([]), lifeAfter([])];
  const claim = (instance: InstanceClaim) =>
    directory.claimStorage(B, { id: b.id, clusterId: b.clusterId, instance });
  await claim(first);
  await b.stop();
  await until(async () => (await directory.storageSystem(B)).state === 'offline');
  const [atA, atB] = [await realVolumeAt(directory, 'a'), await realVolumeAt(directory, 'b')];
  return { ...lab, a, b, first, then, claim, atA, atB };
}

test('who was put back is in step again when it has said where it is, and its primary is connected to it there', async () => {
  const { directory, a, b, then, claim, atA, atB } = await makePair();
  a.copies = false;
  const { peer } = await directory.storageSystem(B);
  const duplexAt = async (host: string): Promise<unknown> => {
    const [segment] = (await directory.volumeRecord(V)).segments;
    const pairRevision = segment?.copies.find(({ storage }) => storage === 'b')?.pairRevision ?? 0;
    const pair = { primary: atA, epoch: Epoch.parse(1), member: atB, pair: 'duplex', reason: null } as const;
    return directory.reportPair({ ...pair, pairRevision, peer: { ...peer, host } });
  };
  await duplexAt(peer.host);
  await claim({ ...then, isRestored: true });
  expect(await standing(directory)).toBe('a primary, b suspended');
  await expect(duplexAt(peer.host)).rejects.toMatchObject({ code: 'conflict' });

  await directory.reportStorage(B, { ...b.reportBody, peer: { ...peer, host: '127.0.0.2' }, instance: then });
  await expect(duplexAt(peer.host)).rejects.toMatchObject({ code: 'conflict' });
  expect(await standing(directory)).toBe('a primary, b suspended');
  await duplexAt('127.0.0.2');
  expect(await standing(directory)).toBe('a primary, b duplex');
});

test('leases are prolonged for the life that was taken last, and refused to one before it', async () => {
  const { directory, first, then, claim, atB, ...lab } = await makePair();
  await lab.b.start();
  await lab.b.report(() => directory.url);
  await lab.ended(directory.switchCopy(V, { storage: B }));
  const ask = async (lives: readonly string[], acknowledged = 1): Promise<LeaseVerdict | undefined> => {
    const asker = { storage: B, acknowledged, lives: [...lives] };
    const leases = [{ realVolume: atB, epoch: Epoch.parse(2) }];
    return (await directory.renewLeases({ asker, leases, givingWay: [] })).answers[0];
  };
  expect(await ask([first.id])).toBe('granted');
  await lab.b.stop();
  await until(async () => (await directory.storageSystem(B)).state === 'offline');
  await claim({ ...then, acknowledged: 1, follows: [first.id] });
  await expect(ask([first.id])).rejects.toMatchObject({ code: 'wrong-identity' });
  expect(await ask([first.id, then.id]), 'one that has not heard of it yet').toBe('granted');
  expect(await ask([randomUUID()], 3), 'of a folder that is newer than the catalog').toBe('granted');
});
