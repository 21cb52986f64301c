import { closeSync, ftruncateSync, openSync, readFileSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { constants } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import * as sys from '../../../src/base/syscalls.ts';
import { diskFolder, type Folder } from '../../support/disk.ts';
import { eventually } from '../../support/tools.ts';

const { EBADF } = constants.errno;
const PUNCH = sys.FALLOC_FL_PUNCH_HOLE | sys.FALLOC_FL_KEEP_SIZE;

describe('files', () => {
  let folder: Folder;
  let path: string;
  let fd: number;
  beforeEach(() => {
    folder = diskFolder();
    path = join(folder.path, 'file');
    fd = openSync(path, 'w+');
  });
  afterEach(async () => {
    closeSync(fd);
    await folder.remove();
  });

  test('transfers reach just the bytes asked for, in buffers of any kind and in any turn', () => {
    const large = Buffer.alloc(1024 * 1024);
    const pooled = [Buffer.from('first'), Buffer.from('second')]; // both inside one of Node's shared ArrayBuffers
    const view = large.subarray(777_777, 777_877).fill('v');
    expect(sys.writeAt(fd, 0, pooled[0] as Buffer, 0, 5, 0)).toBe(5);
    expect(sys.writeAt(fd, 5, view, 10, 20, 0)).toBe(20);
    expect(sys.writeAt(fd, 25, pooled[1] as Buffer, 1, 4, 0)).toBe(4);
    expect(readFileSync(path, 'latin1')).toBe(`first${'v'.repeat(20)}econ`);
    const target = large.subarray(100, 200).fill('-');
    expect(sys.readAt(fd, 3, target, 50, 4, 0)).toBe(4);
    expect(target.toString('latin1')).toBe(`${'-'.repeat(50)}stvv${'-'.repeat(46)}`);
    expect(large[99]).toBe(0);
    expect(sys.readAt(fd, 20, target, 0, 100, 0)).toBe(9);
    expect(sys.readAt(fd, 1000, target, 0, 100, 0)).toBe(0);
  });

  test('offsets above 4 GiB arrive whole', () => {
    const offset = 5 * 2 ** 40 + 123;
    expect(sys.writeAt(fd, offset, Buffer.from('far'), 0, 3, 0)).toBe(3);
    const target = Buffer.alloc(3);
    expect(sys.readAt(fd, offset, target, 0, 3, 0)).toBe(3);
    expect(target.toString()).toBe('far');
    expect(sys.seek(fd, 0, sys.SEEK_DATA)).toBe(offset - (offset % 4096));
    expect(sys.seek(fd, offset + 3, sys.SEEK_DATA)).toBe(-sys.ENXIO);
  });

  test('an error is its own errno, negated, on the loop and on the pool', async () => {
    const byte = Buffer.alloc(1);
    expect(sys.readAt(-1, 0, byte, 0, 1, 0)).toBe(-EBADF);
    expect(sys.writeAt(-1, 0, byte, 0, 1, 0)).toBe(-EBADF);
    expect(sys.seek(-1, 0, sys.SEEK_DATA)).toBe(-EBADF);
    expect(sys.allocate(fd, PUNCH, 0, 0)).toBe(-sys.EINVAL);
    expect(sys.lockFile(-1, sys.LOCK_EX)).toBe(-EBADF);
    expect(await sys.willNeedAsync(-1, 0, 1)).toBe(-EBADF);
    expect(await sys.dontNeedAsync(-1)).toBe(-EBADF);
    ftruncateSync(fd, 4096);
    // Four threads that fail in different ways at the same time do not see each other's errno.
    const calls = Array.from({ length: 200 }, (_, index) => {
      if (index % 4 === 0) return sys.allocateAsync(-1, PUNCH, 0, 1);
      if (index % 4 === 1) return sys.allocateAsync(fd, PUNCH, 0, 0);
      return index % 4 === 2 ? sys.seekAsync(fd, 9999, sys.SEEK_DATA) : sys.seekAsync(fd, 0, sys.SEEK_HOLE);
    });
    const wanted = [-EBADF, -sys.EINVAL, -sys.ENXIO, 0];
    expect(await Promise.all(calls)).toEqual(calls.map((_, index) => wanted[index % 4]));
  });

  test('more calls than koffi takes at once wait for their turn', async () => {
    ftruncateSync(fd, 4096);
    const results = await Promise.all(
      Array.from({ length: 2000 }, () => sys.seekAsync(fd, 0, sys.SEEK_HOLE)),
    );
    expect(new Set(results)).toEqual(new Set([0]));
  });

  test('flock: one writer or many readers', () => {
    const other = openSync(path, 'r');
    expect(sys.lockFile(fd, sys.LOCK_EX | sys.LOCK_NB)).toBe(0);
    expect(sys.lockFile(other, sys.LOCK_SH | sys.LOCK_NB)).toBe(-sys.EWOULDBLOCK);
    expect(sys.lockFile(fd, sys.LOCK_SH | sys.LOCK_NB)).toBe(0);
    expect(sys.lockFile(other, sys.LOCK_SH | sys.LOCK_NB)).toBe(0);
    closeSync(other);
  });
});

describe('sockets', () => {
  test('sendNow takes what fits and says EAGAIN when full; peerHasClosed sees through unread data', async () => {
    const server = createServer({ allowHalfOpen: true });
    await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready));
    const accepted = new Promise<Socket>((resolve) => server.on('connection', resolve));
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1').pause();
    const peer = (await accepted).pause();
    const fd = (peer as unknown as { _handle: { fd: number } })._handle.fd;
    const bytes = Buffer.alloc(1024 * 1024, 7);
    expect(sys.sendNow(fd, bytes, 5, 10)).toBe(10);
    let count: number;
    do count = sys.sendNow(fd, bytes, 0, bytes.length);
    while (count > 0);
    expect(count).toBe(-sys.EAGAIN);
    expect(sys.peerHasClosed(fd)).toBe(false);
    client.end('unread');
    await eventually('the end of the peer', () => sys.peerHasClosed(fd) || undefined);
    client.destroy();
    peer.destroy();
    server.close();
  });
});
