import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { inTurn } from '../../bench/bench.ts';
import { speedJobs } from '../../bench/jobs.ts';

test('every speed job is a section of speed.fio, and every section is a job', () => {
  const text = readFileSync(join(import.meta.dirname, '../../bench/speed.fio'), 'utf8');
  const sections = [...text.matchAll(/^\[(.+)\]$/gm)].map(([, name]) => name);
  expect(sections).toEqual(['global', ...new Set(speedJobs.map(({ section }) => section))]);
});

test('each round starts with another server, and has every one once', () => {
  const rounds = [0, 1, 2, 3].map((round) => inTurn(['a', 'b', 'c'], round).join(''));
  expect(rounds).toEqual(['abc', 'bca', 'cab', 'abc']);
});
