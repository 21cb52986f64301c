/**
 * What people, and storage systems that give way, ask of a volume's copies, up to the operation that does it. As in volume-requests.ts: what
 * cannot be is refused at once, and the operation is written together with what it changes of the record.
 */

import type {
  CopyRecord,
  OperationRecord,
  SegmentRecord,
  VolumeRecord,
} from '../control-protocol/catalog.ts';
import type { AddCopy, FailOver, SwitchCopy } from '../control-protocol/directory-api.ts';
import type { RealVolumeId, SiteName, StorageName, VolumeName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import {
  failedOver,
  failoverTarget,
  primaryOf,
  secondariesOf,
  switchTarget,
  wanted,
  withCopy,
  withoutCopy,
} from '../replication/group-rules.ts';
import type { Draft } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import { refuseOffline, refuseTransfer, roomsBeside } from './copy-placement.ts';
import { idleVolume, type OperationDesk } from './operation-desk.ts';
import { movedEvent } from './operations/switch-copy.ts';
import { referenceOf } from './operations/workflow.ts';
import type { AddCopyInput, MoveInput, RemoveCopyInput, WantedInput } from './records.ts';
import { storageRecordAsked } from './views.ts';

interface Move {
  readonly segment: SegmentRecord;
  readonly from: CopyRecord;
  readonly to: CopyRecord;
}

export class CopyRequests {
  readonly #desk: OperationDesk;

  constructor(desk: OperationDesk) {
    this.#desk = desk;
  }

  /** @throws ControlError */
  add(name: VolumeName, { storage, transfer }: AddCopy): Promise<OperationRecord> {
    return this.#desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      refuseTransfer(transfer);
      storageRecordAsked(draft.view, storage);
      const copies = volume.segments.map((segment) => {
        const copy = this.#desk.copy(storage);
        withCopy(segment, copy); // refuses what cannot be
        return copy;
      });
      roomsBeside(draft.view, [storage], volume.sizeBytes);
      const input: AddCopyInput = { storage, plan: { copies } };
      const operation = this.#desk.operation(draft, 'add-copy', name, 'make', input);
      draft.putVolume({ ...volume, operation: operation.id });
      return operation;
    });
  }

  /** @throws ControlError */
  remove(name: VolumeName, storage: StorageName): Promise<OperationRecord> {
    return this.#desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      const { segments, copies } = changedAt(draft.view, volume, storage, (segment, copy) =>
        withoutCopy(segment, copy.realVolume),
      );
      const removed = copies.map(({ segment, copy }) => referenceOf(segment, copy));
      const input: RemoveCopyInput = { storage, plan: { removed } };
      const operation = this.#desk.operation(draft, 'remove-copy', name, 'tell', input);
      draft.putVolume({ ...volume, segments, operation: operation.id });
      return operation;
    });
  }

  /** @throws ControlError */
  want(name: VolumeName, storage: StorageName, wish: CopyRecord['wanted']): Promise<OperationRecord> {
    return this.#desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      const { segments } = changedAt(draft.view, volume, storage, (segment, copy) =>
        wanted(segment, copy.realVolume, wish),
      );
      const kind = wish === 'suspended' ? 'suspend-copy' : 'resync-copy';
      const operation = this.#desk.operation(draft, kind, name, 'tell', { storage } satisfies WantedInput);
      draft.putVolume({ ...volume, segments, operation: operation.id });
      return operation;
    });
  }

  /** @throws ControlError */
  switch(name: VolumeName, to: SwitchCopy): Promise<OperationRecord> {
    return this.#desk.begin((draft) => {
      const { view } = draft;
      const volume = idleVolume(view, name);
      const moves = 'site' in to ? movesToSite(view, volume, to.site) : movesTo(view, volume, to.storage);
      for (const { segment, from, to: target } of moves) {
        switchTarget(segment, target.realVolume);
        refuseOffline(view, target.storage);
        if (!view.presence.has(`storage/${from.storage}`)) {
          const text = `storage system ${from.storage}, which has the primary, is offline: fail over instead of switching`;
          throw new ControlError('unavailable', text);
        }
      }
      const input: MoveInput = { ...to, plan: planOf(moves) };
      const operation = this.#desk.operation(draft, 'switch-copy', name, 'hand-over', input);
      draft.putVolume({ ...volume, operation: operation.id });
      return operation;
    });
  }

  /** @throws ControlError */
  failOver(name: VolumeName, { storage, force = false }: FailOver): Promise<OperationRecord> {
    return this.#desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      const moves = movesOfLost(draft.view, movesTo(draft.view, volume, storage));
      for (const { segment, to } of moves) failoverTarget(segment, to.realVolume, force);
      if (!force) refuseOffline(draft.view, storage);
      return this.#failOver(draft, volume, moves, { storage, force });
    });
  }

  /** Primaries of one volume do not want to be it any more, and do not serve; there are others for all of them. @throws ControlError */
  giveWay(name: VolumeName, primaries: readonly RealVolumeId[]): Promise<OperationRecord> {
    return this.#desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      const moves = volume.segments.flatMap((segment): Move[] => {
        const from = primaryOf(segment);
        const [to] = successorsOf(draft.view, segment);
        return primaries.includes(from.realVolume) && to !== undefined ? [{ segment, from, to }] : [];
      });
      if (moves.length === 0)
        throw new ControlError('conflict', `volume ${name} has no primary that gives way`);
      return this.#failOver(draft, volume, moves, { hasGivenWay: true });
    });
  }

  #failOver(
    draft: Draft,
    volume: VolumeRecord,
    moves: readonly Move[],
    {
      storage,
      force = false,
      hasGivenWay = false,
    }: { storage?: StorageName; force?: boolean; hasGivenWay?: boolean },
  ): OperationRecord {
    const input: MoveInput = {
      ...(storage === undefined ? { hasGivenWay } : { storage, force }),
      plan: planOf(moves),
    };
    const operation = this.#desk.operation(draft, 'failover-copy', volume.name, 'serve', input);
    const segments = volume.segments.map((segment) => {
      const move = moves.find((each) => each.segment === segment);
      return move === undefined ? segment : failedOver(segment, move.to.realVolume, force, hasGivenWay);
    });
    draft.putVolume({ ...volume, segments, operation: operation.id });
    const event = movedEvent('copy.failed-over', { operation }, moves, volume.name);
    const behind = moves.filter(({ to }) => to.pair !== 'duplex');
    const why = hasGivenWay ? ', which has lost what it had not flushed' : '';
    const lost = behind.length === 0 ? '' : ', which lacked writes: they are lost';
    draft.addEvent({
      ...event,
      text: hasGivenWay ? event.text.replace(' to ', `${why}, to `) : `${event.text}${lost}`,
      details: { ...event.details, force, hasGivenWay, behind: behind.length },
    });
    return operation;
  }
}

/** Secondaries that can become primary at once: in step, and online; those of the primary's own site first. */
export function successorsOf(view: CatalogView, segment: SegmentRecord): CopyRecord[] {
  const siteOf = (copy: CopyRecord): SiteName | undefined => view.storage.get(copy.storage)?.site;
  const near = siteOf(primaryOf(segment));
  return secondariesOf(segment)
    .filter(({ pair, storage }) => pair === 'duplex' && view.presence.has(`storage/${storage}`))
    .sort((a, b) => Number(siteOf(b) === near) - Number(siteOf(a) === near));
}

function planOf(moves: readonly Move[]): MoveInput['plan'] {
  return {
    moves: moves.map(({ segment, from, to }) => ({
      offset: segment.offset,
      from: from.realVolume,
      to: to.realVolume,
    })),
  };
}

/** The segments that have a copy there, and their primary elsewhere. @throws ControlError not-found, conflict */
function movesTo(view: CatalogView, volume: VolumeRecord, storage: StorageName): Move[] {
  const { name } = storageRecordAsked(view, storage);
  const moves = volume.segments.flatMap((segment): Move[] => {
    const from = primaryOf(segment);
    const to = secondariesOf(segment).find((copy) => copy.storage === name);
    return to === undefined ? [] : [{ segment, from, to }];
  });
  if (moves.length > 0) return moves;
  const [first] = volume.segments;
  if (first !== undefined && !volume.segments.some((segment) => primaryOf(segment).storage === name)) {
    throw noCopy(volume, first, `on storage system ${name}`);
  }
  throw new ControlError(
    'conflict',
    `storage system ${name} has the primary of volume ${volume.name} already`,
  );
}

/** Of a volume over several storage systems, only what lies on one that is away; all of it when none is known to be. */
function movesOfLost(view: CatalogView, moves: readonly Move[]): readonly Move[] {
  const lost = moves.filter(({ from }) => !view.presence.has(`storage/${from.storage}`));
  return lost.length > 0 ? lost : moves;
}

/** @throws ControlError not-found, conflict */
export function movesToSite(view: CatalogView, volume: VolumeRecord, site: SiteName): Move[] {
  const isThere = ({ storage }: CopyRecord): boolean => view.storage.get(storage)?.site === site;
  const moves = volume.segments.flatMap((segment): Move[] => {
    const from = primaryOf(segment);
    if (isThere(from)) return [];
    const there = secondariesOf(segment).filter(isThere);
    const to = successorsOf(view, segment).find(isThere) ?? there[0];
    if (to === undefined) throw noCopy(volume, segment, `in site ${site}`);
    return [{ segment, from, to }];
  });
  if (moves.length > 0) return moves;
  throw new ControlError('conflict', `the primary of volume ${volume.name} is in site ${site} already`);
}

function noCopy({ name }: VolumeRecord, segment: SegmentRecord, where: string): ControlError {
  const places = segment.copies.map(({ storage }) => storage).join(', ');
  return new ControlError('not-found', `volume ${name} has no copy ${where}: it has copies on ${places}`);
}

/** The segments as `change` makes them where they have a copy on that storage system. @throws ControlError not-found, conflict */
function changedAt(
  view: CatalogView,
  volume: VolumeRecord,
  storage: StorageName,
  change: (segment: SegmentRecord, copy: CopyRecord) => SegmentRecord,
) {
  storageRecordAsked(view, storage);
  const copies = volume.segments.flatMap((segment) =>
    segment.copies.filter((copy) => copy.storage === storage).map((copy) => ({ segment, copy })),
  );
  const [first] = volume.segments;
  if (copies.length === 0 && first !== undefined) {
    throw noCopy(volume, first, `on storage system ${storage}`);
  }
  const segments = volume.segments.map((segment) => {
    const copy = copies.find((each) => each.segment === segment)?.copy;
    return copy === undefined ? segment : change(segment, copy);
  });
  return { segments, copies };
}
