/** `volary serve` where its surroundings are at fault: a log that takes nothing, clients that ask and leave. */

import { readFileSync, truncateSync } from 'node:fs';
import { expect, test } from 'vitest';
import { Command, Option, OptionReply } from '../../src/nbd-server-protocol/constants.ts';
import { addressOf } from '../support/client.ts';
import { Session } from '../support/nbd-session.ts';
import {
  anyPort,
  expectRefused,
  exportUri,
  IMAGE_BYTES,
  imageFolder,
  sizeOf,
  start,
} from '../support/serve-cases.ts';
import { volaryCommand } from '../support/server.ts';
import { eventually, run } from '../support/tools.ts';
import {
  infoData,
  optionRequest,
  readGreeting,
  readOptionReply,
  requestMessage,
  u32,
  Wire,
} from '../support/wire.ts';

const MIB = 1024 * 1024;
const folder = imageFolder();

test.each(['--read-only=yes', '--read-only=1', '--read-only=', '--json=maybe'])(
  '%s is no way to say it: a typo must not open an image for writing',
  (word) => expectRefused([folder().file('good.img'), ...anyPort, word], 'bad-argument', /give --/, 2),
);

test('--json=true is as good as --json; behind -- it is the name of a file', async () => {
  const json = await run(volaryCommand, ['serve', folder().file('missing.img'), '--json=true']);
  expect(JSON.parse(json.stdout)).toMatchObject({ error: { code: 'not-found' } });
  const named = await run(volaryCommand, ['serve', '--', '--json']);
  expect(named.stdout).toBe('');
  expect(named.stderr).toMatch(/^error: not-found: .*--json/);
});

test('S5: a log that cannot be written is lost, and nothing else', async () => {
  const script = `exec "$0" "$@" 2>/dev/full`;
  const command = ['sh', '-c', script, volaryCommand];
  const server = await start([folder().file('good.img'), ...anyPort], { command });
  const session = await Session.open(addressOf(exportUri(server)));
  truncateSync(folder().file('good.img'), 4096);
  expect((await session.read(8192, 512)).error).not.toBe(0); // told in the log, too
  truncateSync(folder().file('good.img'), IMAGE_BYTES);
  expect(await sizeOf(exportUri(server))).toBe(IMAGE_BYTES);
  session.wire.destroy();
  expect(await server.stop()).toEqual({ code: 1, signal: null }); // what was lost cannot be flushed
});

test('standard output that cannot be written is a failure in words', async () => {
  const args = ['-c', 'exec "$0" "$@" >/dev/full', volaryCommand, 'serve', folder().file('good.img')];
  const { code, stderr } = await run('sh', [...args, ...anyPort], {
    env: { ...process.env, VOLARY_LOG_LEVEL: 'silent' },
  });
  expect(stderr).toMatch(/^error: io: standard output/);
  expect(code).toBe(1);
});

test('N5: nothing more is read for clients that have gone', async () => {
  const server = await start([folder().file('large.img'), '--size', '64MiB', ...anyPort]);
  const writer = await Session.open(addressOf(exportUri(server)));
  await writer.write(0, Buffer.alloc(32 * MIB, 1));
  const readBytes = () => {
    const io = readFileSync(`/proc/${server.process.pid}/io`, 'utf8');
    return Number(/^rchar: (\d+)$/m.exec(io)?.[1]);
  };
  const leaving = await Promise.all(
    Array.from({ length: 20 }, () => Session.open(addressOf(exportUri(server)), { style: 'simple' })),
  );
  for (const session of leaving) {
    session.wire.pause();
    session.send({ type: Command.read, offset: 0, length: 32 * MIB });
  }
  let before = 0;
  // Each has its socket's buffers full, and waits.
  await eventually('the server reads nothing more', async () => {
    const now = readBytes();
    const settled = now - before < MIB;
    before = now;
    await new Promise((wake) => setTimeout(wake, 300));
    return settled || undefined;
  });
  for (const session of leaving) session.wire.destroy('reset');
  await new Promise((wake) => setTimeout(wake, 500));
  expect(readBytes() - before).toBeLessThan(20 * 2 * MIB);
  expect((await writer.read(0, 512)).error).toBe(0);
  writer.wire.destroy();
});

test('the first reply does not overtake what the client has not read of the handshake', async () => {
  const listen = ['--listen', `nbd+unix:///?socket=${folder().file('s')}`];
  const server = await start([folder().file('good.img'), ...listen]);
  const wire = await Wire.connect({ path: folder().file('s') });
  await readGreeting(wire);
  wire.pause();
  await wire.sendAll(u32(3));
  // The socket takes some of the answers, the server keeps the others.
  for (let sent = 0; sent < 1800; sent += 1) {
    await wire.sendAll(optionRequest(0x5afe));
    await new Promise((wake) => setImmediate(wake));
  }
  await new Promise((wake) => setTimeout(wake, 300));
  // While it stands still, the client makes room in the socket, and goes on.
  server.process.kill('SIGSTOP');
  wire.resume();
  await new Promise((wake) => setTimeout(wake, 300));
  wire.send(
    optionRequest(Option.go, infoData('')),
    requestMessage('simple', { type: Command.read, offset: 0, length: 512, cookie: 7n }),
  );
  await new Promise((wake) => setTimeout(wake, 100));
  server.process.kill('SIGCONT');
  let reply = await readOptionReply(wire);
  while (reply.option !== Option.go || reply.type !== OptionReply.ack) reply = await readOptionReply(wire);
  expect((await wire.read(4)).readUInt32BE()).toBe(0x6744_6698); // a simple reply
  wire.destroy();
});
