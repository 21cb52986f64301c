/**
 * The seam between a Replica and what drives it: events in, effects out. Driver and simulation see the same.
 *
 * Rules for who drives
 *  1. `step` is called with one event at a time, never from within itself. Its effects are carried out in order.
 *  2. When `persist` is there, it is durable before any of `effects` begins. A driver that cannot persist stops the member.
 *  3. `set-bits` and `clear-bits` are in the page cache (durable over a crash of the process) before the effects behind them begin; power loss is what
 *     the activity log is for.
 *  4. Every effect that names an answering event is answered by exactly one such event, later, unless the process ends. Links are
 *     answered by `link-up` and `link-down`; messages may be lost only together with their link, and then all behind them, too.
 *  5. `nowMs` is of a monotonic clock that goes on while the process is stopped.
 *  6. What `start` tells as `unsettled`, and `hasLostCache`, is told again by every later start until `forget-unsettled`. Tokens
 *     count anew in each process: `settle` never means what was begun by an earlier one. A flush that has failed is a lost cache for the next start.
 *  7. The marks behind a new end go, and `resized` is told, when no effect of an earlier step waits to be carried out: so nothing that was decided for
 *     the old size is begun when the file has grown again.
 */

import type { SuspendReason } from '../control-protocol/catalog.ts';
import type { GroupConfig } from '../control-protocol/copy-groups.ts';
import type {
  MemberId,
  PrimaryMessage,
  Range,
  RefusalCode,
  SecondaryMessage,
} from '../peer-protocol/messages.ts';

/** Identifies a host's request, a piece of work, a question; made by who asks. */
export type Token = number;

/** What is durable of a member, beside bitmaps and activity log. */
export interface DurableState {
  readonly config: GroupConfig;
  /** The highest that has been heard of. */
  readonly epoch: number;
  readonly role: 'primary' | 'secondary';
  /**
   * Of a primary: members that the record may call duplex (I3). Of a secondary: who may have been primary since it was one, or was equal to one;
   * until it is equal again (I13).
   */
  readonly mayBeInStep: readonly MemberId[];
  /** Members that lack everything, as far as this one knows. */
  readonly lacksAll: readonly MemberId[];
  /** Whether this member, as a secondary, is equal to its primary (I7, I8). */
  readonly isEqual: boolean;
}

/** A change of blocks, or a flush: what is applied here, and sent to others. */
export type Operation =
  | {
      readonly kind: 'write';
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly payload: Buffer;
    }
  | {
      readonly kind: 'zero';
      readonly offset: number;
      readonly length: number;
      readonly fua: boolean;
      readonly noHole: boolean;
    }
  | { readonly kind: 'trim'; readonly offset: number; readonly length: number; readonly fua: boolean }
  | { readonly kind: 'flush' };

/** A host's request. A read is only admitted: the driver reads. */
export type Request = Operation | { readonly kind: 'read' };

/** A piece of the volume for a copy: data, or a hole. */
export type Piece =
  | { readonly kind: 'data'; readonly offset: number; readonly length: number; readonly payload: Buffer }
  | { readonly kind: 'hole'; readonly offset: number; readonly length: number };

/** 'shutdown' has the host's client look for the primary again, and send again. */
export type RequestError = 'io' | 'no-space' | 'invalid' | 'failed' | 'shutdown';

export type Event = {
  readonly nowMs: number;
} /** The first, once. `unsettled` is what the journal, or after a lost cache the marked extents, says; `lacks` what the bitmaps say. */ & (
  | {
      readonly kind: 'start';
      readonly durable: DurableState | undefined;
      readonly unsettled: readonly Range[];
      readonly lacks: ReadonlyMap<MemberId, readonly Range[]>;
      readonly hasLostCache: boolean;
      /** All extents that the activity log has marked; those that nobody tells of here stay marked. */
      readonly marked: readonly number[];
      /** Of this member's own file, whatever the group was told: it may have been resized since. */
      readonly sizeBytes: number;
    }
  /** This member's own real volume has another size. */
  | { readonly kind: 'resized'; readonly sizeBytes: number }
  /** The directory's word. Answered by the effect `configured`. */
  | { readonly kind: 'configure'; readonly token: Token; readonly config: GroupConfig }
  /** The directory: let `epoch` begin elsewhere (I16). Answered by `handed-over`. */
  | { readonly kind: 'hand-over'; readonly token: Token; readonly epoch: number; readonly to: MemberId }
  | { readonly kind: 'request'; readonly token: Token; readonly request: Request }
  | { readonly kind: 'applied'; readonly token: Token; readonly error: RequestError | undefined }
  | { readonly kind: 'marked'; readonly token: Token }
  | { readonly kind: 'unmarked'; readonly token: Token }
  /** Pieces cover the range that was asked for, in order. */
  | { readonly kind: 'range-read'; readonly token: Token; readonly pieces: readonly Piece[] | undefined }
  /** Allocated ranges of this member, for an initial copy. */
  | { readonly kind: 'allocated'; readonly token: Token; readonly ranges: readonly Range[] | undefined }
  | {
      readonly kind: 'reported';
      readonly token: Token;
      readonly outcome: 'recorded' | 'stale-epoch' | 'unreachable';
    }
  | {
      readonly kind: 'renewed';
      readonly token: Token;
      readonly outcome: 'granted' | 'stale-epoch' | 'unreachable';
    }
  // As primary:
  | {
      readonly kind: 'link-up';
      readonly to: MemberId;
      readonly session: Token;
      readonly hasLostCache: boolean;
      readonly unsettled: readonly Range[];
      readonly alone: readonly Range[];
    }
  | {
      readonly kind: 'link-refused';
      readonly to: MemberId;
      readonly session: Token;
      readonly code: RefusalCode;
      readonly epoch: number;
    }
  | { readonly kind: 'link-down'; readonly to: MemberId; readonly session: Token }
  | {
      readonly kind: 'from-secondary';
      readonly from: MemberId;
      readonly session: Token;
      readonly message: SecondaryMessage;
    }
  // As secondary:
  | {
      readonly kind: 'hello';
      readonly session: Token;
      readonly source: MemberId;
      readonly epoch: number;
      readonly sizeBytes: number;
    }
  | { readonly kind: 'session-ended'; readonly session: Token }
  | { readonly kind: 'from-primary'; readonly session: Token; readonly message: PrimaryMessage }
  /** Every tickMs, unless it would do nothing (`restMs`). */
  | { readonly kind: 'tick' }
);

export type Effect =
  /** Apply at this member's file. -> applied. Journaled: kept in the journal of unsettled ranges until `settle` names it. */
  | {
      readonly kind: 'apply';
      readonly token: Token;
      readonly operation: Operation;
      readonly isJournaled: boolean;
    }
  /** These operations are settled: their ranges need not be known after a crash any more. */
  | { readonly kind: 'settle'; readonly tokens: readonly Token[] }
  /** What `start` told as unsettled, and a lost cache, need not be known any more. */
  | { readonly kind: 'forget-unsettled' }
  | { readonly kind: 'admit'; readonly token: Token }
  | { readonly kind: 'answer'; readonly token: Token; readonly error: RequestError | undefined }
  /** A request that was held here is to go to the member that `serve` has named; nothing of it has been done. */
  | { readonly kind: 'forward'; readonly token: Token }
  /** Durably. -> marked */
  | { readonly kind: 'mark'; readonly token: Token; readonly extents: readonly number[] }
  /** After data and bitmaps have been flushed, also when no extent is named: then that is what it is for. -> unmarked */
  | { readonly kind: 'unmark'; readonly token: Token; readonly extents: readonly number[] }
  | { readonly kind: 'set-bits'; readonly member: MemberId; readonly ranges: readonly Range[] }
  | { readonly kind: 'clear-bits'; readonly member: MemberId; readonly ranges: readonly Range[] }
  | { readonly kind: 'forget-member'; readonly member: MemberId }
  | { readonly kind: 'read-range'; readonly token: Token; readonly range: Range }
  | { readonly kind: 'find-allocated'; readonly token: Token }
  /** To the directory: the pair is so now. -> reported */
  | {
      readonly kind: 'report';
      readonly token: Token;
      readonly epoch: number;
      readonly member: MemberId;
      readonly pair: 'copying' | 'duplex' | 'suspended';
      readonly reason: SuspendReason | null;
    }
  /** To the directory: is the epoch still that? -> renewed */
  | { readonly kind: 'renew'; readonly token: Token; readonly epoch: number }
  /** To the directory: this primary has lost its page cache (I14), and goes on only if the `renew` behind this is granted. */
  | { readonly kind: 'give-way'; readonly epoch: number }
  | {
      readonly kind: 'configured';
      readonly token: Token;
      readonly epoch: number;
      readonly isRefused: boolean;
    }
  | { readonly kind: 'handed-over'; readonly token: Token; readonly isRefused: boolean }
  // As primary:
  | { readonly kind: 'connect'; readonly to: MemberId; readonly session: Token; readonly epoch: number }
  | { readonly kind: 'disconnect'; readonly to: MemberId; readonly session: Token }
  | {
      readonly kind: 'send';
      readonly to: MemberId;
      readonly session: Token;
      readonly message: PrimaryMessage;
    }
  // As secondary:
  | {
      readonly kind: 'welcome';
      readonly session: Token;
      readonly hasLostCache: boolean;
      readonly unsettled: readonly Range[];
      readonly alone: readonly Range[];
    }
  | { readonly kind: 'refuse'; readonly session: Token; readonly code: RefusalCode; readonly epoch: number }
  | { readonly kind: 'reply'; readonly session: Token; readonly message: SecondaryMessage }
  | { readonly kind: 'end-session'; readonly session: Token }
  /** How hosts are to be treated from now on: served here; held; told to look elsewhere; or served through to another member. */
  | {
      readonly kind: 'serve';
      readonly epoch: number;
      readonly hosts: 'here' | 'hold' | 'refuse' | { readonly through: MemberId };
      /** Members that have handed over may send through what they still have in hand (I16). */
      readonly takesPassages: boolean;
    }
  /** For log, events and metrics. */
  | { readonly kind: 'told'; readonly what: Transition };

export type Transition =
  | {
      readonly kind: 'pair';
      readonly member: MemberId;
      readonly from: string;
      readonly to: string;
      readonly cause: string;
    }
  | {
      readonly kind: 'role';
      readonly from: string;
      readonly to: string;
      readonly epoch: number;
      readonly cause: string;
    }
  /** What a member that came back had written alone, and gives up. */
  | { readonly kind: 'discarded'; readonly member: MemberId; readonly bytes: number }
  | { readonly kind: 'copied'; readonly member: MemberId; readonly bytes: number };

export interface Output {
  readonly persist: DurableState | undefined;
  readonly effects: readonly Effect[];
}
