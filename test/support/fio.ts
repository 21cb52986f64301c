/** fio's nbd engine, writing and verifying: what it read back was what it had written last, or the promise rejects. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { requireTool, runOk } from './tools.ts';

export interface FioVerify {
  readonly uri: string;
  readonly sizeMiB: number;
  /** Makes it last: writes a second, of 4 KiB each. */
  readonly writesPerSecond?: number;
  readonly connections?: number;
  /** For fio's own files. */
  readonly cwd: string;
  /** Reads and checks what an earlier call with the same size has written. */
  readonly verifyOnly?: boolean;
}

/** 4 KiB random writes, each block once, with a flush every 256, then all read back. */
export async function fioVerify(options: FioVerify): Promise<void> {
  const { uri, sizeMiB, writesPerSecond, connections = 1, cwd, verifyOnly = false } = options;
  const regionMiB = sizeMiB / connections;
  await runOk(
    requireTool('fio', 'fio'),
    [
      '--name=verify',
      '--ioengine=nbd',
      `--uri=${uri}`,
      '--rw=randwrite',
      '--bs=4k',
      '--iodepth=16',
      `--numjobs=${connections}`,
      `--offset_increment=${regionMiB}m`,
      `--size=${regionMiB}m`,
      '--fsync=256',
      '--verify=crc32c',
      '--verify_fatal=1',
      '--verify_state_save=0',
      '--randseed=20261121',
      '--group_reporting',
      ...(writesPerSecond === undefined ? [] : [`--rate_iops=,${Math.ceil(writesPerSecond / connections)}`]),
      verifyOnly ? '--verify_only' : '--do_verify=1',
    ],
    { cwd, timeoutMs: 180_000 },
  );
}

export interface FioPass {
  readonly uri: string;
  readonly sizeMiB: number;
  readonly writesPerSecond: number;
  /** Another one for each pass over the same volume, so that what an earlier one has written is known as such. */
  readonly seed: number;
  /** For fio's own files. */
  readonly cwd: string;
}

/**
 * 4 KiB random writes, each block once, 16 at a time, with a flush every 64, then all read back and compared with what this pass
 * has written. Resolves with the longest time that a request took, flushes among them, in milliseconds.
 */
export async function fioPass({ uri, sizeMiB, writesPerSecond, seed, cwd }: FioPass): Promise<number> {
  const output = join(cwd, `fio-${seed}.json`);
  await runOk(
    requireTool('fio', 'fio'),
    [
      ...['--name=pass', '--ioengine=nbd', `--uri=${uri}`, '--rw=randwrite', '--bs=4k', '--iodepth=16'],
      ...[`--size=${sizeMiB}m`, '--fsync=64', `--rate_iops=,${writesPerSecond}`, `--randseed=${seed}`],
      ...['--verify=crc32c', '--do_verify=1', '--verify_fatal=1', '--verify_state_save=0'],
      ...['--output-format=json', `--output=${output}`],
    ],
    { cwd, timeoutMs: 300_000 },
  );
  const document = JSON.parse(await readFile(output, 'utf8')) as FioOutput;
  const kinds = document.jobs.flatMap(({ read, write, sync }) => [read, write, sync]);
  return Math.max(...kinds.map(({ lat_ns }) => lat_ns.max)) / 1e6;
}

interface FioOutput {
  readonly jobs: readonly Readonly<
    Record<'read' | 'write' | 'sync', { readonly lat_ns: { readonly max: number } }>
  >[];
}
