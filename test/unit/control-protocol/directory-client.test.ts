/** DirectoryClient and eventsAfter, against the same schemas on a real HTTP server. */

import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { DirectoryClient } from '../../../src/control-protocol/directory-client.ts';
import { eventsAfter } from '../../../src/control-protocol/events-after.ts';
import { OperationId, StorageName, VolumeName } from '../../../src/control-protocol/names.ts';
import { DirectoryDouble } from '../../support/directory-double.ts';
import { eventually } from '../../support/tools.ts';

const GiB = 2 ** 30;
const db = VolumeName.parse('db');
let directory: DirectoryDouble;
let client: DirectoryClient;

beforeEach(async () => {
  directory = new DirectoryDouble();
  await directory.start();
  client = new DirectoryClient(directory.url);
});
afterEach(() => directory.stop());

test('a volume from its making to its end', async () => {
  const operation = await client.createVolume({ name: db, sizeBytes: GiB });
  expect(await client.finished(operation.id)).toMatchObject({ state: 'done', volume: 'db' });
  expect(await client.volumes()).toMatchObject([{ name: 'db', size: GiB, segments: 1 }]);
  expect(await client.volume(db)).toMatchObject({ uris: ['nbd://127.0.0.1:10809/db'] });
  expect(await client.location(db, { offset: 4096 })).toMatchObject([{ offset: 4096, length: GiB - 4096 }]);
  await client.resizeVolume(db, { sizeBytes: 2 * GiB });
  expect((await client.volume(db)).size).toBe(2 * GiB);
  await client.deleteVolume(db, true);
  await expect(client.volume(db)).rejects.toMatchObject({ code: 'not-found' });
  expect(directory.asked).toContain('DELETE /volumes/db?force=true');
});

test('names of every script, and ids', async () => {
  const name = VolumeName.parse('データ.größe-1');
  await client.createVolume({ name, sizeBytes: 512 });
  expect((await client.volume(name)).name).toBe(name);
  expect(await client.storageSystem(StorageName.parse('east-1'))).toMatchObject({ site: 'east' });
  expect(await client.storageSystems()).toHaveLength(2);
  await expect(client.operation(OperationId.parse('op-0123456789abcdef'))).rejects.toMatchObject({
    code: 'not-found',
  });
});

test('what it refuses comes as its code', async () => {
  await client.createVolume({ name: db, sizeBytes: GiB });
  await expect(client.createVolume({ name: db, sizeBytes: GiB })).rejects.toMatchObject({ code: 'exists' });
  await expect(client.resizeVolume(db, { sizeBytes: 512 })).rejects.toMatchObject({ code: 'conflict' });
  await expect(client.resizeVolume(db, { sizeBytes: 513 })).rejects.toMatchObject({ code: 'bad-request' });
});

test('the watch brings a snapshot and changes; the status is whole', async () => {
  const abort = new AbortController();
  const kinds: string[] = [];
  for await (const { kind } of client.watch(abort.signal)) {
    kinds.push(kind);
    if (kind === 'change') abort.abort();
  }
  expect(kinds).toEqual(['snapshot', 'change']);
  expect(await client.status()).toMatchObject({ health: 'ok', clusterId: directory.clusterId });
});

/** Follows until it has `count` ids, while `act` makes things happen. */
async function follow(since: number, count: number, act: () => Promise<void>): Promise<number[]> {
  const abort = new AbortController();
  const ids: number[] = [];
  const following = (async () => {
    for await (const { id } of eventsAfter(client, since, abort.signal)) {
      ids.push(id);
      if (ids.length === count) abort.abort();
    }
  })();
  await Promise.all([following, act()]);
  return ids;
}

test('events across a restart of the directory: each once, in order, also those that came in between', async () => {
  for (let index = 0; index < 5; index++) directory.happen('volume.created', `v${index}`);
  const streaming = () => eventually('a stream', () => (directory.streams > 0 ? true : undefined));
  const ids = await follow(2, 8, async () => {
    await streaming();
    directory.happen('storage.offline', 'east-1');
    await directory.stop();
    directory.happen('storage.online', 'east-1');
    directory.happen('volume.deleted', 'v1');
    await directory.start();
    await streaming();
    directory.happen('volume.deleted', 'v2');
    directory.happen('volume.deleted', 'v3');
  });
  expect(ids).toEqual([3, 4, 5, 6, 7, 8, 9, 10]);
});

test('events that the directory sends twice come once', async () => {
  const ids = await follow(0, 3, async () => {
    await eventually('a stream', () => (directory.streams > 0 ? true : undefined));
    const event = directory.happen('a', 'x');
    directory.events.pop();
    directory.happen('a', 'x');
    expect(directory.events.at(-1)?.id).toBe(event.id);
    directory.happen('b', 'x');
    directory.happen('c', 'x');
  });
  expect(ids).toEqual([1, 2, 3]);
});

test('another cluster on the same address: told, not followed', async () => {
  directory.happen('a', 'x');
  const following = follow(0, 99, async () => {
    await eventually('a stream', () => (directory.streams > 0 ? true : undefined));
    await directory.stop();
    directory.clusterId = randomUUID();
    await directory.start();
  });
  await expect(following).rejects.toMatchObject({ code: 'wrong-cluster' });
});

test('nobody there to begin with: unreachable; an event that is none: unreachable, too', async () => {
  const [event] = [directory.happen('a', 'x')];
  Object.assign(event, { id: 'one' });
  const abort = new AbortController();
  const misled = (async () => {
    for await (const wrong of client.followEvents(abort.signal, 0)) throw new Error(JSON.stringify(wrong));
  })();
  await expect(misled).rejects.toMatchObject({ code: 'unreachable' });
  await directory.stop();
  await expect(follow(0, 1, async () => {})).rejects.toMatchObject({ code: 'unreachable' });
});
