import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { StoreError } from '../../../src/model/errors.ts';
import type { Effect, Event } from '../../../src/replication/effects.ts';
import { openSparseFile } from '../../../src/storage/open-sparse-file.ts';
import type { SparseFile } from '../../../src/storage/sparse-file.ts';
import { MemberDisk, type MemberFolder } from '../../../src/storage-system/member-disk.ts';
import { type Folder, memoryFolder } from '../../support/disk.ts';

const SIZE = 1024 * 1024;

let folder: Folder;
let path: string;
let file: SparseFile;
/** What happened to the journal, each with the first bytes of the file's blocks at that moment. */
let seen: string[];
let events: Event[];
let failures: string[];
let isJournalBroken: boolean;
let disk: MemberDisk;

function blocks(): string {
  const content = readFileSync(path);
  return [0, 1, 2].map((block) => String.fromCharCode(content[block * 4096] || 0x2e)).join('');
}

function none(): never {
  throw new Error('not asked for here');
}

beforeEach(async () => {
  folder = memoryFolder();
  path = join(folder.path, 'file');
  const fd = openSync(path, 'w');
  writeSync(fd, Buffer.alloc(SIZE));
  closeSync(fd);
  file = await openSparseFile(path, {});
  [seen, events, failures, isJournalBroken] = [[], [], [], false];
  const journal: MemberFolder = {
    begun: (token) => seen.push(`begun ${token}: ${blocks()}`),
    settled: (tokens) => seen.push(`settled ${tokens.join()}: ${blocks()}`),
    writeJournal: () => {
      seen.push(`written: ${blocks()}`);
      if (isJournalBroken) throw new StoreError('no-space', 'no space for the journal');
    },
    ...{ forgetUnsettled: none, mark: none, unmark: none, loseCache: none, addMember: none },
    ...{ setBits: none, clearBits: none, forgetMember: none },
  };
  disk = new MemberDisk({
    ...{ file, folder: journal, isMember: () => true, run: () => undefined },
    tell: (event) => events.push(event),
    failed: (reason) => failures.push(reason),
  });
});
afterEach(async () => {
  await file.close();
  folder.remove();
});

function apply(token: number, block: number, fua = false): Effect & { readonly kind: 'apply' } {
  const payload = Buffer.alloc(4096, `${token}`);
  const operation = { kind: 'write', offset: block * 4096, length: 4096, fua, payload } as const;
  return { kind: 'apply', token, operation, isJournaled: true };
}

test('what is to be applied together is in the journal, by one write of it, before a byte of it is in the file', () => {
  for (const effect of [apply(1, 0), apply(2, 1), apply(3, 0)]) disk.carryOut(effect);
  expect(events).toEqual([]);
  disk.startAll();
  disk.startAll();
  expect(seen).toEqual(['begun 1: ...', 'begun 2: ...', 'begun 3: ...', 'written: ...']);
  expect(blocks()).toBe('32.');
  expect(events).toMatchObject([1, 2, 3].map((token) => ({ kind: 'applied', token, error: undefined })));
});

test('a journal that cannot be written fails the member, and nothing of it is in the file', () => {
  isJournalBroken = true;
  disk.carryOut(apply(1, 0));
  disk.startAll();
  expect([blocks(), failures, events]).toEqual(['...', ['no space for the journal'], []]);
});

test('who asks whether a payload is being written is told the truth also of what has not been started', async () => {
  const effect = apply(1, 2, true);
  disk.carryOut(effect);
  const writing = disk.writing((effect.operation as { readonly payload: Buffer }).payload);
  expect(writing).toBeInstanceOf(Promise);
  await writing;
  expect([blocks(), seen]).toEqual(['..1', ['begun 1: ...', 'written: ...']]);
  expect(events).toMatchObject([{ kind: 'applied', token: 1, error: undefined }]);
});
