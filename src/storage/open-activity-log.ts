/** Opens an activity log, and finds what the process before has left; activity-log.ts has the states and invariants. */

import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { BlockBitmap } from '../base/block-bitmap.ts';
import { type Range, unionOf } from '../base/range.ts';
import { EXTENT_BYTES } from '../model/copy-granularity.ts';
import { ACTIVITY_FORMAT, type ActivityHeader, activityPayload, readActivity } from './activity-file.ts';
import { ActivityLog } from './activity-log.ts';
import { ActivityMap, extentsIn } from './activity-map.ts';
import { storeErrorOf } from './errors.ts';
import { replaceFile } from './replace-file.ts';
import { headerBytes } from './twin-header.ts';
import { type JournalFound, makeJournal, readJournal, UnsettledJournal } from './unsettled-journal.ts';

const ACTIVITY = 'activity';
const UNSETTLED = 'unsettled';

export interface ActivityLogOptions {
  /** `rv-` and 16 hexadecimal digits. */
  readonly realVolume: string;
  readonly sizeBytes: number;
  /** boot-id.ts */
  readonly bootId: string;
  /** The member has nothing to remember yet: what may lie there is nothing. */
  readonly isNew: boolean;
}

export interface OpenedActivityLog {
  readonly log: ActivityLog;
  /** Ascending, apart, inside the volume. Kept until `settleEarlier`. */
  readonly unsettled: readonly Range[];
  /** The extents that are marked, ascending; those of `unsettled` and others. They stay so until they are taken away, or `settleEarlier`. */
  readonly marked: readonly number[];
  /** Something that was written may be gone: the machine has lost its page cache, or one of the files was damaged. */
  readonly hasLostCache: boolean;
}

/** Opens, or makes, the two files in the folder. One at a time has them open. @throws UsageError, StoreError */
export async function openActivityLog(
  folder: string,
  options: ActivityLogOptions,
): Promise<OpenedActivityLog> {
  const { realVolume, sizeBytes, bootId } = options;
  const paths = { activity: join(folder, ACTIVITY), journal: join(folder, UNSETTLED) };
  const left = options.isNew ? nothingLeft(sizeBytes) : await readLeft(paths, options);
  const state = left.hasLostCache ? 'lost' : 'open';
  const clipped = clip(left.unsettled, sizeBytes);
  const makeTheJournal = (): Promise<readonly Range[]> =>
    makeJournal(paths.journal, options, state === 'lost' ? [] : clipped);
  // Whoever opens them after a crash in between: a journal that is new and empty counts only under a header that says what is lost, and a
  // header of this boot only with the journal of this boot.
  let earlier = state === 'lost' ? [] : await makeTheJournal();
  const inDoubt = new BlockBitmap(sizeBytes, EXTENT_BYTES);
  for (const range of state === 'lost' ? clipped : earlier) inDoubt.set(range);
  left.marks.merge(inDoubt);
  const marked = [...extentsIn(left.marks)];
  const map = new ActivityMap(realVolume, sizeBytes);
  for (const extent of marked) map.set(extent, true);
  const header = headerBytes(
    ACTIVITY_FORMAT,
    activityPayload({ realVolume, bootId, state, sectors: map.sectors }),
  );
  await replaceFile(paths.activity, Buffer.concat([header, map.bytes]));
  if (state === 'lost') earlier = await makeTheJournal();
  const [fd, journalFd] = openBoth(paths);
  const journal = new UnsettledJournal(journalFd, options, earlier);
  const log = new ActivityLog({
    realVolume,
    bootId,
    sizeBytes,
    fd,
    journalFd,
    map,
    journal,
    state,
    earlier: left.marks,
    unsettled: inDoubt,
  });
  return { log, unsettled: clipped, marked, hasLostCache: left.hasLostCache };
}

interface Paths {
  readonly activity: string;
  readonly journal: string;
}

function openBoth({ activity, journal }: Paths): [fd: number, journalFd: number] {
  let fd: number | undefined;
  try {
    fd = openSync(activity, 'r+');
    return [fd, openSync(journal, 'r+')];
  } catch (error) {
    if (fd !== undefined) closeSync(fd);
    throw storeErrorOf(error, `open ${journal}`);
  }
}

// ── what the process before has left ───────────────────────────────────────────────────────────────────────

interface Left {
  readonly unsettled: readonly Range[];
  readonly marks: BlockBitmap;
  readonly hasLostCache: boolean;
}

function nothingLeft(sizeBytes: number): Left {
  return { unsettled: [], marks: new BlockBitmap(sizeBytes, EXTENT_BYTES), hasLostCache: false };
}

async function readLeft(paths: Paths, options: ActivityLogOptions): Promise<Left> {
  const { realVolume, sizeBytes, bootId } = options;
  const found = await readActivity(paths.activity, realVolume, sizeBytes);
  if (found === undefined) {
    const { marks } = nothingLeft(sizeBytes);
    marks.setAll();
    return { unsettled: [...marks.ranges()], marks, hasLostCache: true };
  }
  const { header, marks } = found;
  const journal = await readJournal(paths.journal, realVolume);
  const isKept = header.state === 'clean' || (header.state === 'open' && header.bootId === bootId);
  if (isKept && !found.isDamaged && journal !== undefined && counts(journal, header, bootId)) {
    const marked = journal.hasOverflowed ? [...marks.ranges()] : [];
    return { unsettled: unionOf([...journal.ranges, ...marked]), marks, hasLostCache: false };
  }
  return { unsettled: [...marks.ranges()], marks, hasLostCache: !marks.isEmpty };
}

/** Whether what it says is all that there was. */
function counts(journal: JournalFound, header: ActivityHeader, bootId: string): boolean {
  return journal.bootId === bootId || (header.state === 'clean' && journal.bootId === header.bootId);
}

function clip(ranges: readonly Range[], sizeBytes: number): Range[] {
  const inside = ranges.filter(({ offset }) => offset < sizeBytes);
  return unionOf(
    inside.map(({ offset, length }) => ({ offset, length: Math.min(length, sizeBytes - offset) })),
  );
}
