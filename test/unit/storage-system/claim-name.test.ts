/** What a storage system waits for before it serves; and what a folder that was put back from a backup forgets, and when. */

import { describe, expect, test } from 'vitest';
import type { StorageClaim } from '../../../src/control-protocol/directory-api.ts';
import { StorageName } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';
import type { FolderPlace } from '../../../src/storage/data-folder.ts';
import { claimName } from '../../../src/storage-system/claim-name.ts';
import { Instance, type InstanceState } from '../../../src/storage-system/instance.ts';
import { silentLog } from '../../support/log.ts';

/** The process ends there. */
class Crash extends Error {}

const OLDER = new ControlError('wrong-identity', 'it is older');
const AWAY = new ControlError('unreachable', 'nobody answers');
const OTHERS = new ControlError('wrong-cluster', 'it is of another cluster');

const PLACE: FolderPlace = { lock: 'boot-1:p', file: 'p' };

type Answer = 'taken' | ControlError | Crash;

/** The same folder through its starts; `told` is what was claimed and forgotten, in order. */
function makeFolder(places: readonly FolderPlace[] = [PLACE]) {
  let state: InstanceState | undefined;
  let starts = 0;
  const told: string[] = [];
  const start = (answers: readonly Answer[], how: { isRestored: boolean; forget?: 'crashes' }) => {
    const left = [...answers];
    const instance = new Instance({
      table: {
        instance: () => state,
        keepInstance: (kept) => {
          state = kept;
        },
      },
      place: places[Math.min(starts++, places.length - 1)] ?? PLACE,
      log: silentLog,
      nowMs: () => 0,
    });
    return claimName({
      name: StorageName.parse('a'),
      id: 'folder',
      clusterId: 'cluster',
      instance,
      isRestored: how.isRestored,
      forget: async () => {
        if (how.forget === 'crashes') throw new Crash();
        told.push('forgotten');
      },
      directory: {
        url: 'http://directory',
        claimStorage: async (_: StorageName, { instance: claim }: StorageClaim) => {
          told.push(claim?.isRestored === true ? 'claimed as restored' : 'claimed');
          const answer = left.shift() ?? new Crash();
          if (answer !== 'taken') throw answer;
          return { clusterId: 'cluster', leaseMs: 3000, instanceNumber: 5 };
        },
      },
      log: silentLog,
      patienceMs: 600,
    });
  };
  return { start, told };
}

describe('a folder that is older, and that a person wants to be taken', () => {
  test('forgets once it has been taken, and only then', async () => {
    const { start, told } = makeFolder();
    expect(await start([OLDER, 'taken'], { isRestored: true })).toBe(true);
    expect(told).toEqual(['claimed', 'claimed as restored', 'forgotten']);
    expect(await start(['taken'], { isRestored: true })).toBe(true);
    expect(told.slice(3)).toEqual(['claimed']);
  });

  test('forgets nothing when it is refused all the same', async () => {
    const { start, told } = makeFolder();
    await expect(start([OLDER, OTHERS], { isRestored: true })).rejects.toThrow(OTHERS);
    await expect(start([OLDER], { isRestored: false })).rejects.toThrow(OLDER);
    expect(told).not.toContain('forgotten');
  });

  test.each([
    ['before it has heard that it was taken', [OLDER, new Crash()], undefined],
    ['before it has forgotten', [OLDER, 'taken'], 'crashes'],
  ] as const)('forgets at its next start when it has ended %s', async (_, answers, forget) => {
    const { start, told } = makeFolder();
    await expect(
      start(answers, { isRestored: true, ...(forget === undefined ? {} : { forget }) }),
    ).rejects.toThrow(Crash);
    expect(told).not.toContain('forgotten');
    expect(await start(['taken'], { isRestored: false })).toBe(true);
    expect(told.slice(2)).toEqual(['claimed', 'forgotten']);
    expect(await start(['taken'], { isRestored: false })).toBe(true);
    expect(told.slice(4)).toEqual(['claimed']);
  });

  test('waits for the directory when it may have been taken: what it knows of others may not be true any more', async () => {
    const { start, told } = makeFolder();
    await expect(start([OLDER, new Crash()], { isRestored: true })).rejects.toThrow(Crash);
    expect(await start([AWAY, 'taken'], { isRestored: false })).toBe(true);
    expect(told.slice(2)).toEqual(['claimed', 'claimed', 'forgotten']);
  });
});

describe('without an answer, a folder that has been taken before', () => {
  const AWAYS = Array.from({ length: 5 }, () => AWAY);

  test.each([
    ['lies where it did, in the same life of the machine', { lock: 'boot-1:p', file: null }],
    ['lies where it did, in the next life', { lock: 'boot-2:p', file: 'p' }],
  ])('and %s, goes on', async (_, place) => {
    const { start } = makeFolder([PLACE, place]);
    await start(['taken'], { isRestored: false });
    expect(await start([AWAY], { isRestored: false })).toBe(false);
  });

  test('and lies elsewhere, gives up', async () => {
    const { start } = makeFolder([PLACE, { lock: 'boot-2:q', file: 'q' }]);
    await start(['taken'], { isRestored: false });
    await expect(start(AWAYS, { isRestored: false })).rejects.toMatchObject({ code: 'unavailable' });
  });

  test('and lies elsewhere, gives up also while the reasons change', async () => {
    const { start } = makeFolder([PLACE, { lock: 'boot-2:q', file: 'q' }]);
    await start(['taken'], { isRestored: false });
    const reasons = [AWAY, new ControlError('unavailable', 'it is starting')];
    const answers = [...reasons, ...reasons, ...reasons];
    await expect(start(answers, { isRestored: false })).rejects.toMatchObject({ code: 'unavailable' });
  });

  test.each([
    ['where it was was not kept', null, 'p'],
    ['where it is cannot be known', 'p', null],
  ])('and may lie where it did, waits for as long as it takes (%s)', async (_, before, now) => {
    const { start, told } = makeFolder([
      { lock: 'boot-1:p', file: before },
      { lock: 'boot-2:q', file: now },
    ]);
    await start(['taken'], { isRestored: false });
    expect(await start([...AWAYS, 'taken'], { isRestored: false })).toBe(true);
    expect(told).toHaveLength(7);
  });

  test('waits as long as ever for one that is online once there is an answer', async () => {
    const online = new ControlError('in-use', 'it is online');
    const { start } = makeFolder([PLACE, { lock: 'boot-2:q', file: null }]);
    await start(['taken'], { isRestored: false });
    expect(await start([...AWAYS, online, 'taken'], { isRestored: false })).toBe(true);
    await expect(
      start(
        AWAYS.map(() => online),
        { isRestored: false },
      ),
    ).rejects.toMatchObject({
      code: 'wrong-identity',
    });
  });
});
