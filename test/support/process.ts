/** What the kernel says about a process. */

import { readdirSync, readFileSync } from 'node:fs';

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

/** Whether it still does anything: one that nobody has asked how it ended is none. */
export function isRunning(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    return !/^[ZX]/.test(stat.slice(stat.lastIndexOf(')') + 2));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return false;
    throw error;
  }
}

/** Processes that it has started, and that have not ended. */
export function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  );
}

export interface ProcessFound {
  readonly pid: number;
  readonly args: readonly string[];
}

/** The processes that run with that text in their command line, this one left out. */
export function processesWith(text: string): ProcessFound[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .map((name) => ({ pid: Number(name), args: commandLineOf(name) }))
    .filter(({ args }) => args.some((arg) => arg.includes(text)));
}

function commandLineOf(pid: string): string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0').slice(0, -1);
  } catch {
    return []; // it has ended since
  }
}

/** For messages: 123456789 is "118 MiB". */
export function inMiB(bytes: number): string {
  return `${Math.round(bytes / MiB)} MiB`;
}
