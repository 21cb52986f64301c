/**
 * Work: an operation from when its range is asked for until it is settled, at a primary or a secondary.
 */

import type { Placed } from '../base/loose-list.ts';
import type { LockEntry } from '../base/range-lock.ts';
import type { MemberId, Range } from '../peer-protocol/messages.ts';
import type { Operation, RequestError, Token } from './effects.ts';

/** A role, as its work sees it. Work may outlive it: the role then only lets it go. */
export interface Owner {
  /** The extents of the work are marked. */
  hot(work: Work): void;
  applied(work: Work, error: RequestError | undefined): void;
}

export type WorkKind =
  | 'change' //  a host's, or one of a primary
  | 'flush'
  | 'copy' //    blocks for one member
  | 'message'; // something that only has to be acknowledged

export class Work implements Range, Placed {
  readonly kind: WorkKind;
  readonly token: Token;
  readonly owner: Owner;
  /** Until it has been applied: a payload is not kept for as long as what is done with it is unsettled. */
  operation: Operation | undefined;
  readonly offset: number;
  readonly length: number;
  /** The host's request, at a primary; the number in its session, at a secondary. */
  readonly request: Token;
  /** Of a copy, or of a message to one: for whom. */
  readonly member: MemberId | undefined;
  /** Among those that are live at a primary. */
  place = 0;
  /** Its range, while it is held or waited for. */
  entry: LockEntry<Work> | undefined;
  /** What is waited for. At zero it is settled. */
  pending = 0;
  /** Extents that are not marked yet. */
  cold = 0;
  isMarked = false;
  isStarted = false;
  isApplying = false;
  isJournaled = false;
  isSettled = false;
  isAnswered = false;
  hasFailedHere = false;
  /** Its session has gone: there is nothing left to do. */
  isDropped = false;
  error: RequestError | undefined;
  /** Of a copy: it has its range. */
  locked: (() => void) | undefined;
  /** Of a copy, or a message: acknowledged, or its session has gone. */
  done: ((isDone: boolean) => void) | undefined;

  constructor(
    kind: WorkKind,
    token: Token,
    owner: Owner,
    range: Range,
    operation: Operation | undefined,
    request: Token,
    member: MemberId | undefined,
  ) {
    this.kind = kind;
    this.token = token;
    this.owner = owner;
    this.operation = operation;
    this.offset = range.offset;
    this.length = range.length;
    this.request = request;
    this.member = member;
  }
}

export const NOWHERE: Range = { offset: 0, length: 0 };
