/** Copies through the directory's API, over HTTP, with storage systems that bring copies up as they are told. */

import { describe, expect, test } from 'vitest';
import { CreateVolume } from '../../../src/control-protocol/directory-api.ts';
import type { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { type RealVolumeId, VolumeName } from '../../../src/control-protocol/names.ts';
import { expectNothingLeaked, figure, settled } from '../../support/directory-check.ts';
import { type Behaviour, MiB, type StorageStandIn, until } from '../../support/directory-lab.ts';
import { A, B, becomes, C, makeCopyLab, named, realVolumeAt, standing, V } from './copy-lab.ts';
import { LIMITS } from './lab.ts';

async function kindsOf(directory: DirectoryClient): Promise<string[]> {
  return (await directory.events({ since: 0 })).map(({ kind }) => kind).filter((kind) => !/line$/.test(kind));
}

async function taken(of: StorageStandIn, id: RealVolumeId, epoch: number): Promise<void> {
  await until(() => of.members.get(id)?.config.epoch === epoch);
}

test('add, suspend, resync, switch, fail over, remove', async () => {
  const { directory, a, b, c, all, ...lab } = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }]);
  expect(a.members.size, 'a volume without copies has no group').toBe(0);

  expect(await lab.ended(directory.addCopy(V, { storage: B }))).toMatchObject({ state: 'done' });
  await becomes(directory, 'a primary, b duplex');
  expect(await lab.ended(directory.addCopy(V, { storage: C, transfer: 'sync' }))).toMatchObject({
    kind: 'add-copy',
    state: 'done',
  });
  await becomes(directory, 'a primary, b duplex, c duplex');
  await expectNothingLeaked(directory, all);
  const [atA, atB, atC] = [
    await realVolumeAt(directory, 'a'),
    await realVolumeAt(directory, 'b'),
    await realVolumeAt(directory, 'c'),
  ] as const;
  await until(async () => (await figure(directory, 'members_untold')) === 0);
  const config = b.members.get(atB)?.config;
  expect(config).toMatchObject({ volume: V, epoch: 1, primary: atA, leaseMs: 3000, fence: 'never' });
  expect(config?.members.map(({ storage, pair }) => `${storage} ${pair}`)).toEqual([
    'a duplex',
    'b duplex',
    'c duplex',
  ]);
  expect(config?.members[2]?.peer).toEqual(c.reportBody.peer);

  expect(await lab.ended(directory.suspendCopy(V, B))).toMatchObject({
    state: 'done',
    result: { isTold: true },
  });
  await becomes(directory, 'a primary, b suspended, c duplex');
  expect((await directory.status()).health, 'a person wanted that').toBe('ok');
  const shown = (await directory.volume(V)).segments[0]?.copies;
  expect(shown?.map(({ pair, reason }) => [pair, reason])).toEqual([
    ['suspended', null],
    ['suspended', 'a person has suspended it'],
    ['duplex', null],
  ]);
  await lab.ended(directory.resyncCopy(V, B));
  await becomes(directory, 'a primary, b duplex, c duplex');

  expect(await lab.ended(directory.switchCopy(V, { storage: C }))).toMatchObject({
    kind: 'switch-copy',
    state: 'done',
    result: { handOverMs: expect.any(Number), serveMs: expect.any(Number) },
  });
  expect(await standing(directory)).toBe('a duplex, b duplex, c primary');
  await taken(a, atA, 2);
  expect(a.members.get(atA)).toMatchObject({ role: 'secondary' });
  expect(c.members.get(atC)).toMatchObject({ role: 'primary', config: { isHandedOver: true, primary: atC } });

  await c.stop();
  b.copies = false;
  expect(await lab.ended(directory.failOver(V, { storage: B }))).toMatchObject({
    kind: 'failover-copy',
    state: 'done',
  });
  expect(await standing(directory)).toBe('a duplex, b primary, c suspended');
  expect(b.members.get(atB)).toMatchObject({ role: 'primary', config: { isHandedOver: false, epoch: 3 } });
  expect((await directory.status()).volumes.suspended).toEqual([V]);
  expect((await directory.status()).health).toBe('degraded');
  expect((await directory.volume(V)).segments[0]?.copies[2]?.reason).toMatch(/was the primary/);
  await c.start();
  await c.report(() => directory.url);
  await taken(c, atC, 3);
  expect(c.members.get(atC), 'it has been told that it is no primary any more').toMatchObject({
    role: 'secondary',
  });
  await b.reportPair(atB, atC, 'copying');
  await b.reportPair(atB, atC, 'duplex');
  expect(await standing(directory)).toBe('a duplex, b primary, c duplex');

  for (const storage of [A, C]) {
    expect(await lab.ended(directory.removeCopy(V, storage))).toMatchObject({ state: 'done' });
  }
  await settled(directory);
  expect(await standing(directory)).toBe('b primary');
  await until(() => b.members.get(atB)?.config.members.length === 1);
  await expectNothingLeaked(directory, all);
  const kinds = await kindsOf(directory);
  expect(kinds.filter((kind) => kind !== 'copy.pair')).toEqual([
    'volume.created',
    'volume.copy-added',
    'volume.copy-added',
    'volume.copy-suspended',
    'volume.copy-resynced',
    'copy.switched',
    'copy.failed-over',
    'volume.copy-removed',
    'volume.copy-removed',
  ]);
  const pairs = (await directory.events({ since: 0 })).filter(({ kind }) => kind === 'copy.pair');
  expect(pairs[0]).toMatchObject({
    subject: V,
    details: { storage: 'b', from: 'suspended', to: 'duplex', reason: null, realVolume: atB, epoch: 1 },
  });
  expect(await figure(directory, 'switches_total')).toBe(1);
  expect(await figure(directory, 'failovers_total')).toBe(1);
});

test('a volume made with copies, on other sites than its primary; larger and smaller; deleted', async () => {
  const { directory, all, b, c, ...lab } = await makeCopyLab();
  await lab.create('filler', MiB, [{ storage: 'c' }]); // a and b have more room
  expect(await lab.create(V, 8 * MiB, undefined, ['a', 'b'])).toMatchObject({ state: 'done' });
  await becomes(directory, 'c primary, a duplex, b duplex');
  b.asked.length = 0;
  c.asked.length = 0;
  expect(await lab.resize(V, 16 * MiB)).toMatchObject({ state: 'done' });
  await becomes(directory, 'c primary, a duplex, b duplex');
  await expectNothingLeaked(directory, all);
  expect(await lab.resize(V, 12 * MiB, true)).toMatchObject({ state: 'done' });
  await expectNothingLeaked(directory, all);
  expect(await standing(directory)).toBe('c primary, a duplex, b duplex');
  expect(await lab.delete(V)).toMatchObject({ state: 'done' });
  await lab.delete('filler');
  await settled(directory);
  await expectNothingLeaked(directory, all);
});

test('a volume of several segments: each has its copy, also those that come with growth', async () => {
  const { directory, all, ...lab } = await makeCopyLab();
  const segments = [{ storage: 'a', sizeBytes: 40 * MiB }, { storage: 'b' }];
  expect(await lab.create(V, 50 * MiB, segments)).toMatchObject({ state: 'done' });
  await lab.ended(directory.addCopy(V, { storage: C }));
  await becomes(directory, 'a primary, c duplex');
  await becomes(directory, 'b primary, c duplex', 1);
  expect(await lab.ended(directory.switchCopy(V, { storage: C }))).toMatchObject({ state: 'done' });
  expect([await standing(directory), await standing(directory, 1)]).toEqual([
    'a duplex, c primary',
    'b duplex, c primary',
  ]);
  expect(await lab.resize(V, 52 * MiB)).toMatchObject({ state: 'done' });
  await expectNothingLeaked(directory, all);
  expect(await lab.ended(directory.switchCopy(V, { storage: A })), 'what has a copy there').toMatchObject({
    state: 'done',
  });
  expect(await lab.ended(directory.switchCopy(V, { site: 'east' as never }))).toMatchObject({
    state: 'done',
  });
  expect([await standing(directory), await standing(directory, 1)]).toEqual([
    'a primary, c duplex',
    'b primary, c duplex',
  ]);
});

test('growth goes to the secondaries first, a cut to the primary', async () => {
  const { directory, all, ...lab } = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }], ['b']);
  await becomes(directory, 'a primary, b duplex');
  const patched: string[] = [];
  for (const each of all) {
    each.behaviour = ({ method }) => {
      if (method === 'PATCH') patched.push(each.name);
      return 'serve';
    };
  }
  await lab.resize(V, 8 * MiB);
  await lab.resize(V, 2 * MiB, true);
  expect(patched).toEqual(['b', 'a', 'a', 'b']);
});

test('what pairs have become while a volume was resized stays', async () => {
  const { directory, a, b, ...lab } = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }], ['b']);
  await becomes(directory, 'a primary, b duplex');
  const [atA, atB] = [await realVolumeAt(directory, 'a'), await realVolumeAt(directory, 'b')] as const;
  a.copies = false;
  b.behaviour = async ({ method }): Promise<Behaviour> => {
    if (method === 'PATCH') await a.reportPair(atA, atB, 'suspended');
    return 'serve';
  };
  expect(await lab.resize(V, 8 * MiB)).toMatchObject({ state: 'done' });
  expect(await standing(directory)).toBe('a primary, b suspended');
});

describe('a switch that fails', () => {
  test('refused: nothing has changed', async () => {
    const { directory, a, ...lab } = await makeCopyLab();
    await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
    await becomes(directory, 'a primary, b duplex');
    a.behaviour = ({ method }) => (method === 'POST hand-over' ? { status: 409, code: 'conflict' } : 'serve');
    expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({
      state: 'failed',
      error: { code: 'conflict' },
    });
    const record = await directory.volumeRecord(V);
    expect(record).toMatchObject({ state: 'ready', operation: null, segments: [{ epoch: 1 }] });
    expect(await standing(directory)).toBe('a primary, b duplex');
  });

  test.each(['cut', 'cut-after'] as const)(
    'not answered (%s): the primary is primary again, later',
    async (how) => {
      const { directory, a, ...lab } = await makeCopyLab({ limits: { ...LIMITS, handOverMs: 2_000 } });
      await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
      await becomes(directory, 'a primary, b duplex');
      const atA = await realVolumeAt(directory, 'a');
      a.behaviour = ({ method }) => (method === 'POST hand-over' ? how : 'serve');
      expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({
        state: 'failed',
        error: { code: 'unreachable' },
      });
      expect((await directory.volumeRecord(V)).segments).toMatchObject([{ epoch: 3, isHandedOver: false }]);
      expect(await standing(directory)).toBe('a primary, b duplex');
      await taken(a, atA, 3);
      expect(a.members.get(atA)).toMatchObject({ role: 'primary', epoch: 3 });
      a.behaviour = () => 'serve';
      expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({ state: 'done' });
    },
  );

  test('an answer that is lost: who has handed over says so when it is asked again', async () => {
    const { directory, a, ...lab } = await makeCopyLab();
    await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
    await becomes(directory, 'a primary, b duplex');
    let asked = 0;
    a.behaviour = ({ method }): Behaviour => {
      if (method === 'POST hand-over') asked += 1;
      return method === 'POST hand-over' && asked === 1 ? 'cut-after' : 'serve';
    };
    expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({ state: 'done' });
    expect(asked).toBe(2);
    expect(await standing(directory)).toBe('a duplex, b primary');
    expect((await directory.volumeRecord(V)).segments[0]?.epoch).toBe(2);
  });

  test('a primary that does not hand over: nothing has changed', async () => {
    const { directory, a, ...lab } = await makeCopyLab();
    await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
    await becomes(directory, 'a primary, b duplex');
    a.behaviour = ({ method }): Behaviour =>
      method === 'POST hand-over' ? { status: 409, code: 'stale-epoch' } : 'serve';
    expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({
      state: 'failed',
      error: { code: 'conflict' },
    });
    expect((await directory.volumeRecord(V)).segments).toMatchObject([{ epoch: 1, isHandedOver: true }]);
  });

  test('a pair that was lost meanwhile is not switched to', async () => {
    const { directory, a, ...lab } = await makeCopyLab();
    await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
    await becomes(directory, 'a primary, b duplex');
    const [atA, atB] = [await realVolumeAt(directory, 'a'), await realVolumeAt(directory, 'b')] as const;
    a.copies = false;
    a.behaviour = async ({ method }): Promise<Behaviour> => {
      if (method === 'POST hand-over') await a.reportPair(atA, atB, 'suspended');
      return 'serve';
    };
    expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({ state: 'failed' });
    expect(await standing(directory)).toBe('a primary, b suspended');
  });

  test('a new primary that does not serve: it is primary all the same', async () => {
    const { directory, b, ...lab } = await makeCopyLab();
    await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
    await becomes(directory, 'a primary, b duplex');
    b.serves = false;
    expect(await lab.ended(directory.switchCopy(V, { storage: B }))).toMatchObject({
      state: 'failed',
      error: { code: 'unavailable' },
    });
    expect(await standing(directory)).toBe('a duplex, b primary');
    expect((await directory.volumeRecord(V)).operation).toBeNull();
  });
});

test('a copy that cannot be made leaves nothing, and the volume as it was', async () => {
  const { directory, all, b, ...lab } = await makeCopyLab();
  await lab.create(V, 8 * MiB, [{ storage: 'a', sizeBytes: 4 * MiB }, { storage: 'c' }]);
  let made = 0;
  b.behaviour = ({ method }) => {
    if (method !== 'PUT') return 'serve';
    made += 1;
    return made > 1 ? { status: 507, code: 'no-space' } : 'serve';
  };
  expect(await lab.ended(directory.addCopy(V, { storage: B }))).toMatchObject({
    state: 'failed',
    error: { code: 'no-space' },
  });
  await settled(directory);
  await expectNothingLeaked(directory, all);
  expect(await standing(directory)).toBe('a primary');
  expect(await kindsOf(directory)).toContain('volume.copy-add-failed');
});

test('what cannot be is refused with a sentence, and leaves nothing', async () => {
  const { directory, all, a, c, ...lab } = await makeCopyLab();
  await lab.create(V, 4 * MiB, [{ storage: 'a' }], ['b']);
  await becomes(directory, 'a primary, b duplex');
  await lab.create('big', 62 * MiB, [{ storage: 'c' }]);
  const D = named('d');
  const creation = (more: object) =>
    directory.createVolume(CreateVolume.parse({ name: 'w', sizeBytes: MiB, ...more }));
  a.copies = false;
  const refusals: [act: () => Promise<unknown>, code: string, text: RegExp][] = [
    [() => directory.addCopy(V, { storage: D }), 'not-found', /no storage system d/],
    [() => directory.addCopy(VolumeName.parse('no'), { storage: C }), 'not-found', /no volume no/],
    [() => directory.addCopy(V, { storage: A }), 'conflict', /choose another/],
    [() => directory.addCopy(V, { storage: B }), 'conflict', /choose another/],
    [() => directory.addCopy(V, { storage: C }), 'no-space', /no room/],
    [() => directory.addCopy(V, { storage: C, transfer: 'async' }), 'not-supported', /version 0\.2/],
    [() => directory.removeCopy(V, A), 'conflict', /switch to another copy first/],
    [() => directory.removeCopy(V, C), 'not-found', /copies on a, b/],
    [() => directory.suspendCopy(V, A), 'conflict', /primary/],
    [() => directory.resyncCopy(V, C), 'not-found', /copies on a, b/],
    [() => directory.switchCopy(V, { storage: A }), 'conflict', /already/],
    [() => directory.switchCopy(V, { storage: C }), 'not-found', /copies on a, b/],
    [() => directory.switchCopy(V, { site: 'west' as never }), 'not-found', /in site west/],
    [() => directory.failOver(V, { storage: A }), 'conflict', /already/],
    [() => creation({ copies: ['d'] }), 'not-found', /no storage system d/],
    [() => creation({ copies: ['a', 'a'] }), 'bad-request', /two copies/],
    [() => creation({ copies: ['a'], segments: [{ storage: 'a' }] }), 'bad-request', /name another/],
    [() => creation({ copies: ['a', 'b', 'c'] }), 'unavailable', /fewer copies/],
    [() => creation({ copies: ['c'], sizeBytes: 4 * MiB }), 'no-space', /no room/],
    [() => creation({ transfer: 'async', copies: ['a'] }), 'not-supported', /version 0\.2/],
    [() => creation({ group: 'nobody' }), 'not-found', /group create/],
  ];
  for (const [act, code, text] of refusals) {
    const refused = await act().then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(refused, String(text)).toMatchObject({ code, message: expect.stringMatching(text) });
  }
  const [atA, atB] = [await realVolumeAt(directory, 'a'), await realVolumeAt(directory, 'b')] as const;
  await until(() => a.members.get(atA)?.config.members[1]?.pair === 'duplex');
  await a.reportPair(atA, atB, 'suspended');
  await expect(directory.switchCopy(V, { storage: B })).rejects.toMatchObject({ code: 'conflict' });
  await expect(directory.failOver(V, { storage: B })).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringMatching(/force it/),
  });
  expect(await standing(directory)).toBe('a primary, b suspended');
  expect(await lab.ended(directory.failOver(V, { storage: B, force: true }))).toMatchObject({
    state: 'done',
  });
  const [event] = (await directory.events({ since: 0 })).filter(({ kind }) => kind === 'copy.failed-over');
  expect(event?.text).toMatch(/are lost/);
  await c.stop();
  await expectNothingLeaked(directory, all);
});

test('one operation at a time; volumes stay ready meanwhile', async () => {
  const { directory, b, ...lab } = await makeCopyLab();
  await lab.create(V, MiB, [{ storage: 'a' }]);
  let go: () => void = () => undefined;
  const held = new Promise<void>((resolve) => {
    go = resolve;
  });
  b.behaviour = async (): Promise<Behaviour> => {
    await held;
    return 'serve';
  };
  const { id } = await directory.addCopy(V, { storage: B });
  expect(await directory.volumeRecord(V)).toMatchObject({ state: 'ready', operation: id });
  for (const act of [
    () => directory.addCopy(V, { storage: C }),
    () => directory.resizeVolume(V, { sizeBytes: 2 * MiB }),
    () => directory.deleteVolume(V, true),
  ]) {
    await expect(act()).rejects.toMatchObject({ code: 'conflict', message: expect.stringContaining(id) });
  }
  const views = await directory.storageSystems();
  expect(
    views.map(({ provisionedBytes }) => provisionedBytes),
    'promised',
  ).toEqual([MiB, MiB, 0]);
  go();
  expect(await directory.finished(id)).toMatchObject({ state: 'done' });
});

test('what is shown of pairs comes from the primary, when it answers', async () => {
  const { directory, a, ...lab } = await makeCopyLab();
  a.copies = false;
  await lab.create(V, MiB, [{ storage: 'a' }], ['b']);
  const atA = await realVolumeAt(directory, 'a');
  await until(() => a.members.has(atA));
  const outOfSync = async () =>
    (await directory.volume(V)).segments[0]?.copies.map(({ outOfSyncBytes }) => outOfSyncBytes);
  expect(await outOfSync()).toEqual([0, 4096]);
  expect((await directory.volume(V)).segments[0]?.copies[1]).toMatchObject({
    site: 'east',
    pair: 'suspended',
    reason: 'it is new, and nothing has been copied to it yet',
    lag: { entries: 0, bytes: 0, seconds: 0 },
  });
  a.behaviour = ({ method }) => (method === 'GET group' ? 'cut' : 'serve');
  expect(await outOfSync()).toEqual([0, 0]);
  const known = (await directory.volume(V)).segments[0]?.copies.map(({ outOfSyncKnown }) => outOfSyncKnown);
  expect(known).toEqual([true, false]);
  const locations = await directory.location(V, {});
  expect(locations.map(({ role, uri }) => [role, uri.includes('@')])).toEqual([
    ['primary', true],
    ['secondary', false],
  ]);
});
