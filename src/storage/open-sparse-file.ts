/**
 * Opening and creating the file behind a SparseFile: everything that can be wrong with it is told here, as a
 * UsageError whose sentence says what to do.
 *
 * Invariants: what is not a regular file is never opened (a fifo would hang, a device may act on it). A file
 * is locked before anything is done with it. A file that could not be made completely does not stay behind.
 */

import {
  closeSync,
  constants,
  fstatSync,
  fsync,
  ftruncateSync,
  lstatSync,
  openSync,
  statfsSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { EWOULDBLOCK, LOCK_EX, LOCK_NB, LOCK_SH, lockFile } from '../base/syscalls.ts';
import { UsageError, type UsageErrorCode } from '../model/errors.ts';
import { syncFolder } from './folder-space.ts';
import { SparseFile } from './sparse-file.ts';

const TMPFS_MAGIC = 0x01021994;
const RAMFS_MAGIC = 0x858458f6;

const fsyncOnPool = promisify(fsync);

export interface OpenOptions {
  /** Makes the file when it is missing; an existing one must have this size. */
  readonly sizeBytes?: number;
  readonly readOnly?: boolean;
  /** Called once, when the volume goes to its failed state, with the reason as a sentence. */
  readonly onFailed?: (reason: string) => void;
}

/** Opens the raw file at `path` as a Volume, for this process alone (shared by readers). */
export async function openSparseFile(path: string, options: OpenOptions = {}): Promise<SparseFile> {
  const readOnly = options.readOnly ?? false;
  const { sizeBytes } = options;
  if (sizeBytes !== undefined && !(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0)) {
    throw new UsageError(
      'bad-size',
      `${sizeBytes} is no size for ${path}: give a whole number of bytes up to 2^53 - 1`,
    );
  }
  const fd = isThere(path)
    ? openExisting(path, sizeBytes, readOnly)
    : await create(path, sizeBytes, readOnly);
  try {
    const { type } = statfsSync(path);
    return new SparseFile({
      fd,
      sizeBytes: fstatSync(fd).size,
      readOnly,
      inMemory: type === TMPFS_MAGIC || type === RAMFS_MAGIC,
      ...(options.onFailed === undefined ? {} : { onFailed: options.onFailed }),
    });
  } catch (error) {
    closeSync(fd);
    throw openingError(error, path);
  }
}

function isThere(path: string): boolean {
  try {
    const stats = statSync(path, { throwIfNoEntry: false });
    if (stats === undefined) return false;
    requireRegular(path, stats.isFile(), stats.isDirectory());
    return true;
  } catch (error) {
    throw openingError(error, path);
  }
}

function requireRegular(path: string, isFile: boolean, isFolder: boolean): void {
  if (isFile) return;
  const what = isFolder ? 'a folder' : 'a device, socket or pipe';
  throw new UsageError('not-a-file', `${path} is ${what}: give a regular file`);
}

function openExisting(path: string, sizeBytes: number | undefined, readOnly: boolean): number {
  const fd = tryOpen(path, (readOnly ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NONBLOCK);
  try {
    lock(fd, path, readOnly);
    const stats = fstatSync(fd); // of what was opened, which need not be what was there a moment ago
    requireRegular(path, stats.isFile(), stats.isDirectory());
    checkSize(path, stats.size, sizeBytes);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw openingError(error, path);
  }
}

function checkSize(path: string, actual: number, asked: number | undefined): void {
  if (!Number.isSafeInteger(actual)) {
    throw new UsageError('bad-size', `${path} is larger than 2^53 - 1 bytes, the most a volume can have`);
  }
  if (asked === undefined || actual === asked) return;
  if (actual < asked) {
    const text = `${path} has ${actual} bytes, fewer than the ${asked} asked for: leave --size out, or enlarge the file`;
    throw new UsageError('too-small', text);
  }
  const text = `${path} has ${actual} bytes, more than the ${asked} asked for, and is never shortened: leave --size out`;
  throw new UsageError('bad-size', text);
}

async function create(path: string, sizeBytes: number | undefined, readOnly: boolean): Promise<number> {
  if (isDanglingLink(path)) {
    throw new UsageError(
      'not-found',
      `${path} is a symbolic link to a file that is not there: make that file first`,
    );
  }
  if (sizeBytes === undefined) {
    throw new UsageError('not-found', `${path} does not exist: give --size to create it`);
  }
  if (readOnly) {
    throw new UsageError('not-found', `${path} does not exist: leave --read-only out to create it`);
  }
  const fd = tryOpen(path, constants.O_RDWR | constants.O_CREAT | constants.O_EXCL);
  try {
    lock(fd, path, false);
  } catch (error) {
    closeSync(fd); // somebody was quicker between the two calls: the file is theirs
    throw error;
  }
  try {
    ftruncateSync(fd, sizeBytes);
    await fsyncOnPool(fd);
    await syncFolder(dirname(path));
    return fd;
  } catch (error) {
    unlinkSync(path);
    closeSync(fd);
    throw creationError(error, path, sizeBytes);
  }
}

function isDanglingLink(path: string): boolean {
  try {
    return lstatSync(path, { throwIfNoEntry: false })?.isSymbolicLink() ?? false;
  } catch (error) {
    throw openingError(error, path);
  }
}

function tryOpen(path: string, flags: number): number {
  try {
    return openSync(path, flags, 0o644);
  } catch (error) {
    throw openingError(error, path);
  }
}

function lock(fd: number, path: string, readOnly: boolean): void {
  const result = lockFile(fd, (readOnly ? LOCK_SH : LOCK_EX) | LOCK_NB);
  if (result === 0) return;
  if (result === -EWOULDBLOCK) {
    throw new UsageError('locked', `${path} is being served by another process: stop that one first`);
  }
  throw new UsageError('io', `${path} cannot be locked (errno ${-result}): use a file system that has locks`);
}

function creationError(error: unknown, path: string, sizeBytes: number): UsageError {
  const { code } = error as NodeJS.ErrnoException;
  if (code !== 'EFBIG' && code !== 'EINVAL') return openingError(error, path);
  const text = `the file system of ${path} cannot hold a file of ${sizeBytes} bytes: give a smaller --size`;
  return new UsageError('bad-size', text, { cause: error });
}

const explanations: Record<string, [UsageErrorCode, (path: string) => string]> = {
  ENOENT: ['not-found', (path) => `the folder of ${path} does not exist: make it first`],
  ENOTDIR: ['not-found', (path) => `${path} leads through something that is no folder: correct the path`],
  ELOOP: ['not-found', (path) => `${path} is a symbolic link that leads to itself: correct it`],
  ENAMETOOLONG: ['not-found', (path) => `${path} is too long for a path: give a shorter one`],
  EACCES: ['permission-denied', (path) => `no permission to open ${path}: change its mode, or its owner`],
  EPERM: ['permission-denied', (path) => `${path} may not be changed: take its immutable attribute away`],
  EROFS: [
    'read-only-filesystem',
    (path) => `${path} is on a read-only file system: serve it with --read-only`,
  ],
  ENXIO: ['not-a-file', (path) => `${path} is a device, socket or pipe: give a regular file`],
  EISDIR: ['not-a-file', (path) => `${path} is a folder: give a regular file`],
  ETXTBSY: ['locked', (path) => `${path} is a program that is running: stop it first`],
  EEXIST: ['locked', (path) => `${path} is just being made by another process: try again`],
  ENOSPC: ['no-space', (path) => `there is no space left to create ${path}: free some, or use another disk`],
  EDQUOT: ['no-space', (path) => `the quota leaves no space to create ${path}: free some, or raise it`],
};

function openingError(error: unknown, path: string): UsageError {
  if (error instanceof UsageError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) throw error; // not the kernel's answer: our own mistake
  const known = explanations[code];
  if (known !== undefined) return new UsageError(known[0], known[1](path), { cause: error });
  return new UsageError('io', `${path} cannot be opened (${message}): look into that first`, {
    cause: error,
  });
}
