/** The threads of libuv's pool, which wait for disks, beside the event loop, which answers everybody. */

import { readdir, readFile } from 'node:fs/promises';
import { scheduleAsBatch } from '../base/syscalls.ts';

/**
 * Has the kernel not interrupt the event loop when a pool thread has something to do: the thread gets its share of the
 * processors, but a moment later. Returns how many threads there are.
 */
export async function keepPoolFromInterrupting(): Promise<number> {
  let threads = 0;
  for (const thread of await ownThreads()) {
    if ((await nameOf(thread)) !== 'libuv-worker') continue;
    threads += 1;
    scheduleAsBatch(Number(thread)); // refused where a container forbids it: then they interrupt
  }
  return threads;
}

/** None where there is no /proc. Listing a folder is the pool's work: once it is done, all threads of the pool are there. */
async function ownThreads(): Promise<string[]> {
  try {
    return await readdir('/proc/self/task');
  } catch {
    return [];
  }
}

async function nameOf(thread: string): Promise<string | undefined> {
  try {
    return (await readFile(`/proc/self/task/${thread}/comm`, 'utf8')).trimEnd();
  } catch {
    return undefined; // it has ended since
  }
}
