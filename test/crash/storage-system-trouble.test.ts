/** S5 at process level: permissions, full disks, two processes on one folder. Others are unharmed, and nothing is half. */

import { chmodSync, chownSync, mkdirSync, readdirSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NbdClient } from '../support/client.ts';
import { type Mount, mountTmpfs } from '../support/disk.ts';
import {
  clientOf,
  exportOf,
  idOf,
  MiB,
  type ReportDirectory,
  reportDirectory,
  type StorageProcess,
  startStorageProcess,
  wantedOf,
} from '../support/storage-system.ts';
import { attachStrace, type Strace } from '../support/strace.ts';
import { eventually, requireTool, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import { volaryCommand } from '../support/volary-process.ts';

const EIO = 5;
const ENOSPC = 28;
const SHUTDOWN = 108;
const NOBODY = 65534;
const page = Buffer.alloc(4096, 7);

let folder: TemporaryFolder;
let directory: ReportDirectory;
let storage: StorageProcess | undefined;

beforeEach(async () => {
  folder = await temporaryFolder();
  directory = await reportDirectory();
});

afterEach(async () => {
  await storage?.kill();
  storage = undefined;
  await directory[Symbol.asyncDispose]();
  await folder.remove();
});

describe('permissions', () => {
  /** As somebody to whom modes mean something. */
  async function startAsNobody(): Promise<StorageProcess> {
    const setpriv = requireTool('setpriv', 'util-linux');
    const command = [setpriv, `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', volaryCommand];
    storage = await startStorageProcess(folder.file('data'), directory.url, { command });
    return storage;
  }

  beforeEach(() => {
    chmodSync(folder.path, 0o755);
    mkdirSync(folder.file('data'));
    chownSync(folder.file('data'), NOBODY, NOBODY);
  });

  test('a file without permission fails its volume, with the reason; the others are served; mended, it is back', async () => {
    let { places } = await startAsNobody();
    for (const n of [1, 2]) await clientOf(places).makeRealVolume(idOf(n), wantedOf(MiB));
    const { file } = await clientOf(places).realVolume(idOf(1));
    chmodSync(file, 0);
    await expect(NbdClient.open(places.uri, exportOf(idOf(1)))).rejects.toThrow('no permission');
    expect(await clientOf(places).realVolume(idOf(1))).toMatchObject({ state: 'failed' });
    const other = await NbdClient.open(places.uri, exportOf(idOf(2)));
    expect([await other.write(0, page), await other.flush()]).toEqual([0, 0]);
    await storage?.stop();

    ({ places } = await startAsNobody());
    expect(await clientOf(places).realVolume(idOf(1))).toMatchObject({
      state: 'failed',
      reason: expect.stringContaining('permission'),
    });
    await storage?.stop();

    chmodSync(file, 0o600);
    ({ places } = await startAsNobody());
    expect(await clientOf(places).realVolume(idOf(1))).toMatchObject({ state: 'in-use', reason: null });
    const use = await NbdClient.open(places.uri, exportOf(idOf(1)));
    expect(await use.write(0, page)).toBe(0);
  });

  test('a folder that takes no files: making and deleting fail, nothing is half, and later they go', async () => {
    const { places } = await startAsNobody();
    const client = clientOf(places);
    await client.makeRealVolume(idOf(1), wantedOf(MiB));
    chmodSync(folder.file('data/volumes'), 0o555);
    await expect(client.makeRealVolume(idOf(2), wantedOf(MiB))).rejects.toMatchObject({ code: 'failed' });
    await expect(client.realVolume(idOf(2))).rejects.toMatchObject({ code: 'not-found' });
    await expect(client.deleteRealVolume(idOf(1), false)).rejects.toMatchObject({ code: 'failed' });
    chmodSync(folder.file('data/volumes'), 0o755);
    await client.deleteRealVolume(idOf(1), false);
    await client.makeRealVolume(idOf(2), wantedOf(MiB));
    expect(readdirSync(folder.file('data/volumes'))).toEqual([`${idOf(2)}.raw`]);
  });
});

describe('a full disk', () => {
  let disk: Mount;
  beforeEach(async () => {
    disk = await mountTmpfs('size=8m,nr_inodes=64'); // the files of sparse volumes take no blocks
  });
  afterEach(async () => {
    await storage?.kill();
    await disk.remove();
  });

  test('writers are told ENOSPC, making is told no-space and leaves nothing, deleting works; what is there is served on', async () => {
    storage = await startStorageProcess(`${disk.path}/data`, directory.url, { more: ['--capacity', '1GiB'] });
    const { places } = storage;
    const client = clientOf(places);
    for (const n of [1, 2]) await client.makeRealVolume(idOf(n), wantedOf(64 * MiB));
    const kept = await NbdClient.open(places.uri, exportOf(idOf(2)));
    expect([await kept.write(0, page), await kept.flush()]).toEqual([0, 0]);
    const filler = await NbdClient.open(places.uri, exportOf(idOf(1)));
    let offset = 0;
    for (const size of [MiB, 4096]) {
      const bytes = Buffer.alloc(size, 9);
      while ((await filler.write(offset, bytes)) === 0) offset += size;
    }
    expect(await filler.write(offset, page)).toBe(ENOSPC);

    const made: number[] = [];
    let refused: unknown;
    for (let n = 3; refused === undefined && n < 1000; n++) {
      await client.makeRealVolume(idOf(n), wantedOf(MiB)).then(
        () => made.push(n),
        (error: unknown) => {
          refused = error;
        },
      );
    }
    expect(refused).toMatchObject({ code: 'no-space' });
    expect(readdirSync(`${disk.path}/data/volumes`)).toHaveLength(2 + made.length);
    expect([await kept.write(0, page), await kept.flush()]).toEqual([0, 0]);
    expect((await kept.read(0, 4096)).data.equals(page)).toBe(true);

    expect(await filler.trim(0, 4 * MiB)).toBe(0);
    expect(await filler.write(offset, page)).toBe(0);
    await client.deleteRealVolume(idOf(made.pop() ?? 0), false);
    await client.makeRealVolume(idOf(5000), wantedOf(MiB));
    await storage.kill();
    storage = await startStorageProcess(`${disk.path}/data`, directory.url);
    for (const n of [1, 2, ...made, 5000]) {
      expect(await clientOf(storage.places).realVolume(idOf(n))).toMatchObject({ state: 'in-use' });
    }
  });
});

describe('N3: a flush that fails', () => {
  /** Two users of one real volume, each with a write that is answered and not flushed; the flush of the first fails. */
  async function failFlush(): Promise<{
    storage: StorageProcess;
    file: string;
    second: NbdClient;
    good: NbdClient;
  }> {
    const running = await startStorageProcess(folder.file('data'), directory.url);
    storage = running;
    const client = clientOf(running.places);
    const { file } = await client.makeRealVolume(idOf(1), wantedOf(MiB));
    await client.makeRealVolume(idOf(2), wantedOf(MiB));
    const open = (n: number) => NbdClient.open(running.places.uri, exportOf(idOf(n)));
    const [first, second, good] = [await open(1), await open(1), await open(2)];
    expect(await first.write(0, page)).toBe(0);
    expect([await second.write(4096, page), await good.write(0, page)]).toEqual([0, 0]);
    const strace = await failSyncs(running, file);
    expect([await first.flush(), await good.flush()]).toEqual([EIO, 0]);
    await strace.detach();
    return { storage: running, file, second, good };
  }

  function failSyncs({ pid }: StorageProcess, file: string): Promise<Strace> {
    return attachStrace(pid, folder.file('eio.log'), [
      ...['-P', file, '-e', 'trace=fdatasync', '-e', 'inject=fdatasync:error=EIO'],
    ]);
  }

  const reason = expect.stringContaining('fdatasync failed');
  const startAgain = async (): Promise<StorageProcess> => {
    storage = await startStorageProcess(folder.file('data'), directory.url);
    return storage;
  };
  const open = ({ places }: StorageProcess) => NbdClient.open(places.uri, exportOf(idOf(1)));

  test('fails its volume, and is told; the others go on', async () => {
    const { storage, second, good } = await failFlush();
    expect([await second.flush(), await good.flush()]).toEqual([SHUTDOWN, 0]);
    expect(await clientOf(storage.places).realVolume(idOf(1))).toMatchObject({ state: 'failed', reason });
    await eventually('the directory is told', () => directory.reports.at(-1)?.failed[0]);
    expect(directory.reports.at(-1)?.failed).toEqual([{ realVolume: idOf(1), reason }]);
    await expect(open(storage)).rejects.toThrow('has failed');
  });

  test('is durable before it is answered: neither kill -9 nor a start lets anybody else flush with success', async () => {
    await (await failFlush()).storage.kill();
    for (const stop of ['kill', 'stop'] as const) {
      const again = await startAgain();
      expect(await clientOf(again.places).realVolume(idOf(1))).toMatchObject({ state: 'failed', reason });
      await expect(open(again)).rejects.toThrow('has failed');
      await again[stop]();
    }
  });

  test('taken back by somebody who says so, the volume is used again, for good', async () => {
    const { storage, file } = await failFlush();
    const stillFailing = await failSyncs(storage, file);
    const tooEarly = clientOf(storage.places).changeRealVolume(idOf(1), { failure: 'accepted' });
    await expect(tooEarly).rejects.toMatchObject({ code: 'failed', message: expect.stringContaining('EIO') });
    await stillFailing.detach();
    expect(await clientOf(storage.places).realVolume(idOf(1))).toMatchObject({ state: 'failed', reason });
    const view = await clientOf(storage.places).changeRealVolume(idOf(1), { failure: 'accepted' });
    expect(view).toMatchObject({ state: 'in-use', reason: null });
    const use = await open(storage);
    expect([await use.write(0, page), await use.flush()]).toEqual([0, 0]);
    await eventually(
      'the directory is told',
      () => directory.reports.at(-1)?.failed.length === 0 || undefined,
    );
    await storage.kill();
    const again = await open(await startAgain());
    expect([await again.write(0, page), await again.flush()]).toEqual([0, 0]);
  });
});

test('a second process on the folder is told who has it, and the first is not disturbed', async () => {
  storage = await startStorageProcess(folder.file('data'), directory.url);
  await clientOf(storage.places).makeRealVolume(idOf(1), wantedOf(MiB));
  const second = startStorageProcess(folder.file('data'), directory.url);
  await expect(second).rejects.toThrow(`in use by process ${storage.pid}`);
  await expect(second).rejects.toThrow('error: locked: ');
  const use = await NbdClient.open(storage.places.uri, exportOf(idOf(1)));
  expect(await use.write(0, page)).toBe(0);
});
