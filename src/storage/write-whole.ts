/** Small writes into the page cache, on the calling thread, that are made whole or told to have failed. */

import { writeAt } from '../base/syscalls.ts';
import type { StoreError } from '../model/errors.ts';
import { storeErrorOfErrno } from './errors.ts';

export interface Bytes {
  readonly source: Buffer;
  /** From where in `source`, and how many. */
  readonly start: number;
  readonly length: number;
}

/** pwrite of all of it. `attempt` completes "cannot …". @throws StoreError; a part may then have been written */
export function writeWhole(fd: number, offset: number, bytes: Bytes, attempt: string): void {
  const error = tryWriteWhole(fd, offset, bytes, attempt);
  if (error !== undefined) throw error;
}

/** The same, and the error is returned. */
export function tryWriteWhole(
  fd: number,
  offset: number,
  { source, start, length }: Bytes,
  attempt: string,
): StoreError | undefined {
  for (let done = 0; done < length; ) {
    const count = writeAt(fd, offset + done, source, start + done, length - done, 0);
    if (count <= 0) return storeErrorOfErrno(count, attempt);
    done += count;
  }
  return undefined;
}
