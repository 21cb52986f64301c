/**
 * Runs operations to their end, whoever began them. One operation is run by one loop; what it has reached is in the catalog alone,
 * so that stopping it anywhere, also by kill -9, loses nothing.
 */

import { pause } from '../../base/pause.ts';
import type { OperationRecord } from '../../control-protocol/catalog.ts';
import type { OperationId } from '../../control-protocol/names.ts';
import { assert, StoreError } from '../../model/errors.ts';
import type { Log } from '../../model/log.ts';
import type { Catalog } from '../catalog.ts';
import type { GroupConfigs } from '../group-configs.ts';
import type { Peers } from '../peers.ts';
import { addCopy } from './add-copy.ts';
import { createVolume } from './create-volume.ts';
import { deleteVolume } from './delete-volume.ts';
import { failoverCopy } from './failover-copy.ts';
import { performAll, type RetryLimits } from './perform.ts';
import { removeCopy } from './remove-copy.ts';
import { resizeVolume } from './resize-volume.ts';
import { switchCopy } from './switch-copy.ts';
import { tellCopy } from './tell-copy.ts';
import type { Outcome, Workflow } from './workflow.ts';

const WORKFLOWS: Record<OperationRecord['kind'], Workflow> = {
  'create-volume': createVolume,
  'resize-volume': resizeVolume,
  'delete-volume': deleteVolume,
  'add-copy': addCopy,
  'remove-copy': removeCopy,
  'suspend-copy': tellCopy,
  'resync-copy': tellCopy,
  'switch-copy': switchCopy,
  'failover-copy': failoverCopy,
};

export interface OperationRunnerOptions {
  readonly catalog: Catalog;
  readonly peers: Peers;
  readonly configs: GroupConfigs;
  readonly limits: RetryLimits;
  readonly log: Log;
}

export class OperationRunner {
  readonly #options: OperationRunnerOptions;
  readonly #stopped = new AbortController();
  readonly #running = new Set<OperationId>();

  constructor(options: OperationRunnerOptions) {
    this.#options = options;
  }

  /** What a directory before this one has begun. */
  resume(): void {
    for (const { id, finishedAt } of this.#options.catalog.view.operations.values()) {
      if (finishedAt === null) this.#start(id, true);
    }
  }

  /** The operation has been written. */
  start(id: OperationId): void {
    this.#start(id, false);
  }

  #start(id: OperationId, isResumed: boolean): void {
    assert(!this.#running.has(id), 'an operation is run once');
    this.#running.add(id);
    this.#run(id, isResumed).finally(() => this.#running.delete(id));
  }

  /** Requests to storage systems that are under way go on, and what comes of them is left to the next directory. */
  stop(): void {
    this.#stopped.abort();
  }

  async #run(id: OperationId, isFirstResumed: boolean): Promise<void> {
    const { catalog, peers, configs, limits } = this.#options;
    const { signal } = this.#stopped;
    const options = { view: catalog.view, peers, configs, limits, signal };
    for (let isResumed = isFirstResumed; ; isResumed = false) {
      const operation = catalog.view.operations.get(id);
      if (operation === undefined || operation.finishedAt !== null) return;
      const volume = catalog.view.volumes.get(operation.volume);
      assert(volume?.operation === id, `${id} is the operation of volume ${operation.volume}`);
      const effects = WORKFLOWS[operation.kind].effects({ operation, volume });
      const outcomes = await performAll(effects, { ...options, isResumed });
      if (signal.aborted) return;
      await this.#write(operation, outcomes);
      if (signal.aborted) return;
    }
  }

  /** A disk that is full for a while keeps operations waiting, no more. */
  async #write(operation: OperationRecord, outcomes: readonly Outcome[]): Promise<void> {
    const { log, limits } = this.#options;
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        await this.#turn(operation, outcomes);
        return;
      } catch (error) {
        if (!(error instanceof StoreError)) throw error;
        log.error({ operation: operation.id, error: error.message }, 'an operation cannot be written down');
        await pause(limits.backoffMaxMs, signal);
      }
    }
  }

  async #turn({ id, step }: OperationRecord, outcomes: readonly Outcome[]): Promise<void> {
    const { catalog, log } = this.#options;
    const after = await catalog.change((draft) => {
      const operation = draft.view.operations.get(id);
      assert(operation?.step === step, `${id} is taken further by its own loop only`);
      const volume = draft.view.volumes.get(operation.volume);
      assert(volume?.operation === id, `${id} is the operation of volume ${operation.volume}`);
      const turn = WORKFLOWS[operation.kind].turn({ operation, volume }, outcomes, draft.now);
      draft.putOperation(turn.operation);
      if (turn.volume === null) draft.removeVolume(volume.name);
      else draft.putVolume(turn.volume);
      for (const garbage of turn.garbage) draft.putGarbage(garbage);
      for (const event of turn.events) draft.addEvent(event);
      return turn.operation;
    });
    const { kind, volume, state, error } = after;
    log.info({ operation: id, kind, volume, from: step, to: after.step, state, error }, 'operation');
  }
}
