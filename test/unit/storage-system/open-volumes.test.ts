import { readdirSync, readlinkSync } from 'node:fs';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { VolumeError } from '../../../src/model/errors.ts';
import { openSparseFile } from '../../../src/storage/open-sparse-file.ts';
import { OpenVolumes } from '../../../src/storage-system/open-volumes.ts';
import { silentLog } from '../../support/log.ts';
import { idOf, MiB } from '../../support/storage-system.ts';
import { type TemporaryFolder, temporaryFolder } from '../../support/tools.ts';

const IDLE = 3;
const page = Buffer.alloc(4096, 7);

let folder: TemporaryFolder;
let files: OpenVolumes;
beforeEach(async () => {
  folder = await temporaryFolder();
  const open = (id: string) => openSparseFile(folder.file(id), { sizeBytes: MiB });
  files = new OpenVolumes({ open, idleMax: IDLE, log: silentLog });
});
afterEach(async () => {
  await files.closeAll();
  expect(descriptors()).toBe(0);
  await folder.remove();
});

/** How many descriptors this process has in the folder. */
function descriptors(): number {
  const places = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch (error) {
      return String(error); // the one that the listing itself had
    }
  });
  return places.filter((place) => place.startsWith(`${folder.path}/`)).length;
}

test('the most recently used stay open, the others are closed, and opened again when needed', async () => {
  for (let n = 0; n < 10; n++) await files.file(idOf(n)).open();
  await expect.poll(descriptors).toBe(IDLE);
  expect(files.openIds()).toEqual([idOf(7), idOf(8), idOf(9)]);
  await files.file(idOf(7)).open();
  await files.file(idOf(0)).open();
  await expect.poll(() => files.openIds().sort()).toEqual([idOf(0), idOf(7), idOf(9)]);
  expect(files.openCount).toBe(IDLE);
});

test('those with users stay open, however many; without them they are idle again', async () => {
  for (let n = 0; n < 10; n++) {
    await files.file(idOf(n)).open();
    files.file(idOf(n)).begin();
  }
  files.file(idOf(0)).begin();
  for (let n = 10; n < 20; n++) await files.file(idOf(n)).open();
  await expect.poll(descriptors).toBe(10 + IDLE);
  for (let n = 0; n < 10; n++) files.file(idOf(n)).end();
  await expect.poll(descriptors).toBe(1 + IDLE);
  expect(files.file(idOf(0)).volume).toBeDefined();
  files.file(idOf(0)).end();
  await expect.poll(descriptors).toBe(IDLE);
});

test('users that come while it is opened keep it open', async () => {
  const file = files.file(idOf(0));
  const opening = file.open();
  file.begin();
  await opening;
  for (let n = 1; n < 10; n++) await files.file(idOf(n)).open();
  await expect.poll(descriptors).toBe(1 + IDLE);
  expect(file.volume).toBeDefined();
  file.end();
});

test('a file is opened once for all who ask at the same time, and never while it is being closed', async () => {
  const file = files.file(idOf(0));
  const volumes = await Promise.all([1, 2, 3].map(() => file.open()));
  expect(new Set(volumes).size).toBe(1);
  await volumes[0]?.write(0, page, 0, 4096, false);
  const closing = file.close();
  expect(file.volume).toBeUndefined();
  const [again] = await Promise.all([file.open(), closing]); // a second descriptor would find the file locked
  expect(again).not.toBe(volumes[0]);
  const back = Buffer.alloc(4096);
  await again.read(0, back, 0, 4096);
  expect(back.equals(page)).toBe(true);
});

test('one that cannot be opened is closed, and tried again by the next', async () => {
  let attempts = 0;
  const failing = new OpenVolumes({
    open: async () => {
      attempts += 1;
      throw new VolumeError('io', 'no');
    },
    ...{ idleMax: IDLE, log: silentLog },
  });
  const file = failing.file(idOf(0));
  await expect(Promise.all([file.open(), file.open()])).rejects.toMatchObject({ code: 'io' });
  expect(attempts).toBe(1);
  await expect(file.open()).rejects.toMatchObject({ code: 'io' });
  expect([attempts, failing.openCount]).toEqual([2, 0]);
  await failing.closeAll();
});

test('any order of opening, using and closing ends with what is used being open', async () => {
  const users = new Map<number, number>();
  const running: Promise<unknown>[] = [];
  for (let step = 0; step < 2000; step++) {
    const n = (step * 7919) % 11;
    const file = files.file(idOf(n));
    const used = users.get(n) ?? 0;
    switch ((step * 31) % 4) {
      case 0:
        running.push(file.open());
        break;
      case 1:
        file.begin();
        users.set(n, used + 1);
        running.push(file.open());
        break;
      case 2:
        if (used > 0) {
          file.end();
          users.set(n, used - 1);
        }
        break;
      default:
        await Promise.all(running.splice(0));
        if (used === 0) running.push(file.close());
    }
  }
  await Promise.all(running);
  const inUse = [...users].filter(([, used]) => used > 0);
  await expect.poll(() => files.openCount).toBeLessThanOrEqual(inUse.length + IDLE);
  for (const [n, used] of inUse) {
    expect(files.file(idOf(n)).volume).toBeDefined();
    for (let left = used; left > 0; left--) files.file(idOf(n)).end();
  }
  await expect.poll(descriptors).toBeLessThanOrEqual(IDLE);
});
