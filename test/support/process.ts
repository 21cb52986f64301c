/** What the kernel says about a process. */

import { readFileSync } from 'node:fs';

const MiB = 1024 * 1024;

/** A memory figure of a process in bytes: VmRSS is what it holds now, VmHWM the most it ever held. */
export function memoryOf(pid: number, figure: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = new RegExp(`^${figure}:\\s+(\\d+) kB`, 'm').exec(status)?.[1];
  if (kib === undefined) throw new Error(`no ${figure} in the status of process ${pid}`);
  return Number(kib) * 1024;
}

/** How much processor time a process has used so far, in milliseconds. */
export function processorMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const ticks = Number(fields[11]) + Number(fields[12]); // utime and stime, at 100 a second
  return ticks * 10;
}

/** For messages: 123456789 is "118 MiB". */
export function inMiB(bytes: number): string {
  return `${Math.round(bytes / MiB)} MiB`;
}
