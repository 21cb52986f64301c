/** Opening: what is agreed on, what the volume can do then, and every way in which it comes to nothing. */

import { createServer } from 'node:net';
import { describe, expect, test } from 'vitest';
import { openRemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { Command, Errno, TransmissionFlag } from '../../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { silentLog } from '../../support/log.ts';
import { freePort } from '../../support/ports.ts';
import { temporaryFolder } from '../../support/tools.ts';
import { MemoryVolume } from '../../support/volumes/memory-volume.ts';
import { lab, pattern } from '../nbd/lab.ts';
import { MULTI, made, ScriptedServer } from './scripted-server.ts';

const common = { exportName: 'disk', log: silentLog, reconnectMs: 5000 };
const { hasFlags, readOnly, sendFlush, sendTrim, sendWriteZeroes, sendFastZero, sendCache, sendResize } =
  TransmissionFlag;

describe('header styles: the best that both have', () => {
  test.each(['simple', 'structured', 'extended'] as const)('%s', async (headerStyle) => {
    await using server = await lab(new MemoryVolume(pattern(8192)));
    const volume = await openRemoteVolume({ ...common, address: server.address, headerStyle });
    expect(volume.session.headerStyle).toBe(headerStyle);
    expect(volume.capabilities.blockStatus).toBe(headerStyle !== 'simple');
    await volume.close();
  });

  test('on a unix socket, and by the name of a host', async () => {
    const folder = await temporaryFolder();
    await using server = await lab(new MemoryVolume(pattern(8192)));
    const path = folder.file('nbd.sock');
    await server.server.listen({ path });
    const { port } = server.address as { port: number };
    for (const address of [{ path }, { host: 'localhost', port }]) {
      const volume = await openRemoteVolume({ ...common, address });
      const target = Buffer.alloc(8192);
      await volume.read(0, target, 0, 8192);
      expect(target.equals(pattern(8192))).toBe(true);
      await volume.close();
    }
    await folder.remove();
  });
});

describe('capabilities and block sizes are the server’s', () => {
  const nothing = {
    write: true,
    flush: false,
    trim: false,
    writeZeroes: false,
    fastZero: false,
    blockStatus: false,
    cache: false,
    resize: false,
  };
  test.each([
    ['nothing', 0, {}],
    ['flush', sendFlush, { flush: true }],
    ['trim', sendTrim, { trim: true }],
    ['zeroes', sendWriteZeroes, { writeZeroes: true }],
    ['fast zeroes', sendWriteZeroes | sendFastZero, { writeZeroes: true, fastZero: true }],
    ['fast zeroes without zeroes, which means nothing', sendFastZero, {}],
    ['cache', sendCache, { cache: true }],
    ['resize', sendResize, { resize: true }],
    ['read-only, whatever else', readOnly | sendTrim | sendWriteZeroes | sendResize, { write: false }],
  ])('%s', async (_name, flags, expected) => {
    await using server = await new ScriptedServer({
      transmissionFlags: hasFlags | flags,
      metaContexts: [],
      blockSizes: { minimum: 512, preferred: 8192, maximumPayload: 64 * 1024 * 1024 },
    }).start();
    const volume = await openRemoteVolume({ ...common, address: server.address });
    expect(volume.capabilities).toEqual({ ...nothing, ...expected });
    expect(volume.blockSizes).toEqual({ minimum: 512, preferred: 8192, maximumPayload: 64 * 1024 * 1024 });
    await volume.close();
  });

  test('what keeps not to the smallest block is invalid, and never asked for', async () => {
    await using server = await new ScriptedServer({
      blockSizes: { minimum: 512, preferred: 4096, maximumPayload: 65_536 },
    }).start();
    const volume = await openRemoteVolume({ ...common, address: server.address });
    const memory = Buffer.alloc(1024);
    expect(await outcomeOf(volume.read(1, memory, 0, 512))).toBe('invalid');
    expect(await outcomeOf(volume.write(512, memory, 0, 513, false))).toBe('invalid');
    expect(await outcomeOf(volume.trim(256, 512, false))).toBe('invalid');
    expect(await outcomeOf(volume.blockStatus(0, 100, 1))).toBe('invalid');
    expect(server.seen).toEqual([]);
    await volume.close();
  });
});

describe('large requests are split at the server’s bound', () => {
  test('reads and writes: in blocks, whole, and none larger', async () => {
    const maximumPayload = 65_536 + 512;
    await using server = await new ScriptedServer({
      transmissionFlags: MULTI,
      blockSizes: { minimum: 4096, preferred: 4096, maximumPayload },
    }).start();
    const volume = await openRemoteVolume({ ...common, address: server.address });
    const target = Buffer.alloc(300_000);
    await volume.read(4096, target, 10, 270_336);
    expect(target.subarray(10, 10 + 270_336).equals(server.image.subarray(4096, 274_432))).toBe(true);
    const source = pattern(270_336).reverse();
    await volume.write(8192, source, 0, source.length, false);
    expect(server.image.subarray(8192, 8192 + source.length).equals(source)).toBe(true);
    expect(Math.max(...server.seen.map(({ request }) => request.length))).toBe(65_536);
    await volume.close();
  });

  test('one piece that fails fails the whole, after the others have ended', async () => {
    let answered = 0;
    await using server = await new ScriptedServer({
      blockSizes: { minimum: 1, preferred: 4096, maximumPayload: 4096 },
      answer: ({ encoder, request }) => {
        answered += 1;
        if (request.offset !== 4096) return undefined;
        return made((buffer) => encoder.error(buffer, 0, request, Errno.EIO, 'bad sector', 5000));
      },
    }).start();
    const volume = await openRemoteVolume({ ...common, address: server.address });
    await expect(volume.read(0, Buffer.alloc(40_960), 0, 40_960)).rejects.toMatchObject({
      code: 'io',
      offset: 5000,
      message: expect.stringContaining('bad sector'),
    });
    expect(answered).toBe(10);
    await volume.close();
  });

  test('ranges of more than 4 GiB, with compact headers', async () => {
    const GIB = 1024 ** 3;
    await using server = await new ScriptedServer({ sizeBytes: 9 * GIB }).start();
    const volume = await openRemoteVolume({ ...common, address: server.address, headerStyle: 'structured' });
    await volume.trim(0, 5 * GIB + 1, false);
    const ranges = server.seen.map(({ request }) => [request.offset / GIB, request.length]);
    expect(ranges).toEqual([...[0, 1, 2, 3, 4].map((at) => [at, GIB]), [5, 1]]);
    expect(await volume.blockStatus(0, 9 * GIB, 5)).toEqual([{ length: 9 * GIB, hole: false, zero: false }]);
    await volume.close();
  });
});

describe('block status', () => {
  test('more than was asked for is cut off, neighbours are joined, short answers are followed up', async () => {
    const descriptors = [
      { length: 1024, state: 3 },
      { length: 1024, state: 3 },
      { length: 512, state: 0 },
    ];
    await using server = await new ScriptedServer({
      answer: ({ encoder, request }) =>
        request.command === Command.blockStatus
          ? made((b) => {
              const fitting = request.length > 2560 ? descriptors : [{ length: 1_000_000, state: 1 }];
              return encoder.blockStatus(b, 0, request, 1, fitting, true);
            })
          : undefined,
    }).start();
    const volume = await openRemoteVolume({ ...common, address: server.address });
    const expected = [
      { length: 2048, hole: true, zero: true },
      { length: 512, hole: false, zero: false },
      { length: 440, hole: true, zero: false },
    ];
    expect(await volume.blockStatus(0, 3000, 10)).toEqual(expected);
    expect(await volume.blockStatus(0, 3000, 2)).toEqual(expected.slice(0, 2));
    await volume.close();
  });
});

test.each([
  [Errno.EPERM, 'read-only'],
  [Errno.EIO, 'io'],
  [Errno.ENOMEM, 'io'],
  [Errno.EINVAL, 'invalid'],
  [Errno.ENOSPC, 'no-space'],
  [Errno.EOVERFLOW, 'too-big'],
  [Errno.ENOTSUP, 'not-supported'],
  [999, 'invalid'],
])('errno %i is %s', async (errno, code) => {
  await using server = await new ScriptedServer({
    answer: ({ encoder, request }) =>
      request.command === Command.disconnect
        ? undefined
        : made((buffer) => encoder.error(buffer, 0, request, errno, '')),
  }).start();
  for (const headerStyle of ['simple', 'structured', 'extended'] as const) {
    const volume = await openRemoteVolume({ ...common, address: server.address, headerStyle });
    expect(await outcomeOf(volume.write(0, Buffer.alloc(512), 0, 512, false))).toBe(code);
    expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe(code);
    await volume.close();
  }
  expect(server.accepted).toBe(3);
});

describe('what comes to nothing', () => {
  test('an export that is not there', async () => {
    await using server = await new ScriptedServer().start();
    const opening = openRemoteVolume({ ...common, exportName: 'nowhere', address: server.address });
    await expect(opening).rejects.toMatchObject({
      name: 'VolumeError',
      code: 'invalid',
      message: expect.stringMatching(/127\.0\.0\.1:\d+, export "nowhere".*does not have that export/),
    });
  });

  test('nobody listens', async () => {
    const port = await freePort();
    const opening = openRemoteVolume({ ...common, address: { host: '127.0.0.1', port } });
    await expect(opening).rejects.toMatchObject({
      code: 'io',
      message: expect.stringContaining('ECONNREFUSED'),
    });
  });

  const OPTION_REPLY = Buffer.from('0003e889045565a9', 'hex');
  const greeting = Buffer.concat([Buffer.from('NBDMAGICIHAVEOPT'), Buffer.from([0, 3])]);
  const refuse = (code: number) => (option: number) =>
    Buffer.concat([OPTION_REPLY, Buffer.from([0, 0, 0, option, 0x80, 0, 0, code, 0, 0, 0, 0])]);
  test.each([
    ['a web server', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n'), undefined, 'io', 'no NBD server'],
    [
      'an oldstyle server',
      Buffer.concat([Buffer.from('NBDMAGIC'), Buffer.from('0000420281861253', 'hex')]),
      undefined,
      'not-supported',
      'oldstyle',
    ],
    ['a server that wants TLS', greeting, refuse(5), 'not-supported', 'TLS'],
    ['a server that refuses', greeting, refuse(2), 'invalid', 'refused'],
    ['a server that is shutting down', greeting, refuse(7), 'shutdown', 'shut down'],
    [
      'one that answers an option with too much',
      greeting,
      () => Buffer.concat([OPTION_REPLY, Buffer.from([0, 0, 0, 11, 0x80, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff])]),
      'io',
      'too much',
    ],
    ['one that closes', greeting, () => undefined, 'io', 'closed'],
  ])('%s', async (_name, first, reply, code, text) => {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.write(first.length < 18 ? Buffer.concat([first, Buffer.alloc(18 - first.length)]) : first);
      let seen = Buffer.alloc(0);
      socket.on('data', (chunk: Buffer) => {
        seen = Buffer.concat([seen, chunk]);
        // The client's flags (4 bytes), then one option at a time: magic 8, code 4, length 4, data.
        if (reply === undefined || seen.length < 20 || seen.length < 20 + seen.readUInt32BE(16)) return;
        const bytes = reply(seen.readUInt32BE(12));
        seen = Buffer.concat([seen.subarray(0, 4), seen.subarray(20 + seen.readUInt32BE(16))]);
        if (bytes === undefined) socket.end();
        else socket.write(bytes);
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    const opening = openRemoteVolume({ ...common, address: { host: '127.0.0.1', port } });
    await expect(opening).rejects.toMatchObject({ code, message: expect.stringContaining(text) });
    await new Promise((resolve) => server.close(resolve)); // ends only when our connection is gone, too
  });

  test('one that says nothing', async () => {
    await using server = await new ScriptedServer({ raw: () => undefined }).start();
    const opening = openRemoteVolume({ ...common, reconnectMs: 100, address: server.address });
    await expect(opening).rejects.toMatchObject({
      code: 'io',
      message: expect.stringContaining('does not answer'),
    });
  });
});
