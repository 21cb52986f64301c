/** Steps that several host tests take: a server with one file, fio with verification, questions to the kernel. */

import { expect } from 'vitest';
import type { Guest } from '../support/guest.ts';
import { type RunningServer, startServe } from '../support/server.ts';
import { eventually } from '../support/tools.ts';

export interface ExportOptions {
  readonly file: string;
  readonly port: number;
  /** Creates the file when it is missing. */
  readonly sizeBytes?: number;
  readonly readOnly?: boolean;
}

/** Serves the file under its own name and as the default export. */
export function serveFile({ file, port, sizeBytes, readOnly }: ExportOptions): Promise<RunningServer> {
  return startServe([
    file,
    ...(sizeBytes === undefined ? [] : ['--size', String(sizeBytes)]),
    ...(readOnly === true ? ['--read-only'] : []),
    ...['--listen', `nbd://127.0.0.1:${port}`],
  ]);
}

export interface FioOptions {
  readonly path: string;
  readonly sizeMiB: number;
  /** How much is written in all; default once each block. More writes blocks again, and checks meanwhile, too. */
  readonly writtenMiB?: number;
  /** Slows fio down, so that something can happen meanwhile. */
  readonly writesPerSecond?: number;
  /** Reads and checks what an earlier call with the same path and size has written. */
  readonly verifyOnly?: boolean;
}

/**
 * fio's command line: 4 KiB random writes past the page cache, each block with the number of its write and a
 * checksum, then all read back.
 */
export function fio({ path, sizeMiB, writtenMiB, writesPerSecond, verifyOnly }: FioOptions): string {
  return [
    `fio --name=verify --filename=${path} --size=${sizeMiB}m --rw=randwrite --bs=4k --randseed=7`,
    '--ioengine=libaio --iodepth=16 --direct=1 --thread --fallocate=none --fsync=256',
    '--verify=crc32c --verify_fatal=1 --verify_state_save=0 --minimal',
    writtenMiB === undefined
      ? ''
      : `--io_size=${writtenMiB}m --norandommap --serialize_overlap=1 --verify_backlog=128`,
    writesPerSecond === undefined ? '' : `--rate_iops=,${writesPerSecond}`,
    verifyOnly === true ? '--verify_only' : '--do_verify=1',
  ].join(' ');
}

/** Waits until the kernel has finished this many more writes on the device. */
export async function writesFinished(guest: Guest, device: string, count: number): Promise<void> {
  const finished = async () => Number((await guest.ok(`cat /sys/block/${device}/stat`)).split(/\s+/)[4]);
  const start = await finished();
  await eventually(`${count} writes on ${device}`, async () => {
    return (await finished()) >= start + count ? true : undefined;
  });
}

/** The kernel has reported no failed request, file system error or crash since it booted. */
export async function expectNoKernelErrors(guest: Guest): Promise<void> {
  const log = await guest.ok('dmesg');
  const errors = log.split('\n').filter((line) => {
    return /I\/O error|EXT4-fs (error|warning)|XFS.*([Cc]orrupt|error|shut)|BUG:|WARNING:|Oops/.test(line);
  });
  expect(errors).toEqual([]);
}

/** SHA-256 of a file in the guest. */
export async function guestDigest(guest: Guest, path: string): Promise<string> {
  return (await guest.ok(`sha256sum ${path}`)).slice(0, 64);
}
