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
import {
  Epoch,
  type RealVolumeId,
  type SiteName,
  type StorageName,
  type VolumeName,
} from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import {
  failedOver,
  failoverTarget,
  overtaken,
  primaryOf,
  secondariesOf,
  switchTarget,
  wanted,
  withCopy,
  withoutCopy,
} from '../replication/group-rules.ts';
import type { Catalog, Draft } from './catalog.ts';
import type { CatalogView } from './catalog-view.ts';
import { refuseOffline, refuseTransfer, roomsBeside } from './copy-placement.ts';
import { adviceOn, type KnownEpochs, type NewerEpochs } from './newer-epochs.ts';
import { idleVolume, type OperationDesk } from './operation-desk.ts';
import { movedEvent } from './operations/switch-copy.ts';
import { referenceOf } from './operations/workflow.ts';
import type { AddCopyInput, MoveInput, RemoveCopyInput, WantedInput } from './records.ts';
import { storageRecordAsked } from './views.ts';

interface Move {
  readonly segment: SegmentRecord;
  readonly from: CopyRecord;
  readonly to: CopyRecord;
  /** Of its members, when the record does not know it. */
  readonly newestEpoch?: Epoch;
}

/** No epoch comes near by being counted. */
const EPOCHS_MAX = 2 ** 48;
const NOTHING_KNOWN: KnownEpochs = new Map();

export interface CopyRequestsOptions {
  readonly catalog: Catalog;
  readonly desk: OperationDesk;
  readonly newerEpochs: NewerEpochs;
}

export class CopyRequests {
  readonly #options: CopyRequestsOptions;
  readonly #desk: OperationDesk;

  constructor(options: CopyRequestsOptions) {
    this.#options = options;
    this.#desk = options.desk;
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
      this.#refuseOlderRecord(volume);
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
  async failOver(name: VolumeName, { storage, force = false }: FailOver): Promise<OperationRecord> {
    const { catalog, newerEpochs } = this.#options;
    const known = force ? await newerEpochs.ask(idleVolume(catalog.view, name)) : NOTHING_KNOWN;
    return this.#desk.begin((draft) => {
      const volume = idleVolume(draft.view, name);
      if (!force) this.#refuseOlderRecord(volume);
      const overtakes = overtakings(draft.view, volume, storage, known);
      const moves =
        overtakes.length > 0 ? overtakes : movesOfLost(draft.view, movesTo(draft.view, volume, storage));
      for (const { segment, to, newestEpoch } of moves) {
        if (newestEpoch === undefined) failoverTarget(segment, to.realVolume, force);
      }
      if (!force) refuseOffline(draft.view, storage);
      return this.#failOver(draft, volume, moves, { storage, force });
    });
  }

  /** @throws ControlError conflict */
  #refuseOlderRecord(volume: VolumeRecord): void {
    if (!this.#options.newerEpochs.has(volume)) return;
    const text = `copies of volume ${volume.name} know a newer epoch than the catalog, which may be an older one: ${adviceOn(volume.name)}`;
    throw new ControlError('conflict', text);
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
      if (move === undefined) return segment;
      const { to, newestEpoch } = move;
      return newestEpoch === undefined
        ? failedOver(segment, to.realVolume, force, hasGivenWay)
        : overtaken(segment, to.realVolume, newestEpoch);
    });
    draft.putVolume({ ...volume, segments, operation: operation.id });
    const event = movedEvent('copy.failed-over', { operation }, moves, volume.name);
    const behind = moves.filter(({ to }) => to.pair !== 'duplex' && to.role === 'secondary');
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

/** The segments of which a member knows a newer epoch than the record: they go on there, also when the record has the primary there. */
function overtakings(
  view: CatalogView,
  volume: VolumeRecord,
  storage: StorageName,
  known: KnownEpochs,
): Move[] {
  const { name } = storageRecordAsked(view, storage);
  return volume.segments.flatMap((segment): Move[] => {
    const to = segment.copies.find((copy) => copy.storage === name);
    const epochs = segment.copies.map(({ realVolume }) => known.get(realVolume) ?? segment.epoch);
    const newest = Math.max(...epochs);
    if (to === undefined || newest <= segment.epoch) return [];
    if (newest > EPOCHS_MAX) {
      throw new ControlError(
        'failed',
        `a copy of volume ${volume.name} has epoch ${newest}, which cannot be`,
      );
    }
    const newestEpoch = Epoch.parse(newest);
    return [{ segment, from: primaryOf(segment), to, newestEpoch }];
  });
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
