/** The contract, for a RemoteVolume in front of servers that others have written; and one in front of volary serve. */

import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { VolumeError } from '../../src/model/errors.ts';
import { openRemoteVolume, type RemoteVolume } from '../../src/nbd-client/remote-volume.ts';
import { bytesOf } from '../contract/model-run.ts';
import { type Subject, volumeContract } from '../contract/volume-contract.ts';
import { silentLog } from '../support/log.ts';
import { portOf, startServe } from '../support/server.ts';
import { eventually, requireTool, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';

interface Foreign {
  readonly volume: RemoteVolume;
  stop(): Promise<void>;
}

/** Starts a server that stays in the foreground, on a unix socket in the folder, and opens its export. */
async function startForeign(
  folder: TemporaryFolder,
  exportName: string,
  command: string,
  args: readonly string[],
): Promise<Foreign> {
  const child = spawn(command, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const exit = new Promise((resolve) => child.once('close', resolve));
  const address = { path: folder.file('socket') };
  const volume = await eventually(`${command} is ready`, async () => {
    if (child.exitCode !== null) throw new Error(`${command} ended: ${stderr}`);
    try {
      return await openRemoteVolume({ address, exportName, log: silentLog });
    } catch (error) {
      if (error instanceof VolumeError && error.code === 'io') return undefined;
      throw error;
    }
  });
  return {
    volume,
    stop: async () => {
      await volume.close();
      child.kill('SIGKILL');
      await exit;
      await folder.remove();
    },
  };
}

async function nbdkit(contents: Buffer): Promise<Subject> {
  const folder = await temporaryFolder();
  const args = ['-f', '-U', folder.file('socket'), 'memory', `size=${contents.length}`];
  const { volume, stop } = await startForeign(folder, '', requireTool('nbdkit', 'nbdkit'), args);
  await volume.write(0, contents, 0, contents.length, true);
  return { volume, dispose: stop };
}

async function qemu(contents: Buffer): Promise<Subject> {
  const folder = await temporaryFolder();
  writeFileSync(folder.file('disk.img'), contents);
  const args = ['-t', '-f', 'raw', '-e', '8', '-x', 'disk', '-k', folder.file('socket')];
  args.push('--discard=unmap', folder.file('disk.img'));
  const { volume, stop } = await startForeign(folder, 'disk', requireTool('qemu-nbd', 'qemu-utils'), args);
  return { volume, dispose: stop };
}

volumeContract('RemoteVolume of nbdkit’s memory plugin', { make: nbdkit });
volumeContract('RemoteVolume of qemu-nbd', { make: qemu });

test.each([
  ['nbdkit', nbdkit],
  ['qemu-nbd', qemu],
])('%s: what it can do is seen', async (_name, make) => {
  const { volume, dispose } = await make(Buffer.alloc(65_536, 7));
  const { state, session, capabilities } = volume as RemoteVolume;
  expect([state, session.headerStyle]).toEqual(['connected', 'structured']);
  expect(capabilities).toMatchObject({ write: true, flush: true, trim: true, writeZeroes: true });
  expect([capabilities.blockStatus, capabilities.cache, capabilities.resize]).toEqual([true, true, false]);
  await dispose();
});

test('volary serve: a copy of a file through it is the file, holes and all', async () => {
  const folder = await temporaryFolder();
  const server = await startServe([
    ...[folder.file('disk.img'), '--size', '64MiB', '--listen', 'nbd://127.0.0.1:0'],
  ]);
  const address = { host: '127.0.0.1', port: portOf(server.uris[0] as string) };
  const volume = await openRemoteVolume({ address, exportName: 'disk.img', log: silentLog });
  expect(volume.session.headerStyle).toBe('extended');
  const data = Buffer.from(
    Array.from({ length: 1024 * 1024 }, (_, index) => (index * 7 + (index >> 8)) & 0xff),
  );
  await volume.write(8 * 1024 * 1024, data, 0, data.length, true);
  const extents = await volume.blockStatus(0, volume.sizeBytes, 10);
  expect(extents).toEqual([
    { length: 8 * 1024 * 1024, hole: true, zero: true },
    { length: 1024 * 1024, hole: false, zero: false },
    { length: 55 * 1024 * 1024, hole: true, zero: true },
  ]);
  const all = await bytesOf(volume);
  expect(all.subarray(8 * 1024 * 1024, 9 * 1024 * 1024).equals(data)).toBe(true);
  expect(all.fill(0, 8 * 1024 * 1024, 9 * 1024 * 1024).every((byte) => byte === 0)).toBe(true);
  await volume.close();
  expect((await server.stop()).code).toBe(0);
  await folder.remove();
});
