/**
 * Waiting for what the directory does. It goes on whoever waits: a directory that is started again takes it up, and so does
 * who waited for it.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { OperationRecord } from '../control-protocol/catalog.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { controlErrorOf, isAway } from '../control-protocol/http-client.ts';
import type { OperationId } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { withProgress } from './progress.ts';

/** How long a directory may be away while somebody waits. */
const AWAY_MS_MAX = 60_000;
const ASK_AGAIN_AFTER_MS = 500;
/** How long one request waits at the directory. */
const WAIT_MS = 5_000;

export interface Waiting<T> {
  readonly ask: () => Promise<T>;
  readonly isOver: (answer: T) => boolean;
  /** Between an answer and the next question. */
  readonly pauseMs: number;
  /** What becomes of it when the directory stays away, and how to ask later. */
  readonly advice: string;
}

/** Asks until it is over. @throws ControlError */
export async function askUntil<T>({ ask, isOver, pauseMs, advice }: Waiting<T>): Promise<T> {
  let heardAtMs = performance.now();
  for (;;) {
    try {
      const answer = await ask();
      if (isOver(answer)) return answer;
      heardAtMs = performance.now();
      await sleep(pauseMs);
    } catch (error) {
      if (!isAway(error)) throw error;
      if (performance.now() - heardAtMs > AWAY_MS_MAX) {
        throw new ControlError(error.code, `${error.message}; ${advice}`, { cause: error });
      }
      await sleep(ASK_AGAIN_AFTER_MS);
    }
  }
}

/** The operation as it ended, well. @throws ControlError, with the operation's own code when it failed */
export async function finish(directory: DirectoryClient, id: OperationId): Promise<OperationRecord> {
  const work = askUntil({
    ask: () => directory.operation(id, WAIT_MS),
    isOver: ({ state }) => state === 'done' || state === 'failed',
    pauseMs: 0,
    advice: `the operation goes on when it is back; ask with: volary operation wait ${id}`,
  });
  const operation = await withProgress(work, () => `waiting for operation ${id}`);
  if (operation.error !== null) throw controlErrorOf(operation.error);
  if (operation.state === 'failed') throw new ControlError('failed', `operation ${id} failed`);
  return operation;
}
