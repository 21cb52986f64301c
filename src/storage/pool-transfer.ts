/** Whole reads and writes on libuv's thread pool: what the kernel did in part is continued. */

import { read as readFile, write as writeFile } from 'node:fs';
import { negativeErrnoOf, volumeErrorOf } from './errors.ts';

/** Bytes read: fewer than `length` only at the end of the file. Rejects with a VolumeError. */
export function readOnPool(
  fd: number,
  offset: number,
  target: Buffer,
  start: number,
  length: number,
): Promise<number> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const next = () => readFile(fd, target, start + done, length - done, offset + done, take);
    const take = (error: NodeJS.ErrnoException | null, count: number) => {
      if (error !== null) {
        reject(volumeErrorOf(negativeErrnoOf(error), 'read', offset + done));
        return;
      }
      done += count;
      if (count === 0 || done === length) resolve(done);
      else next();
    };
    next();
  });
}

/** Rejects with a VolumeError. */
export function writeOnPool(
  fd: number,
  offset: number,
  source: Buffer,
  start: number,
  length: number,
): Promise<void> {
  return new Promise((resolve, reject) => {
    let done = 0;
    const next = () => writeFile(fd, source, start + done, length - done, offset + done, take);
    const take = (error: NodeJS.ErrnoException | null, count: number) => {
      if (error !== null) {
        reject(volumeErrorOf(negativeErrnoOf(error), 'write', offset + done));
        return;
      }
      done += count;
      if (done === length) resolve();
      else next(); // a write that made no progress has its error next time
    };
    next();
  });
}
