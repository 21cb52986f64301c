/** The verbs of copies, log-in, interfaces and groups, as a person or a script meets them. */

import { describe, expect, test } from 'vitest';
import type { InterfaceRecord, OperationRecord } from '../../src/control-protocol/catalog.ts';
import type {
  ConsistencyGroupView,
  LoginView,
  StatusView,
  StorageView,
  VolumeView,
} from '../../src/control-protocol/directory-api.ts';
import { StorageName } from '../../src/control-protocol/names.ts';
import { addCopy, setPair } from '../support/directory-double-copies.ts';
import { volaryCommand } from '../support/server.ts';
import { requireTool, run } from '../support/tools.ts';
import { document, expectRefusal, freshDirectory, GiB, volary } from '../support/verb-cases.ts';

const directory = freshDirectory();

const primaryOf = ({ segments }: VolumeView): string | undefined =>
  segments[0]?.copies.find(({ role }) => role === 'primary')?.storage;

describe('copies', () => {
  test('each verb waits for its operation, and prints it', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    const expected = async (args: string[], kind: string, asked: string) => {
      const operation = await document<OperationRecord>(url, ['copy', ...args]);
      expect(operation).toMatchObject({ kind, state: 'done', volume: 'db' });
      expect(directory().asked.findLast((line) => !line.startsWith('GET'))).toBe(asked);
    };
    await expected(
      ['add', 'db', 'west-1', '--transfer', 'sync'],
      'add-copy',
      'POST /volumes/db/copies {"storage":"west-1","transfer":"sync"}',
    );
    await expected(['suspend', 'db', 'west-1'], 'suspend-copy', 'POST /volumes/db/copies/west-1/suspend');
    await expected(['resync', 'db', 'west-1'], 'resync-copy', 'POST /volumes/db/copies/west-1/resync');
    setPair(directory(), 'db', 'west-1', 'duplex');
    await expected(['switch', 'db', 'west-1'], 'switch-copy', 'POST /volumes/db/switch {"storage":"west-1"}');
    expect(primaryOf(directory().volume('db'))).toBe('west-1');
    await expected(
      ['switch', 'db', '--site', 'east'],
      'switch-copy',
      'POST /volumes/db/switch {"site":"east"}',
    );
    expect(primaryOf(directory().volume('db'))).toBe('east-1');
    await expected(
      ['failover', 'db', 'west-1', '--wait'],
      'failover-copy',
      'POST /volumes/db/failover {"storage":"west-1","force":false}',
    );
    await expected(['remove', 'db', 'east-1'], 'remove-copy', 'DELETE /volumes/db/copies/east-1');
  });

  test('for people: what has become of it, and what comes next', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    const said = async (...args: string[]) => (await volary(url, ['copy', ...args])).stdout;
    expect(await said('add', 'db', 'west-1')).toMatch(
      /is being filled; .*volary copy wait db --pair duplex\n$/,
    );
    expect(await said('suspend', 'db', 'west-1')).toMatch(/is suspended; .*volary copy resync db west-1\n$/);
    setPair(directory(), 'db', 'west-1', 'duplex');
    expect(await said('switch', 'db', 'west-1')).toBe(
      'the primary of volume db is on west-1 now (handed over in 12 ms)\n',
    );
    expect(await said('switch', 'db', '--site', 'east')).toMatch(/is in site east now/);
    expect(await said('failover', 'db', 'west-1', '--no-wait')).toMatch(/^op-[0-9a-f]{16}\n$/);
  });

  test('failover --force says what is lost', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    addCopy(directory(), 'db', 'west-1', 'duplex');
    const forced = async () =>
      (await volary(url, ['copy', 'failover', 'db', 'west-1', '--force'])).stdout
        .replace(/^.* now/, '')
        .trim();
    setPair(directory(), 'db', 'west-1', 'suspended', { outOfSyncBytes: 3 * 2 ** 20 });
    expect(await forced()).toBe('; 3 MiB that it lacked are lost');
    addCopy(directory(), 'db', 'west-1', 'suspended');
    setPair(directory(), 'db', 'west-1', 'suspended', { outOfSyncBytes: 0, outOfSyncKnown: false });
    expect(await forced()).toMatch(/^; what it lacked is lost: how much, "volary events" says/);
  });

  test('failover --site: every volume that had its primary there, to the best copy that is online; it goes on after one that cannot be', async () => {
    const { url } = directory();
    const lose = (name: string): void => {
      const view = directory().storage.get(name) as StorageView;
      directory().storage.set(name, { ...view, state: 'offline' });
    };
    for (const name of ['west-2', 'west-3']) {
      const view = directory().storage.get('west-1') as StorageView;
      directory().storage.set(name, { ...view, name: StorageName.parse(name) });
    }
    for (const name of ['db', 'behind', 'alone']) directory().addVolume(name, GiB);
    directory().addVolume('far', GiB, [{ storage: StorageName.parse('west-1') }]);
    addCopy(directory(), 'far', 'east-1', 'duplex');
    for (const [storage, pair] of [
      ['west-1', 'suspended'],
      ['west-2', 'duplex'],
      ['west-3', 'duplex'],
    ] as const) {
      addCopy(directory(), 'db', storage, pair);
      if (storage !== 'west-3') addCopy(directory(), 'behind', storage, 'suspended');
    }
    setPair(directory(), 'behind', 'west-1', 'suspended', { outOfSyncBytes: 9 });
    setPair(directory(), 'behind', 'west-2', 'suspended', { outOfSyncBytes: 5 });

    const site = ['copy', 'failover', '--site', 'east'];
    expect(await volary(url, site)).toMatchObject({
      code: 0,
      stdout: 'no volume has its primary on a storage system of site east that is offline\n',
    });
    lose('east-1');
    lose('west-2');
    const { code, stdout, stderr } = await volary(url, [...site, '--json']);
    const lines = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as { volume?: string });
    expect(code).toBe(1);
    expect(lines.toSorted((a, b) => (a.volume ?? 'z').localeCompare(b.volume ?? 'z'))).toEqual([
      {
        volume: 'alone',
        storage: [],
        error: { code: 'conflict', message: expect.stringMatching(/no copy/) },
      },
      {
        volume: 'behind',
        storage: [],
        error: { code: 'conflict', message: expect.stringMatching(/--force/) },
      },
      { volume: 'db', storage: ['west-3'] },
      { error: { code: 'failed', message: '2 of 3 volumes could not be failed over' } },
    ]);
    expect(stderr).toBe('error: failed: 2 of 3 volumes could not be failed over\n');
    const forced = await volary(url, [...site, '--force']);
    expect(forced.code).toBe(1);
    expect(forced.stdout).toMatch(/^behind: the primary is on west-1 now$/m);
    expect(forced.stdout).toMatch(/^alone: conflict: /m);
    expect(primaryOf(directory().volume('far'))).toBe('west-1');
    await expectRefusal(
      url,
      ['copy', 'failover', '--site', 'north'],
      'not-found',
      /no storage system is in site north/,
    );
  });

  test('what the directory refuses is a failure, with its code', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    addCopy(directory(), 'db', 'west-1', 'suspended');
    await expectRefusal(url, ['copy', 'failover', 'db', 'west-1'], 'conflict', /not duplex/);
    await document(url, ['copy', 'failover', 'db', 'west-1', '--force']);
    await expectRefusal(url, ['copy', 'add', 'db', 'west-1'], 'exists', /has a copy on west-1 already/);
    directory().ending = { code: 'unavailable', message: 'west-1 does not hand over' };
    await expectRefusal(url, ['copy', 'switch', 'db', 'west-1'], 'unavailable', /does not hand over/);
  });

  test('--wait of add and resync: until that copy is duplex, whatever others are', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    addCopy(directory(), 'db', 'east-2', 'suspended');
    for (const verb of ['add', 'resync']) {
      const waiting = document<OperationRecord>(url, ['copy', verb, 'db', 'west-1', '--wait']);
      const looks = () => directory().asked.filter((line) => line === 'GET /volumes/db').length;
      const before = looks();
      while (looks() < before + 2) await new Promise((wake) => setTimeout(wake, 10));
      setPair(directory(), 'db', 'west-1', 'duplex');
      expect((await waiting).state).toBe('done');
    }
  });

  test('wait: returns when all copies are so', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    addCopy(directory(), 'db', 'west-1', 'copying');
    addCopy(directory(), 'db', 'east-2', 'duplex');
    const waiting = document<VolumeView>(url, ['copy', 'wait', 'db', '--pair', 'duplex', '--timeout', '1h']);
    while (!directory().asked.includes('GET /volumes/db')) await new Promise((wake) => setTimeout(wake, 10));
    setPair(directory(), 'db', 'west-1', 'duplex');
    expect((await waiting).name).toBe('db');
    expect((await volary(url, ['copy', 'wait', 'db', '--pair', 'duplex'])).stdout).toBe(
      'all copies of volume db are duplex\n',
    );
  });

  test('wait: too long is a failure that says how it is; so is a volume without copies', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    const wait = ['copy', 'wait', 'db', '--pair', 'duplex', '--timeout', '600ms'];
    await expectRefusal(url, wait, 'conflict', /^volume db has no copies: make one with "volary copy add/);
    addCopy(directory(), 'db', 'west-1', 'copying');
    setPair(directory(), 'db', 'west-1', 'suspended', { reason: 'unreachable', outOfSyncBytes: 3 * 2 ** 20 });
    const how = /not duplex everywhere after 0\.6 s: west-1 is suspended \(unreachable\), 3 MiB out of sync$/;
    await expectRefusal(url, wait, 'timeout', how);
    await directory().stop();
    await expectRefusal(url, wait, 'timeout', /: the directory does not answer$/);
    await directory().start();
  });

  test('volume create with copies; volume show and status say how they are', async () => {
    const { url } = directory();
    const create = ['volume', 'create', 'db', '--size', '1GiB', '--segment', 'east-1'];
    const made = await volary(url, [...create, '--copy', 'west-1', '--copy', 'east-2', '--transfer', 'sync']);
    expect(made.stdout).toMatch(/^volume db of 1 GiB is ready, on east-1, with copies on west-1, east-2\n/);
    expect(directory().asked[0]).toMatch(/"copies":\["west-1","east-2"\],"transfer":"sync"/);
    setPair(directory(), 'db', 'west-1', 'suspended', { reason: 'unreachable', outOfSyncBytes: 4096 });
    const { stdout } = await volary(url, ['volume', 'show', 'db']);
    expect(stdout.split('\n').slice(4, -1)).toEqual([
      'OFFSET  LENGTH  STORAGE  SITE  ROLE       PAIR                     OUT OF SYNC  MODE    FILE',
      '   0 B   1 GiB  east-1   east  primary    simplex                            -  normal  /srv/rv.raw',
      '                west-1   west  secondary  suspended (unreachable)        4 KiB  normal  /srv/rv.raw',
      '                east-2   east  secondary  duplex                           0 B  normal  /srv/rv.raw',
    ]);
    setPair(directory(), 'db', 'west-1', 'suspended', { outOfSyncKnown: false });
    expect((await volary(url, ['volume', 'show', 'db'])).stdout).toMatch(/^ *west-1 .* suspended +unknown /m);
    expect((await document<StatusView>(url, ['status'])).volumes.suspended).toEqual(['db']);
    expect((await volary(url, ['status'])).stdout).toMatch(
      /^volume db: a copy does not follow \(why: volary volume show db\)$/m,
    );
  });
});

describe('hosts', () => {
  test('interfaces: set, list, remove; sites in their order', async () => {
    const { url } = directory();
    for (const sites of [
      ['--site', 'east', 'west'],
      ['--site', 'east', '--site', 'west'],
    ]) {
      const set = await document<InterfaceRecord>(url, ['interface', 'set', 'rack7', ...sites]);
      expect(set).toEqual({ name: 'rack7', sites: ['east', 'west'] });
    }
    expect(await document(url, ['interface', 'list'])).toEqual([{ name: 'rack7', sites: ['east', 'west'] }]);
    expect((await volary(url, ['interface', 'list'])).stdout).toMatch(/^INTERFACE .*\nrack7 +east, west\n$/);
    expect(await document(url, ['interface', 'remove', 'rack7'])).toEqual({ name: 'rack7' });
    expect((await volary(url, ['interface', 'list'])).stdout).toMatch(/^no interfaces yet: .*interface set/);
    await expectRefusal(url, ['interface', 'remove', 'rack7'], 'not-found', /no such interface/);
  });

  test('login: where to connect', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    await document(url, ['interface', 'set', 'rack7', '--site', 'west']);
    const view = await document<LoginView>(url, ['login', 'db', '--interface', 'rack7']);
    expect(view).toEqual({ uri: 'nbd://127.0.0.1:10809/db', site: 'west', gateway: 'west-gw' });
    expect(directory().asked.at(-1)).toBe('POST /volumes/db/login {"interface":"rack7"}');
    expect((await volary(url, ['login', 'db', '--interface', 'rack7'])).stdout).toBe(`${view.uri}\n`);
    await expectRefusal(url, ['login', 'db', '--interface', 'rack8'], 'not-found', /no such interface/);
  });

  test('attach --interface logs in before it attaches', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    await document(url, ['interface', 'set', 'rack7', '--site', 'west']);
    const [setpriv = '', ...drop] = [
      requireTool('setpriv', 'util-linux'),
      ...['--reuid=65534', '--regid=65534', '--clear-groups'],
    ];
    const args = [...drop, volaryCommand, 'attach', 'db', '--interface', 'rack7'];
    const { stderr } = await run(setpriv, args, { env: { VOLARY_DIRECTORY: url } });
    expect(stderr).toMatch(/^error: permission-denied: /);
    expect(directory().asked.at(-1)).toBe('POST /volumes/db/login {"interface":"rack7"}');
  });
});

test('groups: create, list, show', async () => {
  const { url } = directory();
  const options = ['--transfer', 'async', '--journal', 'volume', '--journal-size', '1GiB', '--fetch', 'pull'];
  const create = ['group', 'create', 'bank', ...options, '--fence', 'data'];
  const made = await document<ConsistencyGroupView>(url, create);
  expect(made).toMatchObject({ name: 'bank', transfer: 'async', fence: 'data', fetch: 'pull' });
  expect(directory().asked[0]).toBe(
    `POST /groups {"name":"bank","transfer":"async","journal":"volume","journalSizeBytes":${GiB},"fetch":"pull","fence":"data"}`,
  );
  expect(await document(url, ['group', 'list'])).toEqual([made]);
  expect(await document(url, ['group', 'show', 'bank'])).toEqual(made);
  expect((await volary(url, ['group', 'show', 'bank'])).stdout).toMatch(
    /^GROUP .*\nbank +async +data +volume +db\n\n7 writes so far\n\nSTORAGE .*\nwest-1 +0 /,
  );
  await expectRefusal(url, ['group', 'show', 'none'], 'not-found', /no group none/);
});
