import { expect, test } from 'vitest';
import { jobNames } from '../../bench/jobs.ts';
import { parseOptions, UsageError, usage } from '../../bench/options.ts';

test('without options everything is measured, five rounds of three seconds', () => {
  expect(parseOptions([])).toEqual({
    rounds: 5,
    warmUpRounds: 1,
    seconds: 3,
    jobs: jobNames,
    places: ['shm', 'disk'],
    servers: ['volary', 'nbdkit', 'qemu-nbd'],
    json: false,
  });
});

test('--quick is one round of one second, unless told otherwise', () => {
  expect(parseOptions(['--quick'])).toMatchObject({ rounds: 1, warmUpRounds: 0, seconds: 1 });
  expect(parseOptions(['--quick', '--rounds', '2'])).toMatchObject({ rounds: 2, seconds: 1 });
});

test('lists choose, and keep the order of the bench', () => {
  const args = ['--jobs', 'start,randread-d16', '--where=disk', '--servers', 'qemu-nbd,volary', '--json'];
  expect(parseOptions(args)).toMatchObject({
    jobs: ['randread-d16', 'start'],
    places: ['disk'],
    servers: ['volary', 'qemu-nbd'],
    json: true,
  });
});

test.each([
  [['--rounds', '0'], '--rounds 0'],
  [['--warm-up', '-1'], '--warm-up'],
  [['--rounds', '2.5'], '--rounds 2.5'],
  [['--seconds', '-1'], '--seconds'],
  [['--seconds=x'], '--seconds x'],
  [['--jobs', 'randread'], '--jobs randread: choose of randread-d1'],
  [['--where', ''], '--where : choose of shm, disk'],
  [['--servers', 'volary,nginx'], '--servers nginx'],
  [['--fast'], '--fast'],
  [['randread-d1'], 'randread-d1'],
])('%j is wrong usage, and says what is wrong', (args, message) => {
  expect(() => parseOptions(args)).toThrow(UsageError);
  expect(() => parseOptions(args)).toThrow(message);
});

test('help names every job', () => {
  expect(parseOptions(['--help'])).toBe('help');
  for (const name of jobNames) expect(usage).toContain(name);
});
