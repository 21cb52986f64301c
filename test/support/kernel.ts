/**
 * A Linux kernel with an nbd driver, and a root file system in memory with the tools that the host tests use,
 * both ready for QEMU. Nothing is installed: the kernel comes from Debian's package, which is downloaded
 * and unpacked once and kept in node_modules/.cache; the tools are this machine's own with their libraries.
 *
 * What is kept is named after everything it was made from (the package's version; each file's path, size and
 * time), so an outdated one is never used. It appears by a rename, so two test runs at once do no harm.
 */

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import {
  chmod,
  copyFile,
  mkdir,
  readdir,
  realpath,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { makeOnce } from './make-once.ts';
import { eventually, projectRoot, requireTool, run, runOk } from './tools.ts';

const cacheFolder = join(projectRoot, 'node_modules/.cache/volary-host');
const guestFolder = join(projectRoot, 'test/host/guest');
const metaPackage = 'linux-image-cloud-amd64';

/** In the order in which they need each other; ext4 is built in. */
const modules = [
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'failover',
  'net_failover',
  'virtio_net',
  'libcrc32c',
  'xfs',
  'nbd',
];
const moduleParameters: Readonly<Record<string, string>> = { nbd: 'nbds_max=4' };

/** Program and Debian package. */
const guestTools: readonly (readonly [string, string])[] = [
  ['nbd-client', 'nbd-client'],
  ['mkfs.ext4', 'e2fsprogs'],
  ['fsck.ext4', 'e2fsprogs'],
  ['resize2fs', 'e2fsprogs'],
  ['mkfs.xfs', 'xfsprogs'],
  ['xfs_repair', 'xfsprogs'],
  ['fio', 'fio'],
  ['fstrim', 'util-linux'],
  ['blockdev', 'util-linux'],
  ['flock', 'util-linux'],
  ['python3', 'python3-minimal'],
];

export interface GuestImage {
  /** The kernel, as QEMU's -kernel takes it. */
  readonly kernel: string;
  /** An uncompressed cpio archive, as -initrd takes it. */
  readonly initramfs: string;
}

/** Makes, or finds in the cache, what a guest boots. Fails with a sentence that names the package that is missing. */
export async function guestImage(): Promise<GuestImage> {
  if (process.arch !== 'x64')
    throw new Error(`the guest's kernel is for x86-64, this machine is ${process.arch}`);
  await mkdir(cacheFolder, { recursive: true });
  const kernelFolder = await unpackedKernel();
  return { kernel: join(kernelFolder, 'vmlinuz'), initramfs: await initramfs(kernelFolder) };
}

/** A folder with `vmlinuz` and the modules as `NAME.ko`. */
async function unpackedKernel(): Promise<string> {
  const found = (await kernelPackage()) ?? (await kernelPackageAfterUpdate());
  const kept = join(cacheFolder, `${found.name}_${found.version.replaceAll(/[^\w.~+-]/g, '_')}`);
  await makeOnce(kept, async (folder) => {
    const download = () => run('apt-get', ['download', found.name], { cwd: folder, timeoutMs: 240_000 });
    let result = await download();
    if (result.code !== 0) {
      // The index may be older than the archive, which forgets superseded versions.
      await updateIndex();
      result = await download();
    }
    if (result.code !== 0) throw new Error(`apt-get download ${found.name}: ${result.stderr}`);
    const archive = (await readdir(folder)).find((name) => name.endsWith('.deb'));
    if (archive === undefined) throw new Error(`apt-get download ${found.name} left no file`);
    const tree = join(folder, 'tree');
    await runOk(requireTool('dpkg-deb', 'dpkg'), ['-x', join(folder, archive), tree]);
    await keepKernelFiles(tree, folder);
    await rm(tree, { recursive: true });
    await rm(join(folder, archive));
  });
  return kept;
}

async function keepKernelFiles(tree: string, folder: string): Promise<void> {
  const files = await readdir(tree, { recursive: true });
  const take = async (what: string, matches: (path: string) => boolean, target: string) => {
    const path = files.find(matches);
    if (path === undefined) throw new Error(`the kernel package holds no ${what}`);
    await rename(join(tree, path), join(folder, target));
  };
  await take('vmlinuz', (path) => basename(path).startsWith('vmlinuz'), 'vmlinuz');
  for (const module of modules) {
    await take(`${module}.ko`, (path) => basename(path) === `${module}.ko`, `${module}.ko`);
  }
}

interface PackageVersion {
  readonly name: string;
  readonly version: string;
}

/** What apt's index on this machine says; undefined when it knows no kernel. */
async function kernelPackage(): Promise<PackageVersion | undefined> {
  requireTool('apt-get', 'apt (a Debian machine)');
  const depends = await run('apt-cache', ['depends', metaPackage]);
  const name = /Depends: (linux-image-\S+)/.exec(depends.stdout)?.[1];
  if (name === undefined) return undefined;
  const policy = await run('apt-cache', ['policy', name]);
  const version = /Candidate: (\d\S*)/.exec(policy.stdout)?.[1];
  return version === undefined ? undefined : { name, version };
}

async function kernelPackageAfterUpdate(): Promise<PackageVersion> {
  await updateIndex();
  const found = await kernelPackage();
  if (found === undefined) throw new Error(`apt knows no package ${metaPackage}, even after apt-get update`);
  return found;
}

async function updateIndex(): Promise<void> {
  const result = await eventually('apt-get update gets its lock', async () => {
    const update = await run('apt-get', ['update'], { timeoutMs: 240_000 });
    return update.code !== 0 && update.stderr.includes('Could not get lock') ? undefined : update;
  });
  if (result.code !== 0) {
    throw new Error(
      `the host tests need the package ${metaPackage}; apt-get update failed: ${result.stderr}`,
    );
  }
}

/** The archive: the modules, the tools with their libraries, and the files of test/host/guest. */
async function initramfs(kernelFolder: string): Promise<string> {
  const programs = guestTools.map(([tool, debianPackage]) => debianTool(tool, debianPackage));
  const busybox = await staticBusybox();
  const files = new Set<string>(['/etc/mke2fs.conf', ...(await pythonFiles())]);
  for (const program of programs) for (const file of await withLibraries(program)) files.add(file);
  const own = (await readdir(guestFolder)).map((name) => join(guestFolder, name));

  const digest = createHash('sha256');
  for (const path of [import.meta.filename, busybox, ...own, ...[...files].sort()]) {
    const { size, mtimeMs } = await stat(path);
    digest.update(`${path} ${size} ${mtimeMs}\n`);
  }
  digest.update(kernelFolder);
  const kept = join(cacheFolder, `initramfs-${digest.digest('hex').slice(0, 16)}`);
  await makeOnce(kept, async (folder) => {
    const root = join(folder, 'root');
    for (const name of ['bin', 'sbin', 'lib', 'lib64']) {
      await mkdir(join(root, 'usr', name), { recursive: true });
      await symlink(`usr/${name}`, join(root, name));
    }
    await mkdir(join(root, 'modules'));
    await copyFile(busybox, join(root, 'bin/busybox'));
    for (const path of files) await copyInto(root, path);
    for (const [index, [tool]] of guestTools.entries()) await linkProgram(root, tool, programs[index]!);
    for (const path of own) await copyFile(path, join(root, basename(path)));
    await chmod(join(root, 'init'), 0o755);
    for (const module of modules) {
      await copyFile(join(kernelFolder, `${module}.ko`), join(root, `modules/${module}.ko`));
    }
    const order = modules.map((module) => `${module} ${moduleParameters[module] ?? ''}\n`);
    await writeFile(join(root, 'modules/order'), order.join(''));
    await archive(root, join(folder, 'initramfs.cpio'));
    await rm(root, { recursive: true });
  });
  return join(kept, 'initramfs.cpio');
}

/** A tool as Debian's package has it, whatever stands before it in PATH: the guest gets its libraries, too. */
function debianTool(tool: string, debianPackage: string): string {
  const path = ['/usr/bin', '/usr/sbin'].map((folder) => join(folder, tool)).find((path) => existsSync(path));
  if (path === undefined) throw new Error(`${tool} is not installed: apt-get install ${debianPackage}`);
  return path;
}

/** Busybox runs before there is a library to load. */
async function staticBusybox(): Promise<string> {
  const busybox = debianTool('busybox', 'busybox-static');
  if ((await run('ldd', [busybox])).code === 0) {
    throw new Error('busybox is linked dynamically: apt-get install busybox-static');
  }
  return busybox;
}

/** The program's real path, its loader and its libraries, each by the path at which the loader looks for it. */
async function withLibraries(program: string): Promise<string[]> {
  const path = await realpath(program);
  const { stdout } = await runOk(requireTool('ldd', 'libc-bin'), [path]);
  const missing = /^\s*(\S+) => not found/m.exec(stdout);
  if (missing !== null) throw new Error(`${program} lacks the library ${missing[1]}`);
  return [path, ...[...stdout.matchAll(/(?:^\s*|=> )(\/\S+)/gm)].map((match) => match[1]!)];
}

/** The part of Python's library that its minimal package has: enough for sockets and struct. */
async function pythonFiles(): Promise<string[]> {
  const version = /3\.\d+/.exec(
    (await runOk(debianTool('python3', 'python3-minimal'), ['--version'])).stdout,
  )?.[0];
  const listed = await runOk('dpkg', ['-L', `libpython${version}-minimal`]);
  return listed.stdout.split('\n').filter((path) => path.startsWith('/usr/lib/') && path.endsWith('.py'));
}

async function copyInto(root: string, path: string): Promise<void> {
  const target = join(root, path);
  await mkdir(dirname(target), { recursive: true });
  await copyFile(path, target);
}

async function linkProgram(root: string, tool: string, program: string): Promise<void> {
  const link = join(root, 'bin', tool);
  if (!existsSync(link)) await symlink(await realpath(program), link);
}

async function archive(root: string, target: string): Promise<void> {
  requireTool('cpio', 'cpio');
  await runOk('sh', ['-c', `find . | cpio --quiet -o -H newc -R 0:0 >"$0"`, target], { cwd: root });
}
