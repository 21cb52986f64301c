/** From samples to medians, ratios and verdicts: what `--json` prints and report.ts turns into tables. Pure. */

import type { PrimaryResult } from './copy-primary.ts';
import type { HotColdResult, HotColdSample } from './hot-beside-cold.ts';
import { type Family, limits, type Peer, peersOf, type StackName } from './jobs.ts';
import type { MemoryResult } from './memory.ts';
import type { PlaceName } from './places.ts';
import type { RoleStart, ScaleResult } from './scale.ts';
import type { ServerName } from './servers.ts';
import type { SpeedResult, SpeedSample } from './speed.ts';
import type { StartResult, StartSample } from './start.ts';
import { median, pairedRatios, type Spread, spread } from './statistics.ts';

export interface SpeedFigures {
  readonly server: StackName;
  readonly iops: Spread;
  readonly mibPerSecond: Spread;
  readonly p50Us: number;
  readonly p99Us: number;
  /** Processor time of the server for one request. */
  readonly cpuUsPerOperation: number;
}

export interface Ratio {
  readonly to: Peer;
  /** Of the rounds' ratios. */
  readonly ratio: Spread;
  /** Null where none is set: on disk. */
  readonly target: number | null;
  readonly met: boolean | null;
}

export interface SpeedSummary {
  readonly place: PlaceName;
  readonly family: Family;
  readonly job: string;
  readonly title: string;
  readonly unit: 'IOPS' | 'MiB/s';
  readonly servers: readonly SpeedFigures[];
  readonly ratios: readonly Ratio[];
}

export function summariseSpeed({ place, job, samples }: SpeedResult): SpeedSummary {
  const servers = [...samples].flatMap(([server, taken]) => {
    const good = taken.filter((sample) => sample !== undefined);
    return good.length === 0 ? [] : [speedFigures(server, good)];
  });
  const ours = samples.get('volary') ?? [];
  const ratios = peersOf[job.family].flatMap((to): Ratio[] => {
    const pairs = ours.flatMap((sample, round) => {
      const theirs = samples.get(to)?.[round];
      return sample === undefined || theirs === undefined ? [] : [[sample, theirs] as const];
    });
    if (pairs.length === 0) return [];
    // Every request of a job has one size, so this is the ratio of the throughputs too.
    const ratio = pairedRatios(
      pairs.map(([our]) => our.iops),
      pairs.map(([, their]) => their.iops),
    );
    const target = place === 'shm' ? (job.targets[to] ?? null) : null;
    return [{ to, ratio, target, met: target === null ? null : ratio.median >= target }];
  });
  return { place, family: job.family, job: job.name, title: job.title, unit: job.unit, servers, ratios };
}

function speedFigures(server: StackName, samples: readonly SpeedSample[]): SpeedFigures {
  return {
    server,
    iops: spread(samples.map(({ iops }) => iops)),
    mibPerSecond: spread(samples.map(({ mibPerSecond }) => mibPerSecond)),
    p50Us: median(samples.map(({ p50Us }) => p50Us)),
    p99Us: median(samples.map(({ p99Us }) => p99Us)),
    cpuUsPerOperation: median(
      samples.map(({ serverCpuSeconds, operations }) => (serverCpuSeconds * 1e6) / operations),
    ),
  };
}

export interface Quietness {
  /** Processors' worth of other programs' work while jobs ran. */
  readonly foreignCpu: Spread;
  /** Processors' worth that a server used while another one was loaded: the largest seen, by server. */
  readonly idleCpu: Readonly<Partial<Record<StackName, number>>>;
}

/** Undefined when no speed job ran. */
export function summariseQuietness(results: readonly SpeedResult[]): Quietness | undefined {
  const samples = results
    .flatMap((result) => [...result.samples.values()])
    .flat()
    .filter((sample) => sample !== undefined);
  if (samples.length === 0) return undefined;
  const idleCpu: Partial<Record<StackName, number>> = {};
  for (const [name, used] of samples.flatMap(({ idleCpu }) => Object.entries(idleCpu))) {
    const server = name as StackName; // the keys of a partial record of those names
    idleCpu[server] = Math.max(idleCpu[server] ?? 0, used);
  }
  return { foreignCpu: spread(samples.map(({ foreignCpu }) => foreignCpu)), idleCpu };
}

export interface HotColdSummary {
  readonly server: ServerName;
  readonly aloneP99Us: number;
  readonly besideColdP99Us: number;
  readonly besideWarmP99Us: number;
  readonly coldRatio: Spread;
  readonly warmRatio: Spread;
  readonly aloneIops: number;
  readonly besideColdIops: number;
  readonly coldIops: number;
  /** The lowest of all rounds. Below 1, some of the cold reads were not cold. */
  readonly coldShare: number;
  readonly target: number | null;
  readonly met: boolean | null;
}

/** Undefined when every round failed. */
export function summariseHotCold({ server, samples }: HotColdResult): HotColdSummary | undefined {
  if (samples.length === 0) return undefined;
  const of = (value: (sample: HotColdSample) => number): number[] => samples.map(value);
  const alone = of((sample) => sample.alone.p99Us);
  const besideCold = of((sample) => sample.besideCold.p99Us);
  const besideWarm = of((sample) => sample.besideWarm.p99Us);
  const coldRatio = pairedRatios(besideCold, alone);
  const target = server === 'volary' ? limits.hotP99Ratio : null;
  return {
    server,
    aloneP99Us: median(alone),
    besideColdP99Us: median(besideCold),
    besideWarmP99Us: median(besideWarm),
    coldRatio,
    warmRatio: pairedRatios(besideWarm, alone),
    aloneIops: median(of((sample) => sample.alone.iops)),
    besideColdIops: median(of((sample) => sample.besideCold.iops)),
    coldIops: median(of((sample) => sample.cold.iops)),
    coldShare: Math.min(...of(({ coldShare }) => coldShare)),
    target,
    met: target === null ? null : coldRatio.median <= target,
  };
}

export interface PrimarySummary {
  readonly place: PlaceName;
  readonly job: PrimaryResult['job'];
  readonly times: number;
  readonly stallMs: Spread;
  readonly target: number;
  readonly met: boolean;
}

/** Of switches the median counts, of failovers the worst. */
export function summarisePrimary({ place, job, stallsMs }: PrimaryResult): PrimarySummary {
  const stallMs = spread(stallsMs);
  const [target, met] =
    job === 'copy-switch'
      ? [limits.switchStallMs, stallMs.median < limits.switchStallMs]
      : [limits.failoverMs, stallMs.highest <= limits.failoverMs];
  return { place, job, times: stallsMs.length, stallMs, target, met };
}

export interface MemorySummary extends MemoryResult {
  readonly idleMet: boolean | null;
  readonly writingMet: boolean | null;
}

export function summariseMemory(result: MemoryResult): MemorySummary {
  const ours = result.server === 'volary';
  return {
    ...result,
    idleMet: ours ? result.idleBytes < limits.idleBytes : null,
    writingMet: ours ? result.writingBytes < limits.writingBytes : null,
  };
}

export interface StartSummary {
  readonly place: PlaceName;
  readonly server: ServerName;
  readonly readyMs: Spread;
  /** The first refusal, or the median time of the request. */
  readonly trim: { readonly seconds: number; readonly leftBytes: number } | { readonly error: string };
  readonly readyMet: boolean | null;
  readonly trimMet: boolean | null;
}

/** Undefined when every round failed. */
export function summariseStart({ place, server, samples }: StartResult): StartSummary | undefined {
  if (samples.length === 0) return undefined;
  const ours = server === 'volary';
  const readyMs = spread(samples.map((sample) => sample.readyMs));
  const trim = summariseTrim(samples);
  return {
    place,
    server,
    readyMs,
    trim,
    readyMet: ours ? readyMs.median < limits.readyMs : null,
    // A file system may keep a block for the map of a file that has no other.
    trimMet: ours ? !('error' in trim) && trim.leftBytes < limits.trimmedBytes : null,
  };
}

function summariseTrim(samples: readonly StartSample[]): StartSummary['trim'] {
  const seconds: number[] = [];
  let leftBytes = 0;
  for (const { trim } of samples) {
    if ('error' in trim) return trim;
    seconds.push(trim.seconds);
    leftBytes = Math.max(leftBytes, trim.leftBytes);
  }
  return { seconds: median(seconds), leftBytes };
}

export interface ScaleSummary {
  readonly place: PlaceName;
  readonly volumes: number;
  /** Medians. */
  readonly createMs: number;
  readonly showMs: number;
  readonly deleteMs: number;
  readonly volumeMet: boolean;
  readonly starts: readonly (RoleStart & { readonly met: boolean })[];
}

export function summariseScale({ place, volumes, starts, ...taken }: ScaleResult): ScaleSummary {
  const [createMs, showMs, deleteMs] = [median(taken.createMs), median(taken.showMs), median(taken.deleteMs)];
  const volumeMet = Math.max(createMs, showMs, deleteMs) < limits.volumeMs;
  const judged = starts.map((start) => ({
    ...start,
    met: start.readyMs < limits.roleReadyMs && start.residentBytes < limits.roleBytes,
  }));
  return { place, volumes, createMs, showMs, deleteMs, volumeMet, starts: judged };
}
