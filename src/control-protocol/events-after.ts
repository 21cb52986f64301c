/**
 * Events without end, across restarts of the directory: each once, in order, none left out, as long as the directory
 * keeps them. What keeps count is the id of the last one.
 */

import { pause } from '../base/pause.ts';
import { ControlError } from '../model/errors.ts';
import type { EventRecord } from './catalog.ts';
import type { DirectoryClient } from './directory-client.ts';
import { isAway } from './http-client.ts';

const PAUSE_MS = 250;
const PAUSE_MS_MAX = 2_000;

/**
 * Events after the one with the id `since`, until `signal`.
 * @throws ControlError: `unreachable` when nobody answers at first; `wrong-cluster` when another cluster answers later on
 */
export async function* eventsAfter(
  directory: DirectoryClient,
  since: number,
  signal: AbortSignal,
): AsyncGenerator<EventRecord> {
  const { clusterId } = await directory.cluster();
  let last = since;
  let pauseMs = PAUSE_MS;
  while (!signal.aborted) {
    try {
      await expectCluster(directory, clusterId);
      for await (const event of directory.followEvents(signal, last)) {
        pauseMs = PAUSE_MS;
        if (event.id <= last) continue;
        last = event.id;
        yield event;
      }
    } catch (error) {
      if (!isAway(error)) throw error;
    }
    await pause(pauseMs, signal);
    pauseMs = Math.min(pauseMs * 2, PAUSE_MS_MAX);
  }
}

/** Ids of another cluster count something else. */
async function expectCluster(directory: DirectoryClient, clusterId: string): Promise<void> {
  const found = await directory.cluster();
  if (found.clusterId === clusterId) return;
  throw new ControlError(
    'wrong-cluster',
    `the directory (${directory.url}) is another cluster's now: ${found.clusterId}, and was ${clusterId}`,
  );
}
