/** fio's nbd engine: four connections write, verify what they wrote, and another run verifies it after a restart. */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { makeSparse } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { requireTool, runOk, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const MiB = 1024 * 1024;
const JOBS = 4;
const REGION = 32 * MiB;

describe('fio --verify', () => {
  const fio = requireTool('fio', 'fio');
  let folder: TemporaryFolder;
  let server: RunningServer;

  beforeAll(async () => {
    folder = await temporaryFolder();
    await makeSparse(folder.file('disk.img'), JOBS * REGION, []);
    server = await start();
  });

  afterAll(async () => {
    await server?.stop();
    await folder?.remove();
  });

  function start(): Promise<RunningServer> {
    return startServe([folder.file('disk.img'), '--listen', 'nbd://127.0.0.1:0']);
  }

  /** One job a connection, each in its own region, checksum and place in every block. */
  function job(name: string, blockSize: string, ...more: string[]): Promise<unknown> {
    return runOk(
      fio,
      [
        `--name=${name}`,
        '--ioengine=nbd',
        `--uri=${server.uris[0]}`,
        `--bs=${blockSize}`,
        `--numjobs=${JOBS}`,
        `--offset_increment=${REGION}`,
        `--size=${REGION}`,
        '--iodepth=16',
        '--verify=crc32c',
        '--verify_fatal=1',
        '--verify_state_save=0',
        '--randseed=20261121',
        '--group_reporting',
        ...more,
      ],
      { cwd: folder.path, timeoutMs: 100_000 },
    );
  }

  test('random 4 KiB writes with flushes on 4 connections, verified at once and after a restart', async () => {
    await job('small', '4k', '--rw=randwrite', '--fsync=512', '--do_verify=1');
    expect(await server.stop()).toEqual({ code: 0, signal: null });
    server = await start();
    await job('small', '4k', '--rw=randwrite', '--verify_only');
  });

  test('mixed sizes up to 1 MiB, verified while they are written', async () => {
    await job('mixed', '1m', '--rw=write', '--verify_backlog=8', '--do_verify=1');
    await job('sizes', '4k', '--rw=randwrite', '--bsrange=4k-256k', '--ba=4k', '--do_verify=1');
  });
});
