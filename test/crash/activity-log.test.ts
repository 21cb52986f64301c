/**
 * I6, I17: kill -9 of a process that keeps a member's activity log and bitmaps, under load and right before each system call: in the next process
 * every operation is known that had begun and was not settled, and every bit is set that was.
 */

import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, onTestFinished, test } from 'vitest';
import type { Range } from '../../src/base/range.ts';
import { EXTENT_BYTES } from '../../src/model/copy-granularity.ts';
import { openCopyFolder } from '../../src/storage/copy-folder.ts';
import { BLOCK_BYTES, OTHER, optionsOf, REAL_VOLUME } from '../support/copy-folder-child.ts';
import { diskFolder, type Folder } from '../support/disk.ts';
import { testRandom } from '../support/random.ts';
import { eventually, projectRoot, requireTool, run } from '../support/tools.ts';

const CHILD = join(projectRoot, 'test/support/copy-folder-child.ts');
const KILLS = 20;

let parent: Folder;
let copies: string;
let toldPath: string;
beforeEach(() => {
  parent = diskFolder();
  copies = join(parent.path, 'copies');
  toldPath = join(parent.path, 'told');
});
afterEach(() => parent.remove());

/** Offsets of blocks. */
type Blocks = Set<number>;

function blocksOf(ranges: Iterable<Range>): Blocks {
  const blocks: Blocks = new Set();
  for (const { offset, length } of ranges) {
    for (let at = offset; at < offset + length; at += BLOCK_BYTES) blocks.add(at);
  }
  return blocks;
}

interface Found {
  readonly unsettled: Blocks;
  readonly bits: Blocks;
  readonly hasLostCache: boolean;
}

/** What the next process is told; it changes nothing of that. */
async function look(): Promise<Found> {
  const { folder, unsettled, hasLostCache, lacks } = await openCopyFolder(copies, optionsOf(false));
  await folder.abandon();
  return { unsettled: blocksOf(unsettled), bits: blocksOf(lacks.get(OTHER)?.ranges() ?? []), hasLostCache };
}

interface Known {
  /** What has to be known, and what may be. */
  readonly needed: Blocks;
  readonly allowed: Blocks;
  readonly neededBits: Blocks;
  readonly allowedBits: Blocks;
  readonly begun: number;
}

/** From what the child has told, and what was known before it. */
function knownFrom(told: string, before: Found): Known {
  const lines = told.slice(0, told.lastIndexOf('\n')).split('\n');
  const offsets = new Map<number, number>();
  const [needed, allowed] = [new Set<number>(), new Set<number>()];
  let earlier: 'kept' | 'going' | 'gone' = 'kept';
  const [neededBits, allowedBits] = [new Set(before.bits), new Set(before.bits)];
  for (const line of lines) {
    const [what, first, second] = line.split(' ') as [string, string, string];
    const n = Number(first);
    if (what === 'begin') offsets.set(n, Number(second));
    if (what === 'begin') allowed.add(n);
    else if (what === 'begun') needed.add(n);
    else if (what === 'settle') needed.delete(n);
    else if (what === 'settled') allowed.delete(n);
    else if (what === 'settle-earlier') earlier = 'going';
    else if (what === 'settled-earlier') earlier = 'gone';
    else if (what === 'set') allowedBits.add(n);
    else if (what === 'has-set') neededBits.add(n);
    else if (what === 'clear') neededBits.delete(n);
    else if (what === 'has-cleared') allowedBits.delete(n);
  }
  const places = (ids: Set<number>) => [...ids].map((id) => offsets.get(id) as number);
  return {
    needed: new Set([...places(needed), ...(earlier === 'kept' ? before.unsettled : [])]),
    allowed: new Set([...places(allowed), ...(earlier === 'gone' ? [] : before.unsettled)]),
    neededBits,
    allowedBits,
    begun: offsets.size,
  };
}

function expectWithin(found: Blocks, needed: Blocks, allowed: Blocks, place: string): void {
  expect(
    [...needed].filter((block) => !found.has(block)),
    `${place}: forgotten`,
  ).toEqual([]);
  expect(
    [...found].filter((block) => !allowed.has(block)),
    `${place}: made up`,
  ).toEqual([]);
}

function start(): { child: ChildProcess; ended: Promise<void> } {
  rmSync(toldPath, { force: true });
  const child = spawn(process.execPath, [CHILD, 'load', parent.path], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return { child, ended: new Promise((resolve) => child.once('close', () => resolve())) };
}

function told(): string {
  return existsSync(toldPath) ? readFileSync(toldPath, 'latin1') : '';
}

test('I6: kill -9 under load: exactly what was unsettled is known, again and again', async () => {
  const random = testRandom('kill -9 of a copy folder');
  const made = await openCopyFolder(copies, optionsOf(true));
  await made.folder.close();
  let before: Found = { unsettled: new Set(), bits: new Set(), hasLostCache: false };
  let [begun, unsettled] = [0, 0];
  for (let round = 0; round < KILLS; round++) {
    const { child, ended } = start();
    await eventually('the child begins', () => told() !== '' || undefined);
    await sleep(random.below(120));
    child.kill('SIGKILL');
    await ended;
    const known = knownFrom(told(), before);
    const place = `seed ${random.seed}, round ${round}`;
    const found = await look();
    expectWithin(found.unsettled, known.needed, known.allowed, place);
    expectWithin(found.bits, known.neededBits, known.allowedBits, `${place}, bits`);
    expect(found.hasLostCache, place).toBe(false);
    begun += known.begun;
    unsettled += found.unsettled.size;
    before = found;
  }
  expect(begun, 'there was a load').toBeGreaterThan(KILLS * 100);
  expect(unsettled, 'something was under way').toBeGreaterThan(KILLS);
});

const CALLS = ['/^mkdir', 'write', 'pwritev2', '/^f(data)?sync', '/^ftruncate', '/^rename', '/^unlink'];

/** What is unsettled after each line that the child has told. */
const UNSETTLED_AFTER: Record<string, [needed: number[], allowed: number[]]> = {
  open: [[], []],
  marked: [[], [0, 3]],
  begun: [
    [0, 3],
    [0, 3],
  ],
  'marked-again': [
    [0, 3],
    [0, 3],
  ],
  'has-set': [[], [0, 3]],
  settled: [[], []],
  unmarked: [[], [3]],
  'begun-again': [[3], [3]],
  'marked-anew': [[3], [3]],
  closed: [[3], [3]],
};

test('I17: kill -9 right before each system call that changes something', async () => {
  const names = ['', '/activity', '/activity.new', '/unsettled', '/unsettled.new'];
  const files = [...names, `/lacks-${OTHER}`, `/lacks-${OTHER}.new`].map(
    (name) => join(copies, REAL_VOLUME) + name,
  );
  const looksAt = [copies, ...files].flatMap((path) => ['-P', path]);
  let kills = 0;
  for (const call of CALLS) {
    for (let nth = 1; ; nth++) {
      rmSync(copies, { recursive: true, force: true });
      rmSync(toldPath, { force: true });
      const inject = ['-e', `trace=${call}`, '-e', `inject=${call}:signal=SIGKILL:when=${nth}`];
      const options = ['-f', '-qq', '-o', join(parent.path, 'log'), ...looksAt, ...inject];
      const child = [process.execPath, CHILD, 'once', parent.path];
      const { code, stderr } = await run(requireTool('strace', 'strace'), [...options, ...child], {
        env: { UV_THREADPOOL_SIZE: '1' },
      });
      const place = `${call} ${nth}`;
      expect(stderr, place).toBe('');
      const last = told().trim().split('\n').at(-1) ?? '';
      if (last !== '') {
        const [needed, allowed] = (UNSETTLED_AFTER[last] as [number[], number[]]).map(
          (extents) => new Set(extents.map((extent) => extent * EXTENT_BYTES)),
        ) as [Blocks, Blocks];
        const found = await look();
        expectWithin(found.unsettled, needed, allowed, `${place} after ${last}`);
        expect(found.hasLostCache, place).toBe(false);
        const isSet = Object.keys(UNSETTLED_AFTER).indexOf(last) >= 4;
        expect(found.bits.has(0) || !isSet, place).toBe(true);
      }
      if (code === 0) {
        expect(last).toBe('closed');
        break;
      }
      kills += 1;
    }
  }
  expect(kills).toBeGreaterThanOrEqual(25);
});
