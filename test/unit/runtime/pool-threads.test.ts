import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { keepPoolFromInterrupting } from '../../../src/runtime/pool-threads.ts';

const SCHED_OTHER = 0;
const SCHED_BATCH = 3;

/** Scheduling policies of the threads of this process, pool threads apart from the others. */
function policies(): { pool: number[]; others: number[] } {
  const found = { pool: [] as number[], others: [] as number[] };
  for (const thread of readdirSync('/proc/self/task')) {
    const stat = readFileSync(`/proc/self/task/${thread}/stat`, 'utf8');
    // proc(5): the name, in brackets, is field 2; the policy is field 41.
    const policy = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[41 - 3]);
    (stat.includes('(libuv-worker)') ? found.pool : found.others).push(policy);
  }
  return found;
}

test('the pool threads do not interrupt the event loop; all other threads are as they were', async () => {
  const threads = await keepPoolFromInterrupting();
  const { pool, others } = policies();
  expect(threads).toBeGreaterThan(0);
  expect(pool).toEqual(Array.from({ length: threads }, () => SCHED_BATCH));
  expect(new Set(others)).toEqual(new Set([SCHED_OTHER]));
});
