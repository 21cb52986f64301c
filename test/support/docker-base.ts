/**
 * A stand-in for the Dockerfile's base image, `node:24-bookworm-slim`, on machines whose engine reaches no image
 * registry: Debian's C library, shell and coreutils out of their packages, the pinned Node, and npm.
 *
 * Its npm has a cache with everything that package-lock.json names, filled by this machine's npm, and is set to
 * work offline, as a base image of a site without internet access would be: so the Dockerfile's own `npm ci`
 * needs no network, and the Dockerfile knows nothing of this.
 */

import { createHash } from 'node:crypto';
import { chmod, copyFile, mkdir, readdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { makeOnce } from './make-once.ts';
import { projectRoot, requireTool, run, runOk } from './tools.ts';

const cacheFolder = join(projectRoot, 'node_modules/.cache/volary-docker');
const npmPackage = 'npm@11.6.2';
const manifests = ['package.json', 'package-lock.json', '.npmrc'];

/** What node, sh and coreutils are linked with comes along. */
const debianPackages = [
  ...['coreutils', 'dash', 'libc6', 'libgcc-s1', 'libstdc++6'],
  ...['libacl1', 'libattr1', 'libgmp10', 'libpcre2-8-0', 'libselinux1'],
];

/** Makes, or finds in the cache, a tar archive for `docker import`. */
export async function baseImageArchive(): Promise<string> {
  const digest = createHash('sha256').update(process.version + process.arch);
  for (const name of manifests) digest.update(await readFile(join(projectRoot, name)));
  digest.update(await readFile(import.meta.filename));
  const kept = join(cacheFolder, `base-${digest.digest('hex').slice(0, 16)}`);
  await mkdir(cacheFolder, { recursive: true });
  await makeOnce(kept, async (folder) => {
    const root = join(folder, 'root');
    await unpackDebian(root, join(folder, 'debian'));
    await addNode(root);
    await addNpm(root, folder);
    await writeFile(join(root, 'etc/passwd'), 'root:x:0:0::/root:/bin/sh\nnode:x:1000:1000::/tmp:/bin/sh\n');
    await writeFile(join(root, 'etc/group'), 'root:x:0:\nnode:x:1000:\n');
    await runOk('tar', ['-cf', join(folder, 'base.tar'), '--owner=0', '--group=0', '-C', root, '.']);
    for (const name of await readdir(folder)) {
      if (name !== 'base.tar') await rm(join(folder, name), { recursive: true });
    }
  });
  return join(kept, 'base.tar');
}

async function unpackDebian(root: string, downloads: string): Promise<void> {
  for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
    await mkdir(join(root, 'usr', name), { recursive: true });
    await symlink(`usr/${name}`, join(root, name));
  }
  for (const name of ['etc', 'root', 'usr/local/bin', 'usr/local/etc', 'usr/local/lib/node_modules']) {
    await mkdir(join(root, name), { recursive: true });
  }
  await mkdir(join(root, 'tmp'));
  await chmod(join(root, 'tmp'), 0o1777);
  await mkdir(downloads);
  await downloadDebian(downloads);
  // The folders that are symbolic links here stay so, which `dpkg-deb -x` would not leave them.
  const unpack =
    'for deb in "$0"/*.deb; do dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$1" || exit; done';
  requireTool('dpkg-deb', 'dpkg');
  await runOk('sh', ['-c', unpack, downloads, root]);
  for (const name of ['doc', 'man', 'locale', 'info']) {
    await rm(join(root, 'usr/share', name), { recursive: true, force: true });
  }
}

async function downloadDebian(folder: string): Promise<void> {
  const aptGet = requireTool('apt-get', 'apt (a Debian machine)');
  const download = () => run(aptGet, ['download', ...debianPackages], { cwd: folder, timeoutMs: 240_000 });
  let result = await download();
  if (result.code !== 0) {
    // The index may be older than the archive, which forgets superseded versions.
    await runOk(aptGet, ['update'], { timeoutMs: 240_000 });
    result = await download();
  }
  if (result.code !== 0) throw new Error(`apt-get download ${debianPackages.join(' ')}: ${result.stderr}`);
}

async function addNode(root: string): Promise<void> {
  const pinned = join(projectRoot, `node_modules/node-linux-${process.arch}/bin/node`);
  await copyFile(pinned, join(root, 'usr/local/bin/node'));
}

/** npm itself, and the packages of package-lock.json in its cache. */
async function addNpm(root: string, folder: string): Promise<void> {
  const options = { cwd: folder, timeoutMs: 240_000 };
  await runOk('npm', ['pack', npmPackage], options);
  const packed = (await readdir(folder)).find((name) => name.endsWith('.tgz'));
  if (packed === undefined) throw new Error(`npm pack ${npmPackage} left no file`);
  await runOk('tar', ['-xzf', packed], options);
  await rename(join(folder, 'package'), join(root, 'usr/local/lib/node_modules/npm'));
  for (const tool of ['npm', 'npx']) {
    await symlink(`../lib/node_modules/npm/bin/${tool}-cli.js`, join(root, 'usr/local/bin', tool));
  }

  const cache = join(root, 'usr/local/share/npm-cache');
  for (const name of manifests) await copyFile(join(projectRoot, name), join(folder, name));
  await runOk('npm', ['ci', '--omit=dev', '--cache', cache], options);
  await rm(join(cache, '_logs'), { recursive: true, force: true });
  // The cache is looked up by the registry's address, whichever this machine uses.
  const { stdout: registry } = await runOk('npm', ['config', 'get', 'registry'], options);
  await writeFile(
    join(root, 'usr/local/etc/npmrc'),
    `registry=${registry.trim()}\ncache=/usr/local/share/npm-cache\noffline=true\n`,
  );
}
