/**
 * The address for other storage systems: each connection is a SecondaryLink for the handler, once it has said hello.
 * Invariants: a bad peer ends its own link only; connections that have not said hello are bounded in number and time.
 */

import { createServer, type Server, type Socket } from 'node:net';
import { takeOver } from '../base/socket-handle.ts';
import { assert } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { formatSocketAddress, type SocketAddress } from '../model/socket-address.ts';
import { Limit } from './constants.ts';
import type { PeerError } from './errors.ts';
import { received } from './frame-socket.ts';
import type { HelloHandler } from './links.ts';
import { SecondaryEnd, type SecondaryEndOwner } from './secondary-end.ts';

const BACKLOG = 1024;
const KEEP_ALIVE_MS = 10_000;

export class PeerServer implements SecondaryEndOwner {
  readonly onHello: HelloHandler;
  readonly #log: Log;
  readonly #server: Server;
  /** Without a hello so far. */
  readonly #silent = new Set<SecondaryEnd>();
  readonly #ends = new Set<SecondaryEnd>();
  #isClosed = false;

  constructor({ onHello, log }: { readonly onHello: HelloHandler; readonly log: Log }) {
    this.onHello = onHello;
    this.#log = log;
    this.#server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) =>
      this.#accept(socket),
    );
  }

  /**
   * Port 0 chooses one.
   * @returns the address that it listens on
   * @throws the system's error (EADDRINUSE, EACCES, …)
   */
  listen(address: SocketAddress): Promise<SocketAddress> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ ...address, backlog: BACKLOG }, () => {
        this.#server.off('error', reject);
        this.#server.on('error', (error) => this.#log.error({ error: error.message }, 'accepting failed'));
        const bound = this.#server.address();
        assert(bound !== null && typeof bound === 'object', 'it listens on a port');
        resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  /** Accepts no more, and destroys every link; resolves when all owners have been told. */
  async close(): Promise<void> {
    if (!this.#isClosed) this.#server.close();
    this.#isClosed = true;
    for (const end of this.#ends) end.destroy();
    while (this.#ends.size > 0) await new Promise((resolve) => setImmediate(resolve));
  }

  #accept(accepted: Socket): void {
    if (this.#isClosed || this.#silent.size >= Limit.handshakes) {
      accepted.destroy();
      return;
    }
    const { remoteAddress: host = '?', remotePort: port = 0 } = accepted;
    const { socket, fd } = takeOver(accepted, received, (bytes) => {
      end.received(bytes);
      return true;
    });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const end = new SecondaryEnd(socket, fd, formatSocketAddress({ host, port }), this);
    this.#ends.add(end);
    this.#silent.add(end);
  }

  greeted(end: SecondaryEnd): void {
    this.#silent.delete(end);
  }

  over(end: SecondaryEnd, reason: PeerError): void {
    this.#ends.delete(end);
    if (!this.#silent.delete(end)) return; // its owner tells
    this.#log.info({ peer: end.remote, code: reason.code, error: reason.message }, 'no hello from a peer');
  }
}
