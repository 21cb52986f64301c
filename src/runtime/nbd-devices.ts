/**
 * The kernel's NBD devices, as /sys and /proc show them: which there are, which are free, which export each is connected to
 * and who uses it. Nothing is remembered beside them.
 */

import { constants } from 'node:fs';
import { open, readdir, readFile } from 'node:fs/promises';
import { basename } from 'node:path';
import { LOCK_EX, LOCK_NB, lockFile } from '../base/syscalls.ts';
import { ControlError, UsageError } from '../model/errors.ts';

export interface NbdDevice {
  /** `/dev/nbd0` */
  readonly path: string;
  readonly sizeBytes: number;
  /** The kernel has connections for it, or somebody is about to give it some. */
  readonly connected: boolean;
  /** Name of the export, as far as the kernel or a running nbd-client tells. */
  readonly exportName: string | undefined;
}

/** Where they are looked for; elsewhere only in tests. */
export interface Places {
  readonly blockDevices: string;
  readonly processes: string;
}

const PLACES: Places = { blockDevices: '/sys/block', processes: '/proc' };
const SECTOR_BYTES = 512;

/** All of them, by number; none when the driver is not loaded. */
export async function nbdDevices(places: Places = PLACES): Promise<NbdDevice[]> {
  const names = (await readdir(places.blockDevices)).filter((name) => /^nbd\d+$/.test(name));
  const clients = await nbdClients(places.processes);
  const devices = names.map(async (name): Promise<NbdDevice> => {
    const attribute = (file: string) => textOf(`${places.blockDevices}/${name}/${file}`);
    const path = `/dev/${name}`;
    const [size, pid, backend] = await Promise.all([
      attribute('size'),
      attribute('pid'),
      attribute('backend'),
    ]);
    const sizeBytes = Number(size ?? 0) * SECTOR_BYTES;
    return {
      path,
      sizeBytes,
      connected: pid !== undefined || sizeBytes > 0,
      exportName: backend ?? clients.get(path),
    };
  });
  return (await Promise.all(devices)).sort((one, other) => numberOf(one) - numberOf(other));
}

function numberOf({ path }: NbdDevice): number {
  return Number(path.replace('/dev/nbd', ''));
}

/** Device -> export name, of every nbd-client that stays with its device (those that use netlink do not). */
async function nbdClients(processes: string): Promise<Map<string, string>> {
  const clients = new Map<string, string>();
  for (const process of await readdir(processes)) {
    if (!/^\d+$/.test(process)) continue;
    const [program = '', ...words] = (await textOf(`${processes}/${process}/cmdline`))?.split('\0') ?? [];
    const device = words.find((word) => /^\/dev\/nbd\d+$/.test(word));
    if (basename(program) !== 'nbd-client' || device === undefined) continue;
    const option = words.findIndex((word) => /^(?:-N|--?name)$/.test(word));
    clients.set(device, option < 0 ? '' : (words[option + 1] ?? ''));
  }
  return clients;
}

/** Without the line end; undefined where there is no such file, also because its owner has gone. */
async function textOf(path: string): Promise<string | undefined> {
  try {
    return (await readFile(path, 'utf8')).replace(/\n$/, '');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH' || code === 'EINVAL') return undefined;
    throw error;
  }
}

/**
 * Locks a device as systemd's rules for block devices say, so that no two that want to connect it take the same one.
 * @returns a function that lets go of it; undefined when another process has it
 */
export async function lockDevice(path: string): Promise<(() => Promise<void>) | undefined> {
  const file = await opened(path, constants.O_RDONLY);
  if (lockFile(file.fd, LOCK_EX | LOCK_NB) === 0) return () => file.close();
  await file.close();
  return undefined;
}

/**
 * Writes what the kernel still holds for a device that nobody uses.
 * @throws ControlError `in-use`: it is mounted, or part of something; `failed`: it could not be written
 */
export async function flushUnused(path: string): Promise<void> {
  const file = await opened(path, constants.O_RDONLY | constants.O_EXCL).catch(async (error: unknown) => {
    if ((error as NodeJS.ErrnoException).code !== 'EBUSY') throw error;
    throw new ControlError('in-use', `${path} is in use: ${await userOf(path)}`, { cause: error });
  });
  try {
    await file.sync();
  } catch (error) {
    const text = `what was written to ${path} cannot be saved: ${(error as Error).message}; --force gives it up`;
    throw new ControlError('failed', text, { cause: error });
  } finally {
    await file.close();
  }
}

async function opened(path: string, flags: number) {
  try {
    return await open(path, flags);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENXIO') throw error;
    throw new UsageError('not-found', `${path} is not there: "modprobe nbd" makes the devices`, {
      cause: error,
    });
  }
}

async function userOf(path: string): Promise<string> {
  const mounts = (await textOf('/proc/self/mounts'))?.split('\n').map((line) => line.split(' ')) ?? [];
  const places = mounts
    .filter(([source = '']) => source === path || source.startsWith(`${path}p`))
    .map(([, place = '']) => unescaped(place));
  if (places.length === 0) return 'something else is made of it (swap, LVM, RAID): take it apart first';
  return `it is mounted on ${places.join(' and ')}: umount it first`;
}

/** Spaces and the like are octal numbers in /proc/self/mounts. */
function unescaped(place: string): string {
  return place.replaceAll(/\\(\d{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  );
}
