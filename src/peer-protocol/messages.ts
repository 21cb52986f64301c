/**
 * What storage systems say to each other about one pair: a primary's real volume and one of its secondaries. One connection a pair; the
 * primary connects. replication/SPEC.md says what each means; codec.ts how it looks on the wire.
 *
 *   primary                                  secondary
 *   hello                                ->  is it mine, of my epoch or a newer one? is nothing of an earlier session under way?
 *                                        <-  refusal (and the connection is closed), or
 *                                        <-  welcome, difference*, ready
 *   lacks*, members, operations          ->
 *                                        <-  ack of each by its seq, in any order; of those that follow one another, as one
 *   heartbeat                            ->
 *                                        <-  heartbeat-ack; receiving, within what takes its time to come or to be read
 */

import type { Range } from '../base/range.ts';

/** A member of a copy group: the id of its real volume, `rv-` and 16 hexadecimal digits. */
export type MemberId = string;

export type { Range };

export type RefusalCode =
  | 'stale-epoch' // a newer epoch is known: `epoch`
  | 'unknown' //     no such real volume here, or it is not of that group
  | 'policy' //      the key is wrong
  | 'failed' //      it cannot be used
  | 'size' //        it has not the size that the primary has
  | 'busy' //        something of an earlier session is still under way, or it is being changed: try again
  | 'version'; //    no common version of this protocol

export interface Hello {
  readonly kind: 'hello';
  readonly clusterId: string;
  /** Of the volume that is the secondary's; the place of real authentication later. */
  readonly accessKey: string;
  readonly source: MemberId;
  readonly target: MemberId;
  readonly epoch: number;
  readonly sizeBytes: number;
}

export interface Welcome {
  readonly kind: 'welcome';
  /** How much may be unacknowledged. */
  readonly operationsMax: number;
  readonly bytesMax: number;
  /** Its machine has lost its page cache since it was last equal. */
  readonly hasLostCache: boolean;
}

export interface Refusal {
  readonly kind: 'refusal';
  readonly code: RefusalCode;
  /** What the secondary knows; 0: nothing. */
  readonly epoch: number;
  readonly text: string;
}

/**
 * Where the two may differ: `unsettled` was in flight (or, with a lost cache, not flushed), `alone` is what this member wrote as a primary without
 * the other. At most DIFFERENCE_RANGES_MAX ranges a message.
 */
export interface Difference {
  readonly kind: 'difference';
  readonly cause: 'unsettled' | 'alone';
  readonly ranges: readonly Range[];
}

/** All differences have been said. */
export interface Ready {
  readonly kind: 'ready';
}

interface Numbered {
  /** From 1 in each session, without gaps. */
  readonly seq: number;
  /** All up to this one are settled. */
  readonly confirmed: number;
}

export type ChangeMessage =
  | (Numbered & Range & { readonly kind: 'write'; readonly fua: boolean; readonly payload: Buffer })
  | (Numbered & Range & { readonly kind: 'zero'; readonly fua: boolean; readonly noHole: boolean })
  | (Numbered & Range & { readonly kind: 'trim'; readonly fua: boolean });

export type OperationMessage =
  | ChangeMessage
  | (Numbered & { readonly kind: 'flush' })
  /** Which members differ from the primary from here on, but for the one that is told; and whether that one is equal. */
  | (Numbered & {
      readonly kind: 'members';
      readonly differing: readonly MemberId[];
      readonly isEqual: boolean;
    })
  /** What a differing member lacks: the one that is told keeps it as its own knowledge. */
  | (Numbered & {
      readonly kind: 'lacks';
      readonly member: MemberId;
      /** Undefined: everything. */
      readonly ranges: readonly Range[] | undefined;
    });

export interface Heartbeat {
  readonly kind: 'heartbeat';
  readonly token: number;
  readonly confirmed: number;
}

export type PrimaryMessage = OperationMessage | Heartbeat;

export type AckResult = 'done' | 'no-space' | 'io' | 'failed' | 'invalid';

export interface Ack {
  readonly kind: 'ack';
  readonly seq: number;
  readonly result: AckResult;
}

export type SecondaryMessage =
  | Ack
  /** `received`: all operations up to this one have come. */
  | { readonly kind: 'heartbeat-ack'; readonly token: number; readonly received: number }
  /** Nothing else is to be said, and a large operation is still coming, or nothing is read for lack of memory: what queues behind will be answered. */
  | { readonly kind: 'receiving' }
  /** The session is over: there is a newer epoch, or the member is being taken away. Nothing of it is under way any more. */
  | { readonly kind: 'fenced'; readonly epoch: number };

export const DIFFERENCE_RANGES_MAX = 4096;
