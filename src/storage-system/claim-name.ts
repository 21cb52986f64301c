/**
 * Before a storage system serves anybody, it asks the directory whether it is the only process with its data: two with copies of
 * one folder would take each other's peers, and be taken for one another.
 *
 *   taken                             -> go on
 *   another one is online             -> ask again: it may have ended a moment ago, and be online until its lease ends; then give up
 *   wrong cluster, wrong identity     -> give up; an older folder that a person wants to be taken all the same is claimed as such
 *   no answer, and the folder lies where it did  -> go on: nobody else can have begun with it, and what has to be said is said later
 *   no answer, and it has been moved  -> ask again: it may be a copy; then give up
 *   no answer, and nobody knows whether it has been moved  -> ask again, for as long as it takes: it is hardly a copy, but may be one
 *
 * An older folder forgets what its members know of others, since none of it is true any more:
 *
 *   refused -> claimed as restored, which is durable here first -> taken -> forgotten -> that it is being restored is, too
 *
 * So nothing is given up for a claim that is refused; and who has ended in between forgets at its next start, when it is taken: by then
 * nobody says any more that it is older. Whether it was taken as restored only the directory knows, which is waited for.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { StorageName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Instance } from './instance.ts';

export interface ClaimOptions {
  readonly name: StorageName;
  /** Of the data folder. */
  readonly id: string;
  readonly clusterId: string | undefined;
  readonly instance: Instance;
  readonly directory: Pick<DirectoryClient, 'claimStorage' | 'url'>;
  /** A person says that the folder was put back, and is to be taken though it is older. */
  readonly isRestored: boolean;
  /** What members know of others. */
  readonly forget: () => Promise<void>;
  readonly log: Log;
  /** Ends the waiting: it rejects with an AbortError. */
  readonly signal?: AbortSignal | undefined;
  /** With one that is online, or with none that answers; default 8,000. */
  readonly patienceMs?: number;
}

const ANSWER_MS = 2_000;
/** Longer than the lease of one that has ended. */
const PATIENCE_MS = 8_000;
const RETRY_MS = 250;

/**
 * @returns whether the directory has answered
 * @throws ControlError `wrong-cluster`, `wrong-identity`, `unavailable`; StoreError
 */
export async function claimName(options: ClaimOptions): Promise<boolean> {
  const { directory, instance, forget, log, name, signal, patienceMs = PATIENCE_MS } = options;
  let untilMs = Number.POSITIVE_INFINITY;
  let told: string | undefined;
  let isAskedFor = false;
  for (;;) {
    const refusal = await ask(options, isAskedFor);
    if (refusal === undefined) {
      if (!instance.isRestoring) return true;
      await forget();
      instance.restored();
      return true;
    }
    const { code, message } = refusal;
    if (code === 'wrong-identity' && options.isRestored && !isAskedFor) {
      instance.restoring();
      isAskedFor = true;
      continue;
    }
    if (code === 'wrong-cluster' || code === 'wrong-identity') throw refusal;
    const { whereabouts } = instance;
    const isSurelyTheLatest = whereabouts === 'same' && !instance.isRestoring;
    if (code !== 'in-use' && isSurelyTheLatest) return code !== 'unreachable';
    if (code !== told) {
      log.warn({ storage: name, directory: directory.url, cause: message }, 'waits to start');
    }
    told = code;
    // Goes on being counted while the reasons change: of two that take turns there is no end.
    const isPatient = code !== 'in-use' && whereabouts !== 'moved';
    untilMs = isPatient ? Number.POSITIVE_INFINITY : Math.min(untilMs, performance.now() + patienceMs);
    if (performance.now() > untilMs) throw givenUp(refusal);
    await sleep(RETRY_MS, undefined, signal && { signal });
  }
}

/** @returns why it was not taken */
async function ask(
  { name, id, clusterId, instance, directory }: ClaimOptions,
  isAskedFor: boolean,
): Promise<ControlError | undefined> {
  const claim = { ...instance.claim(), ...(isAskedFor ? { isRestored: true } : {}) };
  try {
    const body = { id, clusterId: clusterId ?? null, instance: claim };
    const answer = await directory.claimStorage(name, body, AbortSignal.timeout(ANSWER_MS));
    // Of another one, the first report says so.
    if (clusterId === undefined || clusterId === answer.clusterId) {
      instance.taken(claim, answer.instanceNumber);
    }
    return undefined;
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    return error;
  }
}

function givenUp(refusal: ControlError): ControlError {
  if (refusal.code === 'in-use') {
    return new ControlError('wrong-identity', refusal.message, { cause: refusal });
  }
  const text = `the data folder has been copied, restored or moved, and only the directory can say whether another process has it: ${refusal.message}`;
  return new ControlError('unavailable', text, { cause: refusal });
}
