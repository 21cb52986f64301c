/**
 * Waiting for an operation of the directory. The operation goes on whoever waits: a directory that is started again takes it
 * up, and so does who waited for it.
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

/** The operation as it ended, well. @throws ControlError, with the operation's own code when it failed */
export async function finish(directory: DirectoryClient, id: OperationId): Promise<OperationRecord> {
  const operation = await withProgress(waitFor(directory, id), () => `waiting for operation ${id}`);
  if (operation.error !== null) throw controlErrorOf(operation.error);
  if (operation.state === 'failed') throw new ControlError('failed', `operation ${id} failed`);
  return operation;
}

async function waitFor(directory: DirectoryClient, id: OperationId): Promise<OperationRecord> {
  let heardAtMs = performance.now();
  for (;;) {
    try {
      const operation = await directory.operation(id, WAIT_MS);
      if (operation.state === 'done' || operation.state === 'failed') return operation;
      heardAtMs = performance.now();
    } catch (error) {
      if (!isAway(error)) throw error;
      if (performance.now() - heardAtMs > AWAY_MS_MAX) {
        const next = `the operation goes on when it is back; ask with: volary operation wait ${id}`;
        throw new ControlError(error.code, `${error.message}; ${next}`, { cause: error });
      }
      await sleep(ASK_AGAIN_AFTER_MS);
    }
  }
}
