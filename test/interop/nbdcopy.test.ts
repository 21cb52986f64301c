/** nbdcopy: whole disks in and out, over several connections, holes kept as holes. */

import { stat } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { layoutOf, makeSparse, sameContent } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const SIZE = 192 * MiB;
const DATA = [
  { offset: 0, length: 4 * KiB },
  { offset: 10 * MiB, length: 33 * MiB },
  { offset: 100 * MiB + 64 * KiB, length: 64 * KiB },
  { offset: SIZE - 8 * MiB, length: 8 * MiB },
];

describe('nbdcopy', () => {
  const nbdcopy = requireTool('nbdcopy', 'libnbd-bin');
  let folder: TemporaryFolder;
  let source: RunningServer;
  let target: RunningServer;

  beforeAll(async () => {
    folder = await temporaryFolder();
    await makeSparse(folder.file('source.img'), SIZE, DATA);
    source = await startServe([folder.file('source.img'), '--listen', 'nbd://127.0.0.1:0']);
    const targets = ['first.img', 'second.img', 'third.img', 'fourth.img'].map((name) => folder.file(name));
    for (const path of targets) await makeSparse(path, SIZE, [{ offset: MiB, length: 4 * MiB }]);
    target = await startServe([...targets, '--listen', 'nbd://127.0.0.1:0']);
  });

  afterAll(async () => {
    await source?.stop();
    await target?.stop();
    await folder?.remove();
  });

  async function sameAsSource(name: string): Promise<void> {
    await sameContent(folder.file('source.img'), folder.file(name));
    expect(await layoutOf(folder.file(name))).toEqual(await layoutOf(folder.file('source.img')));
  }

  test('file to server: --flush, 4 connections; old data goes, holes are holes', async () => {
    await runOk(nbdcopy, [
      '--flush',
      '--connections=4',
      folder.file('source.img'),
      `${target.uris[0]}/first.img`,
    ]);
    await sameAsSource('first.img');
  });

  test('server to file: 4 connections', async () => {
    await runOk(nbdcopy, ['--connections=4', `${source.uris[0]}`, folder.file('local.img')]);
    await sameAsSource('local.img');
  });

  test('server to server: 4 connections, 4 threads', async () => {
    await runOk(nbdcopy, [
      '--flush',
      '--connections=4',
      '--threads=4',
      `${source.uris[0]}`,
      `${target.uris[0]}/second.img`,
    ]);
    await sameAsSource('second.img');
  });

  test('server to server: one connection, one request at a time', async () => {
    await runOk(nbdcopy, ['--synchronous', `${source.uris[0]}`, `${target.uris[0]}/third.img`]);
    await sameAsSource('third.img');
  });

  test('--allocated leaves nothing sparse; requests as large as the protocol should take', async () => {
    await runOk(nbdcopy, [
      '--allocated',
      '--no-extents',
      `--request-size=${32 * MiB}`,
      `${source.uris[0]}`,
      `${target.uris[0]}/fourth.img`,
    ]);
    await sameContent(folder.file('source.img'), folder.file('fourth.img'));
    expect((await stat(folder.file('fourth.img'))).blocks * 512).toBeGreaterThanOrEqual(SIZE);
  });
});
