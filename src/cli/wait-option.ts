/** `--wait` and `--no-wait` of verbs that wait for their operation unless told otherwise. */

import type { Argv } from 'yargs';
import type { OperationRecord } from '../control-protocol/catalog.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import { UsageError } from '../model/errors.ts';
import { finish } from './finish.ts';
import type { Output } from './output.ts';

export function withWait<T>(yargs: Argv<T>) {
  return yargs
    .option('wait', { describe: 'Return when it is finished (as it does anyway)', type: 'boolean' })
    .option('no-wait', { describe: "Return at once, with the operation's id", type: 'boolean' });
}

/** @throws UsageError */
export function parseWait(given: { wait?: boolean | undefined; 'no-wait'?: boolean | undefined }): boolean {
  if (given.wait !== undefined && given['no-wait'] !== undefined) {
    throw new UsageError('bad-argument', 'give --wait or --no-wait, not both');
  }
  return given.wait ?? given['no-wait'] !== true;
}

export interface Conclusion {
  readonly directory: DirectoryClient;
  readonly output: Output;
  readonly wait: boolean;
  /** Says what has become of it. */
  readonly told: (finished: OperationRecord) => void | Promise<void>;
}

/** Waits for the operation and tells how it ended, or tells its id. @throws ControlError when it failed */
export async function conclude(operation: OperationRecord, conclusion: Conclusion): Promise<void> {
  const { directory, output, wait, told } = conclusion;
  if (wait) await told(await finish(directory, operation.id));
  else output.result(operation, operation.id);
}
