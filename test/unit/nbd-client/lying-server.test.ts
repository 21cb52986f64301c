/** R1: what a server says is used only while it keeps to the protocol; what breaks it costs the connection. */

import { describe, expect, test } from 'vitest';
import { openRemoteVolume } from '../../../src/nbd-client/remote-volume.ts';
import { Command, Errno, type HeaderStyle } from '../../../src/nbd-server-protocol/constants.ts';
import { outcomeOf } from '../../contract/model-run.ts';
import { silentLog } from '../../support/log.ts';
import { type Asked, made, type Script, ScriptedServer } from './scripted-server.ts';

const STYLES = ['simple', 'structured', 'extended'] as const;
const LENGTH = 4096;

async function open(server: ScriptedServer, headerStyle: HeaderStyle, reconnectMs = 20_000) {
  const { address } = server;
  return openRemoteVolume({ address, exportName: 'disk', headerStyle, reconnectMs, log: silentLog });
}

/** Lies in the first reply to a read; everything after it is honest. */
function liesOnce(lie: (asked: Asked, honest: Buffer) => Buffer): { script: Script; server: ScriptedServer } {
  const server = new ScriptedServer();
  let told = false;
  server.script = {
    answer: (asked) => {
      if (told || asked.request.command !== Command.read) return undefined;
      told = true;
      return lie(asked, server.honest(asked));
    },
  };
  return { script: server.script, server };
}

const data = (asked: Asked, offset: number, length: number, last = true): Buffer =>
  Buffer.concat([
    made((buffer) => asked.encoder.dataHeader(buffer, 0, asked.request, offset, length, last)),
    Buffer.alloc(length, 0xee),
  ]);

const LIES: [string, readonly HeaderStyle[], (asked: Asked, honest: Buffer) => Buffer][] = [
  ['garbage', STYLES, () => Buffer.alloc(100, 0x5a)],
  [
    'a cookie that nobody sent',
    STYLES,
    (_asked, honest) => {
      honest.writeUInt32BE(0xdead, 8);
      return honest;
    },
  ],
  ['the reply twice', STYLES, (_asked, honest) => Buffer.concat([honest.subarray(0), honest])],
  [
    'data before the request',
    ['structured', 'extended'],
    (asked) => data(asked, asked.request.offset - 512, LENGTH),
  ],
  [
    'more data than was asked for',
    ['structured', 'extended'],
    (asked) => data(asked, asked.request.offset, LENGTH + 1),
  ],
  [
    'a hole far beyond the request',
    ['structured', 'extended'],
    (asked) =>
      made((buffer) => asked.encoder.hole(buffer, 0, asked.request, asked.request.offset, 0xffff_ffff, true)),
  ],
  [
    'less data than was asked for',
    ['structured', 'extended'],
    (asked) => data(asked, asked.request.offset, 512),
  ],
  [
    'the same data twice',
    ['structured', 'extended'],
    (asked) =>
      Buffer.concat([
        data(asked, asked.request.offset, 512, false),
        data(asked, asked.request.offset, LENGTH),
      ]),
  ],
  [
    'success without data',
    ['structured', 'extended'],
    (asked) => made((b) => asked.encoder.ack(b, 0, asked.request)),
  ],
];

describe.each(LIES)('%s', (_name, styles, lie) => {
  test.each(styles)('%s: the connection is dropped, the read is asked again and right', async (style) => {
    const { server } = liesOnce(lie);
    await using listening = await server.start();
    const volume = await open(listening, style);
    const target = Buffer.alloc(LENGTH + 20, 0x11);
    await volume.read(8192, target, 10, LENGTH);
    const twice = Buffer.alloc(LENGTH);
    await volume.read(8192, twice, 0, LENGTH); // 'the reply twice' is seen behind the first read
    expect(target.subarray(10, 10 + LENGTH).equals(server.image.subarray(8192, 8192 + LENGTH))).toBe(true);
    expect(twice.equals(server.image.subarray(8192, 8192 + LENGTH))).toBe(true);
    expect([...target.subarray(0, 10), ...target.subarray(10 + LENGTH)].every((byte) => byte === 0x11)).toBe(
      true,
    );
    expect(server.accepted).toBe(2);
    await volume.close();
  });
});

test.each([
  ['simple', 200],
  ['structured', 200],
  ['extended', 1500], // longer than any pause between two attempts
] as const)('P3: a server that lies always is given up with io, %s', async (style, reconnectMs) => {
  await using server = await new ScriptedServer({
    answer: ({ request }) => (request.command === Command.read ? Buffer.alloc(64, 0x5a) : undefined),
  }).start();
  const volume = await open(server, style, reconnectMs);
  expect(await outcomeOf(volume.read(0, Buffer.alloc(512), 0, 512))).toBe('io');
  await volume.close();
});

test.each(STYLES)(
  'closing at every byte of a reply: the read is asked again and right, %s',
  async (style) => {
    await using server = await new ScriptedServer().start();
    let whole = 1;
    for (let cutAt = 0; cutAt < whole; cutAt++) {
      let cut = false;
      server.script = {
        send: (socket, reply) => {
          whole = reply.length;
          if (cut) socket.write(reply);
          else socket.end(reply.subarray(0, cutAt));
          cut = true;
        },
      };
      const volume = await open(server, style);
      const target = Buffer.alloc(64);
      await volume.read(512, target, 0, 64);
      expect(target.equals(server.image.subarray(512, 576)), `cut at ${cutAt}`).toBe(true);
      await volume.close();
    }
    expect(server.accepted).toBe(2 * whole);
  },
);

describe.each(STYLES)('a session that comes in two parts, cut at every byte, %s', (style) => {
  test('reads, an error, block status and a write are right', async () => {
    const server = await new ScriptedServer().start();
    await using _stopped = server;
    let collected: Buffer[] = [];
    let cutAt = -1;
    server.script = {
      answer: (asked) =>
        asked.request.command === Command.cache
          ? made((b) => asked.encoder.error(b, 0, asked.request, Errno.ENOSPC, 'no room'))
          : undefined,
      send: (socket, reply) => {
        collected.push(reply);
        if (collected.length < 4) return;
        const all = Buffer.concat(collected);
        collected = [];
        if (cutAt < 0) cutAt = all.length;
        const rest = all.subarray(cutAt);
        // The rest goes in a turn of its own, so that the client's kernel has the first part alone.
        socket.write(all.subarray(0, cutAt), () => setTimeout(() => socket.write(rest), 1));
      },
    };
    const volume = await open(server, style);
    do {
      const target = Buffer.alloc(100);
      const results = await Promise.all([
        outcomeOf(volume.read(1000, target, 0, 60)),
        outcomeOf(volume.cache(0, 512)),
        style === 'simple' ? outcomeOf(volume.flush()) : volume.blockStatus(0, 4096, 4),
        outcomeOf(volume.write(2000, Buffer.alloc(20, cutAt & 0xff), 0, 20, false)),
      ]);
      const status = style === 'simple' ? 'done' : [{ length: 4096, hole: false, zero: false }];
      expect(results, `cut at ${cutAt}`).toEqual(['done', 'no-space', status, 'done']);
      expect(target.subarray(0, 60).equals(server.image.subarray(1000, 1060))).toBe(true);
      cutAt -= 1;
    } while (cutAt > 0);
    expect(server.accepted).toBe(1);
    await volume.close();
  });
});

test('a write that is answered before its payload was taken gives the memory back only afterwards', async () => {
  const length = 16 * 1024 * 1024;
  await using server = await new ScriptedServer({ sizeBytes: length, answer: () => 'nothing' }).start();
  const volume = await open(server, 'simple');
  let written = false;
  const source = Buffer.alloc(length, 7);
  const writing = volume.write(0, source, 0, length, false).then(() => {
    written = true;
  });
  const reading = volume.read(0, Buffer.alloc(512), 0, 512);
  const [socket] = server.sockets;
  socket?.pause(); // the payload cannot have left
  const success = (cookie: number) => Buffer.from([0x67, 0x44, 0x66, 0x98, ...Buffer.alloc(11), cookie]);
  socket?.write(Buffer.concat([success(1), success(2), Buffer.alloc(512)]));
  await reading; // and so the answer to the write has come, too
  expect(written).toBe(false);
  socket?.resume();
  await writing;
  await volume.close();
  expect(server.seen[0]?.payload.equals(source)).toBe(true);
});

test('the same early answer twice is a breach: the write is sent again', async () => {
  const length = 16 * 1024 * 1024;
  await using server = await new ScriptedServer({ sizeBytes: length }).start();
  server.script.answer = ({ connection, encoder, request }) =>
    connection === 0 ? 'nothing' : made((buffer) => encoder.ack(buffer, 0, request));
  const volume = await open(server, 'simple');
  const writing = volume.write(0, Buffer.alloc(length, 7), 0, length, false);
  const [socket] = server.sockets;
  socket?.pause();
  const success = Buffer.from([0x67, 0x44, 0x66, 0x98, ...Buffer.alloc(11), 1]);
  socket?.write(Buffer.concat([success, success]));
  await writing;
  expect(server.accepted).toBe(2);
  await volume.close();
});

test.each(['structured', 'extended'] as const)('holes become zeroes where they belong, %s', async (style) => {
  await using server = await new ScriptedServer({
    answer: (asked) =>
      asked.request.command === Command.read
        ? Buffer.concat([
            made((b) => asked.encoder.hole(b, 0, asked.request, 5000, 1000, false)),
            data(asked, 4096, 904, false),
            data(asked, 6000, 2192),
          ])
        : undefined,
  }).start();
  const volume = await open(server, style);
  const target = Buffer.alloc(4100, 0x11);
  await volume.read(4096, target, 2, 4096);
  const expected = Buffer.alloc(4100, 0xee).fill(0, 906, 1906).fill(0x11, 0, 2).fill(0x11, 4098);
  expect(target.equals(expected)).toBe(true);
  await volume.close();
});
