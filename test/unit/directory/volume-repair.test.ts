/** What has failed of a volume: shown, and taken back when somebody asks for it. */

import { expect, test } from 'vitest';
import { RealVolumeId, VolumeName } from '../../../src/control-protocol/names.ts';
import { GiB, MiB, until } from '../../support/directory-lab.ts';
import { makeLab } from './lab.ts';

const db = VolumeName.parse('db');
const reason = 'fdatasync failed: EIO: i/o error';

async function twoHalves() {
  const lab = await makeLab();
  const [east, west] = [await lab.storage('east-1', GiB), await lab.storage('west-1', GiB)];
  const { state } = await lab.create('db', 2 * MiB, [{ storage: 'east-1' }, { storage: 'west-1' }]);
  expect(state).toBe('done');
  await lab.create('other', MiB, [{ storage: 'east-1' }]);
  const { segments } = await lab.directory.volume(db);
  const [first, second] = segments.map(({ copies }) => copies[0]?.realVolume);
  if (first === undefined || second === undefined) throw new Error('the volume has two segments');
  const reasons = async () =>
    (await lab.directory.volume(db)).segments.flatMap(({ copies }) => copies.map(({ reason }) => reason));
  return { lab, east, west, first, second, reasons };
}

test('a real volume that its storage system reports as failed is shown so, also by the next directory', async () => {
  const { lab, west, second, reasons } = await twoHalves();
  expect(await reasons()).toEqual([null, null]);
  west.failed = [{ realVolume: second, reason }];
  await until(async () => (await reasons())[1] !== null);
  expect(await reasons()).toEqual([null, `its real volume has failed: ${reason}`]);
  await west.stop();
  await lab.restart();
  expect(await reasons()).toEqual([null, `its real volume has failed: ${reason}`]);
});

test('N3: a repair takes back what has failed of this volume, and nothing else; an event tells of it', async () => {
  const { lab, east, west, second, reasons } = await twoHalves();
  const [, other = ''] = [...east.realVolumes.keys()];
  west.failed = [{ realVolume: second, reason }];
  east.failed = [{ realVolume: RealVolumeId.parse(other), reason }];
  expect(await lab.directory.repairVolume(db)).toEqual({
    ...{ volume: 'db', repaired: [{ storage: 'west-1', realVolume: second, reason }], remaining: [] },
  });
  expect(west.failed).toEqual([]);
  expect(east.failed).toHaveLength(1);
  expect(east.asked.filter((line) => line.startsWith('PATCH'))).toEqual([]);
  await until(async () => (await reasons())[1] === null);
  const events = await lab.directory.events({ since: 0 });
  expect(events.filter(({ kind }) => kind === 'volume.repaired')).toMatchObject([
    { subject: 'db', text: expect.stringContaining(second), details: { realVolumes: [{ reason }] } },
  ]);
  expect(await lab.directory.repairVolume(db)).toMatchObject({ repaired: [], remaining: [] });
  expect(
    (await lab.directory.events({ since: 0 })).filter(({ kind }) => kind === 'volume.repaired'),
  ).toHaveLength(1);
});

test('what cannot be taken back, or not be asked, remains, and the rest is taken back', async () => {
  const { lab, east, west, first, second } = await twoHalves();
  east.failed = [{ realVolume: first, reason }];
  west.failed = [{ realVolume: second, reason }];
  west.behaviour = ({ method }) => (method === 'PATCH' ? { status: 409, code: 'conflict' } : 'serve');
  expect(await lab.directory.repairVolume(db)).toMatchObject({
    repaired: [{ realVolume: first }],
    remaining: [{ storage: 'west-1', realVolume: second, reason: 'as the test wants it' }],
  });
  await west.stop();
  expect(await lab.directory.repairVolume(db)).toMatchObject({
    repaired: [],
    remaining: [{ storage: 'west-1', realVolume: second }],
  });
  const none = lab.directory.repairVolume(VolumeName.parse('none'));
  await expect(none).rejects.toMatchObject({ code: 'not-found' });
});
