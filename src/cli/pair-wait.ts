/** Waiting until the copies of a volume are in step, and how far they are. */

import type { SegmentView, VolumeView } from '../control-protocol/directory-api.ts';
import type { DirectoryClient } from '../control-protocol/directory-client.ts';
import type { StorageName, VolumeName } from '../control-protocol/names.ts';
import { ControlError } from '../model/errors.ts';
import { askUntil } from './finish.ts';
import { withProgress } from './progress.ts';
import { formatSize } from './size-text.ts';
import { outOfSync } from './volume-text.ts';

const ASK_EVERY_MS = 250;

export interface PairWish {
  readonly directory: DirectoryClient;
  readonly volume: VolumeName;
  readonly pair: 'copying' | 'duplex' | 'suspended';
  /** Only the copy on this storage system; otherwise all of them. */
  readonly storage?: StorageName;
  readonly timeoutMs?: number;
}

/**
 * The volume as it is when all pairs that are meant are in that state.
 * @throws ControlError 'timeout'; 'conflict': there is no such copy
 */
export function untilPairs(wish: PairWish): Promise<VolumeView> {
  const { directory, volume, pair, timeoutMs = Number.POSITIVE_INFINITY } = wish;
  const untilMs = performance.now() + timeoutMs;
  let waitingFor: Copy[] = [];
  let totalBytes = 0;
  const isOver = (view: VolumeView): boolean => {
    waitingFor = copiesOf(view, wish).filter((copy) => copy.pair !== pair);
    totalBytes = Math.max(totalBytes, outOfSyncBytes(waitingFor));
    return waitingFor.length === 0;
  };
  const tellTimeout = (): never => {
    const how = waitingFor.map(formatPair).join('; ') || 'the directory does not answer';
    const text = `volume ${volume} is not ${pair} everywhere after ${timeoutMs / 1000} s: ${how}`;
    throw new ControlError('timeout', text);
  };
  const work = askUntil({
    ask: async () => {
      if (performance.now() >= untilMs) tellTimeout();
      return directory.volume(volume);
    },
    isOver,
    pauseMs: ASK_EVERY_MS,
    advice: `copying goes on without it; ask with: volary copy wait ${volume} --pair ${pair}`,
  });
  return withProgress(work, () => formatProgress(volume, waitingFor, totalBytes));
}

type Copy = Pick<
  SegmentView['copies'][number],
  'storage' | 'role' | 'pair' | 'reason' | 'outOfSyncBytes' | 'outOfSyncKnown'
>;

/** @throws ControlError 'conflict' */
function copiesOf({ segments }: VolumeView, { volume, storage }: PairWish): Copy[] {
  const copies = segments.flatMap((segment) => segment.copies);
  const secondaries = copies.filter(({ role }) => role === 'secondary');
  const meant = secondaries.filter((copy) => storage === undefined || copy.storage === storage);
  const isPrimary = copies.some((copy) => copy.storage === storage); // it has become that meanwhile
  if (meant.length > 0 || isPrimary) return meant;
  const what = storage === undefined ? 'has no copies' : `has no copy on ${storage}`;
  const advice = `make one with "volary copy add ${volume} ${storage ?? 'STORAGE'}"`;
  throw new ControlError('conflict', `volume ${volume} ${what}: ${advice}`);
}

function outOfSyncBytes(copies: readonly Copy[]): number {
  return copies.reduce((sum, copy) => sum + copy.outOfSyncBytes, 0);
}

function formatPair(copy: Copy): string {
  const { storage, pair, reason } = copy;
  const why = reason === null ? '' : ` (${reason})`;
  return `${storage} is ${pair}${why}, ${outOfSync(copy)} out of sync`;
}

const BAR_LENGTH = 24;

/** `totalBytes` is the most that has been out of sync while somebody looked. */
export function formatProgress(volume: string, waitingFor: readonly Copy[], totalBytes: number): string {
  const first = waitingFor[0];
  if (first === undefined) return `waiting for volume ${volume}`;
  const leftBytes = outOfSyncBytes(waitingFor);
  const part = totalBytes === 0 ? 0 : 1 - leftBytes / totalBytes;
  const bar = '#'.repeat(Math.floor(part * BAR_LENGTH)).padEnd(BAR_LENGTH, '-');
  const others = waitingFor.length === 1 ? '' : ` and ${waitingFor.length - 1} more`;
  const why = first.reason === null ? '' : ` (${first.reason})`;
  const what = `volume ${volume}, ${first.storage}${others}: ${first.pair}${why}`;
  return `${what}  [${bar}] ${Math.floor(part * 100)} %, ${formatSize(leftBytes)} out of sync`;
}
