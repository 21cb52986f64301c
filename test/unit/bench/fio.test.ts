import { expect, test } from 'vitest';
import { parseFio } from '../../bench/fio.ts';

const idle = { total_ios: 0, io_bytes: 0, iops: 0, bw_bytes: 0, lat_ns: {} };
const busy = {
  total_ios: 1000,
  io_bytes: 4_096_000,
  iops: 500.5,
  bw_bytes: 2_097_152,
  lat_ns: { max: 78_900, percentile: { '50.000000': 12_300, '99.000000': 45_600 } },
};

function document(...jobs: { jobname: string; error?: number; read?: object; write?: object }[]): string {
  return JSON.stringify({ jobs: jobs.map((job) => ({ error: 0, read: idle, write: idle, ...job })) });
}

test('a job is read from the direction that it used, in the units of the names', () => {
  const expected = {
    operations: 1000,
    bytes: 4_096_000,
    iops: 500.5,
    mibPerSecond: 2,
    p50Us: 12.3,
    p99Us: 45.6,
    longestUs: 78.9,
  };
  const jobs = parseFio(document({ jobname: 'r', read: busy }, { jobname: 'w', write: busy }));
  expect([...jobs]).toEqual([
    ['r', { name: 'r', ...expected }],
    ['w', { name: 'w', ...expected }],
  ]);
});

test('a job that failed is no result', () => {
  expect(() => parseFio(document({ jobname: 'r', error: 5, read: busy }))).toThrow('r failed with errno 5');
});

test('a job that completed nothing is no result', () => {
  expect(() => parseFio(document({ jobname: 'r' }))).toThrow('r completed no request');
});

test('a job without latencies is no result', () => {
  expect(() => parseFio(document({ jobname: 'r', read: { ...busy, lat_ns: {} } }))).toThrow(
    'r completed no request',
  );
});

test('what is not JSON is an error', () => {
  expect(() => parseFio('fio: no jobs')).toThrow(SyntaxError);
});
