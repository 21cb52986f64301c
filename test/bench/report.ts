/** The bench's results as Markdown. Pure. */

import { hotBytes } from './hot-beside-cold.ts';
import { type Family, families, limits, type StackName, stackNames } from './jobs.ts';
import type { Machine } from './machine.ts';
import type { BenchOptions } from './options.ts';
import type { PlaceName } from './places.ts';
import type { Spread } from './statistics.ts';
import type {
  HotColdSummary,
  MemorySummary,
  PrimarySummary,
  Quietness,
  Ratio,
  ScaleSummary,
  SpeedSummary,
  StartSummary,
} from './summary.ts';

export interface BenchReport {
  readonly machine: Machine;
  readonly options: BenchOptions;
  readonly quietness: Quietness | undefined;
  readonly speed: readonly SpeedSummary[];
  readonly hotBesideCold: readonly HotColdSummary[];
  readonly memory: readonly MemorySummary[];
  readonly start: readonly StartSummary[];
  readonly scale: readonly ScaleSummary[];
  readonly primary: readonly PrimarySummary[];
  readonly failures: readonly string[];
}

/** What other programs may use of a processor before the report warns: a share that no ratio notices. */
const quietCpu = 0.1;

const familyTitles: Readonly<Record<Family, string>> = {
  serve: 'Speed',
  gateway: 'Speed through a gateway (volary: gateway and storage system; nbdkit: nbd plugin and file plugin)',
  copy:
    'Speed with two synchronous copies (volary: gateway and two storage systems; one-copy: the same volume without copy; ' +
    'quorum: qemu-storage-daemon’s quorum driver over a file and nbdkit)',
};

const placeTitles: Readonly<Record<PlaceName, string>> = { shm: '/dev/shm', disk: 'disk' };

export function renderReport(report: BenchReport): string {
  const parts = [renderMethod(report)];
  for (const place of report.options.places) {
    for (const family of families) {
      const speed = report.speed.filter((summary) => summary.place === place && summary.family === family);
      if (speed.length === 0) continue;
      parts.push(
        renderSpeed(`${familyTitles[family]}, files on ${placeTitles[place]}`, speed),
        renderDetails(speed),
      );
    }
  }
  if (report.hotBesideCold.length > 0) parts.push(renderHotCold(report.hotBesideCold));
  if (report.memory.length > 0) parts.push(renderMemory(report.memory));
  if (report.start.length > 0) parts.push(renderStart(report.start));
  for (const summary of report.scale) parts.push(renderScale(summary));
  if (report.primary.length > 0) parts.push(renderPrimary(report.primary));
  if (report.failures.length > 0) {
    parts.push(
      [
        '## Failed to run',
        '',
        ...report.failures.map((failure) => `- ${failure.trim().replaceAll('\n', '\n  ')}`),
      ].join('\n'),
    );
  }
  return `${parts.join('\n\n')}\n`;
}

function renderMethod({ machine, options, quietness }: BenchReport): string {
  const lines = [
    '# Bench',
    '',
    `Machine: ${machine.processors}, ${machine.memoryGib} GiB, Linux ${machine.kernel}, Node ${machine.node}; ` +
      `fio ${machine.fio}, nbdkit ${machine.nbdkit}, qemu-nbd ${machine.qemuNbd}.`,
    '',
    `Method: ${options.rounds} round(s) of every job on every server, ${options.seconds} s each, after ` +
      `${options.warmUpRounds} that do not count, servers in turn ` +
      'within a job; one process a server, TCP loopback, fio’s nbd engine; all servers up, one loaded. Each has a ' +
      '1 GiB file of its own, fully allocated, of equal content, in the page cache. Values are medians over rounds; ' +
      'a ratio is the median of the rounds’ ratios, with the lowest and the highest.',
  ];
  if (quietness !== undefined) {
    const idle = Object.entries(quietness.idleCpu).map(([name, used]) => `${name} ${percent(used)}`);
    lines.push(
      '',
      `Other programs used ${percent(quietness.foreignCpu.median)} of a processor (median; at most ` +
        `${percent(quietness.foreignCpu.highest)}). Servers that were up but not loaded used at most: ` +
        `${idle.length === 0 ? 'there were none' : idle.join(', ')}.`,
    );
    if (quietness.foreignCpu.median > quietCpu) {
      lines.push('', '**The machine was not quiet: these figures show that things run, not how fast.**');
    }
  }
  return lines.join('\n');
}

function renderSpeed(title: string, summaries: readonly SpeedSummary[]): string {
  const servers = stackNames.filter((name) => summaries.some((summary) => figures(summary, name)));
  const peers = stackNames.filter((to) =>
    summaries.some(({ ratios }) => ratios.some((ratio) => ratio.to === to)),
  );
  const withTargets = summaries.some(({ ratios }) => ratios.some(({ target }) => target !== null));
  const rows = summaries.map((summary) => [
    summary.title,
    summary.unit,
    ...servers.map((name) => throughput(summary, name)),
    ...peers.flatMap((to) => {
      const ratio = summary.ratios.find((candidate) => candidate.to === to);
      return withTargets ? [ratioText(ratio), verdictOfRatio(ratio)] : [ratioText(ratio)];
    }),
  ]);
  const heads = [
    'job',
    'unit',
    ...servers,
    ...peers.flatMap((to) => (withTargets ? [`volary / ${to}`, 'must be'] : [`volary / ${to}`])),
  ];
  return `## ${title}\n\n${table(heads, rows, 2)}`;
}

function figures(summary: SpeedSummary, name: StackName) {
  return summary.servers.find(({ server }) => server === name);
}

function throughput(summary: SpeedSummary, name: StackName): string {
  const found = figures(summary, name);
  if (found === undefined) return '–';
  return integer(summary.unit === 'IOPS' ? found.iops.median : found.mibPerSecond.median);
}

function ratioText(ratio: Ratio | undefined): string {
  return ratio === undefined ? '–' : spreadText(ratio.ratio);
}

function spreadText({ median, lowest, highest }: Spread): string {
  return `**${median.toFixed(2)}** (${lowest.toFixed(2)}–${highest.toFixed(2)})`;
}

function verdictOfRatio(ratio: Ratio | undefined): string {
  return ratio === undefined || ratio.target === null
    ? '–'
    : verdict(`≥ ${ratio.target.toFixed(2)}`, ratio.met);
}

function verdict(target: string, met: boolean | null): string {
  if (met === null) return '–';
  return `${target}: ${met ? 'met' : '**not met**'}`;
}

function renderDetails(summaries: readonly SpeedSummary[]): string {
  const rows = summaries.flatMap(({ title, servers }) =>
    servers.map((found) => [
      title,
      found.server,
      `${integer(found.iops.median)} (${integer(found.iops.lowest)}–${integer(found.iops.highest)})`,
      integer(found.mibPerSecond.median),
      integer(found.p50Us),
      integer(found.p99Us),
      found.cpuUsPerOperation.toFixed(1),
    ]),
  );
  const heads = ['job', 'server', 'IOPS', 'MiB/s', 'p50 µs', 'p99 µs', 'server CPU µs / request'];
  return table(heads, rows, 2);
}

function renderHotCold(summaries: readonly HotColdSummary[]): string {
  const rows = summaries.map((summary) => [
    summary.server,
    integer(summary.aloneP99Us),
    integer(summary.besideColdP99Us),
    spreadText(summary.coldRatio),
    verdict(`≤ ${summary.target}`, summary.met),
    integer(summary.besideWarmP99Us),
    spreadText(summary.warmRatio),
    integer(summary.aloneIops),
    integer(summary.besideColdIops),
    integer(summary.coldIops),
    percent(summary.coldShare),
  ]);
  const heads = [
    'server',
    'hot p99 µs alone',
    'beside cold',
    'ratio',
    'must be',
    'beside warm',
    'ratio',
    'hot IOPS alone',
    'beside cold',
    'cold IOPS',
    'read from disk',
  ];
  return [
    '## A hot reader beside a cold one, on disk',
    '',
    `Hot: 4 KiB random reads, depth 1, of ${mib(hotBytes)} MiB in the page cache. Cold: 4 KiB random reads, depth 16, ` +
      'over another connection, of another export of the same server, whose page cache is dropped before and during ' +
      'the run. Warm: a neighbour that reads the hot file at the cold one’s rate, which shows what sharing the ' +
      'processors costs. Read from disk: bytes that the server had the disk read / bytes that the cold reader got; ' +
      '100 % or more when every read was cold.',
    '',
    table(heads, rows, 1),
  ].join('\n');
}

function renderMemory(summaries: readonly MemorySummary[]): string {
  const rows = summaries.map((summary) => [
    placeTitles[summary.place],
    summary.server,
    mib(summary.freshBytes),
    mib(summary.idleBytes),
    verdict(`< ${mib(limits.idleBytes)}`, summary.idleMet),
    percent(summary.idleCpu),
    mib(summary.writingBytes),
    verdict(`< ${mib(limits.writingBytes)}`, summary.writingMet),
    integer(summary.writingMibPerSecond),
  ]);
  const heads = [
    'files on',
    'server',
    'fresh',
    `${limits.idleConnections} idle connections`,
    'must be',
    'processor, idle',
    'peak, 1 GiB of writes in flight',
    'must be',
    'MiB/s',
  ];
  return [
    '## Memory (RSS, MiB)',
    '',
    'Writes in flight: 16 connections, 64 random writes of 1 MiB on each.',
    '',
    table(heads, rows, 2),
  ].join('\n');
}

function renderStart(summaries: readonly StartSummary[]): string {
  const rows = summaries.map((summary) => [
    placeTitles[summary.place],
    summary.server,
    integer(summary.readyMs.median),
    verdict(`< ${limits.readyMs}`, summary.readyMet),
    'error' in summary.trim
      ? summary.trim.error.replaceAll('|', '\\|')
      : `${(summary.trim.seconds * 1000).toFixed(1)} ms, ${mib(summary.trim.leftBytes)} MiB left`,
    verdict('works', summary.trimMet),
  ]);
  const heads = ['files on', 'server', 'ready after ms', 'must be', 'TRIM of 2^32 − 4096 bytes', 'must'];
  return [
    '## Start on a 4 TiB sparse file',
    '',
    'Ready: `ready` printed (volary), first connection accepted, asked every 20 ms (the others).',
    '',
    table(heads, rows, 2),
  ].join('\n');
}

function renderScale(summary: ScaleSummary): string {
  const { createMs, showMs, deleteMs, volumeMet, starts } = summary;
  const volumeRow = [createMs, showMs, deleteMs].map((taken) => taken.toFixed(1));
  const roleRows = starts.map(({ role, readyMs, residentBytes, met }) => [
    role,
    integer(readyMs),
    mib(residentBytes),
    verdict(`< ${limits.roleReadyMs} ms, < ${mib(limits.roleBytes)} MiB`, met),
  ]);
  return [
    `## ${integer(summary.volumes)} volumes on one storage system, on ${placeTitles[summary.place]}`,
    '',
    table(
      ['create ms', 'show ms', 'delete ms', 'must be'],
      [[...volumeRow, verdict(`< ${limits.volumeMs}`, volumeMet)]],
      0,
    ),
    '',
    table(['role', 'start ms', 'RSS MiB', 'must be'], roleRows, 1),
  ].join('\n');
}

function renderPrimary(summaries: readonly PrimarySummary[]): string {
  const rows = summaries.map(({ place, job, times, stallMs, target, met }) => [
    job === 'copy-switch' ? 'switch' : 'failover after kill -9',
    placeTitles[place],
    integer(times),
    integer(stallMs.median),
    `${integer(stallMs.lowest)}–${integer(stallMs.highest)}`,
    verdict(job === 'copy-switch' ? `median < ${target}` : `all ≤ ${integer(target)}`, met),
  ]);
  return [
    '## Another copy becomes primary under load',
    '',
    'Longest request of fio (4 KiB random writes, depth 16) in milliseconds; no request failed.',
    '',
    table(['what', 'files on', 'times', 'median', 'all', 'must be'], rows, 2),
  ].join('\n');
}

/** A Markdown table; the first `textColumns` columns are set left, the others right. */
function table(heads: readonly string[], rows: readonly (readonly string[])[], textColumns: number): string {
  const rule = heads.map((_head, column) => (column < textColumns ? '---' : '---:'));
  return [heads, rule, ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function integer(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

function mib(bytes: number): string {
  return integer(bytes / 2 ** 20);
}

function percent(share: number): string {
  return `${(share * 100).toFixed(share < 0.1 ? 1 : 0)} %`;
}
