/** S5: disks that fill up and files that somebody else cuts short, under a running server. */

import { truncate } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { NbdClient, outcome } from '../support/client.ts';
import { makeSparse, pattern } from '../support/layout.ts';
import { type RunningServer, startServe, volaryCommand } from '../support/server.ts';
import { requireTool, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

const MiB = 1024 * 1024;
const EIO = 5;
const ENOSPC = 28;

let folder: TemporaryFolder;
let server: RunningServer;

beforeEach(async () => {
  folder = await temporaryFolder();
});

afterEach(async () => {
  await server?.kill();
  await folder.remove();
});

describe('a full disk', () => {
  /** Starts the server with a tmpfs of 8 MiB on FOLDER/small, in a mount namespace that ends with the process. */
  async function startOnSmallDisk(): Promise<void> {
    const unshare = requireTool('unshare', 'util-linux');
    const mountAndRun = 'mkdir "$0" && mount -t tmpfs -o size=8m none "$0" && exec "$@"';
    server = await startServe(
      [
        folder.file('small/full.img'),
        folder.file('roomy.img'),
        ...['--size', `${64 * MiB}`, '--listen', 'nbd://127.0.0.1:0'],
      ],
      {
        command: [
          ...[unshare, '--map-root-user', '--mount', 'sh', '-c', mountAndRun, folder.file('small')],
          volaryCommand,
        ],
      },
    );
  }

  test('S5: ENOSPC to the client, the server and the other exports live, TRIM makes room again', async () => {
    await startOnSmallDisk();
    const uri = server.uris[0] as string;
    const full = await NbdClient.open(uri, 'full.img');
    const roomy = await NbdClient.open(uri, 'roomy.img');

    const written: number[] = [];
    let refused = -1;
    for (let offset = 0; offset < 16 * MiB && refused < 0; offset += MiB) {
      const error = await full.write(offset, pattern(MiB, offset + 1));
      if (error === 0) written.push(offset);
      else {
        expect(error).toBe(ENOSPC);
        refused = offset;
      }
    }
    expect(written.length).toBeGreaterThan(4);
    expect(refused).toBeGreaterThan(0);

    // Small writes and zeroes that need room are refused as well; the connection stays in step.
    expect(await full.write(40 * MiB, pattern(64 * 1024, 5))).toBe(ENOSPC);
    expect(await roomy.write(0, pattern(MiB, 6))).toBe(0);
    for (const offset of written) {
      const read = await full.read(offset, MiB);
      expect(read.error).toBe(0);
      expect(read.data.equals(pattern(MiB, offset + 1)), `block at ${offset}`).toBe(true);
    }
    // What is there can still be overwritten and flushed: a full disk is no broken one.
    expect(await full.write(0, pattern(MiB, 7))).toBe(0);
    expect(await full.flush()).toBe(0);

    expect(await full.trim(0, 4 * MiB)).toBe(0);
    expect(await full.write(40 * MiB, pattern(2 * MiB, 8))).toBe(0);
    expect(await full.flush()).toBe(0);
    const again = await full.read(40 * MiB, 2 * MiB);
    expect(again.data.equals(pattern(2 * MiB, 8))).toBe(true);
    await full.disconnect();
    await roomy.disconnect();
    expect(await server.stop()).toEqual({ code: 0, signal: null });
  });
});

describe('a file that is cut short by somebody else', () => {
  async function startOnTwo(): Promise<[NbdClient, NbdClient]> {
    for (const name of ['cut.img', 'whole.img'])
      await makeSparse(folder.file(name), 16 * MiB, [{ offset: 0, length: 16 * MiB }]);
    const files = [folder.file('cut.img'), folder.file('whole.img')];
    server = await startServe([...files, '--listen', 'nbd://127.0.0.1:0']);
    const uri = server.uris[0] as string;
    return [await NbdClient.open(uri, 'cut.img'), await NbdClient.open(uri, 'whole.img')];
  }

  test('S5: reads of what is gone fail, the volume takes no more writes, others are unharmed', async () => {
    const [cut, whole] = await startOnTwo();
    await truncate(folder.file('cut.img'), 4 * MiB);
    expect((await cut.read(8 * MiB, 4096)).error).toBe(EIO);
    expect((await cut.read(4 * MiB - 4096, 8192)).error, 'across the new end').toBe(EIO);
    // A large simple reply may have begun when the end is found: then only closing the connection is left.
    const large = await NbdClient.open(server.uris[0] as string, 'cut.img');
    const answer = await outcome(large.read(3 * MiB, 2 * MiB).then(({ error }) => error));
    expect([EIO, 'closed']).toContain(answer);
    expect((await cut.read(16 * MiB - 1, 1)).error).toBe(EIO);
    const kept = await cut.read(0, MiB);
    expect(kept.error).toBe(0);
    expect(kept.data.equals(pattern(16 * MiB, 1).subarray(0, MiB))).toBe(true);
    // A write behind the end would make the file long again, and zeroes of what was lost.
    expect(await cut.write(12 * MiB, pattern(4096, 2))).toBe(EIO);
    expect(await cut.flush()).toBe(EIO);
    expect(server.stderr(), 'the log names the export').toContain('cut.img');

    expect(await whole.write(0, pattern(MiB, 3))).toBe(0);
    expect(await whole.flush()).toBe(0);
    const read = await whole.read(0, 2 * MiB);
    expect(read.error).toBe(0);
    expect(read.data.subarray(0, MiB).equals(pattern(MiB, 3))).toBe(true);
  });

  test('S5: FLUSH after writes that still fit does not call a shortened file durable', async () => {
    const [cut] = await startOnTwo();
    await truncate(folder.file('cut.img'), 4 * MiB);
    expect(await cut.write(0, pattern(4096, 2))).toBe(0);
    expect(await cut.flush()).toBe(EIO);
    expect(await cut.flush()).toBe(EIO);
  });
});
