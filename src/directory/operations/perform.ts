/**
 * Doing the effects of a step at storage systems, all at once, and again where one does not answer.
 *
 *  1. A storage system that refuses has the last word; one that does not answer is asked again, as long as the effect's patience lasts.
 *  2. When one effect has come to nothing, those of limited patience, and hand-overs, that still wait for an answer are given up.
 *  3. A storage system is looked up for each attempt: it may have come back with another address; and so is what it is told.
 */

import { pause } from '../../base/pause.ts';
import { isAway } from '../../control-protocol/http-client.ts';
import { ControlError } from '../../model/errors.ts';
import type { CatalogView } from '../catalog-view.ts';
import type { GroupConfigs } from '../group-configs.ts';
import type { Peers, StoragePeer } from '../peers.ts';
import type { Effect, Outcome, Patience } from './workflow.ts';

export interface RetryLimits {
  /** How long `limited` patience lasts. */
  readonly retryMs: number;
  /** How long a primary may take to hand over, while hosts wait. */
  readonly handOverMs: number;
  /** How long a new primary may take to serve: after a failover it waits for the lease of the one before. */
  readonly serveMs: number;
  /** How long users of a real volume have to let go of it. */
  readonly letGoMs: number;
  readonly backoffMinMs: number;
  readonly backoffMaxMs: number;
}

export const RETRY_LIMITS: RetryLimits = {
  retryMs: 30_000,
  handOverMs: 5_000,
  serveMs: 10_000,
  letGoMs: 5_000,
  backoffMinMs: 50,
  backoffMaxMs: 1_000,
};

/** Of one step. */
const EFFECTS_AT_ONCE = 16;

export interface PerformOptions {
  readonly view: CatalogView;
  readonly peers: Peers;
  readonly configs: GroupConfigs;
  readonly limits: RetryLimits;
  /** A directory before this one may have begun the step. */
  readonly isResumed: boolean;
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
      const signal =
        effect.patience === 'limited' || effect.patience === 'hand-over' ? either : options.signal;
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
  let isCertain = !options.isResumed;
  const ended = (error: ControlError | undefined, file?: string): Outcome => ({
    effect,
    error: error && { code: error.code, message: error.message },
    file,
    isCertain,
    tookMs: Math.round(performance.now() - startedMs),
  });
  let force = effect.kind === 'delete' && effect.force;
  for (let backoffMs = limits.backoffMinMs; ; backoffMs = Math.min(2 * backoffMs, limits.backoffMaxMs)) {
    if (signal.aborted) return ended(new ControlError('cancelled', 'given up, as another step failed'));
    const leftMs = patienceMs(effect.patience, limits) - (performance.now() - startedMs);
    try {
      const record = view.storage.get(effect.storage);
      if (record === undefined) throw new ControlError('not-found', `no storage system ${effect.storage}`);
      return ended(undefined, await attempt(effect, peers.storage(record), { options, force, leftMs }));
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      isCertain &&= !isAway(error);
      const elapsedMs = performance.now() - startedMs;
      if (effect.kind === 'delete' && error.code === 'in-use' && !force) {
        force = elapsedMs >= limits.letGoMs;
      } else if (!isAway(error) || elapsedMs >= patienceMs(effect.patience, limits)) {
        return ended(error);
      }
    }
    await pause(backoffMs, signal);
  }
}

interface Attempt {
  readonly options: PerformOptions;
  readonly force: boolean;
  readonly leftMs: number;
}

async function attempt(
  effect: Effect,
  peer: StoragePeer,
  { options, force, leftMs }: Attempt,
): Promise<string | undefined> {
  const { kind, storage, realVolume, sizeBytes } = effect;
  switch (kind) {
    case 'make':
      return (await peer.makeRealVolume(realVolume, effect.body)).file;
    case 'resize':
      await peer.changeRealVolume(realVolume, { sizeBytes });
      return undefined;
    case 'delete':
      await peer.deleteRealVolume(realVolume, force);
      return undefined;
    case 'hand-over':
      await handOver(effect, peer, Math.max(1, Math.ceil(leftMs)));
      return undefined;
    case 'tell':
    case 'serve': {
      const config = options.configs.of(realVolume);
      if (config === undefined) return undefined;
      const { serving } = await peer.configureGroup(realVolume, config);
      if (kind === 'tell' || serving) return undefined;
      throw new ControlError('unavailable', `storage system ${storage} does not serve ${realVolume} yet`);
    }
  }
}

/** Who has handed over before is no primary any more, and refuses; so does a primary that cannot: the member's own view tells which it is. */
async function handOver(
  { storage, realVolume, epoch, to }: Extract<Effect, { kind: 'hand-over' }>,
  peer: StoragePeer,
  timeoutMs: number,
): Promise<void> {
  try {
    await peer.handOver(realVolume, { epoch, to }, timeoutMs);
  } catch (error) {
    if (!(error instanceof ControlError) || error.code !== 'stale-epoch') throw error;
    const now = await peer.group(realVolume);
    if (now.role === 'secondary' && now.epoch === epoch) return;
    if (now.role === 'secondary' || now.epoch >= epoch) throw error;
    const text = `the primary on storage system ${storage} does not hand over: ${error.message}`;
    throw new ControlError('conflict', text, { cause: error });
  }
}

function patienceMs(patience: Patience, limits: RetryLimits): number {
  const { retryMs, handOverMs, serveMs } = limits;
  return { once: 0, limited: retryMs, 'for-ever': Infinity, 'hand-over': handOverMs, serve: serveMs }[
    patience
  ];
}
