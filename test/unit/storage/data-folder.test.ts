/** A data folder belongs to one role of one name, and is refused to all others with a sentence that helps. */

import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join, relative } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type DataFolder,
  type DataFolderOwner,
  type FolderPlace,
  type LockFacts,
  openDataFolder,
  placeFrom,
} from '../../../src/storage/data-folder.ts';
import { diskFolder, type Folder, mountTmpfs } from '../../support/disk.ts';
import { refusalOf } from '../../support/refusal.ts';

const EAST: DataFolderOwner = { role: 'storage', name: 'east-1' };
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;

let parent: Folder;
let path: string;
const opened: DataFolder[] = [];

beforeEach(() => {
  parent = diskFolder();
  path = join(parent.path, 'volary-data', 'east-1');
});
afterEach(async () => {
  for (const folder of opened.splice(0)) folder.close();
  await parent.remove();
});

async function open(where = path, owner = EAST): Promise<DataFolder> {
  const folder = await openDataFolder(where, owner);
  opened.push(folder);
  return folder;
}

/** Opens it and lets go again. */
async function make(owner = EAST): Promise<DataFolder> {
  const folder = await open(path, owner);
  folder.close();
  return folder;
}

test('a missing folder is made, with the one above it, for this user alone', async () => {
  const folder = await open();
  expect(folder.path).toBe(path);
  expect(statSync(path).mode & 0o777).toBe(0o700);
  expect(statSync(join(path, '..')).mode & 0o777).toBe(0o700);
  const identity = JSON.parse(readFileSync(join(path, 'identity.json'), 'utf8')) as Record<string, unknown>;
  expect(identity).toEqual({ ...EAST, format: 1, id: folder.id, createdAt: expect.any(String) });
  expect(folder.id).toMatch(UUID);
  expect(new Date(identity.createdAt as string).toISOString()).toBe(identity.createdAt);
});

test('it keeps its id, by whichever path it is opened, and no other folder has that', async () => {
  const { id } = await make();
  expect((await open(relative(process.cwd(), path))).id).toBe(id);
  expect((await open(join(parent.path, 'other'))).id).not.toBe(id);
});

test('another role, or another name, is refused, and says whose folder it is', async () => {
  await make();
  const other = { role: 'gateway', name: 'east-1' } as const;
  expect(await refusalOf(() => open(path, other), path)).toBe('wrong-data-folder');
  const west = { role: 'storage', name: 'west-1' } as const;
  expect(await refusalOf(() => open(path, west), path)).toBe('wrong-data-folder');
  await expect(open(path, west)).rejects.toThrow(
    'the storage system east-1, not of the storage system west-1',
  );
  await open(); // a refusal holds no lock
});

test("somebody's own folder is refused, and nothing is put into it", async () => {
  mkdirSync(path, { recursive: true });
  writeFileSync(join(path, 'letter.txt'), 'Dear');
  expect(await refusalOf(open, path)).toBe('wrong-data-folder');
  expect(readdirSync(path)).toEqual(['letter.txt']);
});

test('a new disk, which has lost+found, is empty', async () => {
  mkdirSync(join(path, 'lost+found'), { recursive: true });
  await open();
});

test('a later format is refused, whatever else it has', async () => {
  await make();
  writeFileSync(join(path, 'identity.json'), '{"format":2,"owner":{"kind":"storage"}}');
  expect(await refusalOf(open, path)).toBe('newer-format');
});

test.each([
  ['empty', ''],
  ['half', '{"format":1,"role":"stor'],
  ['no object', '7'],
  ['without an id', '{"format":1,"role":"storage","name":"east-1","createdAt":"2026-01-01T00:00:00Z"}'],
  [
    'of no role',
    '{"format":1,"role":"toString","name":"east-1","id":"1","createdAt":"2026-01-01T00:00:00Z"}',
  ],
])(
  'a damaged identity (%s): made anew when there is nothing else, refused when there is',
  async (_, text) => {
    const { id } = await make();
    const identity = join(path, 'identity.json');
    writeFileSync(identity, text);
    writeFileSync(join(path, 'volumes'), '');
    expect(await refusalOf(open, path)).toBe('corrupt-metadata');
    expect(readFileSync(identity, 'utf8')).toBe(text);

    const fresh = join(parent.path, 'fresh');
    mkdirSync(fresh);
    writeFileSync(join(fresh, 'identity.json'), text);
    writeFileSync(join(fresh, 'identity.json.new'), '{"for');
    writeFileSync(join(fresh, 'lock'), '1\n');
    expect((await open(fresh)).id).not.toBe(id);
  },
);

test('an identity of megabytes is not read', async () => {
  await make();
  writeFileSync(join(path, 'identity.json'), Buffer.alloc(5 * 1024 * 1024, 0x20));
  expect(await refusalOf(open, path)).toBe('corrupt-metadata');
});

test('within one process, too, the folder has one user; closing lets go', async () => {
  const first = await open();
  expect(await refusalOf(open, path)).toBe('locked');
  await expect(open()).rejects.toThrow(`process ${process.pid}:`);
  writeFileSync(join(path, 'lock'), ''); // as a full disk leaves it
  await expect(open()).rejects.toThrow('another process');
  first.close();
  first.close();
  await open();
});

test('what is no folder, or leads through none', async () => {
  const file = join(parent.path, 'file');
  writeFileSync(file, '');
  expect(await refusalOf(() => open(file), file)).toBe('wrong-data-folder');
  expect(await refusalOf(() => open(join(file, 'below')), file)).toBe('not-found');
});

test('a file of the folder has a plain name, which is none of its own', async () => {
  const folder = await open();
  expect(folder.file('metadata.sqlite')).toBe(join(path, 'metadata.sqlite'));
  const wrong = ['', '.', '..', 'a/b', '/etc/passwd', 'a\0b', 'x'.repeat(256), 'é'.repeat(128)];
  for (const name of [...wrong, 'lock', 'identity.json']) {
    expect(() => folder.file(name), name).toThrow('assertion failed');
  }
});

test('no permission', async () => {
  mkdirSync(path, { recursive: true });
  chmodSync(path, 0o500);
  const asNobody = process.geteuid?.() === 0;
  if (asNobody) {
    chmodSync(parent.path, 0o755);
    chmodSync(join(path, '..'), 0o755);
    process.seteuid?.(65534);
  }
  try {
    expect(await refusalOf(open, path)).toBe('permission-denied');
  } finally {
    if (asNobody) process.seteuid?.(0);
  }
});

test('a read-only file system, and a full one', async () => {
  const mount = await mountTmpfs('size=64k');
  const where = join(mount.path, 'east-1');
  try {
    const blocker = join(mount.path, 'blocker');
    writeFileSync(blocker, Buffer.alloc(64 * 1024));
    expect(await refusalOf(() => open(where), where)).toBe('no-space');
    expect(existsSync(join(where, 'identity.json'))).toBe(false);
    writeFileSync(blocker, '');
    const { id } = await open(where);
    for (const folder of opened.splice(0)) folder.close();
    writeFileSync(blocker, Buffer.alloc(56 * 1024)); // the identity's page, and the lock's, are taken
    expect((await open(where)).id, 'what is there can be used on a full disk').toBe(id);
    for (const folder of opened.splice(0)) folder.close();
    await mount.remount('ro');
    expect(await refusalOf(() => open(where), where)).toBe('read-only-filesystem');
  } finally {
    for (const folder of opened.splice(0)) folder.close();
    await mount.remove();
  }
});

describe('where a folder lies', () => {
  const facts: LockFacts = { dev: 1n, ino: 7n, birthtimeNs: 5n, ctimeNs: 9n, type: 0xef53n };

  test.each([
    ['on a file system of disks is known after a life of the machine', {}, '7:5'],
    ['is not where inodes are numbered anew, as of FUSE', { type: 0x65735546n }, null],
    ['is not on an overlay', { type: 0x794c7630n }, null],
    ['is not where the time of birth is not told', { birthtimeNs: 0n }, null],
    ['is not where it is that of the last change', { birthtimeNs: 9n }, null],
  ])('%s', (_, more, file) => {
    expect(placeFrom('boot', { ...facts, ...more })).toEqual({ lock: 'boot:1:7', file });
  });

  test('a folder that has been made this instant has one, though no clock has gone on since', async () => {
    for (let i = 0; i < 10; i++) {
      const folder = await openDataFolder(join(parent.path, `new-${i}`), EAST);
      opened.push(folder);
      expect(folder.place.file).not.toBeNull();
    }
  });

  test('on the disk of these tests: the same after it was opened again and renamed, another of a copy', async () => {
    const placed = async (name: string): Promise<FolderPlace> => {
      const folder = await open(join(parent.path, name));
      folder.close();
      return folder.place;
    };
    await placed('a');
    const place = await placed('a');
    cpSync(join(parent.path, 'a'), join(parent.path, 'b'), { recursive: true });
    renameSync(join(parent.path, 'a'), join(parent.path, 'c'));
    expect(await placed('c')).toEqual(place);
    expect((await placed('b')).lock).not.toBe(place.lock);
  });
});
