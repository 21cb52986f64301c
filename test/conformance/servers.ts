/**
 * The servers that the suite drives, all with the same exports on TCP: one disk that can be written, once as
 * "disk.img" and, where the server can have two exports, once more as "other.img"; and a disk that cannot.
 * nbdkit and qemu-nbd are here to prove the suite: a case that all of them fail is a mistake of the suite.
 *
 * qemu-nbd listens on a unix socket: it sends small replies in two pieces, and over TCP the second one waits 40 ms for
 * an acknowledgement, in almost every case.
 */
import { Buffer } from 'node:buffer';
import { type ChildProcess, spawn } from 'node:child_process';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import net from 'node:net';
import { freePort } from '../support/ports.ts';
import { startServe } from '../support/server.ts';
import { eventually, requireTool, type TemporaryFolder, temporaryFolder } from '../support/tools.ts';
import type { Address } from '../support/wire.ts';

export const serverNames = ['volary', 'nbdkit', 'qemu-nbd'] as const;
export type ServerName = (typeof serverNames)[number];

export const KiB = 1024;
export const MiB = 1024 * KiB;
export const GiB = 1024 * MiB;

/**
 * The disk: what lies where when a server starts. Cases write only between `scratch` and `scratchEnd`, and in the
 * big area; everything else stays as it is, so that any case can look at it.
 */
export const disk = {
  sizeBytes: 6 * GiB,
  /** Data, then a hole, then data again. */
  data: 0,
  dataBytes: MiB,
  hole: MiB,
  holeBytes: MiB,
  dataAgain: 2 * MiB,
  scratch: 16 * MiB,
  scratchEnd: GiB,
  /** Data in the very last bytes. */
  tailBytes: 64 * KiB,
} as const;
export const tailOffset = disk.sizeBytes - disk.tailBytes;

/** Exports that are the same bytes in every server. */
export const EXPORT = 'disk.img';
export const OTHER_EXPORT = 'other.img';

/** What the disk has at `offset`: every 4 bytes name their own place, so misplaced data is always seen. */
export function pattern(offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1) {
    const word = Math.imul((offset + at) >>> 2, 0x9e3779b1) >>> 0;
    bytes[at] = (word >>> (8 * ((offset + at) & 3))) & 0xff;
  }
  return bytes;
}

async function createDisk(path: string): Promise<void> {
  const file: FileHandle = await open(path, 'w');
  try {
    await file.truncate(disk.sizeBytes);
    for (const [offset, length] of [
      [disk.data, disk.dataBytes],
      [disk.dataAgain, disk.dataBytes],
      [tailOffset, disk.tailBytes],
    ] as const)
      await file.write(pattern(offset, length), 0, length, offset);
  } finally {
    await file.close();
  }
}

export interface Target {
  readonly name: ServerName;
  readonly address: Address;
  /** The same disk, or one like it, where writes are refused. */
  readonly readOnlyAddress: Address;
  /** Whether the empty name is an export. */
  readonly hasDefaultExport: boolean;
  readonly hasOtherExport: boolean;
  /** Whether OTHER_EXPORT has bytes of its own; in nbdkit it is another name of the same file. */
  readonly hasOtherDisk: boolean;
  /** Resident memory of the process that serves `address`. */
  residentBytes(): Promise<number>;
  /** Starts the processes again that have died; returns how many had. */
  revive(): Promise<number>;
  stop(): Promise<void>;
}

interface Served {
  readonly process: ChildProcess;
  stop(): Promise<unknown>;
}

/** One process of a server at an address of its own: it can be started again where it was. */
interface Place {
  readonly address: Address;
  readonly start: () => Promise<Served>;
  served: Served;
}

export async function startTarget(name: ServerName): Promise<Target> {
  const folder = await temporaryFolder();
  // The read-only process has files of its own: no lock of the other one can be in its way.
  for (const file of [EXPORT, OTHER_EXPORT, 'read-only.img']) await createDisk(folder.file(file));
  const place = async (readOnly: boolean): Promise<Place> => {
    const [address, start] = await starters[name](folder, readOnly);
    return { address, start, served: await start() };
  };
  const [writable, readOnly] = [await place(false), await place(true)];
  return {
    name,
    address: writable.address,
    readOnlyAddress: readOnly.address,
    hasDefaultExport: name === 'volary',
    hasOtherExport: name !== 'qemu-nbd',
    hasOtherDisk: name === 'volary',
    residentBytes: () => residentBytes(writable.served.process.pid!),
    revive: async () => {
      const dead = [writable, readOnly].filter(({ served: { process } }) => hasEnded(process));
      for (const one of dead) one.served = await one.start();
      return dead.length;
    },
    stop: async () => {
      await Promise.all([writable.served.stop(), readOnly.served.stop()]);
      await folder.remove();
    },
  };
}

function hasEnded(process: ChildProcess): boolean {
  return process.exitCode !== null || process.signalCode !== null;
}

/** Where a server will listen, and what starts it there. */
type Starter = (
  folder: TemporaryFolder,
  readOnly: boolean,
) => Promise<readonly [address: Address, start: () => Promise<Served>]>;

const starters: Readonly<Record<ServerName, Starter>> = {
  volary: async (folder, readOnly) => {
    const address = { host: '127.0.0.1', port: await freePort() };
    const files = readOnly
      ? [folder.file('read-only.img'), '--name', EXPORT, '--read-only']
      : [folder.file(EXPORT), folder.file(OTHER_EXPORT)];
    return [address, () => startServe([...files, '--listen', `nbd://127.0.0.1:${address.port}`])];
  },
  nbdkit: async (folder, readOnly) => {
    const address = { host: '127.0.0.1', port: await freePort() };
    const exports = [`exportname=${EXPORT}`, `exportname=${OTHER_EXPORT}`, `default-export=${EXPORT}`];
    const args = [
      ...(readOnly ? ['-r'] : []),
      ...['-f', '-i', '127.0.0.1', '-p', `${address.port}`, '--filter=exportname', 'file'],
      folder.file(readOnly ? 'read-only.img' : EXPORT),
      ...exports,
      ...['exportname-strict=true', 'exportname-list=explicit'],
    ];
    return [address, () => startForeign(address, requireTool('nbdkit', 'nbdkit'), args)];
  },
  'qemu-nbd': async (folder, readOnly) => {
    const address = { path: folder.file(readOnly ? 'read-only.sock' : 'sock') };
    const args = [
      ...(readOnly ? ['-r'] : []),
      ...['-k', address.path, '-t', '-e', '200', '-f', 'raw', '-x', EXPORT],
      ...['--discard=unmap', folder.file(readOnly ? 'read-only.img' : EXPORT)],
    ];
    return [address, () => startForeign(address, requireTool('qemu-nbd', 'qemu-utils'), args)];
  },
};

// A test that fails half-way must not leave its servers running.
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

async function startForeign(address: Address, command: string, args: readonly string[]): Promise<Served> {
  const child = spawn(command, args, { stdio: 'ignore' });
  running.add(child);
  const ended = new Promise<void>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', () => {
      running.delete(child);
      resolve();
    });
  });
  await eventually(`${command} listens`, () => {
    if (hasEnded(child)) throw new Error(`${command} ended with ${child.exitCode ?? child.signalCode}`);
    return connects(address);
  });
  return {
    process: child,
    stop: async () => {
      child.kill('SIGKILL');
      await ended;
    },
  };
}

function connects(address: Address): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect(address);
    socket.on('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(undefined));
  });
}

/** Resident memory of a process. */
export async function residentBytes(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const line = /^VmRSS:\s+(\d+) kB$/m.exec(status);
  if (line === null) throw new Error(`process ${pid} has no VmRSS`);
  return Number(line[1]) * KiB;
}
