/**
 * Doing the effects of a step at storage systems, all at once, and again where one does not answer.
 *
 *  1. A storage system that refuses has the last word; one that does not answer is asked again, as long as the effect's patience lasts.
 *  2. When one effect has come to nothing, those of limited patience that still wait for an answer are given up.
 *  3. A storage system is looked up for each attempt: it may have come back with another address.
 */

import { pause } from '../../base/pause.ts';
import { ControlError } from '../../model/errors.ts';
import type { CatalogView } from '../catalog-view.ts';
import type { Peers, StoragePeer } from '../peers.ts';
import type { Effect, Outcome } from './workflow.ts';

export interface RetryLimits {
  /** How long `limited` patience lasts. */
  readonly retryMs: number;
  /** How long users of a real volume have to let go of it. */
  readonly letGoMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
}

export const RETRY_LIMITS: RetryLimits = {
  retryMs: 30_000,
  letGoMs: 5_000,
  backoffMinMs: 50,
  backoffMaxMs: 1_000,
};

/** Of one step. */
const EFFECTS_AT_ONCE = 16;

export interface PerformOptions {
  readonly view: CatalogView;
  readonly peers: Peers;
  readonly limits: RetryLimits;
  /** The directory stops. */
  readonly signal: AbortSignal;
}

/** In the order of the effects. When `signal` is aborted, they mean nothing. */
export async function performAll(effects: readonly Effect[], options: PerformOptions): Promise<Outcome[]> {
  const outcomes: Outcome[] = [];
  const givenUp = new AbortController();
  const either = AbortSignal.any([options.signal, givenUp.signal]);
  let next = 0;
  const work = async (): Promise<void> => {
    for (let at = next++; at < effects.length; at = next++) {
      const effect = effects[at] as Effect;
      const signal = effect.patience === 'limited' ? either : options.signal;
      const outcome = await perform(effect, options, signal);
      if (outcome.error !== undefined) givenUp.abort();
      outcomes[at] = outcome;
    }
  };
  await Promise.all(Array.from({ length: Math.min(EFFECTS_AT_ONCE, effects.length) }, work));
  return outcomes;
}

async function perform(effect: Effect, options: PerformOptions, signal: AbortSignal): Promise<Outcome> {
  const { limits, view, peers } = options;
  const startedMs = performance.now();
  let force = effect.kind === 'delete' && effect.force;
  for (let backoffMs = limits.backoffMinMs; ; backoffMs = Math.min(2 * backoffMs, limits.backoffMaxMs)) {
    if (signal.aborted)
      return failure(effect, new ControlError('cancelled', 'given up, as another step failed'));
    try {
      const record = view.storage.get(effect.storage);
      if (record === undefined) throw new ControlError('not-found', `no storage system ${effect.storage}`);
      return { effect, error: undefined, file: await attempt(effect, peers.storage(record), force) };
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      const elapsedMs = performance.now() - startedMs;
      if (effect.kind === 'delete' && error.code === 'in-use' && !force) {
        force = elapsedMs >= limits.letGoMs;
      } else if (!mayTryAgain(effect, error, elapsedMs, limits)) {
        return failure(effect, error);
      }
    }
    await pause(backoffMs, signal);
  }
}

async function attempt(effect: Effect, peer: StoragePeer, force: boolean): Promise<string | undefined> {
  const { kind, realVolume, sizeBytes } = effect;
  switch (kind) {
    case 'make':
      return (await peer.makeRealVolume(realVolume, effect.body)).file;
    case 'resize':
      await peer.changeRealVolume(realVolume, { sizeBytes });
      return undefined;
    case 'delete':
      await peer.deleteRealVolume(realVolume, force);
      return undefined;
  }
}

function mayTryAgain(
  { patience }: Effect,
  { code }: ControlError,
  elapsedMs: number,
  { retryMs }: RetryLimits,
): boolean {
  if (code !== 'unreachable' && code !== 'unavailable') return false;
  return patience === 'for-ever' || (patience === 'limited' && elapsedMs < retryMs);
}

function failure(effect: Effect, { code, message }: ControlError): Outcome {
  return { effect, error: { code, message }, file: undefined };
}
