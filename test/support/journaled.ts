/** Operations of an ActivityLog that are in its journal at once, each by a write of its own. */

import type { Range } from '../../src/base/range.ts';
import type { ActivityLog } from '../../src/storage/activity-log.ts';
import type { Slot } from '../../src/storage/unsettled-journal.ts';

export function begin(log: ActivityLog, range: Range): Slot {
  const slot = log.begin(range);
  log.writeJournal();
  return slot;
}

export function settle(log: ActivityLog, slots: readonly Slot[]): void {
  log.settle(slots);
  log.writeJournal();
}
