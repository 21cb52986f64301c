/**
 * A raised epoch under load: once it has been answered, nothing that was asked for with an older one changes a byte any more
 * (DESIGN.md, data plane). Asked of a storage system in a process of its own, over real connections.
 */

import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { VolumeError } from '../../src/model/errors.ts';
import { openRemoteVolume, type RemoteVolume } from '../../src/nbd-client/remote-volume.ts';
import { Command, Option } from '../../src/nbd-server-protocol/constants.ts';
import { addressOf, Fua, NbdClient } from '../support/client.ts';
import { silentLog } from '../support/log.ts';
import { testRandom } from '../support/random.ts';
import {
  clientOf,
  epochOf,
  exportOf,
  idOf,
  KiB,
  MiB,
  type ReportDirectory,
  reportDirectory,
  type StorageProcess,
  startStorageProcess,
  wantedOf,
} from '../support/storage-system.ts';
import { attachStrace, type Strace } from '../support/strace.ts';
import { eventually, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import {
  infoData,
  optionRequest,
  readGreeting,
  readOptionReply,
  requestMessage,
  u32,
  Wire,
} from '../support/wire.ts';

const id = idOf(1);
const SIZE = 16 * MiB;
const BLOCK = 64 * KiB;
const SHUTDOWN = 108;
const ROUNDS = 8;

let folder: TemporaryFolder;
let directory: ReportDirectory;
let storage: StorageProcess;
let file: string;

beforeEach(async () => {
  folder = await temporaryFolder();
  directory = await reportDirectory();
  storage = await startStorageProcess(folder.file('data'), directory.url);
  ({ file } = await clientOf(storage.places).makeRealVolume(id, wantedOf(SIZE)));
});

afterEach(async () => {
  await storage.kill();
  await directory[Symbol.asyncDispose]();
  await folder.remove();
});

const raise = (epoch: number) => clientOf(storage.places).changeRealVolume(id, { epoch: epochOf(epoch) });

const open = (epoch: number): Promise<RemoteVolume> =>
  openRemoteVolume({
    address: addressOf(storage.places.uri),
    exportName: exportOf(id, epoch),
    reconnectMs: 1_000,
    log: silentLog,
  });

/** Writes blocks of its stamp wherever it likes, deep, until it may not any more. */
function load(volume: RemoteVolume, stamp: number, below: (n: number) => number) {
  const source = Buffer.alloc(BLOCK, stamp);
  const counts = { answered: 0, refused: 0, underWay: 0 };
  const writer = async (): Promise<void> => {
    for (;;) {
      counts.underWay += 1;
      try {
        await volume.write(below(SIZE / BLOCK) * BLOCK, source, 0, BLOCK, below(8) === 0);
        counts.answered += 1;
      } catch (error) {
        if (!(error instanceof VolumeError)) throw error;
        counts.refused += 1;
        return;
      } finally {
        counts.underWay -= 1;
      }
    }
  };
  return { counts, ended: Promise.all(Array.from({ length: 32 }, writer)) };
}

test('no write of an older epoch lands behind the answer, however much of it is under way', async () => {
  const random = testRandom('epochs under load');
  for (let epoch = 1; epoch <= ROUNDS; epoch++) {
    const told = `seed ${random.seed}, epoch ${epoch}`;
    const old = await open(epoch);
    const { counts, ended } = load(old, epoch, random.below);
    await eventually('load', () => counts.answered > 50 || undefined);
    await sleep(random.below(50));
    expect(counts.underWay, told).toBeGreaterThan(0);
    await raise(epoch + 1);
    const atTheAnswer = readFileSync(file);

    // The next epoch writes at once, over everything, while the older one still tries.
    const next = await open(epoch + 1);
    const mine = Buffer.alloc(SIZE, 0x80 + epoch);
    const half = SIZE / 2;
    await next.write(0, mine, 0, half, false);
    await sleep(100);
    const after = readFileSync(file);
    expect(after.subarray(0, half).equals(mine.subarray(0, half)), told).toBe(true);
    expect(after.subarray(half).equals(atTheAnswer.subarray(half)), told).toBe(true);
    expect(after.includes(epoch, half), `${told}: the older epoch had written nothing`).toBe(true);

    await ended;
    expect(counts.refused, told).toBe(32);
    await Promise.all([old.close(), next.close()]);
    expect(readFileSync(file).equals(after), told).toBe(true);
  }
});

/** Starts a write that its thread of the pool (because of FUA) is held in for some seconds, on its way into the kernel. */
async function heldWrite(old: NbdClient): Promise<{ write: Promise<number>; strace: Strace }> {
  const strace = await attachStrace(storage.pid, folder.file('slow.log'), [
    ...['-P', file], // and not those of SQLite
    ...['-e', 'trace=pwrite64', '-e', 'inject=pwrite64:delay_enter=3000000'],
  ]);
  const write = old.write(0, Buffer.alloc(4096, 7), Fua);
  let looks = 0;
  await eventually('the write is held', () => {
    looks = stoppedThreads(storage.pid) > 0 ? looks + 1 : 0;
    return looks > 5 || undefined;
  });
  return { write, strace };
}

/** How many threads of the process strace holds just now. */
function stoppedThreads(pid: number): number {
  const threads = readdirSync(`/proc/${pid}/task`);
  const states = threads.map((thread) => readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'));
  return states.filter((status) => /^State:\tt/m.test(status)).length;
}

test('the answer waits for writes that the kernel has been given', async () => {
  const old = await NbdClient.open(storage.places.uri, exportOf(id));
  const { write, strace } = await heldWrite(old);
  await raise(2);
  const atTheAnswer = readFileSync(file);
  await strace.detach();
  expect(await write).toBe(0); // it had been let in, and was carried out
  expect(atTheAnswer.subarray(0, 4096).equals(Buffer.alloc(4096, 7))).toBe(true);
  expect(await old.write(4096, Buffer.alloc(4096, 8))).toBe(SHUTDOWN);
  expect(readFileSync(file).equals(atTheAnswer)).toBe(true);
});

test('who opens with the new epoch waits until the old writes have ended', async () => {
  const old = await NbdClient.open(storage.places.uri, exportOf(id));
  const { write, strace } = await heldWrite(old);
  const raised = raise(2);
  await eventually('the epoch is raised', async () => {
    const view = await clientOf(storage.places).realVolume(id);
    return view.epoch === 2 || undefined;
  });
  const next = await NbdClient.open(storage.places.uri, exportOf(id, 2));
  expect((await next.read(0, 4096)).data.equals(Buffer.alloc(4096, 7))).toBe(true);
  await Promise.all([write, raised]);
  await strace.detach();
});

test('a payload of which half had arrived is not written to the end', async () => {
  const wire = await Wire.connect(addressOf(storage.places.uri));
  await readGreeting(wire);
  wire.send(u32(3), optionRequest(Option.go, infoData(exportOf(id))));
  for (let type = 0; type !== 1; ) ({ type } = await readOptionReply(wire));
  const payload = Buffer.alloc(4 * MiB, 7);
  const message = requestMessage('simple', {
    type: Command.write,
    cookie: 1n,
    offset: 0,
    length: payload.length,
    payload,
  });
  wire.send(message.subarray(0, message.length / 2));
  await eventually('the first half is written', () => readFileSync(file).includes(7) || undefined);
  await raise(2);
  const atTheAnswer = readFileSync(file);
  expect(atTheAnswer.subarray(0, payload.length).equals(payload)).toBe(false);
  wire.send(message.subarray(message.length / 2));
  const reply = await wire.read(16);
  expect(reply.readUInt32BE(4)).toBe(SHUTDOWN);
  expect(readFileSync(file).equals(atTheAnswer)).toBe(true);
  wire.destroy();
});

test('a client that follows the epoch sees no error, and loses nothing, however often it is raised', async () => {
  const random = testRandom('following the epoch');
  let epoch = 1;
  const address = addressOf(storage.places.uri);
  const target = () => ({ address, exportName: exportOf(id, epoch) });
  const volume = await openRemoteVolume({
    ...target(),
    log: silentLog,
    onRefused: () => volume.retarget(target()),
  });
  let isOver = false;
  let answered = 0;
  // Each writer has its own blocks; a block holds what was answered last.
  const held = new Uint8Array(SIZE / BLOCK);
  const writers = Array.from({ length: 16 }, async (_, writer) => {
    const source = Buffer.alloc(BLOCK);
    for (let stamp = 1; !isOver; stamp = 1 + (stamp % 255)) {
      const block = writer + 16 * random.below(SIZE / BLOCK / 16);
      source.fill(stamp);
      await volume.write(block * BLOCK, source, 0, BLOCK, random.below(8) === 0);
      held[block] = stamp;
      answered += 1;
    }
  });
  for (let round = 0; round < ROUNDS; round++) {
    const before = answered;
    await eventually('load', () => answered > before + 50 || undefined);
    const next = epoch + 1;
    const raised = raise(next);
    epoch = next;
    await raised;
  }
  isOver = true;
  await Promise.all(writers);
  await volume.flush();
  await volume.close();
  const bytes = readFileSync(file);
  held.forEach((stamp, block) => {
    const wanted = Buffer.alloc(BLOCK, stamp);
    const told = `seed ${random.seed}, block ${block}`;
    expect(bytes.subarray(block * BLOCK, (block + 1) * BLOCK).equals(wanted), told).toBe(true);
  });
});

test('the epoch survives kill -9 right behind the answer', async () => {
  await raise(5);
  await storage.kill();
  storage = await startStorageProcess(folder.file('data'), directory.url);
  await expect(NbdClient.open(storage.places.uri, exportOf(id, 1))).rejects.toThrow('is over');
  const use = await NbdClient.open(storage.places.uri, exportOf(id, 5));
  expect(await use.write(0, Buffer.alloc(4096, 7))).toBe(0);
});
