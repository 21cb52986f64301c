/** An older catalog has been put back, and nobody became primary since: members have been told later revisions of the same epoch. */

import { expect, test } from 'vitest';
import { MiB, until } from '../../support/directory-lab.ts';
import { B, becomes, makeCopyLab, realVolumeAt, V } from './copy-lab.ts';

test('a record that its members are ahead of calls nobody duplex but who is so for the primary, and what a person changes is taken', async () => {
  const { directory, a, b, ...lab } = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }], ['b']);
  await becomes(directory, 'a primary, b duplex');
  const [atA, atB] = [await realVolumeAt(directory, 'a'), await realVolumeAt(directory, 'b')];
  // As if the catalog were of before a person had suspended the copy.
  for (const [of, id] of [
    [a, atA],
    [b, atB],
  ] as const) {
    of.copies = false;
    const member = of.members.get(id)!;
    const { config, pairRevisions } = member;
    pairRevisions.set(atB, (pairRevisions.get(atB) ?? 0) + 10);
    of.members.set(id, { ...member, config: { ...config, revision: config.revision + 100_000 } });
  }
  await lab.restart();
  await becomes(directory, 'a primary, b suspended');
  const revisionAtA = () => a.members.get(atA)?.config.revision ?? 0;
  await until(() => revisionAtA() > 100_000 && a.members.get(atA)?.config.members[1]?.pair === 'suspended');

  await lab.ended(directory.suspendCopy(V, B));
  await until(() => a.members.get(atA)?.config.members[1]?.wanted === 'suspended');
  await lab.ended(directory.resyncCopy(V, B));
  await until(() => a.members.get(atA)?.config.members[1]?.wanted === 'following');
  await a.reportPair(atA, atB, 'duplex');
  await becomes(directory, 'a primary, b duplex');
  expect((await directory.status()).volumes.suspended).toEqual([]);
});

test('a record that is put back twice, and is older than what its primary says of a pair, comes to say so again', async () => {
  const { directory, a, b, ...lab } = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }], ['b']);
  await becomes(directory, 'a primary, b duplex');
  const [atA, atB] = [await realVolumeAt(directory, 'a'), await realVolumeAt(directory, 'b')];
  // As if it had been put back and had caught up before, and now were again.
  a.copies = false;
  b.copies = false;
  const known = a.members.get(atA)!.pairRevisions;
  known.set(atB, (known.get(atB) ?? 0) + 2 ** 33);
  await expect(a.reportPair(atA, atB, 'duplex')).rejects.toMatchObject({ code: 'conflict' });
  await becomes(directory, 'a primary, b suspended');
  await until(() => a.members.get(atA)?.config.members[1]?.pair === 'suspended');
  await a.reportPair(atA, atB, 'duplex');
  await becomes(directory, 'a primary, b duplex');
});
