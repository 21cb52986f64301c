/**
 * Errors of the whole project: one small hierarchy with literal codes. Code is matched, never text; `cause`
 * is kept. nbd/ holds the one map from a VolumeErrorCode to an NBD errno, cli/ the one to an exit status.
 */

export abstract class VolaryError extends Error {
  abstract readonly code: string;
  constructor(message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.name = new.target.name;
  }
}

export type VolumeErrorCode =
  | 'io' //            the medium failed
  | 'no-space' //      disk full, quota, file size limit
  | 'read-only' //     the volume takes no writes
  | 'invalid' //       outside the volume, misaligned, not a valid request
  | 'not-supported' // a fast zero that would be slow
  | 'too-big' //       more than the volume does in one request
  | 'failed' //        the volume is in its error state: an earlier flush failed, or its file was cut short
  | 'shutdown'; //     the volume is being closed

/** An operation on a Volume failed. `offset` (bytes) is where, when that is known. */
export class VolumeError extends VolaryError {
  readonly code: VolumeErrorCode;
  readonly offset: number | undefined;
  constructor(code: VolumeErrorCode, message: string, options?: { cause?: unknown; offset?: number }) {
    super(message, options);
    this.code = code;
    this.offset = options?.offset;
  }
}

export type UsageErrorCode =
  | 'bad-size'
  | 'bad-uri'
  | 'bad-name'
  | 'bad-argument'
  | 'not-found'
  | 'not-a-file'
  | 'too-small'
  | 'duplicate-name'
  | 'permission-denied'
  | 'read-only-filesystem'
  | 'no-space'
  | 'address-in-use'
  | 'address-unavailable'
  | 'locked'
  | 'wrong-data-folder' // another role's or name's, or not a data folder at all
  | 'newer-format' //      written by a later version
  | 'corrupt-metadata' //  what is stored is damaged
  | 'not-installed' //  a program of another package is missing
  | 'io';

/** Something that a person asked for cannot be done; the message says what to do instead. */
export class UsageError extends VolaryError {
  readonly code: UsageErrorCode;
  constructor(code: UsageErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export type StoreErrorCode =
  | 'no-space' // disk full, quota
  | 'locked' //   another program holds it for a while
  | 'io'; //      the medium failed, or the file system has gone read-only

/** Something that is to be kept could not be, or not be had back. The store works on once its cause is gone. */
export class StoreError extends VolaryError {
  readonly code: StoreErrorCode;
  constructor(code: StoreErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

export type ControlErrorCode =
  | 'bad-request' //    the message does not have the form that it should have
  | 'not-found'
  | 'exists'
  | 'conflict' //       another change came between, or the thing is in a state that does not allow this
  | 'in-use'
  | 'no-space' //       no storage system has room, or its disk is full
  | 'stale-epoch'
  | 'wrong-cluster'
  | 'wrong-identity' // the name belongs to another data folder
  | 'not-supported'
  | 'unavailable' //    cannot do it now: starting, stopping, or something it needs is away
  | 'unreachable' //    no answer
  | 'timeout' //        not within the time that somebody wanted to wait
  | 'cancelled'
  | 'failed'; //        tried, and it did not work

/** A request between processes was refused or came to nothing. The message is a sentence for people. */
export class ControlError extends VolaryError {
  readonly code: ControlErrorCode;
  constructor(code: ControlErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** Our own mistake, never a peer's: crashes the process loudly. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
