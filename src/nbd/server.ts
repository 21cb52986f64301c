/**
 * An NBD server: listeners, connections, and the end of both. Exports come from an ExportDirectory, so that what
 * is offered may change while it runs.
 */

import { createServer, type Server } from 'node:net';
import { leaveUnread } from '../base/socket-handle.ts';
import { assert } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { Volume } from '../model/volume.ts';
import { ReceiveArea } from '../nbd-server-protocol/receive-area.ts';
import { type AgreedConnection, Connection, type ConnectionContext } from './connection.ts';
import { type ExportDirectory, ExportRefused } from './export-directory.ts';
import { LiveExport, type NbdExport } from './live-export.ts';
import { PIECE_BYTES, SlabPool } from './slab-pool.ts';
import { TurnLoop } from './turn-loop.ts';

export type { AgreedConnection } from './connection.ts';
export { type ExportDirectory, ExportRefused, type ExportRefusedCode } from './export-directory.ts';
export type { ExportUsers, NbdExport } from './live-export.ts';

export type ListenAddress = { readonly host: string; readonly port: number } | { readonly path: string };

export interface NbdServerOptions {
  readonly exports: ExportDirectory;
  readonly log: Log;
  /** Microseconds to stay awake after a request (default 100; 0: never). */
  readonly busyPollUs?: number;
  /** Serves the connections, which have their handshake here, in another process (there: `adopt`). */
  readonly handOver?: (agreed: AgreedConnection) => void;
  /** How long `stop` waits for requests in flight and for clients to take their replies (default 10,000 ms). */
  readonly drainMs?: number;
}

const BUSY_POLL_US = 100;
const DRAIN_MS = 10_000;
const BACKLOG = 511;

export class NbdServer {
  readonly #context: ConnectionContext;
  readonly #drainMs: number;
  readonly #listeners: Server[] = [];
  readonly #connections = new Set<Connection>();
  readonly #live = new Map<Volume, LiveExport>();
  #stopping: Promise<void> | undefined;
  /** `stop` has come to its flushes: until then no export ends, so that it is flushed here. */
  #flushed = false;
  #whenEmpty: (() => void) | undefined;

  constructor(options: NbdServerOptions) {
    this.#drainMs = options.drainMs ?? DRAIN_MS;
    this.#context = {
      exports: options.exports,
      area: new ReceiveArea(PIECE_BYTES), // so that any payload in it fits into one slab
      pool: new SlabPool(),
      turns: new TurnLoop(options.busyPollUs ?? BUSY_POLL_US),
      log: options.log,
      live: (nbdExport) => this.#liveOf(nbdExport),
      closed: (connection) => this.#connectionClosed(connection),
      ...(options.handOver === undefined ? {} : { handOver: options.handOver }),
    };
  }

  /**
   * Accepts connections on an address; may be called several times. Port 0 chooses one.
   * @returns the address that it listens on
   * @throws the system's error (EADDRINUSE, EACCES, …)
   */
  listen(address: ListenAddress): Promise<ListenAddress> {
    assert(this.#stopping === undefined, 'a server that stops listens no more');
    const listener = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
      this.#connections.add(new Connection(socket, this.#context));
    });
    return new Promise((resolve, reject) => {
      listener.once('error', reject);
      listener.listen({ ...address, backlog: BACKLOG }, () => {
        listener.off('error', reject);
        listener.on('error', (error) =>
          this.#context.log.error({ error: error.message }, 'accepting failed'),
        );
        this.#listeners.push(listener);
        const bound = listener.address();
        if (bound === null || typeof bound === 'string') resolve(address);
        else resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  /** Serves a connection that has had its handshake elsewhere; closes it when its export cannot be had here. */
  async adopt({ socket, session, rest }: AgreedConnection): Promise<void> {
    leaveUnread(socket);
    const nbdExport = await this.#findAdopted(session.exportName);
    if (nbdExport === undefined || this.#stopping !== undefined || socket.destroyed) {
      socket.destroy();
      return;
    }
    this.#connections.add(new Connection(socket, this.#context, { session, rest, nbdExport }));
  }

  async #findAdopted(name: string): Promise<NbdExport | undefined> {
    try {
      return await this.#context.exports.find(name);
    } catch (error) {
      if (!(error instanceof ExportRefused)) throw error;
      this.#context.log.warn({ export: name, error: error.message }, 'a connection was dropped');
      return undefined;
    }
  }

  /** How many connections use the volume: those in the transmission phase. */
  connectionsOf(volume: Volume): number {
    return this.#live.get(volume)?.connections ?? 0;
  }

  /**
   * Closes all connections to a volume at once, unanswered requests or not; resolves when nothing that was done for
   * them, or for earlier ones, is under way, and `ended` has been called unless there are new ones. Who wants none
   * makes `find` refuse first.
   */
  async disconnect(volume: Volume, reason: string): Promise<void> {
    const live = this.#live.get(volume);
    if (live === undefined) return;
    await live.disconnectAll(reason);
    await new Promise((resolve) => setImmediate(resolve)); // behind #retire, which came before
  }

  /**
   * Stops accepting, answers what is in flight, closes every connection, and flushes every volume that was used (of
   * those with `users`: that is in use still). Rejects, when all that is done, with the VolumeError of a volume that could not be flushed.
   */
  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  async #stop(): Promise<void> {
    for (const listener of this.#listeners) listener.close();
    const empty = new Promise<void>((resolve) => {
      this.#whenEmpty = resolve;
    });
    for (const connection of [...this.#connections]) connection.drain();
    if (this.#connections.size > 0) {
      const timer = setTimeout(() => {
        for (const connection of [...this.#connections]) connection.destroy('the server has stopped');
      }, this.#drainMs);
      await empty;
      clearTimeout(timer);
    }
    const flushes: Promise<void>[] = [];
    for (const { name, volume, hasBegun } of this.#live.values()) {
      const { write, flush } = volume.capabilities;
      if (hasBegun && write && flush) flushes.push(this.#flush(name, volume));
    }
    await Promise.allSettled(flushes); // one that fails must not keep the others from being flushed
    this.#flushed = true;
    for (const live of [...this.#live.values()]) this.#retire(live);
    await Promise.all(flushes);
  }

  async #flush(name: string, volume: Volume): Promise<void> {
    try {
      await volume.flush();
    } catch (error) {
      this.#context.log.error({ export: name, error: String(error) }, 'not flushed');
      throw error;
    }
  }

  #liveOf(nbdExport: NbdExport): LiveExport {
    const { volume } = nbdExport;
    const known = this.#live.get(volume);
    if (known !== undefined) return known;
    // Not at once: another connection may have been promised the same volume in this turn of the event loop.
    const live: LiveExport = new LiveExport(nbdExport, () => setImmediate(() => this.#retire(live)));
    this.#live.set(volume, live);
    return live;
  }

  /** Forgets an export that nobody uses; without an owner only when nothing was done that `stop` would flush. */
  #retire(live: LiveExport): void {
    if (live.isUsed || this.#live.get(live.volume) !== live) return;
    if (this.#stopping !== undefined && !this.#flushed) return;
    if (live.hasBegun && !live.hasOwner) return;
    this.#live.delete(live.volume);
    live.end();
  }

  #connectionClosed(connection: Connection): void {
    this.#connections.delete(connection);
    if (this.#connections.size === 0) this.#whenEmpty?.();
  }
}
