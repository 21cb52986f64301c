/**
 * What people ask of volumes, up to the operation that does it. A request is refused at once when it can be seen that it cannot
 * be; the operation, and the room and the names that it needs, are written in one transaction, so that nobody else gets them.
 */

import type { OperationRecord, SegmentRecord, VolumeRecord } from '../control-protocol/catalog.ts';
import type { CreateVolume, ResizeVolume } from '../control-protocol/directory-api.ts';
import type { VolumeName } from '../control-protocol/names.ts';
import { assert, ControlError } from '../model/errors.ts';
import { primaryOf, secondariesOf } from '../replication/group-rules.ts';
import type { Catalog } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import { placeWithCopies, refuseOffline, refuseTransfer, roomsBeside } from './copy-placement.ts';
import { groupAsked } from './groups.ts';
import { idleVolume, type OperationDesk, whatWithIt } from './operation-desk.ts';
import { firstGrowth } from './operations/resize-volume.ts';
import { realVolumesOf, referenceOf } from './operations/workflow.ts';
import type { Peers } from './peers.ts';
import { placeGrowth } from './placement.ts';
import type { DeleteInput, ResizeInput } from './records.ts';
import { storageRecordAsked } from './views.ts';
import { refuseWhileUsed } from './volume-users.ts';

export interface VolumeRequestsOptions {
  readonly catalog: Catalog;
  readonly desk: OperationDesk;
  readonly peers: Peers;
  /** How long users of the real volumes of a volume that is to be deleted have to let go of them. */
  readonly letGoMs: number;
}

export class VolumeRequests {
  readonly #options: VolumeRequestsOptions;

  constructor(options: VolumeRequestsOptions) {
    this.#options = options;
  }

  /** @throws ControlError */
  create({ name, ...input }: CreateVolume): Promise<OperationRecord> {
    return this.#options.desk.begin((draft) => {
      const { view } = draft;
      const existing = view.volumes.get(name);
      if (existing !== undefined) {
        throw new ControlError('exists', `there is a volume ${name} already${whatWithIt(view, existing)}`);
      }
      refuseTransfer(input.transfer);
      const fence = input.group === undefined ? 'never' : groupAsked(view, input.group).fence;
      const copies = input.copies ?? [];
      for (const storage of [...(input.segments ?? []).map((segment) => segment.storage), ...copies]) {
        storageRecordAsked(view, storage);
      }
      const shares = placeWithCopies(view, input.sizeBytes, input.segments, copies);
      const operation = this.#options.desk.operation(draft, 'create-volume', name, 'make', input);
      draft.putVolume({
        name,
        sizeBytes: input.sizeBytes,
        state: 'creating',
        group: input.group ?? null,
        fence,
        segments: this.#options.desk.segments(0, shares, copies),
        operation: operation.id,
        createdAt: draft.now,
      });
      return operation;
    });
  }

  /** @throws ControlError */
  resize(name: VolumeName, { sizeBytes, allowShrink = false }: ResizeVolume): Promise<OperationRecord> {
    return this.#options.desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      const asked = { sizeBytes, fromBytes: volume.sizeBytes, allowShrink };
      if (sizeBytes < volume.sizeBytes && !allowShrink) {
        const text = `volume ${name} has ${volume.sizeBytes} bytes: what lies behind ${sizeBytes} would be lost, so shrinking has to be allowed`;
        throw new ControlError('conflict', text);
      }
      if (sizeBytes >= volume.sizeBytes) {
        const segments = this.#grown(volume, sizeBytes, draft.view);
        const input: ResizeInput = { ...asked, plan: { kind: 'grow', segments } };
        const step = firstGrowth(volume, segments);
        const operation = this.#options.desk.operation(draft, 'resize-volume', name, step, input);
        draft.putVolume({ ...volume, state: 'resizing', operation: operation.id });
        return operation;
      }
      const { segments, plan } = shrunk(volume, sizeBytes);
      // The cut is waited for: rather not begin than keep the volume busy until the storage system is back.
      for (const { storage } of plan.cuts) refuseOffline(draft.view, storage);
      const operation = this.#options.desk.operation(draft, 'resize-volume', name, 'cut', { ...asked, plan });
      draft.putVolume({ ...volume, sizeBytes, segments, state: 'resizing', operation: operation.id });
      return operation;
    });
  }

  /** `force`: also when somebody uses it. @throws ControlError */
  async delete(name: VolumeName, force: boolean): Promise<OperationRecord> {
    const { catalog, peers, letGoMs } = this.#options;
    const { view } = catalog;
    const known = idleVolume(view, name);
    if (!force) await refuseWhileUsed(known, { view, peers, letGoMs });
    return this.#options.desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      const operation = this.#options.desk.operation(draft, 'delete-volume', name, 'delete', {
        force,
      } satisfies DeleteInput);
      draft.putVolume({ ...volume, state: 'deleting', operation: operation.id });
      return operation;
    });
  }

  #grown(volume: VolumeRecord, sizeBytes: number, view: CatalogView): SegmentRecord[] {
    const last = volume.segments.at(-1);
    assert(last !== undefined, 'a volume that is ready has segments');
    const moreBytes = sizeBytes - volume.sizeBytes;
    const copies = secondariesOf(last).map(({ storage }) => storage);
    const rooms = roomsBeside(view, copies, moreBytes);
    const { lastBytes, further } = placeGrowth(volume.sizeBytes, moreBytes, primaryOf(last).storage, rooms);
    return [
      ...volume.segments.slice(0, -1),
      { ...last, length: last.length + lastBytes },
      ...this.#options.desk.segments(volume.sizeBytes + lastBytes, further, copies),
    ];
  }
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
  const cuts =
    cutLast.length === last.length
      ? []
      : last.copies.map((copy) => ({
          ...referenceOf(last, copy),
          toBytes: referenceOf(cutLast, copy).sizeBytes,
        }));
  return { segments: [...kept.slice(0, -1), cutLast], plan: { kind: 'shrink', cuts, removed } };
}
