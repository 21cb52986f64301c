/**
 * Two storage systems, each in a process of its own, with a copy of the same volume: killed under load in turns, with and without their
 * page cache. What was answered is in both copies when they are in step again, and the two are equal, byte by byte.
 */

import { closeSync, openSync, writeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RealVolumeId } from '../../src/control-protocol/names.ts';
import { BLOCK_BYTES, Book, bytesOf, loadOn } from '../support/book.ts';
import { NbdClient } from '../support/client.ts';
import { CopiesDirectory } from '../support/copies-directory.ts';
import type { DeskGroup } from '../support/group-desk.ts';
import { testRandom } from '../support/random.ts';
import { exportOf, idOf, MiB, Ready, wantedOf } from '../support/storage-system.ts';
import { eventually, requireTool, run, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { startVolary, type VolaryProcess } from '../support/volary-process.ts';

const SIZE = 32 * MiB;
const ROUNDS = 4;
const child = new URL('../support/storage-system-child.ts', import.meta.url).pathname;
const [A, B] = [idOf(1), idOf(2)];
const HOME: Record<RealVolumeId, string> = { [A]: 'east-1', [B]: 'west-1' };

let folder: TemporaryFolder;
let directory: CopiesDirectory;
let group: DeskGroup;
const systems = new Map<string, VolaryProcess>();
let boots = 0;

beforeEach(async () => {
  folder = await temporaryFolder();
  directory = await CopiesDirectory.start();
  await Promise.all([start('east-1'), start('west-1')]);
  for (const id of [A, B]) await directory.client(homeOf(id)).makeRealVolume(id, wantedOf(SIZE));
  const copies = [A, B].map((realVolume) => ({ storage: homeOf(realVolume), realVolume }));
  group = await directory.desk.make(copies, SIZE);
  await duplex();
});

afterEach(async () => {
  await Promise.all([...systems.values()].map((system) => system.kill()));
  await directory[Symbol.asyncDispose]();
  await folder.remove();
});

function homeOf(id: RealVolumeId): string {
  return HOME[id] ?? '';
}

/** With another boot id it finds that its page cache has gone, unless it had been stopped in order. */
async function start(name: string, hasLostCache = false): Promise<void> {
  if (hasLostCache) boots += 1;
  const bootId = boots.toString(16).padStart(32, '0');
  const options = { name, dataFolder: folder.file(name), directoryUrl: directory.url, bootId };
  systems.set(name, await startVolary([JSON.stringify(options)], { command: [process.execPath, child] }));
}

async function kill(name: string): Promise<void> {
  expect((await systems.get(name)?.kill())?.signal).toBe('SIGKILL');
}

function fileOf(id: RealVolumeId): string {
  return folder.file(`${homeOf(id)}/volumes/${id}.raw`);
}

async function duplex(): Promise<void> {
  await eventually(
    'the copies are in step',
    () =>
      group.segment.copies.every(({ role, pair }) => role === 'primary' || pair === 'duplex') || undefined,
  );
  const { storage, realVolume } = group.primary;
  await eventually('the primary sees it so', async () => {
    const [outcome] = await Promise.allSettled([directory.client(storage).group(realVolume)]);
    if (outcome.status === 'rejected' || !outcome.value.serving) return undefined;
    return outcome.value.pairs.every(({ state }) => state === 'duplex') || undefined;
  });
}

/** A connection to the primary of now. */
function connect(): Promise<NbdClient> {
  return eventually('the primary is there', async () => {
    const { storage, realVolume } = group.primary;
    const { uri } = Ready.parse(systems.get(storage)?.ready);
    const [outcome] = await Promise.allSettled([
      NbdClient.open(uri, exportOf(realVolume, group.segment.epoch)),
    ]);
    return outcome.status === 'fulfilled' ? outcome.value : undefined;
  });
}

/** Both hold what was answered, and the same. Nothing may be under way. */
async function check(book: Book, told: string): Promise<void> {
  const client = await connect();
  await duplex();
  const { wrong, mixed } = await book.check(fileOf(group.primary.realVolume));
  expect(wrong, told).toEqual([]);
  for (const block of mixed) {
    const claim = book.rewrite(block);
    expect(await client.write(block * BLOCK_BYTES, bytesOf(claim))).toBe(0);
    book.acknowledge(claim);
  }
  expect(await client.flush(), told).toBe(0);
  const { stdout, code } = await run(requireTool('cmp', 'diffutils'), [fileOf(A), fileOf(B)]);
  expect(stdout, told).toBe('');
  expect(code, told).toBe(0);
  await client.disconnect();
}

const victims: Record<string, (primary: string, secondary: string) => string[]> = {
  'the secondary': (_, secondary) => [secondary],
  'the primary': (primary) => [primary],
  both: (primary, secondary) => [primary, secondary],
};

test.each(Object.keys(victims))('I2, I17: kill -9 of %s under load, again and again', async (who) => {
  const random = testRandom(`copies, kill -9 of ${who}`);
  const book = new Book(SIZE / BLOCK_BYTES);
  for (let round = 0; round < ROUNDS; round++) {
    const told = `seed ${random.seed}, round ${round}`;
    const client = await connect();
    let isOver = false;
    const before = book.acknowledged;
    const load = loadOn(client, book, random, { depth: 16, blocksMax: 16, finished: () => isOver });
    await underLoad(book, before);
    await sleep(random.below(300));
    const names = victims[who]?.(homeOf(A), homeOf(B)) ?? [];
    await Promise.all(names.map((name) => kill(name)));
    if (who === 'the secondary') await sleep(random.below(1_000)); // the load goes on, sooner or later
    await Promise.all(names.map((name) => start(name)));
    if (who === 'the secondary') await duplex();
    isOver = true;
    await load;
    client.wire.destroy();
    await check(book, told);
  }
});

async function underLoad(book: Book, before: number): Promise<void> {
  await eventually('there is load', () => book.acknowledged > before + 50 || undefined);
}

/** Writes blocks that nobody has written before, without a flush behind them; then `id` forgets some of them, as power loss has it. */
async function loseWrites(book: Book, id: RealVolumeId, kills: () => Promise<void>): Promise<void> {
  const client = await connect();
  expect(await client.flush()).toBe(0);
  const claims = [];
  const random = testRandom('what power loss takes');
  for (let n = 0; n < 64; n++) {
    const claim = book.claim(random, 4);
    expect(await client.write(claim.block * BLOCK_BYTES, bytesOf(claim))).toBe(0);
    claims.push({ claim, before: book.before(claim) });
    book.acknowledge(claim);
  }
  await kills();
  client.wire.destroy();
  const fd = openSync(fileOf(id), 'r+');
  // Each as it was before the first of these writes: a block may have been written by several.
  for (const { claim, before } of claims.reverse()) {
    if (random.below(3) > 0) writeSync(fd, before, 0, before.length, claim.block * BLOCK_BYTES);
  }
  closeSync(fd);
}

test('I14: a primary that has lost its page cache gives way to the copy that has what was answered', async () => {
  const book = new Book(SIZE / BLOCK_BYTES);
  await loseWrites(book, A, () => kill('east-1'));
  await start('east-1', true);
  await eventually('the other one is primary', () => group.primary.realVolume === B || undefined);
  await check(book, 'after the failover');
});

test('I6: a secondary that has lost its page cache gets what it may lack', async () => {
  const book = new Book(SIZE / BLOCK_BYTES);
  await loseWrites(book, B, () => kill('west-1'));
  await start('west-1', true);
  await check(book, 'after the copy');
  expect(group.primary.realVolume).toBe(A);
});

test('I12, I13: kill -9 of the primary, a failover under load, and the old primary comes back', async () => {
  const random = testRandom('copies, failover');
  const book = new Book(SIZE / BLOCK_BYTES);
  for (let round = 0; round < 4; round++) {
    const told = `seed ${random.seed}, round ${round}`;
    const client = await connect();
    const before = book.acknowledged;
    const load = loadOn(client, book, random, { depth: 16, blocksMax: 16 });
    await underLoad(book, before);
    await sleep(random.below(300));
    const dead = group.primary.storage;
    await kill(dead);
    await load;
    client.wire.destroy();
    const next = group.primary.realVolume === A ? B : A;
    group.failOver(next);
    const after = await connect();
    let isOver = false;
    const more = loadOn(after, book, random, { depth: 8, blocksMax: 16, finished: () => isOver });
    await underLoad(book, book.acknowledged);
    await start(dead);
    await duplex();
    isOver = true;
    await more;
    after.wire.destroy();
    await check(book, told);
  }
});

test('I11: a primary that was stopped for longer than its lease serves nothing old when it goes on', async () => {
  const old = await connect();
  expect(await old.write(0, Buffer.alloc(4096, 1))).toBe(0);
  expect((await old.read(0, 4096)).data[0]).toBe(1);
  const stopped = systems.get('east-1');
  process.kill(stopped?.pid ?? 0, 'SIGSTOP');
  group.failOver(B);
  const next = await connect();
  expect(await next.write(0, Buffer.alloc(4096, 2))).toBe(0);
  const reads = Promise.allSettled(Array.from({ length: 16 }, () => old.read(0, 4096)));
  await sleep(100); // so that they are there when it goes on
  process.kill(stopped?.pid ?? 0, 'SIGCONT');
  await duplex();
  expect((await next.read(0, 4096)).data[0]).toBe(2);
  old.wire.destroy();
  for (const read of await reads) {
    if (read.status === 'fulfilled') expect(read.value.error).not.toBe(0);
  }
  next.wire.destroy();
  await check(new Book(0), 'after the stop');
});
