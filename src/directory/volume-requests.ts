/**
 * What people ask of volumes, up to the operation that does it. A request is refused at once when it can be seen that it cannot
 * be; the operation, and the room and the names that it needs, are written in one transaction, so that nobody else gets them.
 */

import { OperationRecord, type SegmentRecord, type VolumeRecord } from '../control-protocol/catalog.ts';
import type { CreateVolume, ResizeVolume } from '../control-protocol/directory-api.ts';
import {
  AccessKey,
  Epoch,
  RealVolumeId,
  type StorageName,
  type VolumeName,
} from '../control-protocol/names.ts';
import { assert, ControlError } from '../model/errors.ts';
import { roomsOf } from './capacity.ts';
import type { Catalog, Draft } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import type { OperationRunner } from './operations/runner.ts';
import { realVolumesOf } from './operations/workflow.ts';
import type { Peers } from './peers.ts';
import { place, placeAsAsked, placeGrowth, type Share } from './placement.ts';
import type { DeleteInput, ResizeInput } from './records.ts';
import { refuseWhileUsed } from './volume-users.ts';

/** Operations that are not finished. */
const OPERATIONS_MAX = 1_000;

export interface VolumeRequestsOptions {
  readonly catalog: Catalog;
  readonly runner: OperationRunner;
  readonly peers: Peers;
  /** How long users of the real volumes of a volume that is to be deleted have to let go of them. */
  readonly letGoMs: number;
  /** Ids and access keys are made of these. */
  readonly random: (bytes: number) => Buffer;
}

export class VolumeRequests {
  readonly #options: VolumeRequestsOptions;

  constructor(options: VolumeRequestsOptions) {
    this.#options = options;
  }

  /** @throws ControlError */
  create({ name, ...input }: CreateVolume): Promise<OperationRecord> {
    return this.#begin((draft) => {
      const { view } = draft;
      const existing = view.volumes.get(name);
      if (existing !== undefined) {
        throw new ControlError('exists', `there is a volume ${name} already${inState(existing)}`);
      }
      for (const { storage } of input.segments ?? []) {
        if (!view.storage.has(storage))
          throw new ControlError('not-found', `there is no storage system ${storage}`);
      }
      const rooms = roomsOf(view);
      const shares =
        input.segments === undefined
          ? place(input.sizeBytes, rooms)
          : placeAsAsked(input.sizeBytes, input.segments, rooms);
      const operation = this.#operation(draft, 'create-volume', name, 'make', input);
      draft.putVolume({
        name,
        sizeBytes: input.sizeBytes,
        state: 'creating',
        group: input.group ?? null,
        fence: 'never',
        segments: this.#segments(0, shares),
        operation: operation.id,
        createdAt: draft.now,
      });
      return operation;
    });
  }

  /** @throws ControlError */
  resize(name: VolumeName, { sizeBytes, allowShrink = false }: ResizeVolume): Promise<OperationRecord> {
    return this.#begin((draft) => {
      const volume = readyVolume(draft.view, name);
      const asked = { sizeBytes, fromBytes: volume.sizeBytes, allowShrink };
      if (sizeBytes < volume.sizeBytes && !allowShrink) {
        const text = `volume ${name} has ${volume.sizeBytes} bytes: what lies behind ${sizeBytes} would be lost, so shrinking has to be allowed`;
        throw new ControlError('conflict', text);
      }
      if (sizeBytes >= volume.sizeBytes) {
        const segments = this.#grown(volume, sizeBytes, draft.view);
        const input: ResizeInput = { ...asked, plan: { kind: 'grow', segments } };
        const operation = this.#operation(draft, 'resize-volume', name, 'grow', input);
        draft.putVolume({ ...volume, state: 'resizing', operation: operation.id });
        return operation;
      }
      const { segments, plan } = shrunk(volume, sizeBytes);
      // The cut is waited for: rather not begin than keep the volume busy until the storage system is back.
      if (plan.cut !== null && !draft.view.presence.has(`storage/${plan.cut.storage}`)) {
        throw new ControlError('unavailable', `storage system ${plan.cut.storage} is offline`);
      }
      const operation = this.#operation(draft, 'resize-volume', name, 'cut', { ...asked, plan });
      draft.putVolume({ ...volume, sizeBytes, segments, state: 'resizing', operation: operation.id });
      return operation;
    });
  }

  /** `force`: also when somebody uses it. @throws ControlError */
  async delete(name: VolumeName, force: boolean): Promise<OperationRecord> {
    const { catalog, peers, letGoMs } = this.#options;
    const { view } = catalog;
    const known = readyVolume(view, name);
    if (!force) await refuseWhileUsed(known, { view, peers, letGoMs });
    return this.#begin((draft) => {
      const volume = readyVolume(draft.view, name);
      const operation = this.#operation(draft, 'delete-volume', name, 'delete', {
        force,
      } satisfies DeleteInput);
      draft.putVolume({ ...volume, state: 'deleting', operation: operation.id });
      return operation;
    });
  }

  async #begin(decide: (draft: Draft) => OperationRecord): Promise<OperationRecord> {
    const { catalog, runner } = this.#options;
    const operation = await catalog.change(decide);
    runner.start(operation.id);
    return operation;
  }

  #operation(
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

  #segments(offset: number, shares: readonly Share[]): SegmentRecord[] {
    let next = offset;
    return shares.map(({ storage, lengthBytes }) => {
      const segment = {
        offset: next,
        length: lengthBytes,
        epoch: Epoch.parse(1),
        isHandedOver: true,
        isGrouped: false,
        copies: [this.#copy(storage)],
      };
      next += lengthBytes;
      return segment;
    });
  }

  #copy(storage: StorageName): SegmentRecord['copies'][number] {
    return {
      storage,
      realVolume: RealVolumeId.parse(`rv-${this.#hex(8)}`),
      realOffset: 0,
      role: 'primary',
      pair: 'simplex',
      reason: null,
      wanted: 'following',
      pairRevision: 0,
      mode: 'normal',
      accessKey: AccessKey.parse(this.#hex(16)),
      file: null,
    };
  }

  #hex(bytes: number): string {
    return this.#options.random(bytes).toString('hex');
  }

  #grown(volume: VolumeRecord, sizeBytes: number, view: CatalogView): SegmentRecord[] {
    const last = volume.segments.at(-1);
    const primary = last?.copies.find(({ role }) => role === 'primary');
    assert(last !== undefined && primary !== undefined, 'a volume that is ready has segments');
    const moreBytes = sizeBytes - volume.sizeBytes;
    const { lastBytes, further } = placeGrowth(volume.sizeBytes, moreBytes, primary.storage, roomsOf(view));
    return [
      ...volume.segments.slice(0, -1),
      { ...last, length: last.length + lastBytes },
      ...this.#segments(volume.sizeBytes + lastBytes, further),
    ];
  }
}

/** @throws ControlError not-found, conflict */
function readyVolume(view: CatalogView, name: VolumeName): VolumeRecord {
  const volume = view.volumes.get(name);
  if (volume === undefined) throw new ControlError('not-found', `there is no volume ${name}`);
  if (volume.state === 'ready') return volume;
  throw new ControlError('conflict', `volume ${name} is busy${inState(volume)}`);
}

function inState({ state, operation }: VolumeRecord): string {
  return state === 'ready' ? '' : `: it is ${state}, by operation ${operation}`;
}

/** A volume without what lies behind `sizeBytes`. */
function shrunk(
  volume: VolumeRecord,
  sizeBytes: number,
): { segments: SegmentRecord[]; plan: Extract<ResizeInput['plan'], { kind: 'shrink' }> } {
  const kept = volume.segments.filter(({ offset }) => offset < sizeBytes);
  const removed = realVolumesOf({ ...volume, segments: volume.segments.slice(kept.length) });
  const last = kept.at(-1);
  assert(last !== undefined, 'a volume keeps its first segment');
  const cutLast = { ...last, length: sizeBytes - last.offset };
  const [whole] = realVolumesOf({ ...volume, segments: [last] });
  const [part] = realVolumesOf({ ...volume, segments: [cutLast] });
  assert(whole !== undefined && part !== undefined, 'a segment has a copy');
  const cut = cutLast.length === last.length ? null : { ...whole, toBytes: part.sizeBytes };
  return { segments: [...kept.slice(0, -1), cutLast], plan: { kind: 'shrink', cut, removed } };
}
