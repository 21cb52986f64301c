/** A folder that was put back from a backup: what it forgets, and when; and what it waits for. */

import { describe, expect, test } from 'vitest';
import type { StorageClaim } from '../../../src/control-protocol/directory-api.ts';
import { StorageName } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';
import { claimName } from '../../../src/storage-system/claim-name.ts';
import { Instance, type InstanceState } from '../../../src/storage-system/instance.ts';
import { silentLog } from '../../support/log.ts';

/** The process ends there. */
class Crash extends Error {}

const OLDER = new ControlError('wrong-identity', 'it is older');
const AWAY = new ControlError('unreachable', 'nobody answers');
const OTHERS = new ControlError('wrong-cluster', 'it is of another cluster');

type Answer = 'taken' | ControlError | Crash;

/** The same folder through its starts; `told` is what was claimed and forgotten, in order. */
function makeFolder() {
  let state: InstanceState | undefined;
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
      place: { lock: 'boot-1:p', file: 'p' },
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
