/** What a LinkPool is told, and what it tells. */

import type { Log } from '../model/log.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';
import type { DialOptions, RemoteTarget } from './dial.ts';
import type { RemoteRefusal } from './errors.ts';
import type { FlushLedger } from './flush-ledger.ts';

export type RemoteState = 'connected' | 'reconnecting' | 'failed' | 'closed';

export type Verdict =
  | { readonly kind: 'use' }
  | { readonly kind: 'stale' }
  | { readonly kind: 'too-small'; readonly reason: string }
  | { readonly kind: 'less'; readonly reason: string };

export interface LinkPoolOptions {
  /** The first target. */
  readonly target: RemoteTarget;
  readonly dialOptions: Omit<DialOptions, keyof RemoteTarget>;
  readonly reconnectMs: number;
  readonly ledger: FlushLedger;
  readonly log: Log;
  /**
   * What to do with a connection: use it; try again, since what it says of the size may be older than what is known, or,
   * told as a refusal, has not as many bytes as are needed now; or, with the reason in words, give the volume up.
   */
  judge(session: ClientSession, dialledMs: number): Verdict;
  onState(state: RemoteState): void;
  onRefused(refusal: RemoteRefusal): void;
}
