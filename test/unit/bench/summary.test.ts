import { expect, test } from 'vitest';
import type { FioJob } from '../../bench/fio.ts';
import { speedJobs } from '../../bench/jobs.ts';
import type { PlaceName } from '../../bench/places.ts';
import { renderReport } from '../../bench/report.ts';
import type { ServerName } from '../../bench/servers.ts';
import type { SpeedSample } from '../../bench/speed.ts';
import {
  summariseHotCold,
  summariseMemory,
  summarisePrimary,
  summariseQuietness,
  summariseScale,
  summariseSpeed,
  summariseStart,
} from '../../bench/summary.ts';

const MiB = 2 ** 20;
const job = speedJobs.find(({ name }) => name === 'randread-d16')!;

function fioJob(iops: number, p99Us = 90): FioJob {
  return {
    name: 'j',
    operations: iops,
    bytes: iops * 4096,
    iops,
    mibPerSecond: iops / 256,
    p50Us: 20,
    p99Us,
    longestUs: 500,
  };
}

function sample(iops: number, idleCpu: SpeedSample['idleCpu'] = {}): SpeedSample {
  return { ...fioJob(iops), serverCpuSeconds: 1, foreignCpu: 0.25, idleCpu };
}

function speed(place: PlaceName, samples: Partial<Record<ServerName, (SpeedSample | undefined)[]>>) {
  return { place, job, samples: new Map(Object.entries(samples) as [ServerName, SpeedSample[]][]) };
}

test('a ratio is met from its target on, and is the median of the rounds’ ratios', () => {
  const summary = summariseSpeed(
    speed('shm', {
      volary: [sample(130), sample(260), sample(500)],
      nbdkit: [sample(100), sample(200), sample(250)],
      'qemu-nbd': [sample(100), sample(200), sample(400)],
    }),
  );
  expect(summary.ratios).toEqual([
    { to: 'nbdkit', ratio: { median: 1.3, lowest: 1.3, highest: 2 }, target: 1.3, met: true },
    { to: 'qemu-nbd', ratio: { median: 1.3, lowest: 1.25, highest: 1.3 }, target: 1.5, met: false },
  ]);
});

test('figures are medians over rounds, processor time is per request', () => {
  const [figures] = summariseSpeed(
    speed('shm', { nbdkit: [sample(1000), sample(4000), sample(2000)] }),
  ).servers;
  expect(figures).toMatchObject({
    server: 'nbdkit',
    iops: { median: 2000, lowest: 1000, highest: 4000 },
    p99Us: 90,
    cpuUsPerOperation: 500,
  });
});

test('on disk no target is set, so none is met or missed', () => {
  const { ratios } = summariseSpeed(speed('disk', { volary: [sample(10)], nbdkit: [sample(20)] }));
  expect(ratios).toEqual([
    { to: 'nbdkit', ratio: { median: 0.5, lowest: 0.5, highest: 0.5 }, target: null, met: null },
  ]);
});

test('a round that failed on one server counts for no ratio; a server that always failed has no figures', () => {
  const summary = summariseSpeed(
    speed('shm', {
      volary: [sample(300), undefined, sample(200)],
      nbdkit: [undefined, sample(100), sample(100)],
      'qemu-nbd': [undefined, undefined, undefined],
    }),
  );
  expect(summary.ratios.map(({ to, ratio }) => [to, ratio.median])).toEqual([['nbdkit', 2]]);
  expect(summary.servers.map(({ server }) => server)).toEqual(['volary', 'nbdkit']);
});

test('quietness keeps the largest use of each idle server', () => {
  const results = [
    speed('shm', { nbdkit: [sample(1, { volary: 0.02 }), undefined], volary: [sample(1, { nbdkit: 0 })] }),
    speed('shm', { 'qemu-nbd': [sample(1, { volary: 0.5, nbdkit: 0.01 })] }),
  ];
  expect(summariseQuietness(results)).toEqual({
    foreignCpu: { median: 0.25, lowest: 0.25, highest: 0.25 },
    idleCpu: { volary: 0.5, nbdkit: 0.01 },
  });
  expect(summariseQuietness([])).toBeUndefined();
});

test('the hot reader may be three times as slow beside the cold one, and only volary is judged', () => {
  const round = (aloneUs: number, besideUs: number) => ({
    alone: fioJob(100, aloneUs),
    besideCold: fioJob(50, besideUs),
    besideWarm: fioJob(60, aloneUs * 2),
    cold: fioJob(40),
    coldShare: besideUs / 100,
  });
  const samples = [round(100, 250), round(100, 300), round(100, 900)];
  expect(summariseHotCold({ server: 'volary', samples })).toMatchObject({
    coldRatio: { median: 3, lowest: 2.5, highest: 9 },
    warmRatio: { median: 2 },
    coldShare: 2.5,
    target: 3,
    met: true,
  });
  expect(summariseHotCold({ server: 'volary', samples: [round(100, 301)] })).toMatchObject({ met: false });
  expect(summariseHotCold({ server: 'nbdkit', samples })).toMatchObject({ target: null, met: null });
  expect(summariseHotCold({ server: 'volary', samples: [] })).toBeUndefined();
});

test('memory must stay below its limits', () => {
  const figures = { place: 'shm', freshBytes: 60 * MiB, idleCpu: 0, writingMibPerSecond: 900 } as const;
  const below = { ...figures, idleBytes: 150 * MiB - 1, writingBytes: 400 * MiB - 1 };
  const at = { ...figures, idleBytes: 150 * MiB, writingBytes: 400 * MiB };
  expect(summariseMemory({ server: 'volary', ...below })).toMatchObject({ idleMet: true, writingMet: true });
  expect(summariseMemory({ server: 'volary', ...at })).toMatchObject({ idleMet: false, writingMet: false });
  expect(summariseMemory({ server: 'nbdkit', ...at })).toMatchObject({ idleMet: null, writingMet: null });
});

test('a refused trim, and one that gave nothing back, do not count as working', () => {
  const works = { readyMs: 300, trim: { seconds: 0.002, leftBytes: 8192 } };
  const of = (trim: typeof works.trim | { error: string }) =>
    summariseStart({ place: 'disk', server: 'volary', samples: [works, { readyMs: 999, trim }] });
  expect(of(works.trim)).toMatchObject({ readyMs: { median: 649.5 }, readyMet: true, trimMet: true });
  expect(of({ error: 'Invalid argument' })).toMatchObject({
    trim: { error: 'Invalid argument' },
    trimMet: false,
  });
  expect(of({ seconds: 0.001, leftBytes: 2 * MiB })).toMatchObject({ trimMet: false });
});

test('of switches the median is judged, of failovers each', () => {
  const of = (job: 'copy-switch' | 'copy-failover', stallsMs: number[]) =>
    summarisePrimary({ place: 'shm', job, stallsMs }).met;
  expect(of('copy-switch', [20, 99.9, 900])).toBe(true);
  expect(of('copy-switch', [20, 100, 900])).toBe(false);
  expect(of('copy-failover', [20, 4000])).toBe(true);
  expect(of('copy-failover', [20, 20, 4001])).toBe(false);
});

test('the report has a table for what was measured, says what was missed, and lists what failed', () => {
  const options = {
    rounds: 1,
    warmUpRounds: 0,
    seconds: 1,
    jobs: [],
    places: ['shm', 'disk'],
    servers: ['volary'],
    json: false,
  } as const;
  const machine = {
    processors: '2 × P',
    memoryGib: 24,
    kernel: '6.1',
    node: '24.0',
    fio: '3.33',
    nbdkit: '1.32',
    qemuNbd: '7.2',
  };
  const results = [speed('shm', { volary: [sample(1200)], nbdkit: [sample(1000)] })];
  const text = renderReport({
    machine,
    options,
    quietness: summariseQuietness(results),
    speed: results.map(summariseSpeed),
    hotBesideCold: [],
    memory: [],
    start: [],
    scale: [
      summariseScale({
        place: 'disk',
        volumes: 1000,
        createMs: [10, 20, 60],
        showMs: [1],
        deleteMs: [2],
        starts: [
          { role: 'east-1', readyMs: 500, residentBytes: 2 ** 20 },
          { role: 'east-gw', readyMs: 3500, residentBytes: 2 ** 20 },
        ],
      }),
    ],
    primary: [summarisePrimary({ place: 'shm', job: 'copy-failover', stallsMs: [3500, 4001, 3600] })],
    failures: ['disk: no space'],
  });
  expect(text).toContain('| job | unit | volary | nbdkit | volary / nbdkit | must be |');
  expect(text).toContain(
    '| 4 KiB random read, depth 16 | IOPS | 1,200 | 1,000 | **1.20** (1.20–1.20) | ≥ 1.30: **not met** |',
  );
  expect(text).toContain('| 20.0 | 1.0 | 2.0 | < 50: met |');
  expect(text).toContain('| east-1 | 500 | 1 | < 3000 ms, < 300 MiB: met |');
  expect(text).toContain('| east-gw | 3,500 | 1 | < 3000 ms, < 300 MiB: **not met** |');
  expect(text).toContain(
    '| failover after kill -9 | /dev/shm | 3 | 3,600 | 3,500–4,001 | all ≤ 4,000: **not met** |',
  );
  expect(text).toContain('## Failed to run\n\n- disk: no space');
  expect(text).not.toContain('## Speed, files on disk');
  expect(text).not.toContain('undefined');
  // sample() says that other programs used a quarter of a processor.
  expect(text).toContain('The machine was not quiet');
});
