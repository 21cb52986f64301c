/** The verbs against a cluster of real processes: what they print is what there is. */

import { statSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { EventRecord, OperationRecord } from '../../src/control-protocol/catalog.ts';
import type {
  Location,
  StatusView,
  StorageView,
  VolumeSummary,
  VolumeView,
} from '../../src/control-protocol/directory-api.ts';
import { type Cluster, startCluster } from '../support/cluster.ts';
import { eventually, requireTool, runOk } from '../support/tools.ts';
import { startVerb } from '../support/verb-cases.ts';

const MiB = 2 ** 20;
const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.end());

test('a volume over two storage systems: made, shown, located, resized, deleted', async () => {
  const segments = ['--segment', 'east-1:16MiB', '--segment', 'east-2'];
  const made = await cluster.volary('volume', 'create', 'データ', '--size', '48MiB', ...segments);
  const shown = (await cluster.volary('volume', 'show', 'データ')) as VolumeView;
  expect(shown).toEqual(made);
  expect(shown).toMatchObject({ name: 'データ', size: 48 * MiB, state: 'ready', operation: null });
  expect(shown.segments.map(({ offset, length }) => [offset, length])).toEqual([
    [0, 16 * MiB],
    [16 * MiB, 32 * MiB],
  ]);
  const [uri = ''] = shown.uris;
  expect(uri).toBe(cluster.uri('データ'));
  await eventually('the gateway serves it', async () => {
    const { stdout } = await runOk(nbdinfo, ['--size', uri]);
    return Number(stdout) === 48 * MiB ? true : undefined;
  });

  const range = ['--offset', '12MiB', '--length', '8MiB'];
  const places = (await cluster.volary('location', 'データ', ...range)) as Location[];
  expect(
    places.map(({ offset, length, storage, realOffset }) => [offset, length, storage, realOffset]),
  ).toEqual([
    [12 * MiB, 4 * MiB, 'east-1', 12 * MiB],
    [16 * MiB, 4 * MiB, 'east-2', 0],
  ]);
  for (const { file } of places) expect(statSync(file ?? '').isFile()).toBe(true);

  await cluster.volary('volume', 'resize', 'データ', '64MiB');
  expect((await cluster.volary('volume', 'list')) as VolumeSummary[]).toMatchObject([{ size: 64 * MiB }]);
  await refused(['volume', 'resize', 'データ', '1MiB']);
  await refused(['volume', 'create', 'データ', '--size', '1MiB']);
  const deleted = (await cluster.volary('volume', 'delete', 'データ')) as OperationRecord;
  expect(deleted).toMatchObject({ kind: 'delete-volume', state: 'done', error: null });
  await refused(['volume', 'show', 'データ']);
});

/** It is told with a code, and exit status 1. */
async function refused(args: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await cluster.tryVolary(args);
  const { error } = JSON.parse(stdout) as { error: { code: string; message: string } };
  expect({ args, code, stderr }).toEqual({
    args,
    code: 1,
    stderr: `error: ${error.code}: ${error.message}\n`,
  });
}

test('events across kill -9 of the directory: each once, in order', async () => {
  const before = (await cluster.volary('events', '--since', '0')) as EventRecord[];
  const following = startVerb(cluster.directory.url, ['events', '--follow', '--since', '0', '--json']);
  await eventually('what has happened', () => (following.lines().length >= before.length ? true : undefined));
  await cluster.volary('volume', 'create', 'one', '--size', '1MiB');
  await cluster.directory.restart();
  const asked = (await cluster.volary(
    'volume',
    'create',
    'two',
    '--size',
    '1MiB',
    '--no-wait',
  )) as OperationRecord;
  expect(await cluster.volary('operation', 'wait', asked.id)).toMatchObject({ id: asked.id, state: 'done' });
  const all = (await cluster.volary('events', '--since', '0')) as EventRecord[];
  await eventually('all of them', () => (following.lines().length >= all.length ? true : undefined));
  expect(await following.interrupt()).toBe(0);
  const followed = following.lines().map((line) => JSON.parse(line) as EventRecord);
  expect(followed.slice(0, all.length)).toEqual(all);
  expect(followed.map(({ id }) => id)).toEqual(followed.map((_, index) => index + 1));
});

test('status and storage: a storage system that dies is offline, and back when it is back', async () => {
  const states = async () => {
    const { health, storage } = (await cluster.volary('status')) as StatusView;
    return [health, ...storage.map(({ name, state }) => `${name} ${state}`).sort()].join(', ');
  };
  const well = 'ok, east-1 online, east-2 online';
  expect(await states()).toBe(well);
  await cluster.storage('east-2').kill();
  await eventually('it is missed', async () =>
    (await states()).includes('east-2 offline') ? true : undefined,
  );
  expect(await states()).toBe('degraded, east-1 online, east-2 offline');
  expect((await cluster.volary('storage', 'show', 'east-2')) as StorageView).toMatchObject({
    state: 'offline',
  });
  await cluster.storage('east-2').start();
  await eventually('it is back', async () => ((await states()) === well ? true : undefined));
});
