/** What is measured, and the figures that volary has to reach. Pure. */

import { serverNames } from './servers.ts';

/** What a speed job runs on: volary, and what it is compared with. `one-copy` is volary, too: the same volume without a copy. */
export const stackNames = [...serverNames, 'one-copy', 'quorum'] as const;
export type StackName = (typeof stackNames)[number];
export type Peer = Exclude<StackName, 'volary'>;

/** What is between fio and the file: one server, a gateway and a server behind it, or that with two files of equal content. */
export const families = ['serve', 'gateway', 'copy'] as const;
export type Family = (typeof families)[number];

export interface SpeedJob {
  readonly name: string;
  readonly family: Family;
  /** A section of speed.fio. */
  readonly section: string;
  readonly title: string;
  readonly unit: 'IOPS' | 'MiB/s';
  /** Lowest ratio volary / peer, for files in /dev/shm. */
  readonly targets: Readonly<Partial<Record<Peer, number>>>;
}

/** Peers of a family: qemu-nbd has no gateway, and only QEMU's quorum driver writes to two stores. */
export const peersOf: Readonly<Record<Family, readonly Peer[]>> = {
  serve: ['nbdkit', 'qemu-nbd'],
  gateway: ['nbdkit'],
  copy: ['one-copy', 'quorum'],
};

function job(name: string, title: string, unit: SpeedJob['unit'], toNbdkit: number): SpeedJob {
  return {
    name,
    family: 'serve',
    section: name,
    title,
    unit,
    targets: { nbdkit: toNbdkit, 'qemu-nbd': 1.5 },
  };
}

function copyJob(section: string, title: string, targets: SpeedJob['targets']): SpeedJob {
  return { name: `copy-${section}`, family: 'copy', section, title, unit: 'IOPS', targets };
}

function gatewayJob({ section, title, unit }: SpeedJob, toNbdkit: number): SpeedJob {
  return {
    name: `gateway-${section}`,
    family: 'gateway',
    section,
    title,
    unit,
    targets: { nbdkit: toNbdkit },
  };
}

const serveJobs: readonly SpeedJob[] = [
  job('randread-d1', '4 KiB random read, depth 1', 'IOPS', 1.0),
  job('randwrite-d1', '4 KiB random write, depth 1', 'IOPS', 1.0),
  job('randread-d16', '4 KiB random read, depth 16', 'IOPS', 1.3),
  job('randwrite-d16', '4 KiB random write, depth 16', 'IOPS', 1.15),
  job('randread-d16x4', '4 KiB random read, depth 16, 4 connections', 'IOPS', 1.1),
  job('randwrite-d16x4', '4 KiB random write, depth 16, 4 connections', 'IOPS', 1.1),
  job('seqwrite-1m', '1 MiB sequential write, depth 4', 'MiB/s', 1.0),
  job('seqread-1m', '1 MiB sequential read, depth 4', 'MiB/s', 0.85),
];

/** Lowest ratios of a gateway and a storage system to nbdkit's nbd plugin in front of nbdkit's file plugin. */
const gatewayTargets: Readonly<Record<string, number>> = {
  'randread-d1': 0.9,
  'randwrite-d1': 0.9,
  'randread-d16': 1.7,
  'randwrite-d16': 1.7,
  'seqwrite-1m': 0.9,
  'seqread-1m': 0.9,
};

export const speedJobs: readonly SpeedJob[] = [
  ...serveJobs,
  ...serveJobs.flatMap((serveJob) => {
    const target = gatewayTargets[serveJob.section];
    return target === undefined ? [] : [gatewayJob(serveJob, target)];
  }),
  copyJob('randwrite-d16', '4 KiB random write, depth 16', { 'one-copy': 0.5, quorum: 1.5 }),
  copyJob('randread-d16', '4 KiB random read, depth 16', { 'one-copy': 0.95 }),
];

export const hotBesideCold = 'hot-beside-cold';
export const memory = 'memory';
export const start = 'start';
export const scale = 'scale';
export const copySwitch = 'copy-switch';
export const copyFailover = 'copy-failover';

export const jobNames: readonly string[] = [
  ...speedJobs.map(({ name }) => name),
  hotBesideCold,
  memory,
  start,
  scale,
  copySwitch,
  copyFailover,
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
  /** Of one storage system; each role with them: start and memory; a create, show or delete: its median. */
  volumes: 1000,
  roleReadyMs: 3000,
  roleBytes: 300 * MiB,
  volumeMs: 50,
  /** What may still be allocated after everything has been trimmed. */
  trimmedBytes: MiB,
  /** Longest request of a host while another copy becomes primary: the median of all switches. */
  switchStallMs: 100,
  /** From the end of the primary to the first answer of the next: the lease of the directory, and a second. */
  failoverMs: 3000 + 1000,
};
