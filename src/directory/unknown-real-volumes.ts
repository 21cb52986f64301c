/**
 * Whether storage systems have more real volumes than the catalog knows: after an older catalog was put back, or a mistake of ours.
 * Nothing is done about them, as they may hold somebody's data; an event tells of it, once for as long as it stays so.
 */

import type { StorageName } from '../control-protocol/names.ts';
import type { Catalog } from './catalog.ts';

/** A report may be older than what the catalog says. */
const UNKNOWN_MS = 60_000;

export interface UnknownRealVolumesOptions {
  readonly catalog: Catalog;
  /** For how long there have to be more (default 60,000). */
  readonly unknownMs?: number;
}

interface Excess {
  readonly sinceMs: number;
  told: boolean;
}

export class UnknownRealVolumes {
  readonly #options: UnknownRealVolumesOptions;
  readonly #excesses = new Map<StorageName, Excess>();

  constructor(options: UnknownRealVolumesOptions) {
    this.#options = options;
  }

  /** A storage system has reported that it has so many. @throws StoreError */
  async heard(name: StorageName, realVolumes: number): Promise<void> {
    const { catalog, unknownMs = UNKNOWN_MS } = this.#options;
    const known = catalog.view.realVolumesAt(name);
    const excess = this.#excesses.get(name) ?? { sinceMs: performance.now(), told: false };
    // An operation makes real volumes before the catalog's volumes have them.
    const isQuiet = [...catalog.view.operations.values()].every(({ finishedAt }) => finishedAt !== null);
    if (realVolumes <= known || (!isQuiet && !excess.told)) {
      this.#excesses.delete(name);
      return;
    }
    this.#excesses.set(name, excess);
    if (excess.told || performance.now() - excess.sinceMs < unknownMs) return;
    excess.told = true;
    try {
      await this.#tell(name, realVolumes, known);
    } catch (error) {
      excess.told = false;
      throw error;
    }
  }

  async #tell(name: StorageName, realVolumes: number, known: number): Promise<void> {
    const count = realVolumes - known;
    const some = count === 1 ? '1 real volume' : `${count} real volumes`;
    await this.#options.catalog.change((draft) => {
      draft.addEvent({
        kind: 'storage.unknown-real-volumes',
        subject: name,
        text: `storage system ${name} has ${some} more than the catalog knows of: is this an older catalog?`,
        details: { realVolumes, known },
      });
    });
  }
}
