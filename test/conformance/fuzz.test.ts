/**
 * Mutated sessions against `bin/volary serve`. Whatever a client sends, the server must not crash, hang, hoard
 * memory, stop serving others, or change bytes that no valid request covered.
 *
 * FUZZ_SEED repeats a run (a failure prints it); FUZZ_SESSIONS makes it longer.
 */
import { Buffer } from 'node:buffer';
import { open, readFile } from 'node:fs/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Command } from '../../src/nbd-server-protocol/constants.ts';
import { Session } from '../support/nbd-session.ts';
import { portOf, type RunningServer, startServe } from '../support/server.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { type Address, Wire } from '../support/wire.ts';
import { Dice } from './fuzz/dice.ts';
import { changedRanges, type FuzzSession, makeSession } from './fuzz/session.ts';
import { KiB, MiB, pattern, residentBytes } from './servers.ts';

const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 1_000_000_000);
const sessions = Number(process.env.FUZZ_SESSIONS ?? 300);
const replay = `repeat it with FUZZ_SEED=${seed} FUZZ_SESSIONS=${sessions}`;

const SIZE = 8 * MiB;
/** Valid requests are made for the bytes before this; only what mutation made of them can reach beyond. */
const ARENA = 2 * MiB;
/** The healthy client reads the end. */
const GUARD = 64 * KiB;
/** After so many sessions the files are looked at, and what they hold then is what must stay. */
const ROUND = 100;
/** What a server may have grown by at the end: pools for a few connections, not what peers have claimed. */
const GROWTH_MAX = 256 * MiB;

interface Served {
  readonly server: RunningServer;
  readonly path: string;
  readonly address: Address;
  /** A client that does nothing wrong, connected all the time. */
  readonly healthy: Session;
  readonly memoryAtStart: number;
  /** 1: some session of this round may have changed this byte. */
  readonly touched: Uint8Array;
  /** What the file held when the round began. */
  expected: Buffer;
}

let folder: TemporaryFolder;
const served: Served[] = [];

async function serve(name: string, flags: readonly string[]): Promise<Served> {
  const path = folder.file(name);
  const file = await open(path, 'w');
  await file.write(pattern(0, SIZE / 2), 0, SIZE / 2, 0); // the other half stays a hole
  await file.truncate(SIZE);
  await file.close();
  const server = await startServe([path, ...flags, '--listen', 'nbd://127.0.0.1:0']);
  const address = { host: '127.0.0.1', port: portOf(server.uris[0]!) };
  const healthy = await Session.open(address);
  const memoryAtStart = await residentBytes(server.process.pid!);
  const expected = Buffer.concat([pattern(0, SIZE / 2), Buffer.alloc(SIZE / 2)]);
  return { server, path, address, healthy, memoryAtStart, touched: new Uint8Array(SIZE), expected };
}

beforeAll(async () => {
  folder = await temporaryFolder();
  served.push(await serve('writable.img', []), await serve('read-only.img', ['--read-only']));
});

afterAll(async () => {
  for (const { server } of served) await server.kill();
  await folder?.remove();
});

/** Sends a session in one of many ways; some ends are waited for, because a server must see them. */
async function run(dice: Dice, session: FuzzSession, address: Address): Promise<void> {
  const wire = await Wire.connect(address);
  const bytes = Buffer.concat(session.messages);
  const how = dice.below(8);
  if (how === 0) await wire.sendInPieces(bytes.subarray(0, 600), 1);
  const rest = how === 0 ? bytes.subarray(600) : bytes;
  if (how === 1) await wire.sendInPieces(rest, 1 + dice.below(5000));
  else wire.send(rest);
  if (how === 2) wire.destroy();
  else if (how === 3) wire.destroy('reset');
  else {
    wire.halfClose();
    await wire.drain();
    wire.destroy();
  }
}

async function checkHealth(one: Served, context: string): Promise<void> {
  expect(
    one.server.process.exitCode ?? one.server.process.signalCode,
    `the server died; ${context}`,
  ).toBeNull();
  const { error, data } = await one.healthy.read(SIZE - GUARD, GUARD);
  // A mutation may have made a valid write to here.
  const start = SIZE - GUARD;
  const right = data.every((byte, at) => byte === one.expected[start + at] || one.touched[start + at] === 1);
  expect([error, data.length, right], `a healthy client is not served; ${context}`).toEqual([0, GUARD, true]);
}

/** Nothing has changed but what valid requests covered. */
async function checkFile(one: Served, context: string): Promise<void> {
  await one.healthy.ask({ type: Command.flush }); // all that was answered is in the file
  const found = await readFile(one.path);
  expect(found.length, `the file has another size; ${context}`).toBe(SIZE);
  const wrong = found.findIndex((byte, at) => byte !== one.expected[at] && one.touched[at] === 0);
  expect(wrong, `byte ${wrong} of ${one.path} has changed; ${context}`).toBe(-1);
  one.expected = found;
  one.touched.fill(0);
}

test(`N2: ${sessions} mutated sessions harm nobody`, { timeout: 120_000 + sessions * 1000 }, async () => {
  for (let index = 0; index < sessions; index += 1) {
    const dice = new Dice(seed + index);
    const one = dice.chance(4) ? served[1]! : served[0]!;
    const session = makeSession(
      dice,
      ARENA,
      dice.oneOf(['', one === served[0] ? 'writable.img' : 'read-only.img']),
    );
    const context = `session ${index}; ${replay}`;
    if (one === served[0])
      for (const { offset, length } of changedRanges(session, SIZE))
        one.touched.fill(1, offset, offset + length);
    try {
      await run(dice, session, one.address);
    } catch (cause) {
      throw new Error(`a ${session.kind} session with ${session.style} headers: ${context}`, { cause });
    }
    await checkHealth(one, context);
    if (index % ROUND === ROUND - 1) for (const each of served) await checkFile(each, `before ${context}`);
  }
  for (const each of served) await checkFile(each, replay);
});

test('N5: memory is bounded after all that', async () => {
  for (const { server, memoryAtStart } of served)
    expect((await residentBytes(server.process.pid!)) - memoryAtStart, replay).toBeLessThan(GROWTH_MAX);
});

test('N5: it still stops in order', async () => {
  const ends = await Promise.all(served.map(({ server }) => server.stop()));
  for (const end of ends) expect(end, replay).toEqual({ code: 0, signal: null });
});
