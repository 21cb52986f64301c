/** Lives of data folders: what a folder keeps of them, and whom the directory takes, put together. */

import { describe, expect, test } from 'vitest';
import { StorageName } from '../../../src/control-protocol/names.ts';
import { CatalogView } from '../../../src/directory/catalog-view.ts';
import { refuseInstance, refuseOtherLife, takenInstance } from '../../../src/directory/instances.ts';
import { ControlError, StoreError } from '../../../src/model/errors.ts';
import { Instance, type InstanceState, RENEW_MS, TRIED_MAX } from '../../../src/storage-system/instance.ts';
import { silentLog } from '../../support/log.ts';

const NAME = StorageName.parse('a');

/** A data folder at some place. Copied by `copyTo`, as it is at that moment. */
class Folder {
  state: InstanceState | undefined;
  isFull = false;
  readonly place: string;
  nowMs = 0;
  boot = 'boot-1';

  constructor(place: string, state?: InstanceState) {
    this.place = place;
    this.state = state;
  }

  copyTo(place: string): Folder {
    return new Folder(place, this.state);
  }

  start(): Instance {
    return new Instance({
      table: {
        instance: () => this.state,
        keepInstance: (state) => {
          if (this.isFull) throw new StoreError('no-space', 'full');
          this.state = structuredClone(state);
        },
      },
      place: { lock: `${this.boot}:${this.place}`, file: this.place },
      log: silentLog,
      nowMs: () => this.nowMs,
    });
  }
}

class Directory {
  view = new CatalogView();

  /** What a claim comes to; the process does not hear of it when its answer is lost. */
  take(instance: Instance, answer: 'arrives' | 'is lost' = 'arrives', isRestored = false): string {
    const claim = { ...instance.claim(), isRestored };
    try {
      refuseInstance(this.view, NAME, claim);
    } catch (error) {
      if (!(error instanceof ControlError)) throw error;
      return error.code;
    }
    const record = takenInstance(this.view, NAME, claim);
    this.view.instances.set(NAME, record);
    this.view.presence.set(`storage/${NAME}`, { lease: '1' });
    refuseOtherLife(this.view, { storage: NAME, ...instance.lives }); // never, whether it has heard of it or not
    if (answer === 'arrives') instance.taken(claim, record.number);
    return 'taken';
  }

  /** Nobody has reported for the time of a lease. */
  leaseEnds(): void {
    this.view.presence.clear();
  }

  backup(): Directory {
    const backup = new Directory();
    for (const [name, record] of this.view.instances) backup.view.instances.set(name, record);
    backup.view.presence.set(`storage/${NAME}`, { lease: '1' });
    return backup;
  }
}

describe('a folder that stays where it is', () => {
  test('is taken at once at each start, though the process before it is online still', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    for (let start = 0; start < 5; start += 1) expect(directory.take(folder.start())).toBe('taken');
  });

  test('is taken after starts whose answers were lost, and such that the directory has not heard of', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    expect(directory.take(folder.start(), 'is lost')).toBe('taken'); // the very first
    expect(directory.take(folder.start())).toBe('taken');
    for (let round = 0; round < 3; round += 1) {
      expect(directory.take(folder.start(), 'is lost')).toBe('taken');
      for (let start = 0; start < 2 * TRIED_MAX; start += 1) folder.start();
      expect(directory.take(folder.start())).toBe('taken');
    }
  });

  test('is taken by a catalog that is older than the folder, however much', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    directory.take(folder.start());
    for (let starts = 0; starts < 5; starts += 1) {
      const older = [directory.backup(), directory.backup()] as const;
      let last = folder.start();
      directory.take(last);
      for (let start = 0; start < starts; start += 1) {
        last = folder.start();
        directory.take(last);
      }
      expect(older[0].take(last)).toBe('taken'); // it runs on
      folder.nowMs += RENEW_MS;
      expect(directory.take(last)).toBe('taken');
      expect(older[1].take(last)).toBe('taken');
      expect(older[1].take(folder.start())).toBe('taken');
      directory.view = older[1].view;
    }
  });

  test('is taken by a catalog that knows of no lives', () => {
    const folder = new Folder('p');
    new Directory().take(folder.start());
    expect(new Directory().take(folder.start())).toBe('taken');
  });

  test('on a full disk goes on as the life that it was', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    directory.take(folder.start());
    folder.isFull = true;
    const instance = folder.start();
    expect(directory.take(instance)).toBe('taken');
    folder.nowMs += RENEW_MS;
    expect(directory.take(instance)).toBe('taken');
    folder.isFull = false;
    expect(directory.take(folder.start())).toBe('taken');
    const fresh = new Folder('q');
    fresh.isFull = true;
    expect(() => fresh.start()).toThrow(StoreError);
  });

  test('is not taken at once after the machine has started again: that takes longer than a lease', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    directory.take(folder.start());
    folder.boot = 'boot-2';
    const instance = folder.start();
    expect(instance.whereabouts).toBe('same');
    expect(directory.take(instance)).toBe('in-use');
    directory.leaseEnds();
    expect(directory.take(instance)).toBe('taken');
  });
});

describe('a copy of a folder', () => {
  test('is not taken while the original is online, and does not keep it from going on or starting', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    const original = folder.start();
    directory.take(original);
    const copy = folder.copyTo('q');
    for (let start = 0; start < 3 * TRIED_MAX; start += 1) {
      const instance = copy.start();
      expect(instance.whereabouts).toBe('moved');
      expect(directory.take(instance)).toBe('in-use');
    }
    expect(directory.take(original)).toBe('taken');
    expect(directory.take(folder.start())).toBe('taken');
    expect(directory.take(copy.start())).toBe('wrong-identity'); // it follows one that is not the latest
  });

  test('is taken when the original has gone, which is not taken any more then', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    const original = folder.start();
    directory.take(original);
    const copy = folder.copyTo('q');
    directory.leaseEnds();
    const instance = copy.start();
    expect(directory.take(instance)).toBe('taken');
    expect(copy.start().whereabouts).toBe('same');
    expect(directory.take(original)).toBe('wrong-identity');
    expect(() => refuseOtherLife(directory.view, { storage: NAME, ...original.lives })).toThrow(ControlError);
    expect(directory.take(folder.start())).toBe('wrong-identity');
    directory.leaseEnds();
    for (let start = 0; start < 3 * TRIED_MAX; start += 1) {
      expect(directory.take(folder.start())).toBe('wrong-identity');
    }
    expect(directory.take(copy.start())).toBe('taken');
  });

  test('that was made of a life whose answer was lost is not taken beside it', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    const original = folder.start();
    directory.take(original, 'is lost');
    const copy = folder.copyTo('q');
    expect(directory.take(copy.start())).toBe('in-use');
    expect(directory.take(copy.start())).toBe('in-use');
    expect(directory.take(original)).toBe('taken');
  });
});

describe('a folder that was rolled back', () => {
  test('over a start is not taken, however often it is started', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    directory.take(folder.start());
    const snapshot = folder.state;
    directory.take(folder.start());
    folder.state = snapshot;
    directory.leaseEnds();
    for (let start = 0; start < 3 * TRIED_MAX; start += 1) {
      expect(directory.take(folder.start())).toBe('wrong-identity');
    }
  });

  test('to a moment within a life is not taken when that life has been renewed since', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    const instance = folder.start();
    directory.take(instance);
    const snapshot = folder.state;
    folder.nowMs += RENEW_MS;
    expect(directory.take(instance)).toBe('taken');
    folder.state = snapshot;
    directory.leaseEnds();
    expect(directory.take(folder.start())).toBe('wrong-identity');
  });

  test('to before it had lives is not taken', () => {
    const [folder, directory] = [new Folder('p'), new Directory()];
    directory.take(folder.start());
    folder.state = undefined;
    directory.leaseEnds();
    expect(directory.take(folder.start())).toBe('wrong-identity');
  });

  test.each(['arrives', 'is lost'] as const)(
    'is taken when a person says so and nobody is online; what was there before is not any more (the answer %s)',
    (answer) => {
      const [folder, directory] = [new Folder('p'), new Directory()];
      directory.take(folder.start());
      const restored = folder.copyTo('q');
      for (let start = 0; start < 5; start += 1) directory.take(folder.start());
      expect(directory.take(restored.start(), answer, true)).toBe('in-use');
      directory.leaseEnds();
      expect(directory.take(restored.start(), answer, true)).toBe('taken');
      directory.leaseEnds();
      for (let start = 0; start < 5; start += 1) {
        expect(directory.take(folder.start())).toBe('wrong-identity');
        expect(directory.take(restored.start())).toBe('taken');
        directory.leaseEnds();
      }
    },
  );
});
