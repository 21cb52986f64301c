/**
 * `npm run test:rounds -- --rounds N --seed S`: the processes of a cluster with synchronous copies are killed, stopped and cut off in
 * one direction, one after the other, while hosts write and verify; copies become primary, as planned or not. Needs root. What is
 * done, and how long hosts waited, is printed; the exit status is 1 when anything was lost, or differs.
 */

import { parseArgs } from 'node:util';
import { seededRandom } from '../support/random.ts';
import { faultNamed, planOf } from '../support/rounds/faults.ts';
import { runRounds } from '../support/rounds/rounds.ts';

// What runs ends with this: see support/volary-process.ts.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '30' },
    seed: { type: 'string', default: `${Date.now() % 1_000_000_000}` },
    /** One fault again and again, by its name. */
    fault: { type: 'string' },
    'stop-ms': { type: 'string', default: '10000' },
    'cut-ms': { type: 'string', default: '5000' },
  },
});
const [rounds, seed] = [Number(values.rounds), Number(values.seed)];
if (!Number.isSafeInteger(rounds) || rounds < 1 || !Number.isSafeInteger(seed) || seed < 0) {
  process.stderr.write(
    'npm run test:rounds -- [--rounds N] [--seed N] [--fault NAME] [--stop-ms N] [--cut-ms N]\n',
  );
  process.exit(2);
}
const random = seededRandom(seed);
const { fault } = values;
const plan =
  fault === undefined ? planOf(rounds, random) : Array.from({ length: rounds }, () => faultNamed(fault));
const tell = (line: string): void => void process.stdout.write(`${line}\n`);
tell(`${rounds} rounds, seed ${seed}`);
const started = performance.now();
await runRounds({ plan, random, stopMs: Number(values['stop-ms']), cutMs: Number(values['cut-ms']), tell });
tell(
  `${rounds} rounds in ${Math.round((performance.now() - started) / 1000)} s, seed ${seed}: nothing lost, nothing differs`,
);
