/** Records of a segment and reports of its pairs, for tests of the rules, and what comes of them in words. */

import { expect } from 'vitest';
import { CopyRecord, SegmentRecord, type SuspendReason } from '../../../src/control-protocol/catalog.ts';
import { PairReport } from '../../../src/control-protocol/copy-groups.ts';
import { RealVolumeId } from '../../../src/control-protocol/names.ts';
import { ControlError } from '../../../src/model/errors.ts';

export const idOf = (n: number): RealVolumeId => RealVolumeId.parse(`rv-${String(n).repeat(16)}`);
export const [P, M, N, NOBODY] = [idOf(1), idOf(2), idOf(3), idOf(9)];

/** How a pair stands in the record: `pair`, `pair reason`, `pair reason unwanted`. */
export type Standing =
  | 'duplex'
  | 'copying'
  | 'suspended new'
  | 'suspended unreachable'
  | 'suspended was-primary'
  | 'suspended asked unwanted'
  | 'duplex unwanted';
export const STANDINGS: readonly Standing[] = [
  'duplex',
  'copying',
  'suspended new',
  'suspended unreachable',
  'suspended was-primary',
  'suspended asked unwanted',
  'duplex unwanted',
];

export function copy(n: number, standing: Standing | 'primary', pairRevision = 5): CopyRecord {
  const words = standing.split(' ');
  const [pair, reason] = [words[0], words[1] === 'unwanted' ? undefined : words[1]];
  return CopyRecord.parse({
    storage: `s${n}`,
    realVolume: idOf(n),
    realOffset: 0,
    role: standing === 'primary' ? 'primary' : 'secondary',
    pair: standing === 'primary' ? 'simplex' : pair,
    reason: reason ?? null,
    wanted: words.includes('unwanted') ? 'suspended' : 'following',
    pairRevision,
    mode: 'normal',
    accessKey: String(n).repeat(32),
    file: `/srv/${n}`,
  });
}

/** Primary on s1, secondaries on s2 and, when there is one, s3. */
export function segmentOf(standing: Standing, other?: Standing): SegmentRecord {
  const copies = [copy(1, 'primary'), copy(2, standing)];
  if (other !== undefined) copies.push(copy(3, other));
  return SegmentRecord.parse({ offset: 0, length: 4096, epoch: 7, isGrouped: true, copies });
}

export function shown({ epoch, isHandedOver, isForced, copies }: SegmentRecord): string {
  const each = copies.map(({ storage, role, pair, reason, wanted: wish }) =>
    [storage, role === 'primary' ? 'primary' : pair, reason, wish === 'suspended' ? 'unwanted' : null]
      .filter((word) => word !== null)
      .join(' '),
  );
  return `${epoch}${isHandedOver ? '' : ' waits'}${isForced ? ' forced' : ''}: ${each.join(', ')}`;
}

/** What comes of it: the record, shown; `same` when it is the same one; or the error's code. */
export function outcome(before: SegmentRecord, act: (segment: SegmentRecord) => SegmentRecord): string {
  try {
    const after = act(before);
    SegmentRecord.parse(after);
    return after === before ? 'same' : shown(after);
  } catch (error) {
    if (!(error instanceof ControlError)) throw error;
    expect(error.message).toMatch(/^[a-z]/);
    return error.code;
  }
}

export type Report = 'copying' | 'duplex' | 'suspended';

export function report(pair: Report, more: object = {}): PairReport {
  const reason: SuspendReason | null = pair === 'suspended' ? 'unreachable' : null;
  return PairReport.parse({ primary: P, epoch: 7, member: M, pair, reason, pairRevision: 5, ...more });
}
