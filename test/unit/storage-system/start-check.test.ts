/** S4, S5: what a storage system finds when it starts, and what it makes of it. */

import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { RealVolumeTable } from '../../../src/storage-system/real-volume-table.ts';
import { startStorageSystem } from '../../../src/storage-system/service.ts';
import { silentLog } from '../../support/log.ts';
import {
  epochOf,
  exportOf,
  idOf,
  MiB,
  realVolumes,
  storageOptions,
  wantedOf,
} from '../../support/storage-system.ts';
import { type StorageLab, storageLab } from './lab.ts';

const page = Buffer.alloc(4096, 7);

let lab: StorageLab;
beforeEach(async () => {
  lab = await storageLab();
  for (const n of [1, 2, 3]) await lab.client.makeRealVolume(idOf(n), wantedOf(MiB));
});
afterEach(() => lab[Symbol.asyncDispose]());

const fileOf = (n: number) => `${lab.folder}/volumes/${idOf(n)}.raw`;
const statesOf = async () => (await realVolumes(lab.ready)).map(({ state }) => state);

function inItsPlace(make: (path: string) => void): void {
  rmSync(fileOf(2));
  make(fileOf(2));
}

const damages: [what: string, damage: () => void, reason: RegExp][] = [
  ['missing', () => rmSync(fileOf(2)), /missing/],
  ['cut short', () => truncateSync(fileOf(2), 5000), /ends at 5000 of 1048576/],
  ['a folder', () => inItsPlace(mkdirSync), /something else/],
  ['a link to itself', () => inItsPlace((path) => symlinkSync(path, path)), /ELOOP/],
];

describe.each(damages)('S5: a file that is %s', (_what, damage, reason) => {
  test('fails its real volume, durably, and the others are served', async () => {
    await lab.restart(damage);
    expect(await statesOf()).toEqual(['in-use', 'failed', 'in-use']);
    const view = await lab.client.realVolume(idOf(2));
    expect(view.reason).toMatch(reason);
    await expect(lab.open(exportOf(idOf(2)))).rejects.toThrow('has failed');
    await expect(lab.open(idOf(2))).rejects.toThrow('has failed');
    expect(await (await lab.open(exportOf(idOf(1)))).write(0, page)).toBe(0);
    expect(lab.directory.reports.at(-1)?.failed).toEqual([{ realVolume: idOf(2), reason: view.reason }]);
    await expect(lab.client.changeRealVolume(idOf(2), { sizeBytes: 2 * MiB })).rejects.toMatchObject({
      code: 'conflict',
    });
    expect(await lab.client.changeRealVolume(idOf(2), { epoch: epochOf(2) })).toMatchObject({ epoch: 2 });
  });

  test('while it runs: found when it is opened, and told the directory at once', async () => {
    damage();
    await expect(lab.open(exportOf(idOf(2)))).rejects.toThrow(idOf(2));
    expect(await statesOf()).toEqual(['in-use', 'failed', 'in-use']);
    expect(await (await lab.open(exportOf(idOf(3)))).write(0, page)).toBe(0);
    await expect.poll(() => lab.directory.reports.at(-1)?.failed.length).toBe(1);
    await lab.client.deleteRealVolume(idOf(1), false);
  });
});

test('S5: a file that is put back is used again after a start', async () => {
  expect(await (await lab.open(exportOf(idOf(2)))).write(0, page)).toBe(0);
  await lab.restart(() => renameSync(fileOf(2), `${lab.folder}/aside`));
  expect(await lab.client.realVolume(idOf(2))).toMatchObject({ state: 'failed' });
  await lab.restart(() => renameSync(`${lab.folder}/aside`, fileOf(2)));
  expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
  expect((await (await lab.open(exportOf(idOf(2)))).read(0, 4096)).data.equals(page)).toBe(true);
  expect(lab.log).toContainEqual(
    expect.objectContaining({ realVolume: idOf(2), from: 'failed', to: 'in-use' }),
  );
});

test('S5: a file that is put back while it runs is used again when somebody says so', async () => {
  expect(await (await lab.open(exportOf(idOf(2)))).write(0, page)).toBe(0);
  await lab.restart(() => renameSync(fileOf(2), `${lab.folder}/aside`));
  const accept = () => lab.client.changeRealVolume(idOf(2), { failure: 'accepted' });
  await expect(accept()).rejects.toMatchObject({ code: 'conflict' });
  renameSync(`${lab.folder}/aside`, fileOf(2));
  expect(await accept()).toMatchObject({ state: 'in-use', reason: null });
  expect((await (await lab.open(exportOf(idOf(2)))).read(0, 4096)).data.equals(page)).toBe(true);
});

test('S5: a file that is removed under a connection fails its volume at the next flush, those inside are shut out', async () => {
  const use = await lab.open(exportOf(idOf(2)));
  expect(await use.write(0, page)).toBe(0);
  rmSync(fileOf(2));
  expect(await use.flush()).not.toBe(0);
  expect(await use.write(0, page)).toBe(108);
  expect(await lab.client.realVolume(idOf(2))).toMatchObject({
    state: 'failed',
    reason: expect.stringContaining('removed'),
  });
  await expect.poll(() => lab.directory.reports.at(-1)?.failed.length).toBe(1);
  const other = await lab.open(exportOf(idOf(1)));
  expect([await other.write(0, page), await other.flush()]).toEqual([0, 0]);
});

test('N3: a volume whose flush has failed is not used again before somebody says so, whatever its file looks like', async () => {
  const use = await lab.open(exportOf(idOf(2)));
  expect(await use.write(0, page)).toBe(0);
  rmSync(fileOf(2));
  expect(await use.flush()).not.toBe(0);
  const accept = () => lab.client.changeRealVolume(idOf(2), { failure: 'accepted' });
  await expect(accept()).rejects.toMatchObject({
    code: 'conflict',
    message: expect.stringContaining('its file is missing'),
  });
  await lab.restart(() => writeFileSync(fileOf(2), Buffer.alloc(2 * MiB)));
  expect(await lab.client.realVolume(idOf(2))).toMatchObject({
    state: 'failed',
    reason: expect.stringContaining('removed'),
  });
  expect(statSync(fileOf(2)).size).toBe(MiB); // looked at all the same
  await expect(lab.open(exportOf(idOf(2)))).rejects.toThrow('has failed');
  expect(await accept()).toMatchObject({ state: 'in-use', reason: null });
  expect(await accept()).toMatchObject({ state: 'in-use', reason: null });
  await lab.restart();
  expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
  const again = await lab.open(exportOf(idOf(2)));
  expect([await again.write(0, page), await again.flush()]).toEqual([0, 0]);
});

test('N3: a failure that could not be kept is kept as soon as the metadata can be written again', async () => {
  const use = await lab.open(exportOf(idOf(2)));
  expect(await use.write(0, page)).toBe(0);
  rmSync(fileOf(2));
  const other = new DatabaseSync(`${lab.folder}/meta.db`);
  other.exec('BEGIN IMMEDIATE');
  expect(await use.flush()).not.toBe(0);
  const said = (text: string) => () => lab.log.some((line) => line.text.includes(text));
  expect(said('could not be kept')()).toBe(true);
  other.close();
  await expect.poll(said('kept now'), { timeout: 10_000 }).toBe(true);
  await lab.restart(() => writeFileSync(fileOf(2), Buffer.alloc(MiB)));
  expect(await statesOf()).toEqual(['in-use', 'failed', 'in-use']);
});

describe('S4: what a crash leaves', () => {
  test('a file without a row and without data is swept; one with data is left, and named', async () => {
    const [empty, full] = [fileOf(8), fileOf(9)];
    await lab.restart(() => {
      writeFileSync(empty, '');
      truncateSync(empty, MiB);
      writeFileSync(full, page);
      writeFileSync(`${lab.folder}/volumes/notes.txt`, '');
    });
    expect(existsSync(empty)).toBe(false);
    expect(readFileSync(full).equals(page)).toBe(true);
    expect(existsSync(`${lab.folder}/volumes/notes.txt`)).toBe(true);
    expect(lab.log).toContainEqual(expect.objectContaining({ level: 'warn', file: full }));
    expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
  });

  test('a deletion that had begun is finished, data and all, whether its file has gone or not', async () => {
    expect(await (await lab.open(exportOf(idOf(1)))).write(0, page)).toBe(0);
    await lab.restart(() => {
      const table = new RealVolumeTable(`${lab.folder}/meta.db`);
      for (const n of [1, 2]) table.change(idOf(n), [{ kind: 'removal-begun' }]);
      table.close();
      rmSync(fileOf(2));
    });
    expect(await realVolumes(lab.ready)).toHaveLength(1);
    expect(readdirSync(`${lab.folder}/volumes`)).toEqual([`${idOf(3)}.raw`]);
    await lab.client.makeRealVolume(idOf(1), wantedOf(MiB));
  });

  test('a file that is longer than its row is cut: an interrupted resize, and old data does not come to light', async () => {
    await lab.restart(() => {
      writeFileSync(fileOf(1), Buffer.alloc(2 * MiB, 9));
    });
    expect(statSync(fileOf(1)).size).toBe(MiB);
    expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
    await lab.client.changeRealVolume(idOf(1), { sizeBytes: 2 * MiB });
    const look = await lab.open(idOf(1));
    expect((await look.read(MiB, 4096)).data.equals(Buffer.alloc(4096))).toBe(true);
  });

  test('the same while it runs, before the file is opened', async () => {
    writeFileSync(fileOf(1), Buffer.alloc(2 * MiB, 9));
    expect((await lab.open(exportOf(idOf(1)))).sizeBytes).toBe(MiB);
    expect(statSync(fileOf(1)).size).toBe(MiB);
  });
});

describe('S5: a folder that is not to be touched', () => {
  const startAgain = () =>
    startStorageSystem({ ...storageOptions(lab.folder, lab.directory.url), log: silentLog });

  test('one that another process uses is locked', async () => {
    await expect(startAgain()).rejects.toMatchObject({ code: 'locked' });
    expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
  });

  test('metadata that is missing where there are real volumes is no new beginning', async () => {
    const aside = `${lab.folder}/../meta.db`;
    await lab.restart(async () => {
      renameSync(`${lab.folder}/meta.db`, aside);
      await expect(startAgain()).rejects.toMatchObject({ code: 'corrupt-metadata' });
      renameSync(aside, `${lab.folder}/meta.db`);
    });
    expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
  });

  test('another name is another storage system', async () => {
    await lab.restart(async () => {
      const options = { ...storageOptions(lab.folder, lab.directory.url), log: silentLog };
      const other = startStorageSystem({ ...options, name: 'west-1' as typeof options.name });
      await expect(other).rejects.toMatchObject({ code: 'wrong-data-folder' });
    });
  });

  test('a start that fails half-way lets go of the folder', async () => {
    await lab.restart(async () => {
      const options = { ...storageOptions(lab.folder, lab.directory.url), log: silentLog };
      const { port } = new URL(lab.directory.url);
      const taken = startStorageSystem({ ...options, manage: { host: '127.0.0.1', port: Number(port) } });
      await expect(taken).rejects.toMatchObject({ code: 'address-in-use' });
    });
    expect(await statesOf()).toEqual(['in-use', 'in-use', 'in-use']);
  });
});
