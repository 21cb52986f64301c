/**
 * A process with one CopyFolder, to be killed, or to run under strace. `node copy-folder-child.ts MODE FOLDER` appends to FOLDER/told a line for each
 * thing before it does it, and one after: what it has not told before did not happen, and what it has told after did.
 */

import { openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { Range } from '../../src/base/range.ts';
import { EXTENT_BYTES } from '../../src/model/copy-granularity.ts';
import { StoreError } from '../../src/model/errors.ts';
import { readBootId } from '../../src/storage/boot-id.ts';
import { type CopyFolder, openCopyFolder } from '../../src/storage/copy-folder.ts';
import type { Slot } from '../../src/storage/unsettled-journal.ts';

export const REAL_VOLUME = 'rv-0123456789abcdef';
export const OTHER = 'rv-aaaaaaaaaaaaaaaa';
export const EXTENTS = 8;
export const SIZE_BYTES = EXTENTS * EXTENT_BYTES;
export const BLOCK_BYTES = 4096;
const UNDER_WAY = 48;

/** The folder's options in the boot that this is; `isNew` when there is none yet. */
export function optionsOf(isNew: boolean) {
  return { realVolume: REAL_VOLUME, sizeBytes: SIZE_BYTES, bootId: readBootId(), isNew };
}

function randomBlock(): Range {
  const blocks = SIZE_BYTES / BLOCK_BYTES;
  return { offset: Math.floor(Math.random() * blocks) * BLOCK_BYTES, length: BLOCK_BYTES };
}

type Tell = (...words: (string | number)[]) => void;

/** One of the writers: begins, lets others go on, settles; and has a bit set and cleared in between. */
async function write(folder: CopyFolder, tell: Tell, nextId: () => number): Promise<never> {
  for (;;) {
    const begun: [id: number, slot: Slot][] = [];
    let isBegun = 0;
    for (let n = Math.floor(Math.random() * 6); n >= 0; n--) {
      const [id, range] = [nextId(), randomBlock()];
      await folder.mark([Math.floor(range.offset / EXTENT_BYTES)]);
      tell('begin', id, range.offset);
      begun.push([id, folder.begin(range)]);
      if (Math.random() < 0.5) continue; // one write serves several
      folder.writeJournal();
      for (; isBegun < begun.length; isBegun++) tell('begun', (begun[isBegun] as [number, Slot])[0]);
      await turn();
    }
    folder.writeJournal();
    for (; isBegun < begun.length; isBegun++) tell('begun', (begun[isBegun] as [number, Slot])[0]);
    const bit = randomBlock();
    tell('set', bit.offset);
    folder.setBits(OTHER, [bit]);
    tell('has-set', bit.offset);
    await turn();
    if (Math.random() < 0.5) {
      tell('clear', bit.offset);
      folder.clearBits(OTHER, [bit]);
      tell('has-cleared', bit.offset);
    }
    for (const [id] of begun) tell('settle', id);
    folder.settle(begun.map(([, slot]) => slot));
    folder.writeJournal();
    for (const [id] of begun) tell('settled', id);
  }
}

async function load(copies: string, tell: Tell): Promise<void> {
  const { folder } = await openCopyFolder(copies, optionsOf(false));
  tell('open');
  let id = 0;
  const nextId = () => id++;
  const writers = Array.from({ length: UNDER_WAY }, () => write(folder, tell, nextId));
  if (Math.random() < 0.5) {
    tell('settle-earlier');
    await folder.settleEarlier();
    tell('settled-earlier');
  }
  await Promise.all(writers);
}

/** Each thing once, for strace to look at. */
async function once(copies: string, tell: Tell): Promise<void> {
  const { folder } = await openCopyFolder(copies, optionsOf(true));
  folder.addMember(OTHER);
  await folder.flush();
  tell('open');
  await folder.mark([0, 3]);
  tell('marked');
  const slots = [0, 3].map((extent) => folder.begin({ offset: extent * EXTENT_BYTES, length: BLOCK_BYTES }));
  folder.writeJournal();
  tell('begun');
  await folder.mark([3]);
  tell('marked-again');
  folder.setBits(OTHER, [{ offset: 0, length: BLOCK_BYTES }]);
  tell('has-set');
  folder.settle(slots);
  folder.writeJournal();
  tell('settled');
  await folder.unmark([0]);
  tell('unmarked');
  folder.begin({ offset: 3 * EXTENT_BYTES, length: BLOCK_BYTES });
  folder.writeJournal();
  tell('begun-again');
  await folder.mark([0]);
  tell('marked-anew');
  await folder.close();
  tell('closed');
}

async function outcome(tell: Tell, what: string, action: () => unknown): Promise<void> {
  try {
    await action();
    tell(what, 'done');
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    tell(what, error.code);
  }
}

/** Meant for an fdatasync that fails. */
async function failing(copies: string, tell: Tell): Promise<void> {
  const { folder } = await openCopyFolder(copies, optionsOf(true));
  folder.addMember(OTHER);
  await folder.flush();
  await outcome(tell, 'mark', () => folder.mark([0]));
  await outcome(tell, 'begin', () => folder.begin({ offset: 0, length: BLOCK_BYTES }));
  folder.setBits(OTHER, [{ offset: 0, length: BLOCK_BYTES }]);
  await outcome(tell, 'unmark', () => folder.unmark([0]));
  await outcome(tell, 'unmark again', () => folder.unmark([0]));
  await outcome(tell, 'mark more', () => folder.mark([1]));
  await outcome(tell, 'close', () => folder.close());
}

const modes: Record<string, (copies: string, tell: Tell) => Promise<void>> = { load, once, failing };

if (import.meta.main) {
  const [mode, path] = process.argv.slice(2) as [string, string];
  const told = openSync(join(path, 'told'), 'a');
  const run = modes[mode];
  if (run === undefined) throw new Error(`no mode ${mode}`);
  await run(join(path, 'copies'), (...words) => writeSync(told, `${words.join(' ')}\n`));
}
