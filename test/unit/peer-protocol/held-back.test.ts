/** A link that is held back by what all links hold together. */

import { setTimeout as passes } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { RECEIVING_MS } from '../../../src/peer-protocol/constants.ts';
import { THIRD } from './lab.ts';
import { ANSWER, openPair, startServer, writeMessage } from './link-lab.ts';

const MiB = 1 << 20;

test('a link that has acknowledged all that it held reads on, also when the last was no write: what is full is what it has half', async () => {
  const server = await startServer((link) => link.accept(ANSWER), { receivedBytesMax: MiB });
  const { primary, secondary, secondaryOwner } = await openPair(server);
  const ranges = Array.from({ length: 100 }, (_, at) => ({ offset: at * 8192, length: 4096 }));
  primary.send({ kind: 'lacks', seq: 1, confirmed: 0, member: THIRD, ranges });
  primary.send(writeMessage(2, Buffer.alloc(4 * MiB)));
  await secondaryOwner.until(() => secondaryOwner.messages.length === 1 && server.server.budget.isFull);
  secondary.send({ kind: 'ack', seq: 1, result: 'done' });
  await secondaryOwner.until(() => secondaryOwner.messages.length === 2);
  secondary.send({ kind: 'ack', seq: 2, result: 'done' });
  expect(server.server.budget.heldBytes).toBe(0);
});

test('a link that is held back by what others hold says that it receives, until it reads on: its primary does not take it for lost', async () => {
  const server = await startServer((link) => link.accept(ANSWER), { receivedBytesMax: MiB });
  const full = await openPair(server);
  const held = await openPair(server);
  full.primary.send(writeMessage(1, Buffer.alloc(MiB)));
  await full.secondaryOwner.until(() => full.secondaryOwner.messages.length === 1);
  held.primary.send(writeMessage(1, Buffer.alloc(4096)));
  await held.secondaryOwner.until(() => held.secondaryOwner.messages.length === 1);
  held.primary.send({ kind: 'heartbeat', token: 1, confirmed: 0 });
  await held.primaryOwner.until(() => held.primaryOwner.messages.length === 3);
  expect(held.primaryOwner.messages.every(({ kind }) => kind === 'receiving')).toBe(true);
  expect(held.secondaryOwner.messages.length).toBe(1);

  full.secondary.send({ kind: 'ack', seq: 1, result: 'done' });
  await held.secondaryOwner.until(() => held.secondaryOwner.messages.length === 2);
  held.secondary.send({ kind: 'ack', seq: 1, result: 'done' });
  await held.primaryOwner.until(() => held.primaryOwner.messages.at(-1)?.kind === 'ack');
  // Where nothing is being sent, it is a breach to say that it is received.
  await passes(3 * RECEIVING_MS);
  expect(held.primaryOwner.messages.at(-1)?.kind).toBe('ack');
  expect(held.primaryOwner.closed).toBe(undefined);
});
