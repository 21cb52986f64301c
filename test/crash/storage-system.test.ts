/**
 * kill -9 of a storage system while real volumes are made, resized, changed and deleted. Whatever was answered is so after
 * the restart; what was not is done or not done, but whole; no file is left that belongs to nobody.
 */

import { readdirSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { RealVolumeId } from '../../src/control-protocol/names.ts';
import type { StorageClient } from '../../src/control-protocol/peers-client.ts';
import type { RealVolumeView } from '../../src/control-protocol/storage-api.ts';
import { ControlError } from '../../src/model/errors.ts';
import { NbdClient } from '../support/client.ts';
import { type SeededRandom, testRandom } from '../support/random.ts';
import {
  clientOf,
  epochOf,
  exportOf,
  idOf,
  KiB,
  type ReportDirectory,
  realVolumes,
  reportDirectory,
  type StorageProcess,
  startStorageProcess,
  wantedOf,
} from '../support/storage-system.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const ROUNDS = 12;
const VOLUMES = 24;
const WORKERS = 4;

/** What is known of a real volume: null, not there; and what it would be if the change under way had happened. */
interface Known {
  now: { sizeBytes: number; epoch: number } | null;
  underWay: { sizeBytes: number; epoch: number } | null | undefined;
}

let folder: TemporaryFolder;
let directory: ReportDirectory;
let storage: StorageProcess | undefined;

beforeAll(async () => {
  folder = await temporaryFolder();
  directory = await reportDirectory();
});

afterAll(async () => {
  await storage?.kill();
  await directory?.[Symbol.asyncDispose]();
  await folder?.remove();
});

/** Each worker has its own volumes, so that the order of the changes of one is known. */
async function work(
  client: StorageClient,
  book: Map<RealVolumeId, Known>,
  ids: RealVolumeId[],
  random: SeededRandom,
) {
  for (let done = 0; ; done++) {
    const id = ids[random.below(ids.length)] as RealVolumeId;
    const known = book.get(id) ?? { now: null, underWay: undefined };
    book.set(id, known);
    try {
      await changeOnce(client, id, known, random);
    } catch (error) {
      if (!(error instanceof ControlError) || error.code !== 'unreachable') throw error;
      return done;
    }
  }
}

async function changeOnce(client: StorageClient, id: RealVolumeId, known: Known, random: SeededRandom) {
  const { now } = known;
  const size = (1 + random.below(64)) * 4 * KiB;
  const act = async (next: Known['underWay'], ask: () => Promise<unknown>) => {
    known.underWay = next;
    await ask();
    known.now = next ?? null;
    known.underWay = undefined;
  };
  if (now === null) {
    return act({ sizeBytes: size, epoch: 1 }, () => client.makeRealVolume(id, wantedOf(size)));
  }
  switch (random.below(3)) {
    case 0:
      return act(null, () => client.deleteRealVolume(id, true));
    case 1: {
      const epoch = epochOf(now.epoch + 1);
      return act({ ...now, epoch }, () => client.changeRealVolume(id, { epoch }));
    }
    default:
      return act({ ...now, sizeBytes: size }, () => client.changeRealVolume(id, { sizeBytes: size }));
  }
}

function isAsKnown(view: RealVolumeView | undefined, wanted: Known['underWay']): boolean {
  if (wanted === undefined) return false;
  if (wanted === null || view === undefined) return wanted === null && view === undefined;
  return view.sizeBytes === wanted.sizeBytes && view.epoch === wanted.epoch && view.state === 'in-use';
}

/** Compares what is there with the book, and brings the book up to date. */
async function check(places: StorageProcess['places'], book: Map<RealVolumeId, Known>, told: string) {
  const views = new Map((await realVolumes(places)).map((view) => [view.id, view]));
  for (const [id, known] of book) {
    const view = views.get(id);
    const fits = isAsKnown(view, known.now) || isAsKnown(view, known.underWay);
    expect(fits, `${told}: ${id} is ${JSON.stringify(view)}, known is ${JSON.stringify(known)}`).toBe(true);
    known.now = view === undefined ? null : { sizeBytes: view.sizeBytes, epoch: view.epoch };
    known.underWay = undefined;
  }
  const files = readdirSync(folder.file('data/volumes')).sort();
  expect(files, told).toEqual([...views.keys()].sort().map((id) => `${id}.raw`));
  for (const { file, sizeBytes } of views.values()) expect(statSync(file).size, told).toBe(sizeBytes);
}

test('S4: what was answered is so after kill -9 at any moment, and nothing is left over', async () => {
  const random = testRandom('kill -9 of a storage system');
  const book = new Map<RealVolumeId, Known>();
  let changes = 0;
  let interrupted = 0;
  for (let round = 0; round < ROUNDS; round++) {
    storage = await startStorageProcess(folder.file('data'), directory.url);
    await check(storage.places, book, `seed ${random.seed}, round ${round}`);
    const client = clientOf(storage.places);
    const workers = Array.from({ length: WORKERS }, (_, worker) => {
      const ids = Array.from({ length: VOLUMES / WORKERS }, (_, n) => idOf(n * WORKERS + worker));
      return work(client, book, ids, random);
    });
    await sleep(random.below(400));
    await storage.kill();
    changes += (await Promise.all(workers)).reduce((sum, done) => sum + done, 0);
    interrupted += [...book.values()].filter(({ underWay }) => underWay !== undefined).length;
  }
  storage = await startStorageProcess(folder.file('data'), directory.url);
  await check(storage.places, book, `seed ${random.seed}, at the end`);
  expect(changes).toBeGreaterThan(ROUNDS * WORKERS);
  expect(interrupted).toBeGreaterThan(ROUNDS);
  await storage.stop();
});

test('Q1: data that was answered is there after kill -9, also of volumes whose files had been closed', async () => {
  storage = await startStorageProcess(folder.file('other'), directory.url);
  const client = clientOf(storage.places);
  const page = (n: number) => Buffer.alloc(4096, n + 1);
  for (let n = 0; n < 80; n++) {
    await client.makeRealVolume(idOf(n), wantedOf(64 * KiB));
    const use = await NbdClient.open(storage.places.uri, exportOf(idOf(n)));
    expect(await use.write(8192, page(n))).toBe(0);
    await use.disconnect();
  }
  await storage.kill();
  storage = await startStorageProcess(folder.file('other'), directory.url);
  for (let n = 0; n < 80; n++) {
    const look = await NbdClient.open(storage.places.uri, idOf(n));
    expect((await look.read(8192, 4096)).data.equals(page(n))).toBe(true);
    await look.disconnect();
  }
  expect(await storage.stop()).toEqual({ code: 0, signal: null });
});
