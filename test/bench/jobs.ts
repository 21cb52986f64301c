/** What is measured, and the figures that volary has to reach. Pure. */

import type { ServerName } from './servers.ts';

export type Peer = Exclude<ServerName, 'volary'>;

export interface SpeedJob {
  /** A section of speed.fio. */
  readonly name: string;
  readonly title: string;
  readonly unit: 'IOPS' | 'MiB/s';
  /** Lowest ratio volary / peer, for files in /dev/shm. */
  readonly targets: Readonly<Record<Peer, number>>;
}

function job(name: string, title: string, unit: SpeedJob['unit'], toNbdkit: number): SpeedJob {
  return { name, title, unit, targets: { nbdkit: toNbdkit, 'qemu-nbd': 1.5 } };
}

export const speedJobs: readonly SpeedJob[] = [
  job('randread-d1', '4 KiB random read, depth 1', 'IOPS', 1.0),
  job('randwrite-d1', '4 KiB random write, depth 1', 'IOPS', 1.0),
  job('randread-d16', '4 KiB random read, depth 16', 'IOPS', 1.3),
  job('randwrite-d16', '4 KiB random write, depth 16', 'IOPS', 1.15),
  job('randread-d16x4', '4 KiB random read, depth 16, 4 connections', 'IOPS', 1.1),
  job('randwrite-d16x4', '4 KiB random write, depth 16, 4 connections', 'IOPS', 1.1),
  job('seqwrite-1m', '1 MiB sequential write, depth 4', 'MiB/s', 1.0),
  job('seqread-1m', '1 MiB sequential read, depth 4', 'MiB/s', 0.85),
];

export const hotBesideCold = 'hot-beside-cold';
export const memory = 'memory';
export const start = 'start';

export const jobNames: readonly string[] = [
  ...speedJobs.map(({ name }) => name),
  hotBesideCold,
  memory,
  start,
];

const MiB = 2 ** 20;

/** Volary's own limits, whatever the other servers do. */
export const limits = {
  /** p99 of the hot reader beside the cold one / alone: at most. */
  hotP99Ratio: 3,
  idleConnections: 200,
  idleBytes: 150 * MiB,
  writingBytes: 400 * MiB,
  readyMs: 1000,
  /** What may still be allocated after everything has been trimmed. */
  trimmedBytes: MiB,
};
