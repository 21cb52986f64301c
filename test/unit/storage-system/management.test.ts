/** The management API, and what comes of it in the folder. */

import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { AccessKey, VolumeName } from '../../../src/control-protocol/names.ts';
import { epochOf, exportOf, idOf, KiB, MiB, realVolumes, wantedOf } from '../../support/storage-system.ts';
import { type StorageLab, storageLab } from './lab.ts';

const id = idOf(1);
const CAPACITY = 8 * MiB;
const page = Buffer.alloc(4096, 7);

let lab: StorageLab;
beforeEach(async () => {
  lab = await storageLab({ capacityBytes: CAPACITY });
});
afterEach(() => lab[Symbol.asyncDispose]());

const filesOf = () => readdirSync(`${lab.folder}/volumes`).sort();
const fileOf = (n: number) => `${lab.folder}/volumes/${idOf(n)}.raw`;

describe('making', () => {
  test('a sparse file of the size, and a view that names it; restarted, it is the same', async () => {
    const view = await lab.client.makeRealVolume(id, wantedOf(MiB));
    const file = fileOf(1);
    expect(view).toEqual({
      ...{
        id,
        state: 'in-use',
        reason: null,
        sizeBytes: MiB,
        volume: 'data',
        epoch: 1,
        file,
        connections: 0,
      },
    });
    expect(statSync(file)).toMatchObject({ size: MiB, blocks: 0 });
    await lab.restart();
    expect(await lab.client.realVolume(id)).toEqual(view);
    expect(await realVolumes(lab.ready)).toEqual([view]);
  });

  test('the same again is nothing, with what is in it kept; anything else is a conflict', async () => {
    const view = await lab.client.makeRealVolume(id, wantedOf(MiB));
    const use = await lab.open(exportOf(id));
    expect(await use.write(0, page)).toBe(0);
    const [again, atOnce] = await Promise.all([1, 2].map(() => lab.client.makeRealVolume(id, wantedOf(MiB))));
    expect(again).toEqual({ ...view, connections: 1 });
    expect(atOnce).toEqual(again);
    expect((await use.read(0, 4096)).data.equals(page)).toBe(true);
    for (const other of [
      wantedOf(2 * MiB),
      wantedOf(MiB, { volume: null }),
      wantedOf(MiB, { epoch: epochOf(2) }),
      wantedOf(MiB, { accessKey: AccessKey.parse('f'.repeat(32)) }),
    ]) {
      await expect(lab.client.makeRealVolume(id, other)).rejects.toMatchObject({ code: 'conflict' });
    }
  });

  test('beyond the capacity: no-space, also for many at once, and there is nothing of it', async () => {
    await expect(lab.client.makeRealVolume(id, wantedOf(CAPACITY + 512))).rejects.toMatchObject({
      code: 'no-space',
    });
    expect(filesOf()).toEqual([]);
    const asked = Array.from({ length: 8 }, (_, n) => lab.client.makeRealVolume(idOf(n), wantedOf(3 * MiB)));
    const outcomes = await Promise.allSettled(asked);
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(2);
    expect(filesOf()).toHaveLength(2);
  });

  test('a file with data that belongs to nobody is not touched', async () => {
    writeFileSync(fileOf(1), page);
    await expect(lab.client.makeRealVolume(id, wantedOf(MiB))).rejects.toMatchObject({ code: 'conflict' });
    expect(statSync(fileOf(1)).size).toBe(4096);
    expect(await realVolumes(lab.ready)).toEqual([]);
  });

  test('an unused one can be used by who has its key, and be given to a volume once', async () => {
    expect(await lab.client.makeRealVolume(id, wantedOf(MiB, { volume: null }))).toMatchObject({
      state: 'unused',
    });
    expect(await (await lab.open(exportOf(id))).write(0, page)).toBe(0);
    const given = await lab.client.changeRealVolume(id, { volume: VolumeName.parse('データ') });
    expect(given).toMatchObject({ state: 'in-use', volume: 'データ' });
    const other = lab.client.changeRealVolume(id, { volume: VolumeName.parse('other') });
    await expect(other).rejects.toMatchObject({ code: 'conflict' });
    expect(await lab.client.changeRealVolume(id, { volume: null })).toMatchObject({ state: 'unused' });
  });
});

describe('resizing', () => {
  test('larger and smaller, under a connection; what is added reads as zero, what is cut off is gone', async () => {
    await lab.client.makeRealVolume(id, wantedOf(MiB));
    const use = await lab.open(exportOf(id));
    expect(await use.write(MiB - 4096, page)).toBe(0);
    expect(await lab.client.changeRealVolume(id, { sizeBytes: 64 * KiB })).toMatchObject({
      sizeBytes: 64 * KiB,
    });
    expect(statSync(fileOf(1)).size).toBe(64 * KiB);
    expect(await use.write(MiB - 4096, page)).not.toBe(0);
    expect(await lab.client.changeRealVolume(id, { sizeBytes: 2 * MiB })).toMatchObject({
      sizeBytes: 2 * MiB,
    });
    expect(statSync(fileOf(1)).size).toBe(2 * MiB);
    expect((await use.read(MiB - 4096, 4096)).data.equals(Buffer.alloc(4096))).toBe(true);
    expect(await use.write(2 * MiB - 4096, page)).toBe(0);
    await lab.restart();
    expect((await lab.open(id)).sizeBytes).toBe(2 * MiB);
  });

  test('beyond the capacity: no-space, and nothing has changed; what a smaller one gives back can be had', async () => {
    await lab.client.makeRealVolume(id, wantedOf(6 * MiB));
    await lab.client.makeRealVolume(idOf(2), wantedOf(MiB));
    const grow = (sizeBytes: number) => lab.client.changeRealVolume(idOf(2), { sizeBytes });
    await expect(grow(3 * MiB)).rejects.toMatchObject({ code: 'no-space' });
    expect(statSync(fileOf(2)).size).toBe(MiB);
    await lab.client.changeRealVolume(id, { sizeBytes: 4 * MiB });
    expect(await grow(3 * MiB)).toMatchObject({ sizeBytes: 3 * MiB });
  });

  test('an older epoch is stale, and nothing else that came with it is done', async () => {
    await lab.client.makeRealVolume(id, wantedOf(MiB, { epoch: epochOf(5) }));
    const stale = lab.client.changeRealVolume(id, {
      epoch: epochOf(4),
      sizeBytes: 2 * MiB,
      access: 'prohibited',
    });
    await expect(stale).rejects.toMatchObject({ code: 'stale-epoch' });
    const same = await lab.client.changeRealVolume(id, { epoch: epochOf(5) });
    expect(same).toMatchObject({ state: 'in-use', sizeBytes: MiB, epoch: 5 });
  });
});

describe('deleting', () => {
  test('the file goes; gone already is fine; its capacity is free again', async () => {
    await lab.client.makeRealVolume(id, wantedOf(CAPACITY));
    await lab.client.deleteRealVolume(id, false);
    expect(existsSync(fileOf(1))).toBe(false);
    await lab.client.deleteRealVolume(id, false);
    await expect(lab.client.realVolume(id)).rejects.toMatchObject({ code: 'not-found' });
    await expect(lab.client.changeRealVolume(id, { sizeBytes: 512 })).rejects.toMatchObject({
      code: 'not-found',
    });
    await lab.client.makeRealVolume(id, wantedOf(CAPACITY));
  });

  test('in use while somebody is connected, unless forced; made anew, it is empty, and the old way stays shut', async () => {
    await lab.client.makeRealVolume(id, wantedOf(MiB));
    const use = await lab.open(exportOf(id));
    expect(await use.write(0, page)).toBe(0);
    await expect(lab.client.deleteRealVolume(id, false)).rejects.toMatchObject({ code: 'in-use' });
    expect(await use.write(4096, page)).toBe(0);
    await lab.client.deleteRealVolume(id, true);
    expect(await use.write(0, page)).toBe(108);
    await lab.client.makeRealVolume(id, wantedOf(MiB));
    expect(await use.write(0, page)).toBe(108);
    const anew = await lab.open(exportOf(id));
    expect((await anew.read(0, 4096)).data.equals(Buffer.alloc(4096))).toBe(true);
  });
});

test.each([
  ['GET', '/real-volumes/..%2F..%2Fmeta.db', undefined],
  ['GET', `/real-volumes/${'x'.repeat(300)}`, undefined],
  ['PUT', '/real-volumes/rv-1', {}],
  ['PUT', `/real-volumes/${id}`, { ...wantedOf(MiB), sizeBytes: 1000 }],
  ['PUT', `/real-volumes/${id}`, { ...wantedOf(MiB), sizeBytes: -512 }],
  ['PUT', `/real-volumes/${id}`, { ...wantedOf(MiB), accessKey: 'x' }],
  ['PATCH', `/real-volumes/${id}`, { epoch: 0 }],
  ['DELETE', `/real-volumes/${id}?force=perhaps`, undefined],
])('%s %s %j is a bad request, and nothing comes of it', async (method, path, body) => {
  const response = await fetch(lab.ready.manage + path, {
    method,
    ...(body ? { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } } : {}),
  });
  expect(response.status).toBe(400);
  expect(await response.json()).toMatchObject({ error: { code: 'bad-request' } });
  expect(filesOf()).toEqual([]);
});

test('the API describes itself, and the metrics tell of real volumes', async () => {
  await lab.client.makeRealVolume(id, wantedOf(MiB));
  await lab.open(exportOf(id));
  const api = (await (await fetch(`${lab.ready.manage}/openapi.json`)).json()) as { paths: object };
  expect(Object.keys(api.paths)).toEqual([
    '/real-volumes',
    '/real-volumes/{id}',
    '/real-volumes/{id}/group',
    '/real-volumes/{id}/hand-over',
  ]);
  const metrics = await (await fetch(`${lab.ready.manage}/metrics`)).text();
  expect(metrics).toContain('volary_real_volumes{state="in-use"} 1\n');
  expect(metrics).toContain('volary_copy_pairs{state="duplex"} 0\n');
  expect(metrics).toContain('volary_real_volume_connections 1\n');
  expect(metrics).toContain(`volary_provisioned_bytes ${MiB}\n`);
  expect(metrics).toContain('volary_registered 1\n');
});

test('every change of state is logged, once', async () => {
  await lab.client.makeRealVolume(id, wantedOf(MiB));
  await lab.client.changeRealVolume(id, { access: 'prohibited' });
  await lab.client.changeRealVolume(id, { access: 'prohibited' });
  await lab.client.changeRealVolume(id, { access: 'allowed', epoch: epochOf(2) });
  await lab.client.deleteRealVolume(id, false);
  const told = lab.log.filter(({ realVolume }) => realVolume === id).map(({ from, to }) => [from, to]);
  expect(told).toEqual([
    [null, 'in-use'],
    ['in-use', 'access-prohibited'],
    ['access-prohibited', 'in-use'],
    ['in-use', 'leaving'],
    ['leaving', null],
  ]);
});
