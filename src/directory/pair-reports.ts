/**
 * What primaries report of their pairs, written down: data waits for it. Reports that come while one commit is under way share the
 * next one, so that a storage system that is lost does not cost one commit for each of its pairs.
 */

import { setImmediate } from 'node:timers/promises';
import type { VolumeRecord } from '../control-protocol/catalog.ts';
import type { DiscardReport, PairReport, Recorded } from '../control-protocol/copy-groups.ts';
import type { RealVolumeId } from '../control-protocol/names.ts';
import { assert, ControlError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { caughtUpWith, leaseHolds, recordPair } from '../replication/group-rules.ts';
import type { Catalog, Draft, NewEvent } from './catalog.ts';
import { placeOf } from './group-configs.ts';
import { refuseElsewhere } from './instances.ts';
import { keys } from './records.ts';

/** That wait. */
const REPORTS_MAX = 10_000;
/** In one commit. */
const BATCH = 256;

interface Waiting {
  readonly report: PairReport;
  readonly resolve: (recorded: Recorded) => void;
  readonly reject: (error: unknown) => void;
}

/** Of one report, as it is decided: the volume that it is about, or the error. */
type Verdict = { readonly volume: VolumeRecord } | { readonly error: ControlError };

export class PairReports {
  readonly #catalog: Catalog;
  readonly #log: Log;
  #waiting: Waiting[] = [];
  #isWriting = false;

  constructor(catalog: Catalog, log: Log) {
    this.#catalog = catalog;
    this.#log = log;
  }

  /** @throws ControlError stale-epoch, conflict, not-found, unavailable; StoreError */
  report(report: PairReport): Promise<Recorded> {
    if (this.#waiting.length >= REPORTS_MAX) {
      return Promise.reject(new ControlError('unavailable', 'there are too many reports of pairs'));
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push({ report, resolve, reject });
      if (!this.#isWriting) this.#writeAll();
    });
  }

  /** @throws ControlError stale-epoch, not-found; StoreError */
  async discarded({ primary, epoch, member, bytes }: DiscardReport): Promise<void> {
    await this.#catalog.change((draft) => {
      const place = placeOf(draft.view, primary);
      const copy = place?.segment.copies.find(({ realVolume }) => realVolume === member);
      if (place === undefined || copy === undefined) throw unknownMember(primary, member);
      if (!leaseHolds(place.segment, primary, epoch)) {
        throw new ControlError('stale-epoch', `${primary} is not primary in epoch ${epoch}`);
      }
      const { name } = place.volume;
      draft.addEvent({
        kind: 'copy.discarded',
        subject: name,
        text: `the copy of volume ${name} on storage system ${copy.storage} has given up ${bytes} bytes that it alone had written as primary`,
        details: { storage: copy.storage, realVolume: member, epoch, bytes },
      });
    });
  }

  async #writeAll(): Promise<void> {
    this.#isWriting = true;
    try {
      while (this.#waiting.length > 0) {
        await setImmediate(); // a commit holds the event loop: what has come in meanwhile is read first
        await this.#write(this.#waiting.splice(0, BATCH));
      }
    } finally {
      this.#isWriting = false;
    }
  }

  async #write(batch: readonly Waiting[]): Promise<void> {
    const reports = batch.map(({ report }) => report);
    let verdicts: readonly Verdict[];
    try {
      const decided = await this.#catalog.change((draft) => decide(draft, reports));
      verdicts = decided.verdicts;
      for (const { subject, details } of decided.events)
        this.#log.info({ volume: subject, ...details }, 'pair');
    } catch (error) {
      for (const { reject } of batch) reject(error);
      return;
    }
    for (const [at, { report, resolve, reject }] of batch.entries()) {
      const verdict = verdicts[at];
      assert(verdict !== undefined, 'each report is decided');
      if ('error' in verdict) reject(verdict.error);
      else resolve(this.#recorded(report.member, verdict.volume));
    }
  }

  #recorded(member: RealVolumeId, { name }: VolumeRecord): Recorded {
    const { view } = this.#catalog;
    const pairRevision = placeOf(view, member)?.copy.pairRevision ?? 0;
    return { revision: view.revisionOf(keys.volume(name)), pairRevision };
  }
}

function decide(
  draft: Draft,
  reports: readonly PairReport[],
): { verdicts: readonly Verdict[]; events: readonly NewEvent[] } {
  const volumes = new Map<string, VolumeRecord>();
  const events: NewEvent[] = [];
  const verdicts = reports.map((report): Verdict => {
    const name = draft.view.ownerOf(report.primary) ?? '';
    const before = volumes.get(name) ?? draft.view.volumes.get(name);
    if (before === undefined) return { error: unknownMember(report.primary, report.member) };
    try {
      const there = placeOf(draft.view, report.member)?.copy.storage;
      if (report.pair !== 'suspended' && there !== undefined) refuseElsewhere(draft.view, there, report.peer);
      const caughtUp = changed(before, report, caughtUpWith, events);
      if (caughtUp !== before) {
        volumes.set(name, caughtUp);
        const text = `the record of the pair of ${report.primary} with ${report.member} was older than what ${report.primary} knows`;
        return { error: new ControlError('conflict', text) };
      }
      const volume = changed(before, report, recordPair, events);
      if (volume !== before) volumes.set(name, volume);
      return { volume };
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      return { error };
    }
  });
  for (const volume of volumes.values()) draft.putVolume(volume);
  for (const event of events) draft.addEvent(event);
  return { verdicts, events };
}

/** @throws ControlError stale-epoch, conflict, not-found */
function changed(
  volume: VolumeRecord,
  report: PairReport,
  rule: typeof recordPair,
  events: NewEvent[],
): VolumeRecord {
  const { primary, member, epoch } = report;
  const at = volume.segments.findIndex(({ copies }) =>
    copies.some(({ realVolume }) => realVolume === primary),
  );
  const segment = volume.segments[at];
  assert(segment !== undefined, `${primary} is of volume ${volume.name}`);
  const after = rule(segment, report);
  if (after === segment) return volume;
  const [from, to] = [segment, after].map(({ copies }) =>
    copies.find(({ realVolume }) => realVolume === member),
  );
  assert(from !== undefined && to !== undefined, 'a pair that is recorded has a secondary');
  if (from.pair !== to.pair || from.reason !== to.reason) {
    const why = to.reason === null ? '' : ` (${to.reason})`;
    events.push({
      kind: 'copy.pair',
      subject: volume.name,
      text: `the copy of volume ${volume.name} on storage system ${to.storage} is ${to.pair}${why}; it was ${from.pair}`,
      details: {
        storage: to.storage,
        realVolume: member,
        epoch,
        from: from.pair,
        to: to.pair,
        reason: to.reason,
      },
    });
  }
  return { ...volume, segments: volume.segments.with(at, after) };
}

function unknownMember(primary: RealVolumeId, member: RealVolumeId): ControlError {
  return new ControlError('not-found', `${primary} and ${member} are no copies of a volume`);
}
