/**
 * The address for other storage systems: each connection is a SecondaryLink for the handler, once it has said hello.
 * Invariants: a bad peer ends its own link only; connections that have not said hello are bounded in number, from each address and in
 * all, and in time; what is received and not acknowledged is bounded for all links together; the log is not flooded.
 */

import { createServer, type Server, type Socket } from 'node:net';
import { takeOver } from '../base/socket-handle.ts';
import { assert } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import { formatSocketAddress, type SocketAddress } from '../model/socket-address.ts';
import { Limit, RECEIVED_BYTES_MAX } from './constants.ts';
import type { PeerError } from './errors.ts';
import { received } from './frame-socket.ts';
import type { HelloHandler } from './links.ts';
import { ReceiveBudget } from './receive-budget.ts';
import { SecondaryEnd, type SecondaryEndOwner } from './secondary-end.ts';

const BACKLOG = 1024;
const KEEP_ALIVE_MS = 10_000;
/** Those who come and say nothing are told of at most so often. */
const TOLD_MS = 10_000;

export interface PeerServerOptions {
  readonly onHello: HelloHandler;
  readonly log: Log;
  /** What all links may hold of received payloads; default 512 MiB. */
  readonly receivedBytesMax?: number;
}

export class PeerServer implements SecondaryEndOwner {
  readonly onHello: HelloHandler;
  readonly budget: ReceiveBudget;
  readonly #log: Log;
  readonly #server: Server;
  /** Without a hello so far, and from where; and how many from there. */
  readonly #silent = new Map<SecondaryEnd, string>();
  readonly #silentOf = new Map<string, number>();
  /** When a person was told last of connections that come to nothing, and of how many not since. */
  #toldMs = Number.NEGATIVE_INFINITY;
  #untold = 0;
  readonly #ends = new Set<SecondaryEnd>();
  #isClosed = false;

  constructor({ onHello, log, receivedBytesMax = RECEIVED_BYTES_MAX }: PeerServerOptions) {
    this.onHello = onHello;
    this.budget = new ReceiveBudget(receivedBytesMax);
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
    const { remoteAddress: host = '?', remotePort: port = 0 } = accepted;
    const silentThere = this.#silentOf.get(host) ?? 0;
    const isTooMany = this.#silent.size >= Limit.handshakes || silentThere >= Limit.handshakesOfOne;
    if (isTooMany) this.#tell(formatSocketAddress({ host, port }), 'overrun', 'too many that say nothing');
    if (this.#isClosed || isTooMany) {
      accepted.destroy();
      return;
    }
    const { socket, fd } = takeOver(accepted, received, (bytes) => {
      return end.received(bytes);
    });
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    const end = new SecondaryEnd(socket, fd, formatSocketAddress({ host, port }), this);
    this.#ends.add(end);
    this.#silent.set(end, host);
    this.#silentOf.set(host, silentThere + 1);
  }

  greeted(end: SecondaryEnd): void {
    this.#isSilentNoMore(end);
  }

  #isSilentNoMore(end: SecondaryEnd): boolean {
    const host = this.#silent.get(end);
    if (host === undefined) return false;
    this.#silent.delete(end);
    const left = (this.#silentOf.get(host) ?? 1) - 1;
    if (left > 0) this.#silentOf.set(host, left);
    else this.#silentOf.delete(host);
    return true;
  }

  over(end: SecondaryEnd, reason: PeerError): void {
    this.#ends.delete(end);
    if (this.#isSilentNoMore(end)) this.#tell(end.remote, reason.code, reason.message); // otherwise its owner tells
  }

  #tell(peer: string, code: PeerError['code'], error: string): void {
    const nowMs = performance.now();
    if (nowMs - this.#toldMs < TOLD_MS) {
      this.#untold += 1;
      return;
    }
    this.#log.info({ peer, code, error, untold: this.#untold }, 'no hello from a peer');
    this.#toldMs = nowMs;
    this.#untold = 0;
  }
}
