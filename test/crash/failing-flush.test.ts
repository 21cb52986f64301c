/**
 * A disk that fails fdatasync. After such a failure the kernel may have dropped the pages, so a later fdatasync that
 * succeeds proves nothing: a success after a failure would be a lie (N3).
 */

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { Fua, NbdClient } from '../support/client.ts';
import { pattern } from '../support/layout.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { attachStrace } from '../support/strace.ts';
import { type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const MiB = 1024 * 1024;
const EIO = 5;
const SYNC = 'fdatasync,fsync,sync_file_range,syncfs';

describe('a disk that fails fdatasync', () => {
  let folder: TemporaryFolder;
  let server: RunningServer;

  beforeAll(async () => {
    folder = await temporaryFolder();
    server = await start();
  });

  afterAll(async () => {
    await server?.kill();
    await folder?.remove();
  });

  function start(): Promise<RunningServer> {
    const files = ['bad.img', 'good.img', 'worse.img'].map((name) => folder.file(name));
    return startServe([...files, '--size', `${8 * MiB}`, '--listen', 'nbd://127.0.0.1:0']);
  }

  function connect(name: string): Promise<NbdClient> {
    return NbdClient.open(server.uris[0] as string, name);
  }

  test('N3: FLUSH and FUA are answered after the disk has answered', async () => {
    const client = await connect('good.img');
    const strace = await attachStrace(server.process.pid as number, folder.file('sync.log'), [
      '-y',
      '-e',
      `trace=${SYNC},pwritev2`,
    ]);
    const synced = async (): Promise<number> =>
      (
        (await strace.log()).match(/(f(data)?sync\(.*good\.img|pwritev2\(.*good\.img.*RWF_D?SYNC).*= \d/g) ??
        []
      ).length;
    try {
      expect(await client.write(0, pattern(MiB, 1))).toBe(0);
      expect(await synced(), 'a plain write').toBe(0);
      expect(await client.flush()).toBe(0);
      expect(await synced(), 'FLUSH').toBeGreaterThan(0);
      for (const [kind, length] of [
        ['a small write with FUA', 4096],
        ['a large write with FUA', 4 * MiB],
      ] as const) {
        const before = await synced();
        expect(await client.write(MiB, pattern(length, 2), Fua)).toBe(0);
        expect(await synced(), kind).toBeGreaterThan(before);
      }
      const before = await synced();
      expect(await client.writeZeroes(0, MiB, Fua)).toBe(0);
      expect(await synced(), 'zeroes with FUA').toBeGreaterThan(before);
    } finally {
      await strace.detach();
    }
    await client.disconnect();
  });

  test('N3: after a failed flush no write and no flush succeeds, others are unharmed, a restart heals', async () => {
    const bad = await connect('bad.img');
    const second = await connect('bad.img');
    const good = await connect('good.img');
    const data = pattern(4096, 3);
    expect(await bad.write(0, data)).toBe(0);
    expect(await bad.flush()).toBe(0);

    const strace = await attachStrace(server.process.pid as number, folder.file('inject.log'), [
      '-P',
      folder.file('bad.img'),
      '-e',
      `trace=${SYNC}`,
      '-e',
      `inject=${SYNC}:error=EIO`,
    ]);
    try {
      expect(await bad.write(4096, data)).toBe(0);
      expect(await bad.flush(), 'the flush that failed').toBe(EIO);
    } finally {
      await strace.detach(); // the disk would answer well again from here on
    }
    for (const [name, client] of [
      ['the same connection', bad],
      ['another connection', second],
      ['a new connection', await connect('bad.img')],
    ] as const) {
      expect(await client.flush(), `flush on ${name}`).toBe(EIO);
      expect(await client.write(8192, data), `write on ${name}`).toBe(EIO);
      expect(await client.write(8192, data, Fua), `write with FUA on ${name}`).toBe(EIO);
      expect(await client.writeZeroes(0, 4096), `zeroes on ${name}`).toBe(EIO);
      expect(await client.trim(0, 4096), `trim on ${name}`).toBe(EIO);
      const read = await client.read(0, 4096);
      expect(read.error, `read on ${name}`).toBe(0);
      expect(read.data.equals(data)).toBe(true);
      await client.disconnect();
    }
    expect(await good.write(0, data, Fua)).toBe(0);
    expect(await good.flush()).toBe(0);
    await good.disconnect();
    expect(server.stderr(), 'the log names the export').toContain('bad.img');

    await server.stop();
    server = await start();
    const healed = await connect('bad.img');
    expect(await healed.write(8192, data)).toBe(0);
    expect(await healed.flush()).toBe(0);
    await healed.disconnect();
  });

  test('N3: a failed sync of a FUA write counts like a failed flush', async () => {
    const client = await connect('worse.img');
    const strace = await attachStrace(server.process.pid as number, folder.file('fua.log'), [
      '-P',
      folder.file('worse.img'),
      '-e',
      `trace=${SYNC}`,
      '-e',
      `inject=${SYNC}:error=EIO`,
    ]);
    try {
      expect(await client.write(0, pattern(4096, 4), Fua)).toBe(EIO);
    } finally {
      await strace.detach();
    }
    expect(await client.flush()).toBe(EIO);
    expect(await client.write(0, pattern(4096, 4))).toBe(EIO);
    await client.disconnect();
  });
});
