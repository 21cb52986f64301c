/**
 * The system calls that Node has no name for, bound through koffi; the only module that knows koffi.
 * Wrappers return what the call returned (a count, an offset) or `-errno`: an error on the hot path must not
 * cost an exception. The `…Async` ones run on libuv's thread pool and promise the same.
 *
 * Buffers go to the kernel by address. A caller keeps a buffer alive until the call has returned, which for
 * a synchronous call its own stack does; asynchronous transfers go through node:fs and not through here.
 *
 * Of the descriptors, too, the caller takes care: none may be closed while a call that uses it is under way.
 */

import { constants } from 'node:os';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');

const preadv2 = libc.func('int64_t preadv2(int fd, void *iov, int count, int64_t offset, int flags)');
const pwritev2 = libc.func('int64_t pwritev2(int fd, void *iov, int count, int64_t offset, int flags)');
const sendBytes = libc.func('int64_t send(int fd, void *data, size_t length, int flags)');
const pollOnce = libc.func('int poll(void *fds, unsigned long count, int timeoutMs)');
const lseek64 = libc.func('int64_t lseek64(int fd, int64_t offset, int whence)');
const fallocate64 = libc.func('int fallocate64(int fd, int mode, int64_t offset, int64_t length)');
const posixFadvise64 = libc.func('int posix_fadvise64(int fd, int64_t offset, int64_t length, int advice)');
const flockFile = libc.func('int flock(int fd, int operation)');
const yieldCall = libc.func('int sched_yield()');
const setScheduler = libc.func('int sched_setscheduler(int thread, int policy, void *parameters)');

export const { EAGAIN, EINTR, EINVAL, EIO, ENOSPC, ENXIO, EOPNOTSUPP, EWOULDBLOCK } = constants.errno;

export const SEEK_DATA = 3;
export const SEEK_HOLE = 4;
export const RWF_NOWAIT = 0x8;
export const FALLOC_FL_KEEP_SIZE = 0x1;
export const FALLOC_FL_PUNCH_HOLE = 0x2;
export const FALLOC_FL_ZERO_RANGE = 0x10;
export const LOCK_SH = 1;
export const LOCK_EX = 2;
export const LOCK_NB = 4;
const POSIX_FADV_WILLNEED = 3;
const POSIX_FADV_DONTNEED = 4;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_MORE = 0x8000;
const SCHED_BATCH = 3;
const POLLRDHUP = 0x2000;
const POLLERR = 0x8;
const POLLHUP = 0x10;

/** errno of the call that has just returned -1, negated. */
function failure(): number {
  return -koffi.errno();
}

// Addresses of the few large ArrayBuffers that serve all transfers, looked up once each. A WeakMap get costs
// less than asking koffi; the last one asked for costs nothing.
const addresses = new WeakMap<ArrayBufferLike, number>();
let lastBuffer: ArrayBufferLike | undefined;
let lastAddress = 0;

function addressOf(buffer: Uint8Array): number {
  const memory = buffer.buffer;
  if (memory !== lastBuffer) {
    let address = addresses.get(memory);
    if (address === undefined) {
      // User-space addresses stay below 2^47 (2^52 on the largest machines), so a number holds them.
      address = Number(koffi.address(buffer)) - buffer.byteOffset;
      addresses.set(memory, address);
    }
    lastBuffer = memory;
    lastAddress = address;
  }
  return lastAddress + buffer.byteOffset;
}

// struct iovec { void *base; size_t length; }, little-endian, filled anew for each call.
const iovec = new Uint32Array(4);
const TWO_32 = 0x1_0000_0000;

function fillIovec(buffer: Uint8Array, start: number, length: number): void {
  const address = addressOf(buffer) + start;
  iovec[0] = address >>> 0;
  iovec[1] = (address / TWO_32) >>> 0;
  iovec[2] = length;
}

/** pread into target[start, start + length) with RWF flags. Bytes read (0 at end of file) or -errno. */
export function readAt(
  fd: number,
  offset: number,
  target: Buffer,
  start: number,
  length: number,
  flags: number,
): number {
  fillIovec(target, start, length);
  const count = preadv2(fd, iovec, 1, offset, flags) as number;
  return count >= 0 ? count : failure();
}

/** pwrite from source[start, start + length) with RWF flags. Bytes written or -errno. */
export function writeAt(
  fd: number,
  offset: number,
  source: Buffer,
  start: number,
  length: number,
  flags: number,
): number {
  fillIovec(source, start, length);
  const count = pwritev2(fd, iovec, 1, offset, flags) as number;
  return count >= 0 ? count : failure();
}

/**
 * send without waiting and without SIGPIPE. Bytes taken by the socket or -errno (-EAGAIN: it is full). With `more`, what
 * follows at once leaves together with it.
 */
export function sendNow(fd: number, source: Buffer, start: number, length: number, more = false): number {
  const address = BigInt(addressOf(source) + start);
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL | (more ? MSG_MORE : 0);
  const count = sendBytes(fd, address, length, flags) as number;
  return count >= 0 ? count : failure();
}

const pollRequest = new Int32Array(2); // struct pollfd { int fd; short events; short revents; }

/** True when the peer has closed its side, or the socket has failed, whatever is still unread. */
export function peerHasClosed(fd: number): boolean {
  pollRequest[0] = fd;
  pollRequest[1] = POLLRDHUP;
  const ready = pollOnce(pollRequest, 1, 0) as number;
  return ready > 0 && (((pollRequest[1] as number) >> 16) & (POLLRDHUP | POLLERR | POLLHUP)) !== 0;
}

/** lseek(SEEK_DATA | SEEK_HOLE). The offset found or -errno (-ENXIO: nothing behind `offset`). */
export function seek(fd: number, offset: number, whence: number): number {
  const found = lseek64(fd, offset, whence) as number;
  return found >= 0 ? found : failure();
}

/** fallocate on the calling thread. 0 or -errno. */
export function allocate(fd: number, mode: number, offset: number, length: number): number {
  return (fallocate64(fd, mode, offset, length) as number) === 0 ? 0 : failure();
}

// koffi refuses more than 256 calls at once, and each holds 256 KiB while it waits; more than the pool has
// threads would only wait there instead of here. The requests that wait are bounded by who asks.
const POOL_CALLS_MAX = 32;
const waitingCalls: (() => void)[] = [];
let poolCalls = 0;

type PoolFunction = {
  async: (...parameters: [...(number | bigint)[], (error: unknown, result: number) => void]) => void;
};

/** Runs the call on the thread pool. What it returned, or -errno when that was -1. */
function callOnPool(call: PoolFunction, parameters: number[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const start = () => {
      poolCalls += 1;
      call.async(...parameters, (error: unknown, result: number) => {
        const outcome = result === -1 ? failure() : result; // errno is this call's only inside the callback
        poolCalls -= 1;
        waitingCalls.shift()?.();
        if (error !== null && error !== undefined) reject(error);
        else resolve(outcome);
      });
    };
    if (poolCalls < POOL_CALLS_MAX) start();
    else waitingCalls.push(start);
  });
}

/** lseek(SEEK_DATA | SEEK_HOLE) on the thread pool. The offset found or -errno. */
export function seekAsync(fd: number, offset: number, whence: number): Promise<number> {
  return callOnPool(lseek64, [fd, offset, whence]);
}

/** fallocate on the thread pool. 0 or -errno. */
export function allocateAsync(fd: number, mode: number, offset: number, length: number): Promise<number> {
  return callOnPool(fallocate64, [fd, mode, offset, length]);
}

/** Starts reading a range into the page cache (POSIX_FADV_WILLNEED), on the thread pool. 0 or -errno. */
export async function willNeedAsync(fd: number, offset: number, length: number): Promise<number> {
  // posix_fadvise returns the error itself
  return -(await callOnPool(posixFadvise64, [fd, offset, length, POSIX_FADV_WILLNEED]));
}

/** Takes what is clean of the whole file out of the page cache (POSIX_FADV_DONTNEED), on the thread pool. 0 or -errno. */
export async function dontNeedAsync(fd: number): Promise<number> {
  return -(await callOnPool(posixFadvise64, [fd, 0, 0, POSIX_FADV_DONTNEED]));
}

/** flock. 0 or -errno (-EWOULDBLOCK: another process holds it). */
export function lockFile(fd: number, operation: number): number {
  return (flockFile(fd, operation) as number) === 0 ? 0 : failure();
}

const noPriority = new Int32Array(1); // struct sched_param { int priority; }

/** Makes a thread one that does not interrupt others when it wakes up (SCHED_BATCH). 0 or -errno. */
export function scheduleAsBatch(thread: number): number {
  return (setScheduler(thread, SCHED_BATCH, noPriority) as number) === 0 ? 0 : failure();
}

/** Lets whoever waits for this processor go first; costs a microsecond when nobody does. */
export function yieldProcessor(): void {
  yieldCall();
}
