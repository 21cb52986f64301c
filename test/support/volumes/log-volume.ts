/**
 * LogVolume: records every operation, with what a write brought, when it started and when it ended. The numbers
 * come from one counter, so that "had finished before … was called" can be told for any two of them.
 */

import { type Call, WrappedVolume } from './wrapped-volume.ts';

export interface LogEntry extends Call {
  readonly startedAt: number;
  /** undefined: still under way. */
  endedAt: number | undefined;
  outcome: 'under way' | 'done' | 'failed';
}

export class LogVolume extends WrappedVolume {
  /** In the order of their starts. A readNow or writeNow that could not be done at once is not recorded. */
  readonly entries: LogEntry[] = [];
  #counter = 0;

  protected override async around<T>(call: Call, operation: () => Promise<T>): Promise<T> {
    const entry = this.#start(call);
    try {
      const result = await operation();
      this.#end(entry, 'done');
      return result;
    } catch (error) {
      this.#end(entry, 'failed');
      throw error;
    }
  }

  protected override aroundNow(call: Call, operation: () => boolean): boolean {
    if (!operation()) return false;
    this.#end(this.#start(call), 'done');
    return true;
  }

  #start(call: Call): LogEntry {
    const data = call.data === undefined ? {} : { data: Buffer.from(call.data) };
    const entry: LogEntry = {
      ...call,
      ...data,
      startedAt: ++this.#counter,
      endedAt: undefined,
      outcome: 'under way',
    };
    this.entries.push(entry);
    return entry;
  }

  #end(entry: LogEntry, outcome: 'done' | 'failed'): void {
    entry.endedAt = ++this.#counter;
    entry.outcome = outcome;
  }
}
