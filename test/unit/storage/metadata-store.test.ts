/** MetadataStore: what it keeps, what it refuses, and how it lives through a full disk. */

import { copyFileSync, existsSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import { StoreError } from '../../../src/model/errors.ts';
import { type MetadataStore, openMetadataStore } from '../../../src/storage/metadata-store.ts';
import { diskFolder, type Folder, mountTmpfs } from '../../support/disk.ts';
import { refusalOf } from '../../support/refusal.ts';

const APPLICATION = 0x564f4c31;
const VOLUMES = 'CREATE TABLE volume (name TEXT PRIMARY KEY, sizeBytes INTEGER NOT NULL) STRICT';
const NOTES = `
  CREATE TABLE note (volume TEXT NOT NULL REFERENCES volume (name) ON DELETE CASCADE, text BLOB NOT NULL) STRICT;
  INSERT INTO note SELECT name, x'00' FROM volume;`;
const INSERT = 'INSERT INTO volume (name, sizeBytes) VALUES (?, ?)';

let folder: Folder;
let path: string;
const opened: MetadataStore[] = [];

beforeEach(() => {
  folder = diskFolder();
  path = join(folder.path, 'metadata.sqlite');
});
afterEach(async () => {
  closeAll();
  await folder.remove();
});

function open(migrations: readonly string[] = [VOLUMES, NOTES], where = path): MetadataStore {
  const store = openMetadataStore(where, { applicationId: APPLICATION, migrations });
  opened.push(store);
  return store;
}

function closeAll(): void {
  for (const store of opened.splice(0)) store.close();
}

function names(store: MetadataStore): string[] {
  return store.read<{ name: string }>('SELECT name FROM volume ORDER BY name').map(({ name }) => name);
}

/** Another program's look at the file. */
function withDatabase<T>(use: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(path);
  try {
    return use(database);
  } finally {
    database.close();
  }
}

describe('rows', () => {
  test('are there again after closing, which leaves one file only', () => {
    const store = open();
    expect(store.run(INSERT, 'a', 2 ** 52)).toBe(1);
    store.run('INSERT INTO note VALUES (?, ?)', 'a', Buffer.from([1, 2, 255]));
    closeAll();
    expect(existsSync(`${path}-wal`)).toBe(false);
    const again = open();
    expect(again.read('SELECT * FROM volume')).toEqual([{ name: 'a', sizeBytes: 2 ** 52 }]);
    expect(again.read('SELECT text FROM note')).toEqual([{ text: new Uint8Array([1, 2, 255]) }]);
    expect(again.run('UPDATE volume SET sizeBytes = 0 WHERE name = ?', 'b')).toBe(0);
  });

  test('are durable when a call returns: WAL, FULL, and references are kept', () => {
    const store = open();
    expect(store.read('PRAGMA journal_mode')).toEqual([{ journal_mode: 'wal' }]);
    expect(store.read('PRAGMA synchronous')).toEqual([{ synchronous: 2 }]);
    expect(() => store.run('INSERT INTO note VALUES (?, ?)', 'nobody', Buffer.alloc(1))).toThrow(
      'FOREIGN KEY',
    );
  });

  test('are for this user alone, whatever the folder allows: there are keys among them', () => {
    const store = open();
    store.run(INSERT, 'a', 1);
    for (const file of [path, `${path}-wal`]) expect(statSync(file).mode & 0o077).toBe(0);
  });

  test('more kinds of statements than are kept prepared', () => {
    const store = open();
    for (let round = 0; round < 2; round++) {
      for (let n = 0; n < 300; n++) expect(store.read(`SELECT ? + ${n} AS sum`, 1)).toEqual([{ sum: n + 1 }]);
    }
  });
});

describe('transactions', () => {
  test('do all or, when something throws, nothing', () => {
    const store = open();
    const result = store.transaction(() => {
      store.run(INSERT, 'a', 1);
      return store.run(INSERT, 'b', 2);
    });
    expect(result).toBe(1);
    const ours = new Error('ours');
    expect(() =>
      store.transaction(() => {
        store.run(INSERT, 'c', 3);
        expect(names(store)).toEqual(['a', 'b', 'c']);
        throw ours;
      }),
    ).toThrow(ours);
    expect(names(store)).toEqual(['a', 'b']);
    expect(() => store.transaction(() => store.run(INSERT, 'a', 1))).toThrow('UNIQUE');
    store.run(INSERT, 'd', 4);
    expect(names(store)).toEqual(['a', 'b', 'd']);
  });

  test('go on after a constraint was broken within, if their function does', () => {
    const store = open();
    store.run(INSERT, 'a', 1);
    store.transaction(() => {
      store.run(INSERT, 'b', 1);
      expect(() => store.run(INSERT, 'a', 1)).toThrow('UNIQUE');
    });
    expect(names(store)).toEqual(['a', 'b']);
  });

  test('neither nest, nor wait, nor are begun in another way', () => {
    const store = open();
    const nested = () => store.transaction(() => store.transaction(() => store.run(INSERT, 'a', 1)));
    expect(nested).toThrow('assertion failed');
    expect(() => store.transaction(async () => store.run(INSERT, 'a', 1))).toThrow('assertion failed');
    expect(() => store.transaction(() => store.close())).toThrow('assertion failed');
    expect(names(store)).toEqual([]);
    expect(() => store.run('BEGIN')).toThrow('assertion failed');
  });
});

describe('migrations', () => {
  test('from version 1 to 2, with the rows that are there; not again after that', () => {
    open([VOLUMES]).run(INSERT, 'a', 1);
    closeAll();
    for (let round = 0; round < 2; round++) {
      expect(open().read('SELECT volume FROM note')).toEqual([{ volume: 'a' }]);
      closeAll();
    }
    expect(withDatabase((database) => database.prepare('PRAGMA user_version').get())).toEqual({
      user_version: 2,
    });
  });

  test('one that fails half-way leaves version 1 as it was', () => {
    open([VOLUMES]).run(INSERT, 'a', 1);
    closeAll();
    const wrong = `${NOTES} DELETE FROM volume; INSERT INTO missing VALUES (1);`;
    expect(() => open([VOLUMES, wrong])).toThrow('no such table');
    expect(names(open([VOLUMES]))).toEqual(['a']);
    closeAll();
    expect(open().read('SELECT volume FROM note')).toEqual([{ volume: 'a' }]);
  });

  test('a table can be made anew without losing what refers to it, but not so that it refers to nothing', () => {
    open().run(INSERT, 'a', 1);
    opened[0]?.run('INSERT INTO note VALUES (?, ?)', 'a', Buffer.alloc(1));
    closeAll();
    const anew = `
      CREATE TABLE other (name TEXT PRIMARY KEY, sizeBytes INTEGER NOT NULL, epoch INTEGER NOT NULL DEFAULT 1) STRICT;
      INSERT INTO other (name, sizeBytes) SELECT * FROM volume;
      DROP TABLE volume;
      ALTER TABLE other RENAME TO volume;`;
    expect(() => open([VOLUMES, NOTES, `${anew} DELETE FROM volume;`])).toThrow('assertion failed');
    const store = open([VOLUMES, NOTES, anew]);
    expect(store.read('SELECT * FROM volume')).toEqual([{ name: 'a', sizeBytes: 1, epoch: 1 }]);
    expect(store.run('DELETE FROM volume')).toBe(1);
    expect(store.read('SELECT * FROM note'), 'the reference is to the new table').toEqual([]);
  });

  test('one that commits by itself is our own mistake', () => {
    expect(() => open([`${VOLUMES}; COMMIT`])).toThrow('assertion failed');
  });
});

describe('refusals', () => {
  test("a later version's file, and somebody else's, are left as they are", async () => {
    open();
    closeAll();
    const before = readFileSync(path);
    expect(await refusalOf(() => open([VOLUMES]), path)).toBe('newer-format');
    const other = () => openMetadataStore(path, { applicationId: 7, migrations: [VOLUMES] });
    expect(await refusalOf(other, path)).toBe('wrong-data-folder');
    expect(readFileSync(path).equals(before)).toBe(true);
  });

  test('a database without an application id is no new one', async () => {
    withDatabase((database) => database.exec('CREATE TABLE theirs (a)'));
    expect(await refusalOf(open, path)).toBe('wrong-data-folder');
  });

  test('an empty file is a new one, as a crash may leave it', () => {
    writeFileSync(path, '');
    open();
  });

  function filled(): void {
    const store = open();
    store.transaction(() => {
      for (let n = 0; n < 2000; n++) store.run(INSERT, `volume ${n}`, n);
    });
    closeAll();
  }

  test('no database', async () => {
    writeFileSync(path, 'A letter, which is long enough to be looked at. '.repeat(100));
    expect(await refusalOf(open, path)).toBe('corrupt-metadata');
  });

  test('a file that was cut short', async () => {
    filled();
    truncateSync(path, 12_288);
    expect(await refusalOf(open, path)).toBe('corrupt-metadata');
  });

  test('a page of noise in the middle, of which the header knows nothing', async () => {
    filled();
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 16_384, 20_480);
    writeFileSync(path, bytes);
    expect(await refusalOf(open, path)).toBe('corrupt-metadata');
  });

  test('an emptied file whose log still has what was committed', async () => {
    open().run(INSERT, 'a', 1);
    const crashed = join(folder.path, 'crashed.sqlite');
    writeFileSync(crashed, '');
    copyFileSync(`${path}-wal`, `${crashed}-wal`);
    expect(await refusalOf(() => open(undefined, crashed), crashed)).toBe('corrupt-metadata');
    expect(statSync(`${crashed}-wal`).size).toBeGreaterThan(0);
  });

  test('damage that is met later', async () => {
    filled();
    const store = open();
    const bytes = readFileSync(path);
    bytes.fill(0xa5, 4096);
    writeFileSync(path, bytes);
    store.read('PRAGMA shrink_memory'); // or it would be answered from memory
    const all = () => store.read('SELECT count(*), sum(sizeBytes) FROM volume NOT INDEXED');
    expect(await refusalOf(all, path)).toBe('corrupt-metadata');
  });

  test('no folder, and a folder in its place', async () => {
    const missing = join(folder.path, 'no', 'metadata.sqlite');
    expect(await refusalOf(() => open(undefined, missing), 'metadata.sqlite')).toBe('not-found');
    expect(await refusalOf(() => open(undefined, folder.path), folder.path)).toBe('not-a-file');
  });

  test('a file that another program is writing to', async () => {
    const store = open();
    const other = new DatabaseSync(path);
    onTestFinished(() => other.close());
    other.exec('BEGIN IMMEDIATE');
    expect(await refusalOf(() => store.run(INSERT, 'a', 1), path)).toBe('locked');
    other.exec('ROLLBACK');
    store.run(INSERT, 'a', 1);
  });
});

describe('S5: a full disk', () => {
  const BLOB = Buffer.alloc(40_000, 1);
  const ADD_NOTE = 'INSERT INTO note VALUES (?, ?)';

  /** A store on a tmpfs of 1 MiB, most of which `blocker` takes. */
  async function onSmallDisk(): Promise<{ store: MetadataStore; blocker: string; where: string }> {
    const mount = await mountTmpfs('size=1m');
    onTestFinished(async () => {
      closeAll();
      await mount.remove();
    });
    const where = join(mount.path, 'metadata.sqlite');
    const store = open(undefined, where);
    store.run(INSERT, 'a', 1);
    const blocker = join(mount.path, 'blocker');
    writeFileSync(blocker, Buffer.alloc(700_000));
    return { store, blocker, where };
  }

  /** Adds notes until that is refused. How many there are. */
  async function fill(store: MetadataStore): Promise<number> {
    for (let count = 0; count < 100; count++) {
      try {
        store.run(ADD_NOTE, 'a', BLOB);
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        expect(error.code).toBe('no-space');
        return count;
      }
    }
    throw new Error('the disk is never full');
  }

  function notes(store: MetadataStore): unknown {
    return store.read<{ n: number }>('SELECT count(*) AS n FROM note')[0]?.n;
  }

  test('what is refused is not there, all else is, and it goes on when there is space', async () => {
    const { store, blocker, where } = await onSmallDisk();
    const count = await fill(store);
    expect(notes(store)).toBe(count);
    const two = () =>
      store.transaction(() => {
        store.run(INSERT, 'b', 1);
        store.run(ADD_NOTE, 'b', BLOB);
      });
    expect(await refusalOf(two, where)).toBe('no-space');
    expect(names(store)).toEqual(['a']);
    writeFileSync(blocker, '');
    two();
    expect(names(store)).toEqual(['a', 'b']);
    closeAll();
    const again = open(undefined, where);
    expect(notes(again)).toBe(count + 1);
  });

  test('a transaction that was refused in part is never done in part, even if that is caught', async () => {
    const { store, where } = await onSmallDisk();
    const count = await fill(store);
    const stubborn = () =>
      store.transaction(() => {
        for (let n = 0; n < 50; n++) {
          try {
            store.run(ADD_NOTE, 'a', Buffer.alloc(1_000_000));
          } catch (error) {
            expect(error).toBeInstanceOf(StoreError);
          }
        }
        expect(() => store.run(INSERT, 'b', 1)).toThrow(StoreError);
      });
    expect(await refusalOf(stubborn, where)).toBe('no-space');
    expect(names(store)).toEqual(['a']);
    expect(notes(store)).toBe(count);
  });

  test('that volumes have filled does not keep their records from being deleted, which is how space is freed', async () => {
    const mount = await mountTmpfs('size=16m');
    onTestFinished(async () => {
      closeAll();
      await mount.remove();
    });
    const store = open(undefined, join(mount.path, 'metadata.sqlite'));
    store.run(INSERT, 'a', 1);
    expect(() => writeFileSync(join(mount.path, 'blocker'), Buffer.alloc(16 * 1024 * 1024))).toThrow(
      'ENOSPC',
    );
    for (let turn = 0; turn < 3_000; turn++) {
      store.run('UPDATE volume SET sizeBytes = ?', turn); // more than one log, so that it has to begin anew
    }
    expect(store.run('DELETE FROM volume')).toBe(1);
    expect(names(store)).toEqual([]);
  });

  test('is survived closed, too: nothing that was committed is lost', async () => {
    const { store, blocker, where } = await onSmallDisk();
    const count = await fill(store);
    closeAll();
    writeFileSync(blocker, '');
    expect(notes(open(undefined, where))).toBe(count);
  });

  test('one without any space makes no store, and says so', async () => {
    const { blocker, where } = await onSmallDisk();
    closeAll();
    writeFileSync(blocker, '');
    const other = `${where}2`;
    expect(() => writeFileSync(blocker, Buffer.alloc(2 * 1024 * 1024))).toThrow('ENOSPC');
    expect(await refusalOf(() => open(undefined, other), other)).toBe('no-space');
    expect(await refusalOf(() => open(undefined, where), where)).toBe('no-space');
    writeFileSync(blocker, '');
    open(undefined, other);
    expect(names(open(undefined, where))).toEqual(['a']);
  });
});
