/** Links over real sockets of this machine, with both owners in the test's hands. */

import { once } from 'node:events';
import { connect, createServer, type Socket } from 'node:net';
import { onTestFinished } from 'vitest';
import type { SocketAddress } from '../../../src/model/socket-address.ts';
import { connectToPeer } from '../../../src/peer-protocol/connect.ts';
import type { PeerError } from '../../../src/peer-protocol/errors.ts';
import type {
  Answer,
  Connected,
  LinkEvents,
  PrimaryLink,
  SecondaryLink,
} from '../../../src/peer-protocol/links.ts';
import type { ChangeMessage, PrimaryMessage, SecondaryMessage } from '../../../src/peer-protocol/messages.ts';
import { PeerServer, type PeerServerOptions } from '../../../src/peer-protocol/server.ts';
import { silentLog } from '../../support/log.ts';
import { HELLO } from './lab.ts';

/** Somebody who owns a link: keeps what comes, and whether the rules for it are kept. */
export class Owner<Message> implements LinkEvents<Message> {
  readonly batches: (readonly Message[])[] = [];
  readonly breaches: string[] = [];
  closed: PeerError | undefined;
  #inside = 0;
  #wake: (() => void) | undefined;
  whenBatch: ((batch: readonly Message[]) => void) | undefined;

  get messages(): Message[] {
    return this.batches.flat();
  }

  onMessages(batch: readonly Message[]): void {
    if (this.#inside > 0) this.breaches.push('called from within a call');
    if (this.closed !== undefined) this.breaches.push('a message after the end');
    if (batch.length === 0) this.breaches.push('an empty batch');
    this.batches.push(batch);
    this.whenBatch?.(batch);
    this.#wake?.();
  }

  onClosed(reason: PeerError): void {
    if (this.#inside > 0) this.breaches.push('closed from within a call');
    if (this.closed !== undefined) this.breaches.push('closed twice');
    this.closed = reason;
    this.#wake?.();
  }

  /** Runs a call of the link's methods, within which nothing may be called back. */
  calls(action: () => void): void {
    this.#inside += 1;
    action();
    this.#inside -= 1;
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  async ends(): Promise<PeerError> {
    await this.until(() => this.closed !== undefined);
    await turns(3);
    return this.closed as PeerError;
  }
}

/** Lets what is on its way within this process arrive. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

export const WINDOW = { operationsMax: 64, bytesMax: 32 * 1024 * 1024 };
export const ANSWER: Answer = { welcome: { ...WINDOW, hasLostCache: false }, unsettled: [], alone: [] };

export interface Session {
  readonly link: SecondaryLink;
  readonly owner: Owner<PrimaryMessage>;
}

export interface TestServer {
  readonly server: PeerServer;
  readonly address: SocketAddress;
  readonly sessions: Session[];
}

/** What a hello is answered with at once; undefined: nothing. */
export async function startServer(
  answer: ((link: SecondaryLink) => void) | undefined,
  options: Partial<PeerServerOptions> = {},
): Promise<TestServer> {
  const sessions: Session[] = [];
  const server = new PeerServer({
    log: silentLog,
    ...options,
    onHello: (link) => {
      const owner = new Owner<PrimaryMessage>();
      sessions.push({ link, owner });
      answer?.(link);
      return owner;
    },
  });
  const address = await server.listen({ host: '127.0.0.1', port: 0 });
  onTestFinished(() => server.close());
  return { server, address, sessions };
}

export function dial(
  address: SocketAddress,
  options: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<Connected> {
  const { timeoutMs = 20_000, signal = new AbortController().signal } = options;
  return connectToPeer({ address, hello: HELLO, timeoutMs, signal });
}

export interface Pair {
  readonly primary: PrimaryLink;
  readonly primaryOwner: Owner<SecondaryMessage>;
  readonly secondary: SecondaryLink;
  readonly secondaryOwner: Owner<PrimaryMessage>;
}

export async function openPair(server?: TestServer, answer: Answer = ANSWER): Promise<Pair> {
  const there = server ?? (await startServer((link) => link.accept(answer)));
  const connected = await dial(there.address);
  if (connected.kind !== 'connected') throw new Error('the hello was refused');
  const session = there.sessions.at(-1);
  if (session === undefined) throw new Error('no hello came');
  const primaryOwner = new Owner<SecondaryMessage>();
  connected.link.start(primaryOwner);
  onTestFinished(() => connected.link.destroy());
  return { primary: connected.link, primaryOwner, secondary: session.link, secondaryOwner: session.owner };
}

export function writeMessage(seq: number, payload: Buffer, confirmed = 0): ChangeMessage {
  const { length } = payload;
  return { kind: 'write', seq, confirmed, offset: seq * 4096, length, fua: false, payload };
}

/** A peer that says what it likes. */
export class RawPeer {
  readonly socket: Socket;
  #received = Buffer.alloc(0);
  #wake: (() => void) | undefined;
  hasEnded = false;

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (chunk: Buffer) => {
      this.#received = Buffer.concat([this.#received, chunk]);
      this.#wake?.();
    });
    const ended = (): void => {
      this.hasEnded = true;
      this.#wake?.();
    };
    socket.on('end', ended);
    socket.on('error', ended); // a reset is an end, too
    socket.on('close', ended);
    onTestFinished(() => void socket.destroy());
  }

  static async connect({ host, port }: SocketAddress, from = '127.0.0.1'): Promise<RawPeer> {
    const socket = connect({ host, port, localAddress: from, noDelay: true });
    await once(socket, 'connect');
    return new RawPeer(socket);
  }

  /** The kinds of the frames that have come. */
  get kinds(): number[] {
    return this.frames.map((bytes) => bytes[5] as number);
  }

  /** The frames that have come; of the last, its payload may not have. */
  get frames(): Buffer[] {
    const frames: Buffer[] = [];
    for (let at = 0; at + 64 <= this.#received.length; ) {
      const end = at + 64 + this.#received.readUInt32BE(at + 52);
      frames.push(this.#received.subarray(at, end));
      at = end;
    }
    return frames;
  }

  send(...frames: readonly Buffer[]): void {
    this.socket.write(Buffer.concat(frames));
  }

  async until(condition: (peer: RawPeer) => boolean): Promise<void> {
    while (!condition(this)) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }
}

/** A server that is no server of ours: `serve` has each connection. */
export async function rawServer(serve: (peer: RawPeer) => void): Promise<SocketAddress> {
  const server = createServer({ noDelay: true }, (socket) => serve(new RawPeer(socket)));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => void server.close());
  const { port } = server.address() as { port: number };
  return { host: '127.0.0.1', port };
}
