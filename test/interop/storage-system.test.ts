/** A storage system's real volumes as NBD clients of others see them (S2). */

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { fioVerify } from '../support/fio.ts';
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
import { requireTool, run, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const SIZE_MIB = 32;
const id = idOf(1);

describe('real volumes', () => {
  const nbdinfo = requireTool('nbdinfo', 'libnbd-bin');
  let folder: TemporaryFolder;
  let directory: ReportDirectory;
  let storage: StorageProcess;

  beforeAll(async () => {
    folder = await temporaryFolder();
    directory = await reportDirectory();
    storage = await startStorageProcess(folder.file('data'), directory.url);
    await clientOf(storage.places).makeRealVolume(id, wantedOf(SIZE_MIB * MiB));
    await clientOf(storage.places).makeRealVolume(idOf(2), wantedOf(MiB));
  });

  afterAll(async () => {
    await storage?.stop();
    await directory?.[Symbol.asyncDispose]();
    await folder?.remove();
  });

  const uriOf = (name: string): string => `${storage.places.uri}/${name}`;
  const infoOf = async (name: string) => {
    const { stdout } = await runOk(nbdinfo, ['--json', uriOf(name)]);
    return (JSON.parse(stdout) as { exports: Record<string, unknown>[] }).exports[0];
  };

  test('nbdinfo: the bare name is read-only, the keyed one is for use, by several connections', async () => {
    const size = SIZE_MIB * MiB;
    expect(await infoOf(id)).toMatchObject({ 'export-size': size, is_read_only: true, can_multi_conn: true });
    expect(await infoOf(exportOf(id))).toMatchObject({
      ...{ 'export-size': size, is_read_only: false, can_multi_conn: true },
      ...{ can_trim: true, can_zero: true, can_fua: true },
    });
  });

  test('nbdinfo --list: all of them, without a key', async () => {
    const { stdout } = await runOk(nbdinfo, ['--list', storage.places.uri]);
    expect(stdout).toContain(`export="${id}"`);
    expect(stdout).toContain(`export="${idOf(2)}"`);
    expect(stdout).not.toMatch(/[0-9a-f]{32}/);
  });

  test.each([
    [exportOf(id, 2), /has not heard of 2/],
    [`${id}@1.${'f'.repeat(32)}`, /not the access key/],
    [idOf(3), /there is no real volume/],
    ['%2e%2e%2fmeta.db', /real volumes: rv-/],
  ])('nbdinfo tells why it is refused: %s', async (name, text) => {
    const { code, stderr } = await run(nbdinfo, [uriOf(name)], { env: { LIBNBD_DEBUG: '1' } });
    expect(code).toBe(1);
    expect(stderr).toMatch(text);
  });

  test('fio writes over the keyed export on 4 connections and verifies; so it does after a restart', async () => {
    await fioVerify({ uri: uriOf(exportOf(id)), sizeMiB: SIZE_MIB, connections: 4, cwd: folder.path });
    expect(await storage.stop()).toEqual({ code: 0, signal: null });
    storage = await startStorageProcess(folder.file('data'), directory.url);
    const again = { sizeMiB: SIZE_MIB, connections: 4, cwd: folder.path, verifyOnly: true };
    await fioVerify({ uri: uriOf(exportOf(id)), ...again });
  });

  test('the file is the volume: it does not differ from what nbdcopy reads', async () => {
    const { file } = await clientOf(storage.places).realVolume(id);
    await runOk(requireTool('nbdcopy', 'libnbd-bin'), [uriOf(id), folder.file('copy.img')]);
    const [bytes, copy] = await Promise.all([readFile(file), readFile(folder.file('copy.img'))]);
    expect(bytes.equals(copy)).toBe(true);
  });
});
