/** Doing the effects of a step: what patience is measured by. */

import { expect, onTestFinished, test, vi } from 'vitest';
import { StorageRecord } from '../../../src/control-protocol/catalog.ts';
import { RealVolumeId, StorageName } from '../../../src/control-protocol/names.ts';
import { CatalogView } from '../../../src/directory/catalog-view.ts';
import { GroupConfigs } from '../../../src/directory/group-configs.ts';
import { performAll } from '../../../src/directory/operations/perform.ts';
import type { Effect } from '../../../src/directory/operations/workflow.ts';
import type { Peers, StoragePeer } from '../../../src/directory/peers.ts';
import { keys } from '../../../src/directory/records.ts';
import { ControlError } from '../../../src/model/errors.ts';

const NAME = StorageName.parse('a');
const RECORD = StorageRecord.parse({
  name: NAME,
  site: 'east',
  id: '01234567-89ab-4cde-8f01-23456789abcd',
  nbd: { host: '127.0.0.1', port: 1 },
  peer: { host: '127.0.0.1', port: 1 },
  manage: 'http://127.0.0.1:1',
  capacityBytes: 0,
  folder: '/srv/a',
});
const LIMITS = {
  retryMs: 60_000,
  handOverMs: 200,
  serveMs: 400,
  letGoMs: 60_000,
  backoffMinMs: 1,
  backoffMaxMs: 1,
};

test('a clock that is set forward takes nobody’s patience', async () => {
  let clockMs = Date.now();
  vi.spyOn(Date, 'now').mockImplementation(() => {
    clockMs += 3_600_000;
    return clockMs;
  });
  onTestFinished(() => void vi.restoreAllMocks());
  const forced: boolean[] = [];
  const peer: Pick<StoragePeer, 'deleteRealVolume'> = {
    deleteRealVolume: async (_, force) => {
      forced.push(force);
      if (forced.length < 4) throw new ControlError('in-use', 'somebody uses it');
    },
  };
  const peers = { storage: () => peer } as unknown as Peers;
  const view = new CatalogView();
  view.load(1, [{ key: keys.storage(NAME), value: RECORD, revision: 1 }]);
  const realVolume = RealVolumeId.parse(`rv-${'0'.repeat(16)}`);
  const effect: Effect = {
    ...{ kind: 'delete', force: false, patience: 'once' },
    ...{ storage: NAME, realVolume, sizeBytes: 512 },
  };
  const signal = new AbortController().signal;
  const configs = new GroupConfigs(view, { leaseMs: 1, copyBytesPerSecond: 0 });
  const [outcome] = await performAll([effect], {
    view,
    peers,
    configs,
    limits: LIMITS,
    isResumed: false,
    signal,
  });
  expect(outcome).toMatchObject({ error: undefined });
  expect(forced).toEqual([false, false, false, false]);
});
