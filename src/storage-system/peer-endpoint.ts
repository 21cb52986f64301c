/**
 * The address for other storage systems. Nothing is spoken there yet: it is held, so that nobody else takes it and port 0
 * gets a number, and told to the directory. Whoever connects is disconnected.
 */

import { createServer, type Server } from 'node:net';
import { assert } from '../model/errors.ts';
import type { Log } from '../model/log.ts';

export class PeerEndpoint {
  readonly #server: Server = createServer((socket) => socket.destroy());

  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  /** @returns the port, with a colon before it; rejects with the system's error */
  listen({ host, port }: { readonly host: string; readonly port: number }): Promise<string> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen({ host, port }, () => {
        this.#server.off('error', reject);
        this.#server.on('error', (error) => this.#log.error({ error: error.message }, 'accepting failed'));
        const bound = this.#server.address();
        assert(bound !== null && typeof bound === 'object', 'it listens on a port');
        resolve(`:${bound.port}`);
      });
    });
  }

  close(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve())); // not listening is closed, too
  }
}
