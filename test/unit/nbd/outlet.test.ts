/** The outgoing side, where the kernel refuses memory for a moment. */

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { expect, test, vi } from 'vitest';
import { Outlet } from '../../../src/nbd/outlet.ts';
import { SlabPool } from '../../../src/nbd/slab-pool.ts';

const ENOBUFS = 105;
const refusals = vi.hoisted(() => ({ left: 0 }));

vi.mock(import('../../../src/base/syscalls.ts'), async (original) => {
  const real = await original();
  return {
    ...real,
    sendNow: (...given: Parameters<typeof real.sendNow>) => {
      refusals.left -= 1;
      return refusals.left >= 0 ? -ENOBUFS : real.sendNow(...given);
    },
  };
});

function say(outlet: Outlet, text: string): void {
  const segment = outlet.reserve(text.length);
  segment.slab.buffer.write(text, segment.end);
  outlet.commit(segment, segment.end + text.length);
  outlet.flush();
}

test('what the kernel has no memory for is sent later, in order', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = connect((server.address() as { port: number }).port, '127.0.0.1');
  const [socket] = (await once(server, 'connection')) as [Socket];
  const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
  const outlet = new Outlet(socket, fd, new SlabPool(), () => undefined);
  refusals.left = 1;
  for (const word of ['one ', 'two ', 'three.']) say(outlet, word);
  let heard = '';
  for await (const bytes of client) {
    heard += String(bytes);
    if (heard.endsWith('.')) break;
  }
  expect(heard).toBe('one two three.');
  expect(outlet.pendingBytes).toBe(0);
  socket.destroy();
  server.close();
});
