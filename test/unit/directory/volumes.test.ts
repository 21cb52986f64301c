/** Volumes through the directory's API, over HTTP. */

import { describe, expect, test } from 'vitest';
import { CreateVolume } from '../../../src/control-protocol/directory-api.ts';
import { VolumeName } from '../../../src/control-protocol/names.ts';
import { expectNothingLeaked, settled } from '../../support/directory-check.ts';
import { type Behaviour, GiB, MiB, until } from '../../support/directory-lab.ts';
import { makeLab } from './lab.ts';

const V = VolumeName.parse('v');

async function segmentsOf(directory: { volume(name: VolumeName): Promise<{ segments: unknown }> }, name = V) {
  const { segments } = (await directory.volume(name)) as {
    segments: { length: number; copies: { storage: string }[] }[];
  };
  return segments.map(({ length, copies }) => `${copies[0]?.storage} ${length}`);
}

test('create, show, list, location, resize, delete', async () => {
  const { directory, ...lab } = await makeLab();
  const [a, b] = [await lab.storage('a', 8 * MiB), await lab.storage('b', 16 * MiB)];
  await lab.gateway('gw-1');
  const name = VolumeName.parse('Größe_1');
  expect(await lab.create(name, 20 * MiB)).toMatchObject({
    kind: 'create-volume',
    state: 'done',
    error: null,
  });
  const [inB, inA] = [Object.keys(b.sizes)[0], Object.keys(a.sizes)[0]];
  const volume = await directory.volume(name);
  expect(volume).toEqual({
    name,
    size: 20 * MiB,
    epoch: 1,
    state: 'ready',
    group: null,
    uris: ['nbd://127.0.0.1:10809/Gr%C3%B6%C3%9Fe_1'],
    segments: [
      { offset: 0, length: 16 * MiB, epoch: 1, copies: [copyView('b', inB)] },
      { offset: 16 * MiB, length: 4 * MiB, epoch: 1, copies: [copyView('a', inA)] },
    ],
    migrations: [],
    operation: null,
    createdAt: volume.createdAt,
  });
  expect(await directory.volumes()).toEqual([
    {
      name,
      size: 20 * MiB,
      state: 'ready',
      group: null,
      segments: 2,
      storage: ['b', 'a'],
      createdAt: volume.createdAt,
    },
  ]);
  const { accessKey } = (await directory.volumeRecord(name)).segments[1]?.copies[0] ?? { accessKey: '' };
  expect(accessKey).toBe(a.realVolumes.get(inA ?? '')?.accessKey);
  expect(JSON.stringify(volume)).not.toContain(accessKey);
  const pieces = await directory.location(name, { offset: 16 * MiB - 10, length: 4096 });
  expect(pieces.map(({ offset, length, realOffset }) => [offset, length, realOffset])).toEqual([
    [16 * MiB - 10, 10, 16 * MiB - 10],
    [16 * MiB, 4086, 0],
  ]);
  expect(pieces[1]).toMatchObject({
    storage: 'a',
    site: 'east',
    realVolume: inA,
    role: 'primary',
    uri: `nbd://127.0.0.1:20000/${inA}@1.${accessKey}`,
    file: `/srv/a/${inA}.img`,
  });
  expect(await directory.location(name, {})).toHaveLength(2);
  expect(await directory.location(name, { offset: 20 * MiB })).toEqual([]);
  await expect(directory.location(name, { offset: 20 * MiB + 1 })).rejects.toMatchObject({
    code: 'bad-request',
  });

  expect(await lab.resize(name, 22 * MiB)).toMatchObject({ state: 'done', input: { fromBytes: 20 * MiB } });
  expect(await segmentsOf(directory, name)).toEqual([`b ${16 * MiB}`, `a ${6 * MiB}`]);
  await expectNothingLeaked(directory, [a, b]);
  expect(await lab.delete(name)).toMatchObject({ kind: 'delete-volume', state: 'done' });
  expect(await directory.volumes()).toEqual([]);
  await expectNothingLeaked(directory, [a, b]);
  const events = await directory.events({ since: 0 });
  expect(events.map(({ kind }) => kind)).toEqual([
    'storage.online',
    'storage.online',
    'gateway.online',
    'volume.created',
    'volume.resized',
    'volume.deleted',
  ]);
});

function copyView(storage: string, realVolume: string | undefined) {
  return {
    storage,
    site: 'east',
    realVolume,
    realOffset: 0,
    role: 'primary',
    pair: 'simplex',
    reason: null,
    wanted: 'following',
    mode: 'normal',
    outOfSyncBytes: 0,
    outOfSyncKnown: true,
    lag: { entries: 0, bytes: 0, seconds: 0 },
    file: `/srv/${storage}/${realVolume}.img`,
  };
}

describe('what cannot be is refused at once, and leaves nothing', () => {
  test.each([
    ['../x'],
    ['.hidden'],
    ['a/b'],
    ['x'.repeat(300)],
    ['nul\0'],
    ['\ud800'],
    ['e\u0301'], // not NFC
    [''],
  ])('the name %j', async (name) => {
    const { directory } = await makeLab();
    const body = JSON.stringify({ name, sizeBytes: MiB });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${directory.url}/volumes`, { method: 'POST', body, headers });
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { code: 'bad-request' } });
    const url = `${directory.url}/volumes/${encodeURIComponent(name.toWellFormed())}`;
    for (const method of ['GET', 'DELETE']) expect((await fetch(url, { method })).status).toBe(400);
  });

  test('a volume that there is, is not, or has no room', async () => {
    const { directory, ...lab } = await makeLab();
    await expect(lab.create('v', MiB)).rejects.toMatchObject({ code: 'unavailable' });
    const storage = await lab.storage('a', 8 * MiB);
    await lab.create('v', MiB);
    await expect(lab.create('v', MiB)).rejects.toMatchObject({ code: 'exists' });
    await expect(lab.create('w', 8 * MiB)).rejects.toMatchObject({ code: 'no-space' });
    await expect(lab.create('w', MiB, [{ storage: 'none' }])).rejects.toMatchObject({ code: 'not-found' });
    await expect(lab.create('w', MiB, [{ storage: 'a', sizeBytes: 512 }])).rejects.toMatchObject({
      code: 'bad-request',
    });
    await expect(lab.resize('v', 9 * MiB)).rejects.toMatchObject({ code: 'no-space' });
    await expect(lab.resize('v', 512)).rejects.toMatchObject({ code: 'conflict' });
    await expect(lab.resize('w', 512)).rejects.toMatchObject({ code: 'not-found' });
    await expect(lab.delete('w')).rejects.toMatchObject({ code: 'not-found' });
    await expect(directory.operation('op-0000000000000000' as never)).rejects.toMatchObject({
      code: 'not-found',
    });
    await expectNothingLeaked(directory, [storage]);
    expect((await directory.status()).volumes).toEqual({
      count: 1,
      bytes: MiB,
      notReady: [],
      suspended: [],
      newerEpoch: [],
    });
  });
});

test('two creations of one name at once: one volume', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = await lab.storage('a', GiB);
  const results = await Promise.allSettled(Array.from({ length: 10 }, () => lab.create('v', MiB)));
  expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  for (const result of results) {
    if (result.status === 'rejected') expect(result.reason).toMatchObject({ code: 'exists' });
  }
  await expectNothingLeaked(directory, [storage]);
});

test('creations at once never get more room together than there is', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = [await lab.storage('a', 5 * MiB), await lab.storage('b', 4 * MiB)];
  const results = await Promise.allSettled(
    Array.from({ length: 20 }, (_, n) => lab.create(`v${n}`, 2 * MiB)),
  );
  const made = results.filter(({ status }) => status === 'fulfilled').length;
  expect(made).toBe(4); // 2 + 2, and what is left of a is too little
  await expectNothingLeaked(directory, storage);
});

test('a volume is put where one says', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = [await lab.storage('a', 8 * MiB), await lab.storage('b', 16 * MiB)];
  const segments = [{ storage: 'a' }, { storage: 'b', sizeBytes: 4 * MiB }, { storage: 'a' }];
  expect(await lab.create('v', 8 * MiB, segments)).toMatchObject({ state: 'done', input: { segments } });
  expect(await segmentsOf(directory)).toEqual([`a ${2 * MiB}`, `b ${4 * MiB}`, `a ${2 * MiB}`]);
  await expectNothingLeaked(directory, storage);
});

test('a storage system that refuses: undone, failed, the name is free again', async () => {
  const { directory, ...lab } = await makeLab();
  const [a, b] = [await lab.storage('a', 8 * MiB), await lab.storage('b', 8 * MiB)];
  b.behaviour = ({ method }) => (method === 'PUT' ? { status: 507, code: 'no-space' } : 'serve');
  const failed = await lab.create('v', 12 * MiB);
  expect(failed).toMatchObject({ state: 'failed', error: { code: 'no-space' } });
  await expectNothingLeaked(directory, [a, b]);
  b.behaviour = () => 'serve';
  expect(await lab.create('v', 12 * MiB)).toMatchObject({ state: 'done' });
  expect((await directory.events({})).map(({ kind }) => kind)).toContain('volume.create-failed');
});

test('a storage system that does not answer: asked again, then undone; what it has made is deleted when it answers', async () => {
  const { directory, ...lab } = await makeLab();
  const [a, b] = [await lab.storage('a', 8 * MiB), await lab.storage('b', 8 * MiB)];
  let left = 3;
  b.behaviour = () => (left-- > 0 ? 'cut' : 'serve');
  expect(await lab.create('v', 12 * MiB)).toMatchObject({ state: 'done' });
  expect(await lab.delete('v')).toMatchObject({ state: 'done' });
  b.behaviour = () => 'cut-after';
  expect(await lab.create('w', 12 * MiB)).toMatchObject({ state: 'failed', error: { code: 'unreachable' } });
  expect(await directory.volumes()).toEqual([]);
  b.behaviour = ({ method }) => (method === 'DELETE' ? 'cut' : 'serve');
  expect(await lab.create('x', 12 * MiB)).toMatchObject({ state: 'done' });
  expect(await lab.delete('x')).toMatchObject({ state: 'done' });
  expect(Object.keys(b.sizes)).toHaveLength(1);
  expect((await directory.storageSystem(b.name)).provisionedBytes).toBe(8 * MiB); // of w and x
  await lab.restart();
  b.behaviour = () => 'serve';
  await settled(directory);
  await expectNothingLeaked(directory, [a, b]);
});

test('one operation at a time', async () => {
  const { directory, ...lab } = await makeLab();
  const storage = await lab.storage('a', 8 * MiB);
  let goOn: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    goOn = resolve;
  });
  storage.behaviour = async (): Promise<Behaviour> => {
    await held;
    return 'serve';
  };
  const { id } = await directory.createVolume(CreateVolume.parse({ name: V, sizeBytes: MiB }));
  expect(await directory.operation(id, 1)).toMatchObject({ state: 'running' });
  expect(await directory.volume(V)).toMatchObject({ state: 'creating', operation: id });
  expect(await directory.status()).toMatchObject({
    volumes: { notReady: ['v'] },
    operations: [{ id, volume: 'v' }],
  });
  await expect(lab.create('v', MiB)).rejects.toMatchObject({ code: 'exists' });
  await expect(lab.resize('v', 2 * MiB)).rejects.toMatchObject({ code: 'conflict' });
  await expect(lab.delete('v', true)).rejects.toMatchObject({ code: 'conflict' });
  goOn();
  expect(await directory.finished(id)).toMatchObject({ state: 'done' });
});

describe('delete', () => {
  test('is refused while hosts are connected, unless forced', async () => {
    const { directory, ...lab } = await makeLab();
    await lab.storage('a', 8 * MiB);
    const [one, two] = [await lab.gateway('gw-1'), await lab.gateway('gw-2')];
    await lab.create('v', MiB);
    one.hosts.set('v', 2);
    two.hosts.set('v', 1);
    const refused = lab.delete('v');
    await expect(refused).rejects.toMatchObject({ code: 'in-use' });
    await expect(refused).rejects.toThrow(/2 at gateway gw-1, 1 at gateway gw-2/);
    one.hosts.clear();
    two.answers = false;
    await expect(lab.delete('v')).rejects.toMatchObject({ code: 'unavailable' });
    expect(await directory.volume(V)).toMatchObject({ state: 'ready' });
    expect(await lab.delete('v', true)).toMatchObject({ state: 'done' });
  });

  test('is refused while somebody uses the real volumes that no gateway knows of, unless forced', async () => {
    const { directory, ...lab } = await makeLab();
    const storage = await lab.storage('a', 8 * MiB);
    await lab.create('v', MiB);
    storage.connections = 2; // of a gateway that cannot reach the directory, or by direct access
    const refused = lab.delete('v');
    await expect(refused).rejects.toMatchObject({ code: 'in-use' });
    await expect(refused).rejects.toThrow(/2 at storage system a/);
    expect(await directory.volume(V)).toMatchObject({ state: 'ready' });
    expect(storage.asked.filter((line) => line.startsWith('DELETE'))).toEqual([]);
    expect(await lab.delete('v', true)).toMatchObject({ state: 'done' });
  });

  test('waits for connections to real volumes that are about to end', async () => {
    const { directory, ...lab } = await makeLab();
    const storage = await lab.storage('a', 8 * MiB);
    await lab.create('v', MiB);
    storage.connections = 1;
    storage.behaviour = ({ method }) => {
      if (method === 'GET' && storage.asked.length > 3) storage.connections = 0;
      return 'serve';
    };
    expect(await lab.delete('v')).toMatchObject({ state: 'done' });
    await expectNothingLeaked(directory, [storage]);
  });

  test('does not ask storage systems that are away', async () => {
    const { directory, ...lab } = await makeLab({ leaseMs: 300 });
    const storage = await lab.storage('a', 8 * MiB);
    await lab.create('v', MiB);
    storage.connections = 1;
    await storage.stop();
    await until(async () => (await directory.storageSystems())[0]?.state === 'offline');
    expect(await lab.delete('v')).toMatchObject({ state: 'done' });
  });

  test('waits a while for who uses the real volumes, then cuts them off', async () => {
    const { directory, ...lab } = await makeLab();
    const storage = await lab.storage('a', 8 * MiB);
    await lab.create('v', MiB);
    await lab.create('w', MiB);
    for (const id of Object.keys(storage.sizes)) storage.inUse.add(id);
    expect(await lab.delete('v')).toMatchObject({ state: 'done' });
    const asked = (): number => storage.asked.filter((line) => line.startsWith('DELETE')).length;
    expect(asked()).toBeGreaterThan(2);
    const before = asked();
    expect(await lab.delete('w', true)).toMatchObject({ state: 'done' });
    expect(asked()).toBe(before + 1);
    await expectNothingLeaked(directory, [storage]);
  });
});

describe('resize', () => {
  test('grows in place, then by further segments, and shrinks when allowed', async () => {
    const { directory, ...lab } = await makeLab();
    const storage = [await lab.storage('a', 8 * MiB), await lab.storage('b', 6 * MiB)];
    await lab.create('v', MiB + 512);
    expect(await lab.resize('v', 2 * MiB + 512)).toMatchObject({ state: 'done' });
    expect(await segmentsOf(directory)).toEqual([`a ${2 * MiB + 512}`]);
    expect(await lab.resize('v', 2 * MiB + 512)).toMatchObject({ state: 'done' });
    await lab.create('w', 5 * MiB, [{ storage: 'a' }]);
    expect(await lab.resize('v', 6 * MiB)).toMatchObject({ state: 'done' });
    expect(await segmentsOf(directory)).toEqual([`a ${2 * MiB + 4096}`, `b ${4 * MiB - 4096}`]);
    await expectNothingLeaked(directory, storage);
    expect(await lab.resize('v', MiB, true)).toMatchObject({ state: 'done', input: { allowShrink: true } });
    expect(await segmentsOf(directory)).toEqual([`a ${MiB}`]);
    await expectNothingLeaked(directory, storage);
  });

  test('that fails leaves the volume as it was; a plan is never shown', async () => {
    const { directory, ...lab } = await makeLab();
    const [a, b] = [await lab.storage('a', 8 * MiB), await lab.storage('b', 6 * MiB)];
    await lab.create('v', MiB + 512);
    b.behaviour = ({ method }) => (method === 'PUT' ? { status: 500, code: 'failed' } : 'serve');
    const operation = await lab.resize('v', 12 * MiB);
    expect(operation).toMatchObject({ state: 'failed', error: { code: 'failed' } });
    expect(operation.input).toEqual({ sizeBytes: 12 * MiB, fromBytes: MiB + 512, allowShrink: false });
    expect(await segmentsOf(directory)).toEqual([`a ${MiB + 512}`]);
    await expectNothingLeaked(directory, [a, b]);
  });

  test('waits with its undoing for a storage system that does not answer; the volume stays in use', async () => {
    const { directory, ...lab } = await makeLab();
    const [a, b] = [await lab.storage('a', 8 * MiB), await lab.storage('b', 6 * MiB)];
    await lab.create('v', MiB + 512);
    let cuts = 0;
    a.behaviour = ({ method }) => (method === 'PATCH' && cuts++ >= 0 ? 'cut-after' : 'serve');
    b.behaviour = ({ method }) => (method === 'PUT' ? { status: 500, code: 'failed' } : 'serve');
    const { id } = await directory.resizeVolume(V, { sizeBytes: 12 * MiB });
    await until(async () => (await directory.operation(id)).state === 'undoing');
    const undoingSince = cuts;
    await until(() => cuts > undoingSince + 10);
    expect(await directory.operation(id)).toMatchObject({ state: 'undoing', error: { code: 'failed' } });
    expect(await directory.volume(V)).toMatchObject({ state: 'resizing', size: MiB + 512 });
    a.behaviour = () => 'serve';
    expect(await directory.finished(id)).toMatchObject({ state: 'failed' });
    await expectNothingLeaked(directory, [a, b]);
  });
});
