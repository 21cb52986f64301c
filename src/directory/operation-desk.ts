/** Where operations begin: records of operations and of real volumes that are new, with ids and access keys that nobody else has. */

import {
  type CopyRecord,
  OperationRecord,
  type SegmentRecord,
  type VolumeRecord,
} from '../control-protocol/catalog.ts';
import {
  AccessKey,
  Epoch,
  RealVolumeId,
  type StorageName,
  type VolumeName,
} from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { newCopy, withCopy } from '../replication/group-rules.ts';
import type { Catalog, Draft } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import type { OperationRunner } from './operations/runner.ts';
import type { Share } from './placement.ts';

/** Operations that are not finished. */
const OPERATIONS_MAX = 1_000;

export interface OperationDeskOptions {
  readonly catalog: Catalog;
  readonly runner: OperationRunner;
  /** Ids and access keys are made of these. */
  readonly random: (bytes: number) => Buffer;
}

export class OperationDesk {
  readonly #options: OperationDeskOptions;

  constructor(options: OperationDeskOptions) {
    this.#options = options;
  }

  /** `decide` writes the operation, and what it needs, in one transaction; then it runs. */
  async begin(decide: (draft: Draft) => OperationRecord): Promise<OperationRecord> {
    const { catalog, runner } = this.#options;
    const operation = await catalog.change(decide);
    runner.start(operation.id);
    return operation;
  }

  /** Puts it. @throws ControlError unavailable */
  operation(
    draft: Draft,
    kind: OperationRecord['kind'],
    volume: VolumeName,
    step: string,
    input: object,
  ): OperationRecord {
    const unfinished = [...draft.view.operations.values()].filter(({ finishedAt }) => finishedAt === null);
    if (unfinished.length >= OPERATIONS_MAX) {
      throw new ControlError('unavailable', `${OPERATIONS_MAX} operations are under way: try again later`);
    }
    const operation = OperationRecord.parse({
      id: `op-${this.#hex(8)}`,
      kind,
      volume,
      state: 'running',
      step,
      input,
      result: null,
      error: null,
      createdAt: draft.now,
      finishedAt: null,
    });
    draft.putOperation(operation);
    return operation;
  }

  /** New segments from `offset` on, with secondaries on the storage systems `copies`. */
  segments(offset: number, shares: readonly Share[], copies: readonly StorageName[]): SegmentRecord[] {
    let next = offset;
    return shares.map(({ storage, lengthBytes }) => {
      const primary: CopyRecord = {
        ...this.copy(storage),
        role: 'primary',
        pair: 'simplex',
        reason: null,
      };
      const segment: SegmentRecord = {
        offset: next,
        length: lengthBytes,
        epoch: Epoch.parse(1),
        isHandedOver: true,
        isForced: false,
        isGrouped: false,
        copies: [primary],
      };
      next += lengthBytes;
      return copies.reduce((grown, each) => withCopy(grown, this.copy(each)), segment);
    });
  }

  /** A secondary that holds nothing yet. */
  copy(storage: StorageName): CopyRecord {
    return newCopy({
      storage,
      realVolume: RealVolumeId.parse(`rv-${this.#hex(8)}`),
      realOffset: 0,
      accessKey: AccessKey.parse(this.#hex(16)),
      file: null,
    });
  }

  #hex(bytes: number): string {
    return this.#options.random(bytes).toString('hex');
  }
}

/** A volume that an operation may begin on. @throws ControlError not-found, conflict */
export function idleVolume(view: CatalogView, name: VolumeName): VolumeRecord {
  const volume = view.volumes.get(name);
  if (volume === undefined) throw new ControlError('not-found', `there is no volume ${name}`);
  if (volume.state === 'ready' && volume.operation === null) return volume;
  throw new ControlError('conflict', `volume ${name} is busy${whatWithIt(view, volume)}`);
}

/** As `: it is resizing, by operation op-…`. */
export function whatWithIt(view: CatalogView, { state, operation }: VolumeRecord): string {
  if (operation === null) return '';
  const kind = view.operations.get(operation)?.kind;
  return state === 'ready'
    ? ` with operation ${operation} (${kind}): wait until it has finished`
    : `: it is ${state}, by operation ${operation}`;
}
