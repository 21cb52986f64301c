/**
 * R1, R5, R7, Q1: synchronous copies among real processes, in a network of their own. A few rounds of faults while hosts write;
 * `npm run test:rounds` has all of them.
 */

import { expect, test } from 'vitest';
import { testRandom } from '../support/random.ts';
import { faultNamed } from '../support/rounds/faults.ts';
import { runRounds } from '../support/rounds/rounds.ts';

const plan = [
  'kill secondary',
  'lose what primary sends to secondary',
  'switch',
  'failover, the primary killed',
  'kill worker',
  'failover, the primary stopped',
].map(faultNamed);

test('no write is lost, and every pair that says duplex has equal files', async () => {
  const lines: string[] = [];
  await runRounds({
    plan,
    random: testRandom('rounds of faults'),
    stopMs: 4000,
    cutMs: 4000,
    tell: (line) => void lines.push(line),
  });
  console.log(lines.join('\n'));
  expect(lines).toHaveLength(plan.length);
}, 300_000);
