/** What /proc says about processes and the machine. The parsers are pure. */

import { readFileSync, readlinkSync } from 'node:fs';

const ticksPerSecond = 100; // USER_HZ: the same on every Linux that Node runs on

/** Fields of /proc/PID/stat from the third on; the second, the program's name, may hold spaces and brackets. */
function statFields(text: string): string[] {
  return text.slice(text.lastIndexOf(')') + 2).split(' ');
}

function seconds(fields: readonly string[], ...indices: readonly number[]): number {
  const ticks = indices.reduce((sum, index) => sum + Number(fields[index]), 0);
  if (Number.isNaN(ticks)) throw new Error(`no tick counts: ${fields.join(' ')}`);
  return ticks / ticksPerSecond;
}

/** User and system time, of the process and of its children that have ended, from the text of /proc/PID/stat. */
export function parseProcessCpu(text: string): { own: number; endedChildren: number } {
  const fields = statFields(text);
  return { own: seconds(fields, 11, 12), endedChildren: seconds(fields, 13, 14) };
}

/** Seconds that all processors together were not idle, from the text of /proc/stat. */
export function parseBusyCpu(text: string): number {
  // cpu user nice system idle iowait irq softirq steal (guest times are in user and nice already)
  const fields = text.slice(0, text.indexOf('\n')).split(/ +/);
  return seconds(fields, 1, 2, 3, 6, 7, 8);
}

/** A `Name: N` or `Name: N kB` line of /proc/PID/status or /proc/PID/io; kB come back as bytes. */
export function parseField(text: string, name: string): number {
  const match = new RegExp(`^${name}:\\s+(\\d+)( kB)?$`, 'm').exec(text);
  if (match === null) throw new Error(`no ${name}`);
  return Number(match[1]) * (match[2] === undefined ? 1 : 1024);
}

function read(pid: number | 'self', file: string): string {
  return readFileSync(`/proc/${pid}/${file}`, 'utf8');
}

export function processCpuSeconds(pid: number): number {
  return parseProcessCpu(read(pid, 'stat')).own;
}

/** This process with every child that it has waited for: the bench and its fio, once that has ended. */
export function ownCpuSeconds(): number {
  const { own, endedChildren } = parseProcessCpu(read('self', 'stat'));
  return own + endedChildren;
}

export function busyCpuSeconds(): number {
  return parseBusyCpu(readFileSync('/proc/stat', 'utf8'));
}

export function residentBytes(pid: number): { now: number; peak: number } {
  const status = read(pid, 'status');
  return { now: parseField(status, 'VmRSS'), peak: parseField(status, 'VmHWM') };
}

/** Bytes that the process has caused to be read from a disk. */
export function diskReadBytes(pid: number): number {
  return parseField(read(pid, 'io'), 'read_bytes');
}

/** The program that the process runs: its file's path. */
export function executable(pid: number): string {
  return readlinkSync(`/proc/${pid}/exe`);
}
