/** A volume as the API shows it: the catalog's record, and what the storage systems of its primaries say of their pairs just now. */

import type { CopyRecord, SegmentRecord, SuspendReason, VolumeRecord } from '../control-protocol/catalog.ts';
import type { PairView } from '../control-protocol/copy-groups.ts';
import type { VolumeView } from '../control-protocol/directory-api.ts';
import { Epoch, type RealVolumeId } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { primaryOf, secondariesOf, worstPair } from '../replication/group-rules.ts';
import type { CatalogView } from './catalog-view.ts';
import type { NewerEpochs } from './newer-epochs.ts';
import type { Peers } from './peers.ts';
import { byName, storageRecord } from './views.ts';

/** For all primaries of a volume; what has not been answered by then is not shown. */
const ASK_MS_MAX = 500;
const ASKED_AT_ONCE = 16;

const NO_LAG = { entries: 0, bytes: 0, seconds: 0 };

const REASONS: Record<SuspendReason, string> = {
  new: 'it is new, and nothing has been copied to it yet',
  asked: 'a person has suspended it',
  unreachable: 'its storage system does not answer the primary',
  failed: 'it could not write',
  'was-primary': 'it was the primary, and has not come back since',
  refused: 'it does not take the primary',
};

type Pairs = ReadonlyMap<RealVolumeId, PairView>;

export interface VolumeViewParts {
  readonly view: CatalogView;
  readonly peers: Peers;
  readonly newerEpochs: NewerEpochs;
}

export async function volumeView(volume: VolumeRecord, parts: VolumeViewParts): Promise<VolumeView> {
  const { view, peers } = parts;
  const { name, sizeBytes: size, state, group, segments, operation, createdAt } = volume;
  const pairs = await pairsOf(view, peers, volume);
  return {
    name,
    size,
    epoch: Epoch.parse(Math.max(1, ...segments.map(({ epoch }) => epoch))),
    state,
    group,
    uris: byName(view.gateways).flatMap(({ uris }) => uris.map((uri) => exportUri(uri, name))),
    segments: segments.map((segment) => ({
      offset: segment.offset,
      length: segment.length,
      epoch: segment.epoch,
      copies: segment.copies.map((copy) => copyView(parts, segment, copy, pairs)),
    })),
    migrations: [],
    operation,
    createdAt,
  };
}

/** A gateway's URI has no export name: `nbd://HOST:PORT`, `nbd+unix:///?socket=PATH`. */
export function exportUri(uri: string, exportName: string): string {
  const [, place = uri, query = ''] = /^([^?]*?)\/?(\?.*)?$/.exec(uri) ?? [];
  // What is left of `nbd+unix:///` has lost the slash of its path.
  return `${place}/${encodeURIComponent(exportName)}${query}`;
}

function copyView(
  { view, newerEpochs }: VolumeViewParts,
  segment: SegmentRecord,
  copy: CopyRecord,
  pairs: Pairs,
): VolumeView['segments'][number]['copies'][number] {
  const { accessKey: _, pairRevision: __, ...shown } = copy;
  return {
    ...shown,
    site: storageRecord(view, copy.storage).site,
    pair: copy.role === 'primary' ? worstPair(segment) : copy.pair,
    reason: failureOf(view, copy) ?? newerOf(newerEpochs, segment, copy) ?? reasonOf(copy),
    outOfSyncBytes: pairs.get(copy.realVolume)?.outOfSyncBytes ?? 0,
    outOfSyncKnown: copy.role === 'primary' || pairs.has(copy.realVolume),
    lag: NO_LAG,
  };
}

/** What its storage system has reported last, to this directory or the one before. */
function failureOf(view: CatalogView, { storage, realVolume }: CopyRecord): string | null {
  const reported = view.announced.get(`storage/${storage}`)?.failed;
  const failure = reported?.find((failed) => failed.realVolume === realVolume);
  return failure === undefined ? null : `its real volume has failed: ${failure.reason}`;
}

function newerOf(
  newerEpochs: NewerEpochs,
  segment: SegmentRecord,
  { realVolume }: CopyRecord,
): string | null {
  const known = newerEpochs.of(segment, realVolume);
  return known === undefined
    ? null
    : `it knows epoch ${known}, and the catalog ${segment.epoch}: is this an older catalog?`;
}

function reasonOf({ reason, wanted }: CopyRecord): string | null {
  if (wanted === 'suspended') return REASONS.asked;
  return reason === null ? null : REASONS[reason];
}

/** By secondary. Primaries that are offline are not asked. */
async function pairsOf(view: CatalogView, peers: Peers, { segments }: VolumeRecord): Promise<Pairs> {
  const pairs = new Map<RealVolumeId, PairView>();
  const primaries = segments.filter((segment) => secondariesOf(segment).length > 0).map(primaryOf);
  const untilMs = performance.now() + ASK_MS_MAX;
  const ask = async (): Promise<void> => {
    for (let next = primaries.pop(); next !== undefined; next = primaries.pop()) {
      const leftMs = Math.ceil(untilMs - performance.now());
      if (leftMs <= 0) return;
      if (!view.presence.has(`storage/${next.storage}`)) continue;
      const peer = peers.storage(storageRecord(view, next.storage));
      try {
        for (const pair of (await peer.group(next.realVolume, leftMs)).pairs)
          pairs.set(pair.realVolume, pair);
      } catch (error) {
        if (!(error instanceof ControlError)) throw error; // it is not shown
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(ASKED_AT_ONCE, primaries.length) }, ask));
  return pairs;
}
