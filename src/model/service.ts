/** A role that runs in this process: started by its own function, stopped once, then gone. */
export interface Service {
  /** What it says when it accepts work, as `ready` line and JSON document. */
  readonly ready: { readonly document: object; readonly sentence: string };
  /** Rejects when it cannot go on, and is to be stopped. */
  readonly lost?: Promise<never>;
  /** Takes no more work, finishes what it has, lets go of everything. */
  stop(): Promise<void>;
}
