/** The verbs that ask the directory, as a person or a script meets them. */

import { describe, expect, test } from 'vitest';
import type { OperationRecord } from '../../src/control-protocol/catalog.ts';
import type {
  RepairView,
  StorageView,
  VolumeSummary,
  VolumeView,
} from '../../src/control-protocol/directory-api.ts';
import { RealVolumeId, StorageName } from '../../src/control-protocol/names.ts';
import { freePort } from '../support/ports.ts';
import { volaryCommand } from '../support/server.ts';
import { eventually, requireTool, run, runOk } from '../support/tools.ts';
import { document, expectRefusal, freshDirectory, GiB, volary } from '../support/verb-cases.ts';

type Repaired = RepairView['repaired'][number];

const directory = freshDirectory();

describe('volumes', () => {
  test('create, list, show, resize, delete: each waits, and prints one document', async () => {
    const { url } = directory();
    const segments = ['--segment', 'east-1:1GiB', '--segment', 'west-1'];
    const made = await document<VolumeView>(url, ['volume', 'create', 'db', '--size', '2GiB', ...segments]);
    expect(made).toMatchObject({ name: 'db', size: 2 * GiB, uris: ['nbd://127.0.0.1:10809/db'] });
    expect(directory().asked[0]).toBe(
      `POST /volumes {"name":"db","sizeBytes":${2 * GiB},"segments":[{"storage":"east-1","sizeBytes":${GiB}},{"storage":"west-1"}]}`,
    );
    const [listed] = await document<VolumeSummary[]>(url, ['volume', 'list']);
    expect(listed).toMatchObject({ name: 'db', segments: 2, storage: ['east-1', 'west-1'] });
    expect(await document<VolumeView>(url, ['volume', 'show', 'db'])).toEqual(made);
    const resized = await document<VolumeView>(url, ['volume', 'resize', 'db', '3GiB', '--wait']);
    expect(resized.size).toBe(3 * GiB);
    await expectRefusal(url, ['volume', 'resize', 'db', '1GiB'], 'conflict', /larger/);
    await document(url, ['volume', 'resize', 'db', '1GiB', '--allow-shrink']);
    const deleted = await document<OperationRecord>(url, ['volume', 'delete', 'db', '--force']);
    expect(deleted).toMatchObject({ kind: 'delete-volume', state: 'done' });
    expect(directory().asked).toContain('DELETE /volumes/db?force=true');
    expect(await document(url, ['volume', 'list'])).toEqual([]);
  });

  test('for people: tables and sentences; a group goes along', async () => {
    const { url } = directory();
    directory().addVolume('db', 10 * GiB);
    directory().addVolume('データ', GiB / 2);
    expect((await volary(url, ['volume', 'list'])).stdout).toBe(
      [
        'VOLUME     SIZE  STATE  SEGMENTS  STORAGE  GROUP',
        'db       10 GiB  ready         1  east-1   -',
        'データ  512 MiB  ready         1  east-1   -',
        '',
      ].join('\n'),
    );
    const { stdout } = await volary(url, ['volume', 'show', 'データ']);
    expect(stdout).toMatch(/^volume データ: 512 MiB, ready, epoch 1\n\n {2}nbd:.*%BF\n\nOFFSET/);
    const made = await volary(url, ['volume', 'create', 'logs', '--size', '1GiB', '--group', 'g1']);
    expect(made.stdout).toBe('volume logs of 1 GiB is ready, on east-1\n  nbd://127.0.0.1:10809/logs\n');
    expect(directory().asked.at(-3)).toMatch(/"group":"g1"/);
    expect((await volary(url, ['volume', 'delete', 'logs'])).stdout).toBe('volume logs is deleted\n');
  });

  test('--no-wait tells the operation, which can be shown and waited for', async () => {
    const { url } = directory();
    directory().ending = undefined;
    const create = ['volume', 'create', 'db', '--size', '1GiB', '--no-wait'];
    const { stdout } = await volary(url, create);
    expect(stdout).toMatch(/^op-[0-9a-f]{16}\n$/);
    const id = stdout.trim();
    expect(await document<OperationRecord>(url, ['operation', 'show', id])).toMatchObject({
      id,
      state: 'running',
    });
    directory().ending = { code: 'no-space', message: 'no storage system has room for 1 GiB' };
    const waiting = expectRefusal(url, ['operation', 'wait', id], 'no-space', /has room for 1 GiB/);
    directory().finishOperations();
    await waiting;
    expect((await document<OperationRecord>(url, create)).id).toMatch(/^op-/);
  });

  test('an operation that fails is a failure with its code', async () => {
    directory().ending = { code: 'unavailable', message: 'storage system east-1 is away' };
    const create = ['volume', 'create', 'db', '--size', '1GiB'];
    await expectRefusal(directory().url, create, 'unavailable', /^storage system east-1 is away$/);
  });

  test('a directory that is started again while somebody waits costs nothing', async () => {
    directory().ending = undefined;
    const making = document<VolumeView>(directory().url, ['volume', 'create', 'db', '--size', '1GiB']);
    while (!directory().asked.some((line) => line.startsWith('GET /operations'))) {
      await new Promise((wake) => setTimeout(wake, 10));
    }
    await directory().stop();
    directory().addVolume('db', GiB);
    directory().ending = 'done';
    directory().finishOperations();
    await directory().start();
    expect((await making).name).toBe('db');
  });

  test('repair: says what it has taken back, and what that means; what is left is a failure', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    expect((await volary(url, ['volume', 'repair', 'db'])).stdout).toBe('nothing of volume db has failed\n');
    const [one, other] = ['rv-0000000000000001', 'rv-0000000000000002'].map((id, index) => ({
      storage: StorageName.parse(`east-${index + 1}`),
      realVolume: RealVolumeId.parse(id),
      reason: 'fdatasync failed: EIO',
    })) as [Repaired, Repaired];
    directory().repair = { repaired: [one], remaining: [] };
    expect(await document(url, ['volume', 'repair', 'db'])).toEqual({
      ...{ volume: 'db', repaired: [one], remaining: [] },
    });
    expect(directory().asked.at(-1)).toBe('POST /volumes/db/repair');
    expect((await volary(url, ['volume', 'repair', 'db'])).stdout).toMatch(
      /^taken back {3}rv-0{15}1 of east-1 \(fdatasync failed: EIO\)\nvolume db can be used again; writes that were not flushed before the failure may be lost: .*check the file system$/m,
    );
    directory().repair = { repaired: [one], remaining: [other] };
    await expectRefusal(
      url,
      ['volume', 'repair', 'db'],
      'failed',
      /rv-0{15}2 of east-2 \(.*; taken back, and writes .* may be lost.*: rv-0{15}1 of east-1/,
    );
    await expectRefusal(url, ['volume', 'repair', 'none'], 'not-found', /no volume none/);
  });
});

describe('looking', () => {
  test('storage systems', async () => {
    const { url } = directory();
    const systems = await document<StorageView[]>(url, ['storage', 'list']);
    expect(systems.map(({ name }) => name)).toEqual(['east-1', 'west-1']);
    expect(await document(url, ['storage', 'show', 'east-1'])).toEqual(systems[0]);
    expect((await volary(url, ['storage', 'list'])).stdout).toMatch(
      /^STORAGE .*\neast-1 .* 100 GiB .* 99 GiB /,
    );
    expect((await volary(url, ['storage', 'show', 'west-1'])).stdout).toMatch(/data folder +\/srv\/west-1\n/);
  });

  test('location', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    const range = ['--offset', '0', '--length', '1MiB'];
    expect(await document(url, ['location', 'db', ...range])).toMatchObject([
      { offset: 0, length: 2 ** 20, storage: 'east-1', realVolume: 'rv-0123456789abcdef', role: 'primary' },
    ]);
    expect(directory().asked).toEqual([`GET /volumes/db/location?offset=0&length=${2 ** 20}`]);
    expect((await volary(url, ['location', 'db'])).stdout).toMatch(
      /^OFFSET +LENGTH .*\n +0 +1073741824 +east-1 /,
    );
  });

  test('status, of a cluster that is well and one that is not', async () => {
    const { url, clusterId, storage } = directory();
    expect(await document(url, ['status'])).toMatchObject({ clusterId, health: 'ok' });
    for (const [name, view] of storage) storage.set(name, { ...view, state: 'offline' });
    const { stdout } = await volary(url, ['status']);
    expect(stdout).toMatch(new RegExp(`^cluster ${clusterId}: degraded .*\n\nSTORAGE`));
    expect(stdout).toMatch(/^east-1 +east +offline/m);
  });

  test('what other processes say cannot play with the terminal', async () => {
    directory().happen('storage.offline', 'east-1', '\x1b]0;title\x07\x1b[2J\u202egone\r\nfor good');
    const { stdout } = await volary(directory().url, ['events']);
    expect(stdout).toMatch(/east-1: \\u\{1b\}\]0;title\\u\{7\}\\u\{1b\}\[2J\\u\{202e\}gone/);
    expect(stdout).not.toMatch(/[^\P{Cc}\n]/u);
  });
});

describe('what is refused before anybody is asked: exit 2', () => {
  test.each([
    [['volume', 'show', '../x'], 'bad-name'],
    [['volume', 'show', 'x'.repeat(300)], 'bad-name'],
    [['volume', 'show', 'e\u0301'], 'bad-name'],
    [['volume', 'show', ''], 'bad-name'],
    [['volume', 'create', 'a/b', '--size', '1GiB'], 'bad-name'],
    [['volume', 'create', 'db'], 'bad-argument'],
    [['volume', 'create', 'db', '--size', '1GB'], 'bad-size'],
    [['volume', 'create', 'db', '--size', '1000'], 'bad-size'],
    [['volume', 'create', 'db', '--size', '1GiB', '--size', '2GiB'], 'bad-argument'],
    [['volume', 'create', 'db', '--size', '1GiB', '--segment', 'e/1'], 'bad-name'],
    [['volume', 'create', 'db', '--size', '1GiB', '--segment', 'east-1:'], 'bad-size'],
    [['volume', 'create', 'db', '--size', '1GiB', '--segment', 'east-1:7'], 'bad-size'],
    [['volume', 'create', 'db', '--size', '1GiB', '--group', 'a b'], 'bad-name'],
    [['volume', 'create', 'db', '--size', '1GiB', '--transfer', 'slow'], 'bad-argument'],
    [['volume', 'create', 'db', '--size', '1GiB', '--wait', '--no-wait'], 'bad-argument'],
    [['volume', 'create', 'db', '--size', '1GiB', '--copy', 'a/b'], 'bad-name'],
    [
      ['volume', 'create', 'db', '--size', '1GiB', '--transfer', 'sync', '--transfer', 'sync'],
      'bad-argument',
    ],
    [['copy', 'add', 'db'], 'bad-argument'],
    [['copy', 'add', 'db', 'a/b'], 'bad-name'],
    [['copy', 'add', 'db', 'west-1', '--transfer', 'slow'], 'bad-argument'],
    [['copy', 'add', 'db', 'west-1', '--wait', '--no-wait'], 'bad-argument'],
    [['copy', 'switch', 'db'], 'bad-argument'],
    [['copy', 'switch', 'db', 'west-1', '--site', 'west'], 'bad-argument'],
    [['copy', 'switch', 'db', '--site', 'we st'], 'bad-name'],
    [['copy', 'failover', 'db', 'west-1', '--force=yes'], 'bad-argument'],
    [['copy', 'failover', 'db'], 'bad-argument'],
    [['copy', 'failover', '--site', 'ea st'], 'bad-name'],
    [['copy', 'failover', 'db', 'west-1', '--site', 'east'], 'bad-argument'],
    [['copy', 'failover', '--site', 'east', '--no-wait'], 'bad-argument'],
    [['copy', 'wait', 'db'], 'bad-argument'],
    [['copy', 'wait', 'db', '--pair', 'equal'], 'bad-argument'],
    [['copy', 'wait', 'db', '--pair', 'duplex', '--timeout', '10'], 'bad-argument'],
    [['login', 'db'], 'bad-argument'],
    [['login', 'db', '--interface', 'a b'], 'bad-name'],
    [['attach', 'db', '--interface', 'a b'], 'bad-name'],
    [['interface', 'set', 'rack7'], 'bad-argument'],
    [['interface', 'set', 'rack7', 'east'], 'bad-argument'],
    [['interface', 'set', 'rack7', '--site', 'east', 'west', '--site', 'north'], 'bad-argument'],
    [['interface', 'set', 'rack7', '--site', 'east', 'east'], 'bad-argument'],
    [['group', 'create', 'bank'], 'bad-argument'],
    [['group', 'create', 'bank', '--transfer', 'sync', '--fence', 'some'], 'bad-argument'],
    [['group', 'create', 'bank', '--transfer', 'async', '--journal-size', '1GB'], 'bad-size'],
    [['volume', 'resize', 'db'], 'bad-argument'],
    [['volume', 'delete', 'db', '--force=yes'], 'bad-argument'],
    [['volume', 'delete', 'db', 'logs'], 'bad-argument'],
    [['volume', 'list', '--directory', 'ftp://x'], 'bad-uri'],
    [['volume', 'list', '--directory', 'http://x/y'], 'bad-uri'],
    [['volume'], 'bad-argument'],
    [['volume', 'grow', 'db'], 'bad-argument'],
    [['storage', 'show', 'データ'], 'bad-name'],
    [['location', 'db', '--offset', '-1'], 'bad-size'],
    [['operation', 'wait', '7'], 'bad-name'],
    [['events', '--since', '-1'], 'bad-argument'],
    [['events', '--limit', 'all'], 'bad-argument'],
    [['attach', 'db', '--device', '/dev/sda'], 'bad-argument'],
    [['attach', 'db', '--connections', '0'], 'bad-argument'],
    [['detach', '/dev/nbd0/../sda'], 'bad-argument'],
  ])('%j is %s', async (args, code) => {
    const families = ['volume', 'storage', 'operation', 'copy', 'interface', 'group'];
    const path = args.slice(0, families.includes(args[0] ?? '') ? 2 : 1);
    const verb = args[1] === 'grow' ? 'volume' : path.join(' ');
    await expectRefusal(directory().url, args, code, new RegExp(`\\(see volary ${verb} --help\\)$`), 2);
    expect(directory().asked).toEqual([]);
  });
});

describe('failures', () => {
  test('nobody answers: what to do about it, by flag, variable and default', async () => {
    const url = `http://127.0.0.1:${await freePort()}`;
    const advice = /ECONNREFUSED; is the cluster running\? Start it with "volary up", or .* --directory$/;
    await expectRefusal(url, ['volume', 'list'], 'unreachable', advice);
    await expectRefusal(directory().url, ['status', '--directory', url], 'unreachable', advice);
    await expectRefusal(url, ['status', '--watch'], 'unreachable', advice);
    await expectRefusal(url, ['events', '--follow'], 'unreachable', advice);
    expect(await document(url, ['volume', 'list', `--directory=${directory().url}`])).toEqual([]);
  });

  test('what the directory refuses comes with its code: exit 1', async () => {
    const { url } = directory();
    directory().addVolume('db', GiB);
    await expectRefusal(url, ['volume', 'create', 'db', '--size', '1GiB'], 'exists', /there is a volume db/);
    await expectRefusal(url, ['volume', 'show', 'no'], 'not-found', /no volume no$/);
    await expectRefusal(url, ['attach', 'no'], 'not-found', /no volume no$/);
    await expectRefusal(url, ['storage', 'show', 'no'], 'not-found', /no storage system no$/);
    await expectRefusal(url, ['operation', 'show', 'op-0123456789abcdef'], 'not-found', /no operation/);
  });

  test('attach and detach want root', async () => {
    directory().addVolume('db', GiB);
    const setpriv = [
      requireTool('setpriv', 'util-linux'),
      '--reuid=65534',
      '--regid=65534',
      '--clear-groups',
    ];
    for (const verb of ['attach', 'detach']) {
      const args = [...setpriv.slice(1), volaryCommand, verb, 'db'];
      const { code, stderr } = await run(setpriv[0] ?? '', args, {
        env: { VOLARY_DIRECTORY: directory().url },
      });
      expect(stderr).toMatch(/^error: permission-denied: .*run it with sudo\n$/);
      expect(code).toBe(1);
    }
  });
});

describe('pipes', () => {
  test('a long answer arrives whole at a slow reader; one that has enough is no failure', async () => {
    for (let index = 0; index < 3_000; index++) directory().addVolume(`volume-${index}`, GiB);
    const shell = (script: string) =>
      runOk('bash', ['-o', 'pipefail', '-c', script], {
        env: { V: volaryCommand, VOLARY_DIRECTORY: directory().url },
      });
    const counted = await shell('"$V" volume list --json | (sleep 1; cat) | tr -cd "}" | wc -c');
    expect(Number(counted.stdout)).toBe(3_000);
    const first = await shell('"$V" volume list | head -n 1');
    expect(first.stdout).toMatch(/^VOLUME/);
    expect(first.stderr).toBe('');
  });
});

describe('help and completion', () => {
  const verbs = [
    ...['volume create', 'volume list', 'volume show', 'volume resize', 'volume delete'],
    ...['storage list', 'storage show', 'operation show', 'operation wait'],
    ...[
      'copy add',
      'copy remove',
      'copy suspend',
      'copy resync',
      'copy switch',
      'copy failover',
      'copy wait',
    ],
    ...['group create', 'group list', 'group show', 'interface set', 'interface list', 'interface remove'],
    ...['login', 'serve', 'location', 'attach', 'detach', 'status', 'events'],
  ];

  test.each(verbs)('%s --help has examples, and fits in a terminal', async (verb) => {
    const { stdout } = await runOk(volaryCommand, [...verb.split(' '), '--help']);
    expect(stdout).toMatch(new RegExp(`^volary ${verb}`));
    expect(stdout).toMatch(new RegExp(`Examples:\n.*volary ${verb}`));
    expect(stdout).toMatch(/--json/);
    for (const line of stdout.split('\n')) expect(line.length).toBeLessThanOrEqual(110);
  });

  test('--help names every verb, families with what is in them', async () => {
    const { stdout } = await runOk(volaryCommand, ['--help']);
    expect(stdout).toMatch(/volary volume +Virtual volumes: create, list, show, resize, delete/);
    for (const verb of verbs) expect(stdout).toContain(verb.split(' ')[0]);
  });

  const completed = async (url: string, ...words: string[]) => {
    const env = { SHELL: '/bin/bash', VOLARY_DIRECTORY: url };
    const args = ['--get-yargs-completions', 'volary', ...words];
    return (await runOk(volaryCommand, args, { env })).stdout.split('\n').filter((line) => line !== '');
  };

  test('verbs, options, and names that the directory knows', async () => {
    const { url } = directory();
    for (const name of ['db', 'data', 'データ']) directory().addVolume(name, GiB);
    expect(await completed(url, 'volume', '')).toEqual([
      'create',
      'list',
      'show',
      'resize',
      'delete',
      'repair',
    ]);
    expect(await completed(url, 'volume', 'create', '--n')).toContain('--no-wait');
    // It gives up on a directory that is slow to answer; on a busy machine it may have to be asked again.
    const names = (...words: string[]) =>
      eventually('names', async () => {
        const offered = await completed(url, ...words);
        return offered.length > 0 && !offered[0]?.startsWith('-') ? offered : undefined;
      });
    expect(await names('volume', 'show', '')).toEqual(['db', 'data', 'データ']);
    expect(await names('attach', 'da')).toEqual(['data']);
    expect(await names('--directory', url, 'detach', 'd')).toEqual(['db', 'data']);
    expect(await names('storage', 'show', 'e')).toEqual(['east-1']);
    expect(await completed(url, 'volume', 'resize', 'db', 'd')).toEqual([]);
    expect(await names('copy', 'add', 'da')).toEqual(['data']);
    expect(await names('copy', 'switch', 'db', '')).toEqual(['east-1', 'west-1']);
    expect(await names('copy', 'switch', 'db', '--site', 'w')).toEqual(['west']);
    expect(await names('copy', 'failover', '--site', 'e')).toEqual(['east']);
    expect(await names('volume', 'create', 'logs', '--copy', 'west-1', '--copy', 'e')).toEqual(['east-1']);
    expect(await names('copy', 'add', '--transfer=sync', 'db', 'w')).toEqual(['west-1']);
  });

  test('no directory: no names, and not a word', async () => {
    const away = `http://127.0.0.1:${await freePort()}`;
    expect(await completed(away, 'volume', 'show', 'd')).toEqual([]);
  });
});
