/**
 * A TCP relay between the guest and a server, whose connections can be cut one at a time: what a host sees when a
 * switch, a cable or a firewall takes one of several connections away while the server lives on.
 */

import { connect, createServer, type Socket } from 'node:net';
import { freePort } from '../support/ports.ts';

export interface Relay {
  readonly port: number;
  /** How many connections there have been so far. */
  accepted(): number;
  /** Resets the connection with this number (0: the first one made), on both sides, and loses what was on its way. */
  cut(index: number): void;
  close(): Promise<void>;
}

export async function startRelay(targetPort: number): Promise<Relay> {
  const pairs: (readonly [Socket, Socket])[] = [];
  const server = createServer((near) => {
    const far = connect({ host: '127.0.0.1', port: targetPort, noDelay: true });
    near.setNoDelay(true);
    pairs.push([near, far]);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.pipe(to);
      // A reset is an end like any other here: both sides go together.
      from.on('error', () => to.destroy());
      from.on('close', () => to.destroy());
    }
  });
  const port = await freePort();
  await new Promise<void>((resolve, reject) => {
    server.on('error', reject);
    server.listen(port, '127.0.0.1', resolve);
  });
  const cut = (index: number) => {
    const pair = pairs[index];
    if (pair === undefined) throw new Error(`no connection ${index}: there have been ${pairs.length}`);
    for (const socket of pair) socket.resetAndDestroy();
  };
  return {
    port,
    accepted: () => pairs.length,
    cut,
    close: async () => {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      for (const socket of pairs.flat()) socket.destroy();
      await closed;
    },
  };
}
