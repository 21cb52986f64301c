/**
 * What the directory decides about a copy group's record: who is primary, which pairs are in step, who holds a lease. Pure: a
 * SegmentRecord in, another one out, the same one when nothing changes.
 *
 * Invariants
 *  1. An epoch has one primary, and never becomes smaller; what carries another epoch than the record's is refused.
 *  2. A pair becomes `duplex` only by a report of the primary of the record's epoch, about a member that is wanted, which knows
 *     the pair's latest revision. So a report that was held up on its way (and whose sender has reported `suspended` since)
 *     changes nothing. Each `suspended` that is recorded makes all reports that were sent before it old. A primary that knows a later
 *     revision than the record (an older catalog was put back) is not believed either; the record catches up with it, and with what else it says.
 *  3. `suspended` is always taken from the primary: a pair that gets worse is never kept waiting. A storage system that says itself that it
 *     is behind has it, too.
 *  4. Only a member whose pair is `duplex` becomes primary, unless a person forces another; then no pair stays `duplex`, since the
 *     others hold what the new primary lacks.
 *     A record that is older than what members know (an older catalog) may be wrong about pairs as well: only force takes it on, past
 *     the newest epoch that a member has, and then no pair stays `duplex` either.
 *     So may one be that is older within its epoch: it goes on by itself, past the newest revision that a member has, with no pair `duplex`.
 *  5. A member that has never been copied to does not become primary at all.
 */

import type {
  CopyRecord,
  PairState,
  SegmentRecord,
  StorageRecord,
  SuspendReason,
  VolumeRecord,
} from '../control-protocol/catalog.ts';
import type { GroupConfig, GroupMember, PairReport } from '../control-protocol/copy-groups.ts';
import type { Epoch, RealVolumeId, StorageName } from '../control-protocol/names.ts';
import { assert, ControlError } from '../model/errors.ts';

/** @throws ControlError stale-epoch (for the sender: it is no primary any more), conflict (for it: ask again later), not-found */
export function recordPair(segment: SegmentRecord, report: PairReport): SegmentRecord {
  const { primary, epoch, member, pair, reason } = report;
  const now = primaryOf(segment);
  if (epoch !== segment.epoch || primary !== now.realVolume) {
    const text = `${primary} is not primary in epoch ${epoch}: ${now.realVolume} is, in epoch ${segment.epoch}`;
    throw new ControlError('stale-epoch', text);
  }
  const copy = segment.copies.find(({ realVolume }) => realVolume === member);
  if (copy === undefined || copy.role === 'primary') {
    // Who has been taken away is not in step: nothing is left to be recorded.
    if (pair === 'suspended' && copy === undefined) return segment;
    throw new ControlError('not-found', `${member} is no secondary of ${primary}`);
  }
  const isLatest = report.pairRevision === copy.pairRevision;
  const isNewer = report.pairRevision > copy.pairRevision;
  const revision = Math.max(report.pairRevision, copy.pairRevision);
  if (pair === 'suspended') {
    if (copy.pair === 'suspended' && !isLatest && !isNewer) return segment;
    const standing = { pair, reason: reason ?? copy.reason ?? 'unreachable' };
    return withPair(segment, copy, standing, revision);
  }
  if (copy.wanted !== 'following') {
    throw new ControlError('conflict', `${member} is not to follow ${primary}: a person has suspended it`);
  }
  if (copy.pair === pair && !isNewer) return segment;
  if (isNewer ? pair === 'duplex' : !isLatest && (pair === 'duplex' || copy.pair === 'duplex')) {
    const text = `${primary} knows revision ${report.pairRevision} of its pair with ${member}, and it is ${copy.pairRevision}`;
    throw new ControlError('conflict', text);
  }
  return withPair(segment, copy, { pair, reason: null }, revision);
}

/**
 * A primary says duplex, and knows a later revision of its pair than the record, which is older: that goes on past what the primary knows, with a
 * pair that is not duplex. When the primary has been told so, what it says counts again. Otherwise the same record.
 */
export function caughtUpWith(segment: SegmentRecord, report: PairReport): SegmentRecord {
  const { primary, epoch, member, pairRevision } = report;
  const copy = secondariesOf(segment).find(({ realVolume }) => realVolume === member);
  const isNewer = copy !== undefined && report.pair === 'duplex' && pairRevision > copy.pairRevision;
  if (!isNewer || !leaseHolds(segment, primary, epoch)) return segment;
  const { pair, reason } = copy;
  const standing: Standing =
    pair === 'duplex' ? { pair: 'suspended', reason: 'unreachable' } : { pair, reason };
  return withPair(segment, copy, standing, pairRevision);
}

/** A copy that holds nothing yet; the primary brings it up. */
export type NewCopy = Pick<CopyRecord, 'storage' | 'realVolume' | 'realOffset' | 'accessKey' | 'file'>;

/** @throws ControlError conflict */
export function withCopy(segment: SegmentRecord, copy: NewCopy): SegmentRecord {
  if (segment.copies.some(({ storage }) => storage === copy.storage)) {
    throw new ControlError(
      'conflict',
      `storage system ${copy.storage} has a copy already: choose another storage system`,
    );
  }
  if (segment.copies.length >= COPIES_MAX) {
    throw new ControlError('conflict', `there are ${COPIES_MAX} copies already: remove one first`);
  }
  return { ...segment, isGrouped: true, copies: [...segment.copies, newCopy(copy)] };
}

export function newCopy(copy: NewCopy): CopyRecord {
  return {
    ...copy,
    role: 'secondary',
    pair: 'suspended',
    reason: 'new',
    wanted: 'following',
    pairRevision: 0,
    mode: 'normal',
  };
}

/** @throws ControlError not-found, conflict */
export function withoutCopy(segment: SegmentRecord, member: RealVolumeId): SegmentRecord {
  const copy = copyOf(segment, member);
  if (copy.role === 'primary') {
    const text = `the copy on storage system ${copy.storage} is the primary: switch to another copy first`;
    throw new ControlError('conflict', text);
  }
  return { ...segment, copies: segment.copies.filter(({ realVolume }) => realVolume !== member) };
}

/** What a person wants of a secondary. The pair stays what it is until the primary says so. @throws ControlError not-found, conflict */
export function wanted(
  segment: SegmentRecord,
  member: RealVolumeId,
  wish: CopyRecord['wanted'],
): SegmentRecord {
  const copy = copyOf(segment, member);
  if (copy.role === 'primary') {
    const text = `the copy on storage system ${copy.storage} is the primary: name a storage system with a secondary`;
    throw new ControlError('conflict', text);
  }
  if (copy.wanted === wish) return segment;
  const isAsked = wish === 'suspended' && copy.pair === 'suspended' && copy.reason !== 'new';
  return changed(segment, copy, { wanted: wish, reason: isAsked ? 'asked' : copy.reason });
}

/** The member that a switch makes primary. @throws ControlError not-found, conflict */
export function switchTarget(segment: SegmentRecord, member: RealVolumeId): CopyRecord {
  const copy = copyOf(segment, member);
  refusePrimary(copy);
  if (copy.pair !== 'duplex') {
    const text = `the copy on storage system ${copy.storage} is ${stateOf(copy)}, and only a copy that is duplex can be switched to: ${advice(segment, copy)}`;
    throw new ControlError('conflict', text);
  }
  return copy;
}

/** The member that a failover makes primary. @throws ControlError not-found, conflict */
export function failoverTarget(segment: SegmentRecord, member: RealVolumeId, force: boolean): CopyRecord {
  const copy = copyOf(segment, member);
  refusePrimary(copy);
  if (copy.pair === 'duplex') return copy;
  if (copy.pair === 'suspended' && copy.reason === 'new') {
    const text = `the copy on storage system ${copy.storage} is new, and holds nothing yet: ${otherDuplex(segment, copy) ?? 'no copy can take over'}`;
    throw new ControlError('conflict', text);
  }
  if (!force) {
    const rather = otherDuplex(segment, copy) ?? 'force it, if what was written since may be lost';
    const text = `the copy on storage system ${copy.storage} is ${stateOf(copy)}: it lacks writes that have been answered; ${rather}`;
    throw new ControlError('conflict', text);
  }
  return copy;
}

/** After the primary has handed over: it is in step with who comes after it. @throws ControlError not-found, conflict */
export function switched(segment: SegmentRecord, to: RealVolumeId): SegmentRecord {
  switchTarget(segment, to);
  return promoted(segment, to, { isHandedOver: true, isForced: false }, (copy) =>
    copy.role === 'primary' ? { pair: 'duplex', reason: null } : { pair: copy.pair, reason: copy.reason },
  );
}

/** What a switch's hand-over asks for: the epoch that it begins. */
export function nextEpoch(segment: SegmentRecord): Epoch {
  return epochAfter(segment, 1);
}

/**
 * A hand-over that may have happened, and is not to be: the primary of before is primary of an epoch after the one that it may
 * have handed over. It waits as if somebody else had been primary, as nobody knows how far it has come.
 */
export function handOverUndone(segment: SegmentRecord): SegmentRecord {
  return { ...segment, epoch: epochAfter(segment, 2), isHandedOver: false, isForced: false };
}

/**
 * `hasGivenWay`: the primary of before does not serve; it has said so itself (I14).
 * @throws ControlError not-found, conflict
 */
export function failedOver(
  segment: SegmentRecord,
  to: RealVolumeId,
  force: boolean,
  hasGivenWay = false,
): SegmentRecord {
  const target = failoverTarget(segment, to, force);
  const isPromotable = target.pair === 'duplex';
  // Who was to wait for the lease of the primary before it, and may not have, cannot say that nobody serves any more.
  const isHandedOver = hasGivenWay && segment.isHandedOver;
  return promoted(segment, to, { isHandedOver, isForced: !isPromotable }, (copy) => {
    if (copy.role === 'primary') return { pair: 'suspended', reason: 'was-primary' };
    if (isPromotable || copy.pair === 'suspended') return { pair: copy.pair, reason: copy.reason };
    return { pair: 'suspended', reason: 'unreachable' };
  });
}

/**
 * A record that is older than what its members know goes on with the copy that a person has chosen, which may be its primary. Who was
 * primary of `newestEpoch` may believe in its lease.
 * @throws ControlError not-found, conflict
 */
export function overtaken(segment: SegmentRecord, to: RealVolumeId, newestEpoch: number): SegmentRecord {
  assert(newestEpoch > segment.epoch, 'members know more than the record');
  if (primaryOf(segment).realVolume !== to) failoverTarget(segment, to, true);
  const epoch = newestEpoch as Epoch;
  const after = promoted({ ...segment, epoch }, to, { isHandedOver: false, isForced: true }, (copy) =>
    copy.pair === 'suspended'
      ? { pair: copy.pair, reason: copy.reason }
      : { pair: 'suspended', reason: copy.role === 'primary' ? 'was-primary' : 'unreachable' },
  );
  const copies = after.copies.map((copy) => ({
    ...copy,
    pairRevision: copy.pairRevision + UNKNOWN_REVISIONS,
  }));
  return { ...after, copies };
}

/** A record that is older than what its members have been told in this epoch, up to `revision`: what it says of pairs may be wrong. */
export function caughtUp(segment: SegmentRecord, revision: number): SegmentRecord {
  const copies = segment.copies.map((copy): CopyRecord => {
    const pairRevision = copy.pairRevision + UNKNOWN_REVISIONS;
    if (copy.role === 'primary' || copy.pair === 'suspended') return { ...copy, pairRevision };
    return { ...copy, pairRevision, pair: 'suspended', reason: 'unreachable' };
  });
  return { ...segment, copies, revisionsMissed: Math.max(revision, segment.revisionsMissed ?? 0) };
}

/** What a storage system holds is older than the record: its secondaries are not in step, until their primaries say so. */
export function lapsed(segment: SegmentRecord, storage: StorageName): SegmentRecord {
  const copy = secondariesOf(segment).find((each) => each.storage === storage);
  if (copy === undefined || copy.pair === 'suspended') return segment;
  return withPair(segment, copy, { pair: 'suspended', reason: 'unreachable' }, copy.pairRevision);
}

/** Whether a member may serve as primary of `epoch` for another while. */
export function leaseHolds(segment: SegmentRecord, member: RealVolumeId, epoch: number): boolean {
  return epoch === segment.epoch && primaryOf(segment).realVolume === member;
}

export interface GroupSettings {
  readonly leaseMs: number;
  readonly copyBytesPerSecond: number;
}

/** What all members of a segment are told. */
export function groupConfigOf(
  volume: Pick<VolumeRecord, 'name' | 'fence'>,
  segment: SegmentRecord,
  storage: ReadonlyMap<string, StorageRecord>,
  revision: number,
  settings: GroupSettings,
): GroupConfig {
  const primary = primaryOf(segment);
  return {
    volume: volume.name,
    epoch: segment.epoch,
    revision,
    sizeBytes: primary.realOffset + segment.length,
    fence: volume.fence,
    ...settings,
    primary: primary.realVolume,
    isHandedOver: segment.isHandedOver,
    isForced: segment.isForced,
    members: segment.copies.map((copy): GroupMember => {
      const record = storage.get(copy.storage);
      assert(record !== undefined, `storage system ${copy.storage} has a copy, and is known`);
      return {
        realVolume: copy.realVolume,
        storage: copy.storage,
        peer: record.peer,
        nbd: record.nbd,
        accessKey: copy.accessKey,
        pair: copy.role === 'primary' ? 'duplex' : copy.pair,
        wanted: copy.wanted,
        pairRevision: copy.pairRevision,
      };
    }),
  };
}

export function primaryOf(segment: SegmentRecord): CopyRecord {
  const primary = segment.copies.find(({ role }) => role === 'primary');
  assert(primary !== undefined, 'a segment has a primary');
  return primary;
}

export function secondariesOf(segment: SegmentRecord): CopyRecord[] {
  return segment.copies.filter(({ role }) => role === 'secondary');
}

/** More than what an older record can have missed, so that it is newer than what members know of pairs. */
const UNKNOWN_REVISIONS = 2 ** 32;

/** Of one segment, the primary included; a GroupConfig has no more members. */
export const COPIES_MAX = 16;

const WORST_LAST: readonly PairState[] = ['simplex', 'duplex', 'copying', 'suspended'];

/** A primary's own: the worst of its pairs. */
export function worstPair(segment: SegmentRecord): PairState {
  return secondariesOf(segment).reduce<PairState>(
    (worst, { pair }) => (WORST_LAST.indexOf(pair) > WORST_LAST.indexOf(worst) ? pair : worst),
    'simplex',
  );
}

function copyOf(segment: SegmentRecord, member: RealVolumeId): CopyRecord {
  const copy = segment.copies.find(({ realVolume }) => realVolume === member);
  if (copy === undefined) throw new ControlError('not-found', `${member} is not among the copies`);
  return copy;
}

function refusePrimary({ role, storage }: CopyRecord): void {
  if (role !== 'primary') return;
  throw new ControlError('conflict', `storage system ${storage} has the primary already`);
}

function stateOf({ pair, reason }: CopyRecord): string {
  return reason === null ? pair : `${pair} (${reason})`;
}

/** What to do instead of switching to a copy that is not in step. */
function advice(segment: SegmentRecord, copy: CopyRecord): string {
  const other = otherDuplex(segment, copy);
  if (other !== undefined) return other;
  return copy.wanted === 'suspended' ? 'resynchronise it first' : 'wait until it is duplex';
}

function otherDuplex(segment: SegmentRecord, than: CopyRecord): string | undefined {
  const others = secondariesOf(segment).filter((copy) => copy !== than && copy.pair === 'duplex');
  if (others.length === 0) return undefined;
  return `there is one that is duplex on ${others.map(({ storage }): StorageName => storage).join(', ')}`;
}

function epochAfter({ epoch }: SegmentRecord, steps: number): Epoch {
  return (epoch + steps) as Epoch;
}

interface Standing {
  readonly pair: PairState;
  readonly reason: SuspendReason | null;
}

function withPair(
  segment: SegmentRecord,
  copy: CopyRecord,
  standing: Standing,
  revision: number,
): SegmentRecord {
  return changed(segment, copy, { ...standing, pairRevision: revision + 1 });
}

function changed(segment: SegmentRecord, copy: CopyRecord, change: Partial<CopyRecord>): SegmentRecord {
  const copies = segment.copies.map((each) => (each === copy ? { ...each, ...change } : each));
  return { ...segment, copies };
}

function promoted(
  segment: SegmentRecord,
  to: RealVolumeId,
  how: Pick<SegmentRecord, 'isHandedOver' | 'isForced'>,
  standingOf: (copy: CopyRecord) => Standing,
): SegmentRecord {
  const copies = segment.copies.map((copy): CopyRecord => {
    const pairRevision = copy.pairRevision + 1;
    if (copy.realVolume === to) {
      return { ...copy, role: 'primary', pair: 'simplex', reason: null, wanted: 'following', pairRevision };
    }
    return { ...copy, role: 'secondary', ...standingOf(copy), pairRevision };
  });
  return { ...segment, ...how, epoch: epochAfter(segment, 1), copies };
}
