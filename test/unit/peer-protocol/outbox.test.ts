import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { fileDescriptorOf } from '../../../src/base/socket-handle.ts';
import { Outbox } from '../../../src/peer-protocol/outbox.ts';

test('what was put leaves together: at flush, or at the end of the turn', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [[accepted]] = (await Promise.all([once(server, 'connection'), once(socket, 'connect')])) as [
    [Socket],
    unknown,
  ];
  const outbox = new Outbox(socket, fileDescriptorOf(socket), 1024, {
    leaves: () => undefined,
    kernelTakes: () => undefined,
  });
  const put = (token: number) => outbox.put({ kind: 'heartbeat', token, confirmed: 0 }, 0);
  expect([put(1), put(2), outbox.takenBytes]).toEqual([true, true, 0]);
  outbox.flush();
  expect(outbox.takenBytes).toBe(128);
  put(3);
  expect(outbox.takenBytes).toBe(128);
  await turn();
  await turn();
  expect(outbox.takenBytes).toBe(192);
  outbox.flush();
  expect(outbox.takenBytes).toBe(192);
  socket.destroy();
  accepted.destroy();
  server.close();
});
