/**
 * Many simulated runs: `npm run simulate -- --runs 20000`, from a seed of its own or from `--seed`, in two processes. Prints how far it has come,
 * and the seeds that have found something; ends with 1 if there are any. With `--older-catalogs` now and then an older catalog is put back, too.
 */

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import { run } from './world.ts';

const BATCH = 50;
const PRINT_EVERY_MS = 5_000;

interface Batch {
  readonly first: number;
  readonly count: number;
}

interface BatchResult {
  readonly runs: number;
  readonly events: number;
  readonly answers: number;
  readonly faults: number;
  readonly failures: readonly string[];
}

function play({ first, count }: Batch): BatchResult {
  const failures: string[] = [];
  let [events, answers, faults] = [0, 0, 0];
  for (let seed = first; seed < first + count; seed++) {
    const result = run({ seed, hasOlderCatalogs: process.env.VOLARY_SIMULATION_OLDER === '1' });
    events += result.events;
    answers += result.statistics.answers;
    faults += Object.values(result.statistics.faults).reduce((sum, each) => sum + each, 0);
    if (result.violation !== undefined) failures.push(`VOLARY_SIMULATION_SEED=${seed}: ${result.violation}`);
  }
  return { runs: count, events, answers, faults, failures };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      runs: { type: 'string', default: '20000' },
      seed: { type: 'string', default: `${Date.now() % 1_000_000_000}` },
      processes: { type: 'string', default: '2' },
      'older-catalogs': { type: 'boolean', default: false },
    },
  });
  if (values['older-catalogs']) process.env.VOLARY_SIMULATION_OLDER = '1';
  const [runs, first] = [Number(values.runs), Number(values.seed)];
  console.log(`${runs} runs with seeds ${first} to ${first + runs - 1}`);
  let [next, done, events, answers, faults, failed, printedMs] = [first, 0, 0, 0, 0, 0, 0];
  const batch = (): Batch | undefined => {
    const count = Math.min(BATCH, first + runs - next);
    next += count;
    return count > 0 ? { first: next - count, count } : undefined;
  };
  const took = (result: BatchResult): void => {
    [done, events, answers, faults] = [
      done + result.runs,
      events + result.events,
      answers + result.answers,
      faults + result.faults,
    ];
    failed += result.failures.length;
    for (const failure of result.failures) console.log(failure);
    if (done < runs && performance.now() - printedMs < PRINT_EVERY_MS) return;
    printedMs = performance.now();
    console.log(`${done} runs, ${failed} failed; ${events} events, ${answers} answers, ${faults} faults`);
  };
  await Promise.all(Array.from({ length: Number(values.processes) }, () => worker(batch, took)));
  process.exitCode = failed === 0 && done === runs ? 0 : 1;
}

async function worker(batch: () => Batch | undefined, took: (result: BatchResult) => void): Promise<void> {
  const child = fork(import.meta.filename, { env: { ...process.env, VOLARY_SIMULATION_WORKER: '1' } });
  const ask = (): void => {
    const next = batch();
    if (next === undefined) child.disconnect();
    else child.send(next);
  };
  child.on('message', (result: BatchResult) => {
    took(result);
    ask();
  });
  ask();
  await once(child, 'exit');
}

if (process.env.VOLARY_SIMULATION_WORKER === '1') {
  process.on('message', (batch: Batch) => process.send?.(play(batch)));
} else await main();
