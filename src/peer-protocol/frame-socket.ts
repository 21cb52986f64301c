/**
 * What both ends of a link have in common: the socket, what is received and sent over it, and its one end.
 *
 *   open     -> leaving   `close`: what was put is sent, then our side is ended; what is received is thrown away
 *   open     -> over      the peer, the socket or this side's `fail` or `destroy`
 *   leaving  -> over      the peer has closed, too, or LINGER_MS have passed
 *
 * Invariants
 *  1. The owner is called from the event loop only; `ended` exactly once, and nothing after it. Of `leaving` it is told at once.
 *  2. An open connection that ends by `destroy` or `fail` is reset, so that our kernel forgets what it had not sent: it would come late.
 */

import type { Socket } from 'node:net';
import type { Message } from './codec.ts';
import { HEADER_BYTES, LINGER_MS, Limit } from './constants.ts';
import { Decoder, type MessageSink } from './decoder.ts';
import { PeerError } from './errors.ts';
import type { Phase } from './header.ts';
import { Outbox } from './outbox.ts';

/** Room for heartbeats, acknowledgements of a handshake's window, and what else is small. */
export const SMALL_UNTAKEN_BYTES = Limit.untakenHeartbeats * HEADER_BYTES;

/** The memory that all links receive into: what has arrived is used up before the next read. */
export const received = Buffer.allocUnsafeSlow(256 * 1024);

export interface FrameOwner extends MessageSink {
  /** All messages of what was received at once have been taken. */
  batchEnds(): void;
  /** What was put leaves now: what was kept back to go with more is to be put. */
  leaves(): void;
  /** Of what waited for the kernel it has taken something. */
  kernelTakes(): void;
  ended(reason: PeerError): void;
}

export class FrameSocket {
  readonly decoder: Decoder;
  readonly #socket: Socket;
  readonly #outbox: Outbox;
  readonly #owner: FrameOwner;
  #state: 'open' | 'leaving' | 'over' = 'open';
  #failure: Error | undefined;
  #linger: NodeJS.Timeout | undefined;

  constructor(socket: Socket, fd: number, phase: Phase, owner: FrameOwner) {
    this.#socket = socket;
    this.#owner = owner;
    this.decoder = new Decoder(phase, owner);
    this.#outbox = new Outbox(socket, fd, SMALL_UNTAKEN_BYTES, owner);
    socket.on('error', (error) => {
      this.#failure = error;
    });
    socket.on('end', () => this.#peerClosed());
    socket.on('close', () => this.#peerClosed());
  }

  get isOpen(): boolean {
    return this.#state === 'open';
  }

  get putBytes(): number {
    return this.#outbox.putBytes;
  }

  get takenBytes(): number {
    return this.#outbox.takenBytes;
  }

  /** From now on frames are of that version; `untakenBytesMax`: how much may wait for the peer to take it. */
  agree(version: number, untakenBytesMax: number): void {
    this.decoder.version = version;
    this.#outbox.version = version;
    this.#outbox.untakenBytesMax = untakenBytesMax + SMALL_UNTAKEN_BYTES;
  }

  put(message: Message, confirmed = 0): void {
    if (this.#state !== 'open') return;
    if (!this.#outbox.put(message, confirmed)) {
      this.fail(new PeerError('overrun', 'the peer does not take what is sent to it'));
    }
  }

  flush(): void {
    if (this.#state === 'open') this.#outbox.flush();
  }

  /** Something is kept back that is to leave at the end of the turn: `leaves` will be called. */
  keepsBack(): void {
    if (this.#state === 'open') this.#outbox.schedule();
  }

  /** That many bytes are in `received`. */
  take(bytes: number): void {
    if (this.#state !== 'open') return;
    let breach: PeerError | undefined;
    try {
      this.decoder.feed(received, 0, bytes);
    } catch (error) {
      if (!(error instanceof PeerError)) throw error;
      breach = error;
    }
    this.#owner.batchEnds();
    if (breach !== undefined) this.fail(breach);
  }

  close(): void {
    if (this.#state !== 'open') return;
    this.#state = 'leaving';
    const reason = new PeerError('ended', 'closed by this side');
    process.nextTick(() => this.#owner.ended(reason));
    this.#linger = setTimeout(() => this.fail(reason), LINGER_MS);
    this.#outbox.end(() => this.#socket.end());
  }

  destroy(): void {
    this.fail(new PeerError('ended', 'closed by this side'));
  }

  fail(reason: PeerError): void {
    if (this.#state === 'open') {
      this.#isOver();
      if (!this.#socket.destroyed) this.#socket.resetAndDestroy();
      process.nextTick(() => this.#owner.ended(reason));
    } else if (this.#state === 'leaving') {
      this.#isOver();
      this.#socket.destroy(); // its end has been sent: there is nothing to reset
    }
  }

  #peerClosed(): void {
    if (this.#failure !== undefined) {
      this.fail(new PeerError('lost', this.#failure.message, { cause: this.#failure }));
    } else if (this.decoder.atBoundary) this.fail(new PeerError('closed', 'the peer closed the connection'));
    else this.fail(new PeerError('lost', 'the connection ended within a message'));
  }

  #isOver(): void {
    this.#state = 'over';
    clearTimeout(this.#linger);
    this.#outbox.close();
  }
}
