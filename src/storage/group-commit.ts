/**
 * GroupCommit: any number of callers who need "all that has been written so far is durable" share as few
 * syncs as possible.
 *
 * Invariant: a commit is answered by a sync that began after the commit was asked for. One that is running
 * already is never shared, since the caller's write may have finished after it began.
 */

export class GroupCommit {
  readonly #sync: () => Promise<void>;
  #running: Promise<void> | undefined;
  #next: Promise<void> | undefined;

  constructor(sync: () => Promise<void>) {
    this.#sync = sync;
  }

  commit(): Promise<void> {
    if (this.#running === undefined) return this.#start();
    this.#next ??= this.#running.then(
      () => this.#startNext(),
      () => this.#startNext(), // its own callers have that failure; the next sync has its own outcome
    );
    return this.#next;
  }

  #startNext(): Promise<void> {
    this.#next = undefined; // whoever comes from here on shares the one after this
    return this.#start();
  }

  #start(): Promise<void> {
    const running = this.#sync().finally(() => {
      if (this.#running === running) this.#running = undefined;
    });
    this.#running = running;
    return running;
  }
}
