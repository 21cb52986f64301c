/** Real volumes that the catalog does not know: after an older catalog was put back, say. They are never deleted, but told of. */

import { expect, test } from 'vitest';
import type { EventRecord } from '../../../src/control-protocol/catalog.ts';
import { AccessKey, Epoch } from '../../../src/control-protocol/names.ts';
import { GiB, MiB, type StorageStandIn, until } from '../../support/directory-lab.ts';
import { type Lab, makeLab } from './lab.ts';

const unknownMs = 300;

/** A real volume that no directory has made. */
function hold(storage: StorageStandIn, id: string): void {
  const accessKey = AccessKey.parse('0'.repeat(32));
  storage.realVolumes.set(id, { sizeBytes: MiB, volume: null, epoch: Epoch.parse(1), accessKey });
}

async function told({ directory }: Lab): Promise<EventRecord[]> {
  const events = await directory.events({ since: 0 });
  return events.filter(({ kind }) => kind === 'storage.unknown-real-volumes');
}

async function reportsPass(lab: Lab, storage: StorageStandIn): Promise<void> {
  const startedMs = performance.now();
  while (performance.now() - startedMs < 2 * unknownMs) await storage.reportOnce(lab.directory.url);
}

test('more real volumes than the catalog knows, for a while: one event, and another when it happens again', async () => {
  const lab = await makeLab({ unknownMs });
  const [east, west] = [await lab.storage('east-1', GiB), await lab.storage('west-1', GiB)];
  await lab.create('db', 2 * MiB, [{ storage: 'east-1' }, { storage: 'west-1' }]);
  hold(east, 'rv-00000000000000aa');
  await until(async () => (await told(lab)).length > 0);
  await reportsPass(lab, east);
  expect(await told(lab)).toMatchObject([
    {
      subject: 'east-1',
      details: { realVolumes: 2, known: 1 },
      text: expect.stringContaining('1 real volume'),
    },
  ]);
  expect(west.realVolumes.size).toBe(1);
  east.realVolumes.delete('rv-00000000000000aa');
  await reportsPass(lab, east);
  hold(east, 'rv-00000000000000aa');
  await until(async () => (await told(lab)).length === 2);
});

test('what is being made or deleted is not unknown', async () => {
  const lab = await makeLab({ unknownMs, garbageRetryMs: 60_000 });
  const east = await lab.storage('east-1', GiB);
  await lab.create('db', MiB);
  const answers = Promise.withResolvers<void>();
  east.behaviour = async ({ method }) => {
    if (method === 'PATCH') await answers.promise;
    return method === 'DELETE' ? 'cut' : 'serve';
  };
  const resized = lab.resize('db', 2 * MiB);
  hold(east, 'rv-00000000000000aa'); // which the operation might have made
  await reportsPass(lab, east);
  east.realVolumes.delete('rv-00000000000000aa');
  answers.resolve();
  await resized;
  await lab.delete('db', true); // its real volume is garbage now, and there still
  expect(east.realVolumes.size).toBe(1);
  await reportsPass(lab, east);
  expect(await told(lab)).toEqual([]);
});
