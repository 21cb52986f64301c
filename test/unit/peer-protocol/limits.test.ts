/** What a server bounds for all its links together. */

import { expect, test } from 'vitest';
import { type LogLine, recordingLog } from '../../support/log.ts';
import { helloFrame } from './lab.ts';
import { ANSWER, openPair, RawPeer, startServer, writeMessage } from './link-lab.ts';

const MiB = 1 << 20;

test('what all links hold together is bounded: beyond that they leave it with the kernel, and go on when there is room', async () => {
  const server = await startServer((link) => link.accept(ANSWER), { receivedBytesMax: 4 * MiB });
  const [one, two, idle] = [await openPair(server), await openPair(server), await openPair(server)];
  for (let seq = 1; seq <= 32; seq++) {
    for (const { primary } of [one, two]) primary.send(writeMessage(seq, Buffer.alloc(MiB, seq)));
  }
  await one.secondaryOwner.until(() => one.secondaryOwner.messages.length >= 1);
  await two.secondaryOwner.until(() => two.secondaryOwner.messages.length >= 1);
  for (let token = 1; token <= 500; token++) {
    idle.primary.send({ kind: 'heartbeat', token, confirmed: 0 });
    await idle.secondaryOwner.until(() => idle.secondaryOwner.messages.length === token);
    idle.secondary.send({ kind: 'heartbeat-ack', token, received: 0 });
    await idle.primaryOwner.until(() => idle.primaryOwner.messages.length === token);
  }
  const { budget } = server.server;
  expect(one.secondaryOwner.messages.length + two.secondaryOwner.messages.length).toBeLessThan(8);
  expect(budget.heldBytes).toBeLessThanOrEqual(8 * MiB);
  let mostBytes = 0;
  for (const { secondary, secondaryOwner } of [one, two]) {
    for (let seq = 1; seq <= 32; seq++) {
      await secondaryOwner.until(() => secondaryOwner.messages.length >= seq);
      mostBytes = Math.max(mostBytes, budget.heldBytes);
      secondary.send({ kind: 'ack', seq, result: 'done' });
    }
  }
  expect(mostBytes).toBeLessThanOrEqual(8 * MiB);
  expect(budget.heldBytes).toBe(0);
});

test('a link that ends gives back what it held, also of what was still coming', async () => {
  const server = await startServer((link) => link.accept(ANSWER), { receivedBytesMax: 4 * MiB });
  const [one, two] = [await openPair(server), await openPair(server)];
  for (let seq = 1; seq <= 32; seq++) one.primary.send(writeMessage(seq, Buffer.alloc(MiB)));
  await one.secondaryOwner.until(() => server.server.budget.isFull);
  for (let seq = 1; seq <= 3; seq++) two.primary.send(writeMessage(seq, Buffer.alloc(MiB)));
  await two.secondaryOwner.until(() => two.secondaryOwner.messages.length === 1);
  one.secondary.destroy();
  await one.secondaryOwner.ends();
  await two.secondaryOwner.until(() => two.secondaryOwner.messages.length === 3);
  expect(server.server.budget.heldBytes).toBe(3 * MiB);
});

test('many that say nothing keep nobody from another address out, and do not fill the log', async () => {
  const lines: LogLine[] = [];
  const server = await startServer((link) => link.accept(ANSWER), { log: recordingLog(lines) });
  const flood = await Promise.all(Array.from({ length: 1100 }, () => RawPeer.connect(server.address)));
  const other = await RawPeer.connect(server.address, '127.0.0.2');
  other.send(helloFrame());
  await other.until(({ kinds, hasEnded }) => kinds.length === 2 || hasEnded);
  expect(other.kinds.length).toBe(2);
  for (const { socket } of flood) socket.destroy();
  const late = await RawPeer.connect(server.address);
  late.send(helloFrame());
  await late.until(({ kinds, hasEnded }) => kinds.length === 2 || hasEnded);
  expect(late.kinds.length).toBe(2);
  expect(lines.map(({ text }) => text)).toEqual(['no hello from a peer']);
});
