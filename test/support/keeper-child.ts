/**
 * A process that keeps things in a data folder, to be killed while it does. `node keeper-child.ts MODE PATH` prints
 * a line of JSON for each thing that it was promised to be durable, before it goes on.
 */

import { writeSync } from 'node:fs';
import { StoreError } from '../../src/model/errors.ts';
import { openDataFolder } from '../../src/storage/data-folder.ts';
import { type MetadataStore, openMetadataStore } from '../../src/storage/metadata-store.ts';
import { replaceFile } from '../../src/storage/replace-file.ts';

export const KEEPER = { role: 'storage', name: 'keeper' } as const;
export const KEEPER_APPLICATION = 0x6b656570;
export const PARTS = 5;
export const NEW_BYTES = Buffer.alloc(10_000, 'new ');

/** The second one does something for each entry that there is. */
export const KEEPER_MIGRATIONS = [
  `CREATE TABLE entry (number INTEGER PRIMARY KEY) STRICT;
   CREATE TABLE part (entry INTEGER NOT NULL REFERENCES entry (number), text TEXT NOT NULL) STRICT;`,
  `CREATE TABLE mark (entry INTEGER PRIMARY KEY) STRICT; INSERT INTO mark SELECT number FROM entry;`,
] as const;

/** An entry, its mark and its parts in one transaction. */
export function addEntry(store: MetadataStore, number: number, marked = true): void {
  store.transaction(() => {
    store.run('INSERT INTO entry VALUES (?)', number);
    for (let part = 0; part < PARTS; part++) {
      store.run('INSERT INTO part VALUES (?, ?)', number, `${part} `.repeat(100 + (number % 7) * 300));
    }
    if (marked) store.run('INSERT INTO mark VALUES (?)', number);
  });
}

export function nextEntry(store: MetadataStore): number {
  const [row] = store.read<{ next: number }>('SELECT coalesce(max(number), 0) + 1 AS next FROM entry');
  return row?.next ?? 1;
}

function tell(line: object): void {
  writeSync(1, `${JSON.stringify(line)}\n`); // nothing of it waits in this process
}

function outcome(store: MetadataStore): string {
  try {
    addEntry(store, nextEntry(store));
    return 'done';
  } catch (error) {
    if (error instanceof StoreError) return error.code;
    throw error;
  }
}

async function main(mode: string, path: string): Promise<void> {
  const folder = await openDataFolder(path, KEEPER);
  tell({ id: folder.id });
  if (mode === 'hold') {
    setInterval(() => {}, 60_000); // until it is killed
    return;
  }
  const store = openMetadataStore(folder.file('metadata.sqlite'), {
    applicationId: KEEPER_APPLICATION,
    migrations: KEEPER_MIGRATIONS,
  });
  tell({ version: KEEPER_MIGRATIONS.length });
  if (mode === 'try') {
    tell({ outcomes: [1, 2, 3].map(() => outcome(store)) });
    store.close();
    folder.close();
    return;
  }
  for (let number = nextEntry(store); ; number++) {
    addEntry(store, number);
    tell({ entry: number });
    if (mode === 'once') break;
  }
  await replaceFile(folder.file('kept.json'), NEW_BYTES);
  tell({ replaced: true });
  store.close();
  folder.close();
  tell({ closed: true });
}

if (import.meta.main) await main(process.argv[2] as string, process.argv[3] as string);
