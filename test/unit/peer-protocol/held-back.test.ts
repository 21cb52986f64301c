/** A link that is held back by what all links hold together. */

import { expect, test } from 'vitest';
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
