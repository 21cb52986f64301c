/** fio's nbd engine, writing and verifying: what it read back was what it had written last, or the promise rejects. */

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
