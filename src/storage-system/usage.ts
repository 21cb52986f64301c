/**
 * What the real volumes take in the file system. Looked at for each when the storage system starts, and afterwards for
 * those that have been open since: of 10,000 volumes few are.
 */

import type { RealVolumeId } from '../control-protocol/names.ts';
import { Gate } from '../storage/gate.ts';
import { lookAtRawFile } from '../storage/raw-file.ts';

/** A figure for people need not be newer. */
const FRESH_MS = 5_000;
const AT_ONCE = 8; // of the thread pool, which hosts need as well

export interface UsageOptions {
  /** As of the start, in bytes. */
  readonly allocated: Map<RealVolumeId, number>;
  readonly fileOf: (id: RealVolumeId) => string;
  readonly openIds: () => RealVolumeId[];
  readonly isThere: (id: RealVolumeId) => boolean;
}

export class Usage {
  readonly #options: UsageOptions;
  readonly #allocated: Map<RealVolumeId, number>;
  /** Open when they were last looked at; once more, then, to see what they took when they were closed. */
  #wereOpen = new Set<RealVolumeId>();
  #lookedMs = Number.NEGATIVE_INFINITY;
  #looking: Promise<void> | undefined;

  constructor(options: UsageOptions) {
    this.#options = options;
    this.#allocated = options.allocated;
  }

  /** Bytes, as they were not long ago. */
  async usedBytes(): Promise<number> {
    if (performance.now() - this.#lookedMs > FRESH_MS) {
      this.#looking ??= this.#look().finally(() => {
        this.#looking = undefined;
      });
      await this.#looking;
    }
    let sum = 0;
    for (const bytes of this.#allocated.values()) sum += bytes;
    return sum;
  }

  async #look(): Promise<void> {
    const { openIds, fileOf, isThere } = this.#options;
    const open = new Set(openIds());
    const gate = new Gate(AT_ONCE);
    const looks = [...new Set([...open, ...this.#wereOpen])].map((id) =>
      gate.run(async () => {
        const look = await lookAtRawFile(fileOf(id));
        if (look.kind === 'usable') this.#allocated.set(id, look.allocatedBytes);
      }),
    );
    await Promise.all(looks);
    this.#wereOpen = open;
    for (const id of this.#allocated.keys()) if (!isThere(id)) this.#allocated.delete(id);
    this.#lookedMs = performance.now();
  }
}
