import { expect, test } from 'vitest';
import {
  busyCpuSeconds,
  executable,
  ownCpuSeconds,
  parseBusyCpu,
  parseField,
  parseProcessCpu,
  processCpuSeconds,
  residentBytes,
} from '../../bench/proc.ts';

test('processor time of a process: user + system, in ticks of 10 ms, whatever its name looks like', () => {
  const stat = '42 (a) b (c) S 1 42 42 0 -1 4194304 10 20 0 0 150 50 7 3 20 0 11 0 1234 5 6';
  expect(parseProcessCpu(stat)).toEqual({ own: 2, endedChildren: 0.1 });
});

test('a text that is cut off has no processor time', () => {
  expect(() => parseProcessCpu('42 (a) S 1 42')).toThrow('no tick counts');
});

test('the machine is busy when it is neither idle nor waiting for a disk', () => {
  const stat = 'cpu  100 20 30 9999 8888 4 5 6 70 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n';
  expect(parseBusyCpu(stat)).toBeCloseTo(1.65, 9);
});

test('a field of status is bytes when it says kB, and its own number when not', () => {
  const status = 'Name:\tnode\nVmHWM:\t    2048 kB\nVmRSS:\t     512 kB\nThreads:\t11\n';
  expect(parseField(status, 'VmHWM')).toBe(2 * 2 ** 20);
  expect(parseField(status, 'Threads')).toBe(11);
  expect(() => parseField(status, 'Name')).toThrow('no Name');
  expect(() => parseField(status, 'read_bytes')).toThrow('no read_bytes');
});

test('this process reads as what it is', () => {
  expect(executable(process.pid)).toBe(process.execPath);
  expect(processCpuSeconds(process.pid)).toBeGreaterThan(0);
  expect(ownCpuSeconds()).toBeGreaterThanOrEqual(processCpuSeconds(process.pid));
  expect(busyCpuSeconds()).toBeGreaterThan(0);
  const { now, peak } = residentBytes(process.pid);
  expect(now).toBeGreaterThan(2 ** 20);
  expect(peak).toBeGreaterThanOrEqual(now);
});
