/** Members of copy groups and the directory: what they are told, what they report, and their leases. */

import { describe, expect, test } from 'vitest';
import type { LeaseRequest } from '../../../src/control-protocol/copy-groups.ts';
import type { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { Epoch, RealVolumeId, StorageName, VolumeName } from '../../../src/control-protocol/names.ts';
import type { DirectoryParts } from '../../../src/directory/service.ts';
import { figure } from '../../support/directory-check.ts';
import { type Behaviour, MiB, type StorageStandIn, until } from '../../support/directory-lab.ts';
import { makeLab } from './lab.ts';

const V = VolumeName.parse('v');
const [B] = [StorageName.parse('b')];

async function idsOf(directory: DirectoryClient, name = V): Promise<RealVolumeId[]> {
  const [segment] = (await directory.volumeRecord(name)).segments;
  return (segment?.copies ?? []).map(({ realVolume }) => realVolume);
}

async function pairAt(directory: DirectoryClient, at: number): Promise<string | undefined> {
  return (await directory.volumeRecord(V)).segments[0]?.copies[at]?.pair;
}

/** A volume with its primary on a, and a copy on b that is in step. */
async function makePair(parts: Partial<DirectoryParts> = {}) {
  const lab = await makeLab(parts);
  const [a, b] = [await lab.storage('a', 64 * MiB), await lab.storage('b', 64 * MiB, 'west')] as const;
  a.copies = true;
  expect(await lab.create(V, MiB, [{ storage: 'a' }], ['b'])).toMatchObject({ state: 'done' });
  await until(async () => (await pairAt(lab.directory, 1)) === 'duplex');
  await allTold(lab.directory);
  const [atA, atB] = (await idsOf(lab.directory)) as [RealVolumeId, RealVolumeId];
  return { ...lab, a, b, atA, atB };
}

async function allTold(directory: DirectoryClient): Promise<void> {
  await until(async () => (await figure(directory, 'members_untold')) === 0);
}

function tellings(of: StorageStandIn): number {
  return of.asked.filter((asked) => asked.startsWith('PUT group')).length;
}

describe('members are told', () => {
  test('until they take it; the others do not wait for them', async () => {
    const { directory, a, b, atA, atB } = await makePair();
    a.copies = false;
    let refusals = 0;
    b.behaviour = ({ method }): Behaviour => {
      if (method !== 'PUT group') return 'serve';
      refusals += 1;
      if (refusals <= 2) return 'cut';
      return refusals <= 4 ? { status: 409, code: 'stale-epoch' } : 'serve';
    };
    await a.reportPair(atA, atB, 'suspended');
    await until(() => a.members.get(atA)?.config.members[1]?.pair === 'suspended');
    await until(() => b.members.get(atB)?.config.members[1]?.pair === 'suspended');
    expect(refusals).toBe(5);
    await allTold(directory);
  });

  test('what does not concern them is not told', async () => {
    const { directory, a, b, ...lab } = await makePair();
    const before = [tellings(a), tellings(b)];
    await lab.create('w', MiB, [{ storage: 'a' }]);
    await lab.ended(directory.resyncCopy(V, B)); // it follows already; the operation tells the primary once more
    await lab.delete('w');
    await allTold(directory);
    expect([tellings(a), tellings(b)]).toEqual([(before[0] ?? 0) + 1, before[1]]);
  });

  test('when a storage system of the group has another address, and when it is back', async () => {
    const { directory, a, b, atA } = await makePair({ leaseMs: 1_000 });
    const before = a.members.get(atA)?.config;
    b.peerPort = 20_099;
    await until(() => a.members.get(atA)?.config.members[1]?.peer.port === 20_099);
    expect(a.members.get(atA)?.config.revision).toBeGreaterThan(before?.revision ?? 0);
    expect(a.members.get(atA)?.config.epoch).toBe(1);
    await b.stop();
    await until(async () => (await directory.storageSystem(B)).state === 'offline');
    b.members.clear();
    await b.start();
    await b.report(() => directory.url);
    await until(() => b.members.size === 1);
  });

  test('by a directory that has been started again', async () => {
    const { a, b, ...lab } = await makePair();
    a.members.clear();
    b.members.clear();
    await lab.restart();
    await until(() => a.members.size === 1 && b.members.size === 1);
  });

  test('not what they know to be old: a member that has handed over keeps to it until the record has followed', async () => {
    const { directory, a, b, atA, atB, ...lab } = await makePair();
    let go: () => void = () => undefined;
    const held = new Promise<void>((resolve) => {
      go = resolve;
    });
    // Done at once, and answered later; meanwhile something else is to be told.
    a.after = async ({ method }) => {
      if (method === 'POST hand-over') await held;
    };
    const ended = lab.ended(directory.switchCopy(V, { storage: B }));
    await until(() => a.members.get(atA)?.epoch === 2);
    b.peerPort = 20_099;
    await until(() => b.members.get(atB)?.config.members[1]?.peer.port === 20_099);
    expect(a.members.get(atA)).toMatchObject({ role: 'secondary', epoch: 2 });
    go();
    expect(await ended).toMatchObject({ state: 'done' });
    await until(() => a.members.get(atA)?.config.epoch === 2);
    expect(a.members.get(atA)).toMatchObject({ role: 'secondary', config: { primary: atB } });
  });
});

describe('reports of pairs', () => {
  test('many at once are written together, each with its own answer', async () => {
    const { directory, a, b, ...lab } = await makePair();
    a.copies = false;
    const names = Array.from({ length: 20 }, (_, at) => VolumeName.parse(`n${at}`));
    await Promise.all(names.map((name) => lab.create(name, 4096, [{ storage: 'a' }], ['b'])));
    await allTold(directory);
    const ids = await Promise.all(names.map((name) => idsOf(directory, name)));
    const before = await figure(directory, 'catalog_revision');
    const stranger = RealVolumeId.parse(`rv-${'f'.repeat(16)}`);
    const answers = await Promise.allSettled(
      ids.map((each, at) => {
        const [primary, member] = each as [RealVolumeId, RealVolumeId];
        return a.reportPair(primary, at === 7 ? stranger : member, at === 9 ? 'duplex' : 'copying');
      }),
    );
    expect(answers.map(({ status }) => status)).toEqual(
      names.map((_, at) => (at === 7 ? 'rejected' : 'fulfilled')),
    );
    expect((await figure(directory, 'catalog_revision')) - before).toBeLessThan(19);
    expect(await pairStates(directory)).toEqual({ copying: 18, duplex: 2, suspended: 1 });
    expect(b.members.size).toBe(21);
  });

  test('by who is not primary any more, or about what is gone, are refused', async () => {
    const { directory, a, atA, atB, ...lab } = await makePair();
    await lab.ended(directory.failOver(V, { storage: B }));
    const report = {
      primary: atA,
      epoch: Epoch.parse(1),
      member: atB,
      pair: 'duplex',
      reason: null,
    } as const;
    const refused = (more: object) => directory.reportPair({ ...report, pairRevision: 9, ...more });
    await expect(refused({})).rejects.toMatchObject({ code: 'stale-epoch' });
    await expect(refused({ epoch: 2 })).rejects.toMatchObject({ code: 'stale-epoch' });
    await expect(refused({ primary: `rv-${'f'.repeat(16)}` })).rejects.toMatchObject({ code: 'not-found' });
    expect(a.members.has(atA)).toBe(true);
  });

  test('what a member gives up is told, once by its primary', async () => {
    const { directory, atA, atB } = await makePair();
    const report = { primary: atA, epoch: Epoch.parse(1), member: atB, bytes: 12_288 };
    await directory.reportDiscard(report);
    await expect(directory.reportDiscard({ ...report, primary: atB, member: atA })).rejects.toMatchObject({
      code: 'stale-epoch',
    });
    const events = (await directory.events({ since: 0 })).filter(({ kind }) => kind === 'copy.discarded');
    expect(events).toMatchObject([{ subject: V, details: { storage: 'b', bytes: 12_288 } }]);
    expect(await figure(directory, 'discards_total')).toBe(1);
  });
});

async function pairStates(directory: DirectoryClient): Promise<Record<string, number>> {
  const metrics = await (await fetch(`${directory.url}/metrics`)).text();
  const found = metrics.matchAll(/^volary_directory_pairs\{state="(\w+)"\} (\d+)$/gm);
  return Object.fromEntries([...found].map(([, state, count]) => [state, Number(count)]));
}

async function isGranted(directory: DirectoryClient, asking: LeaseRequest): Promise<boolean> {
  return (await directory.renewLeases(asking)).answers[0] === 'granted';
}

describe('leases', () => {
  const lease = (realVolume: RealVolumeId, epoch: number) => ({ realVolume, epoch: Epoch.parse(epoch) });

  test('are granted to the primary of the record’s epoch alone, in the order of the questions', async () => {
    const { directory, atA, atB, ...lab } = await makePair();
    const all = [lease(atB, 1), lease(atA, 1), lease(atA, 2), lease(atB, 2)];
    const granted = async () => (await directory.renewLeases({ leases: all, givingWay: [] })).answers;
    expect(await granted()).toEqual(['over', 'granted', 'over', 'over']);
    await lab.ended(directory.failOver(V, { storage: B }));
    expect(await granted()).toEqual(['over', 'over', 'over', 'granted']);
    expect(
      await directory.renewLeases({
        leases: [lease(`rv-${'f'.repeat(16)}` as RealVolumeId, 1)],
        givingWay: [],
      }),
    ).toEqual({
      answers: ['over'],
    });
  });

  test('a primary keeps its lease until the record has another one: it may refuse to hand over', async () => {
    const { directory, a, atA, ...lab } = await makePair();
    const asked = async () =>
      (await directory.renewLeases({ leases: [lease(atA, 1)], givingWay: [] })).answers[0];
    const during: (string | undefined)[] = [];
    let answer: Behaviour = { status: 409, code: 'conflict' };
    a.behaviour = async ({ method }): Promise<Behaviour> => {
      if (method !== 'POST hand-over') return 'serve';
      during.push(await asked());
      return answer;
    };
    await lab.ended(directory.switchCopy(V, { storage: B }));
    expect(await asked()).toBe('granted');
    answer = 'serve';
    await lab.ended(directory.switchCopy(V, { storage: B }));
    expect(during).toEqual(['granted', 'granted']);
    expect(await asked()).toBe('over');
  });

  test('a primary that gives way: a copy in step takes over, and need not wait for its lease', async () => {
    const { directory, b, atA, atB } = await makePair();
    const asking = { leases: [lease(atA, 1)], givingWay: [atA] };
    expect(await directory.renewLeases(asking)).toEqual({ answers: ['over'] });
    await until(() => b.members.get(atB)?.role === 'primary');
    expect(b.members.get(atB)?.config).toMatchObject({ epoch: 2, isHandedOver: true, primary: atB });
    expect(await pairAt(directory, 0)).toBe('suspended');
    expect(await directory.renewLeases(asking)).toEqual({ answers: ['over'] });
    const events = (await directory.events({ since: 0 })).map(({ kind }) => kind);
    expect(events.filter((kind) => kind === 'copy.failed-over')).toHaveLength(1);
  });

  test('with none in step it goes on, and it is told what that may cost; once', async () => {
    const { directory, a, atA, atB } = await makePair();
    a.copies = false;
    await a.reportPair(atA, atB, 'suspended');
    const asking = { leases: [lease(atA, 1)], givingWay: [atA] };
    for (let times = 0; times < 3; times += 1) {
      expect(await directory.renewLeases(asking)).toEqual({ answers: ['granted'] });
    }
    const events = (await directory.events({ since: 0 })).filter(({ kind }) => kind === 'copy.cache-lost');
    expect(events).toMatchObject([{ subject: V, details: { storage: 'a', epoch: 1 } }]);
  });

  test('with one in step that is away, it waits for it for a while', async () => {
    const { directory, b, atA, atB } = await makePair({ leaseMs: 1_000, returnMs: 400 });
    await b.stop();
    await until(async () => (await directory.storageSystem(B)).state === 'offline');
    const asking = { leases: [lease(atA, 1)], givingWay: [atA] };
    expect(await directory.renewLeases(asking)).toEqual({ answers: ['later'] });
    const others = [lease(atA, 1), lease(atB, 1), lease(atA, 1)];
    const alone = await directory.renewLeases({ leases: others, givingWay: [] });
    expect(alone, 'it has said so once, and keeps nobody else waiting').toEqual({
      answers: ['later', 'over', 'later'],
    });
    await until(() => isGranted(directory, asking));
    expect(await pairAt(directory, 1)).toBe('duplex');
    expect(b.members.get(atB)?.role).toBe('secondary');
  });

  test('one that comes back in time takes over', async () => {
    const { directory, b, atA, atB } = await makePair({ leaseMs: 1_000, returnMs: 60_000 });
    await b.stop();
    await until(async () => (await directory.storageSystem(B)).state === 'offline');
    const asking = { leases: [lease(atA, 1)], givingWay: [atA] };
    expect(await isGranted(directory, asking)).toBe(false);
    await b.start();
    await b.report(() => directory.url);
    await until(async () => {
      await isGranted(directory, asking);
      return b.members.get(atB)?.role === 'primary';
    });
  });
});
