/** Runs fio's nbd engine with the job files of this folder, and reads its JSON. */

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { requireTool, runOk } from '../support/tools.ts';

/** What one job (or one group of jobs) did, in its only direction. */
export interface FioJob {
  readonly name: string;
  readonly operations: number;
  readonly bytes: number;
  readonly iops: number;
  readonly mibPerSecond: number;
  /** From submission to completion. */
  readonly p50Us: number;
  readonly p99Us: number;
  readonly longestUs: number;
}

export interface FioRun {
  /** A job file of this folder. */
  readonly file: string;
  readonly sections: readonly string[];
  readonly seconds: number;
  /** What the job file refers to as ${NAME}. */
  readonly variables: Readonly<Record<string, string>>;
  /** An existing folder for fio's output. */
  readonly folder: string;
}

/** Runs some sections of a job file at the same time. Resolves with their results by section name. */
export async function runFio(options: FioRun): Promise<Map<string, FioJob>> {
  const { file, sections, seconds, variables, folder } = options;
  const output = join(folder, 'fio.json');
  const args = [
    '--output-format=json',
    `--output=${output}`,
    `--runtime=${seconds}`,
    ...sections.map((section) => `--section=${section}`),
    join(import.meta.dirname, file),
  ];
  // A server that hangs must not hang the bench: fio gets its time, and a minute to connect and to finish.
  await runOk(requireTool('fio', 'fio'), args, {
    cwd: folder,
    env: variables,
    timeoutMs: (seconds + 60) * 1000,
  });
  const jobs = parseFio(await readFile(output, 'utf8'));
  for (const section of sections) {
    if (!jobs.has(section)) throw new Error(`fio ${file}: no result for ${section}`);
  }
  return jobs;
}

interface FioDirection {
  readonly total_ios: number;
  readonly io_bytes: number;
  readonly iops: number;
  readonly bw_bytes: number;
  readonly lat_ns: { readonly max?: number; readonly percentile?: Readonly<Record<string, number>> };
}

interface FioDocument {
  readonly jobs: readonly {
    readonly jobname: string;
    readonly error: number;
    readonly read: FioDirection;
    readonly write: FioDirection;
  }[];
}

/** Throws when a job failed, or did nothing. */
export function parseFio(text: string): Map<string, FioJob> {
  const document = JSON.parse(text) as FioDocument;
  const jobs = new Map<string, FioJob>();
  for (const { jobname, error, read, write } of document.jobs) {
    if (error !== 0) throw new Error(`fio job ${jobname} failed with errno ${error}`);
    const direction = write.total_ios > 0 ? write : read;
    const p50 = direction.lat_ns.percentile?.['50.000000'];
    const p99 = direction.lat_ns.percentile?.['99.000000'];
    const longest = direction.lat_ns.max;
    if (direction.total_ios === 0 || p50 === undefined || p99 === undefined || longest === undefined) {
      throw new Error(`fio job ${jobname} completed no request`);
    }
    jobs.set(jobname, {
      name: jobname,
      operations: direction.total_ios,
      bytes: direction.io_bytes,
      iops: direction.iops,
      mibPerSecond: direction.bw_bytes / 2 ** 20,
      p50Us: p50 / 1000,
      p99Us: p99 / 1000,
      longestUs: longest / 1000,
    });
  }
  return jobs;
}
