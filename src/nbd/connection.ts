/**
 * One client: its socket, the handshake, the transmission, the end.
 *
 *   handshake  -> transmission   GO or EXPORT_NAME
 *   handshake  -> closed         the same, in a server whose connections another process serves: handed over
 *   (none)     -> transmission   adopted: another process has had the handshake
 *   handshake  -> closing        ABORT, a violation, shutdown
 *   transmission -> draining     DISC, end of the client's side, shutdown: what is in flight is answered
 *   draining   -> closing        nothing in flight; our side is ended, what still comes is thrown away
 *   any        -> closed         the socket has gone
 *
 * A request of a client that has given up must not be carried out late (SPEC N4): its sender may have sent it again
 * elsewhere. So input that has waited (here, or in a process that was frozen), or that follows somebody else's
 * change, is used only while the client's side is open, or when it ends with DISC.
 */

import type { Socket } from 'node:net';
import { takeOver } from '../base/socket-handle.ts';
import { peerHasClosed } from '../base/syscalls.ts';
import type { Log } from '../model/log.ts';
import { ProtocolError } from '../nbd-server-protocol/errors.ts';
import { CARRY_BYTES, type ReceiveArea } from '../nbd-server-protocol/receive-area.ts';
import { endsWithDisconnect } from '../nbd-server-protocol/request-decoder.ts';
import { ServerHandshake } from '../nbd-server-protocol/server-handshake.ts';
import type { NegotiatedSession } from '../nbd-server-protocol/session.ts';
import { type ExportDirectory, ExportRefused } from './export-directory.ts';
import { exportInfo } from './export-info.ts';
import type { ExportUser, LiveExport, NbdExport } from './live-export.ts';
import { Outlet } from './outlet.ts';
import type { SlabPool } from './slab-pool.ts';
import { Transmission } from './transmission.ts';
import type { TurnLoop } from './turn-loop.ts';

/** Input older than this may be a ghost's. */
const FRESH_MS = 1000;
/** How long the client may take to close its side after we have ended ours. */
const LINGER_MS = 2000;
const KEEP_ALIVE_MS = 60_000;
/** A client that has not chosen an export by then makes room for others. */
const HANDSHAKE_MS = 60_000;

/** What the connections of a server share. */
export interface ConnectionContext {
  readonly exports: ExportDirectory;
  readonly area: ReceiveArea;
  readonly pool: SlabPool;
  readonly turns: TurnLoop;
  readonly log: Log;
  live(nbdExport: NbdExport): LiveExport;
  closed(connection: Connection): void;
  /** Takes connections that have come to an agreement, instead of serving them here. */
  readonly handOver?: (agreed: AgreedConnection) => void;
}

/** A connection after the handshake. */
export interface AgreedConnection {
  /** Nothing is being read from it, and nothing is on its way out. */
  readonly socket: Socket;
  readonly session: NegotiatedSession;
  /** What the client has sent behind the handshake. */
  readonly rest: Buffer;
}

const nothing = Buffer.alloc(0);

type Phase = 'handshake' | 'transmission' | 'draining' | 'closing' | 'closed';

export class Connection implements ExportUser {
  readonly #context: ConnectionContext;
  readonly #log: Log;
  readonly #socket: Socket;
  readonly #fd: number;
  readonly #outlet: Outlet;
  #phase: Phase = 'handshake';
  #handshake: ServerHandshake | undefined = new ServerHandshake();
  /** `find` has not answered yet. */
  #lookingUp = false;
  /** The export that `find` has just answered with. */
  #found: NbdExport | undefined;
  /** The same; the connection is one of its users until `#release`. */
  #live: LiveExport | undefined;
  #transmission: Transmission | undefined;
  /** Less than a message, left over from the last receive. */
  readonly #carry = { buffer: undefined as Buffer | undefined, length: 0 };
  /** Received and not used yet, because the transmission is stalled; nothing is read while there is some. */
  #stash: Buffer | undefined;
  #lastReceiveMs = performance.now();
  /** Changes by others when the client was last looked at; the first input is always doubtful. */
  #seenChanges = -1;
  #lingerTimer: NodeJS.Timeout | undefined;
  readonly #handshakeTimer: NodeJS.Timeout;

  /** With `adopted` the handshake has been elsewhere, and ended with this export. */
  constructor(
    accepted: Socket,
    context: ConnectionContext,
    adopted?: Omit<AgreedConnection, 'socket'> & { readonly nbdExport: NbdExport },
  ) {
    this.#context = context;
    this.#log = context.log;
    const { socket, fd } = takeOver(accepted, context.area.received, (bytes) => this.#received(bytes));
    this.#socket = socket;
    this.#fd = fd;
    this.#outlet = new Outlet(socket, fd, context.pool, () => this.#drained());
    this.#handshakeTimer = setTimeout(
      () => this.destroy('the handshake took too long'),
      HANDSHAKE_MS,
    ).unref();
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.on('end', () => this.#peerEnded());
    socket.on('error', (error) => this.#log.debug({ error: error.message }, 'connection failed'));
    socket.on('close', () => this.#closed());
    if (adopted === undefined) {
      if (this.#handshake !== undefined) socket.write(this.#handshake.greeting());
      return;
    }
    this.#enter(adopted.nbdExport);
    this.#begin(adopted.session);
    if (!this.#useRest(adopted.rest)) socket.pause();
  }

  /** Takes no more requests, answers those in flight, and closes. */
  drain(): void {
    if (this.#phase === 'handshake') {
      if (this.#lookingUp) this.#refuseLookUp();
      this.#close();
    }
    if (this.#phase !== 'transmission') return;
    this.#phase = 'draining';
    this.#stash = undefined;
    this.#socket.pause();
    this.#closeWhenIdle();
  }

  /** Closes at once, whatever is in flight. */
  destroy(reason: string): void {
    if (this.#phase === 'closed') return;
    this.#log.debug({ reason }, 'connection dropped');
    this.#transmission?.jobs.die();
    this.#outlet.close();
    this.#socket.destroy();
  }

  // --- receiving -------------------------------------------------------------------------------------------

  /** True: go on reading. */
  #received(bytes: number): boolean {
    const { area, turns } = this.#context;
    if (this.#phase === 'closing') return true; // thrown away until the client closes
    if (this.#phase === 'handshake') {
      this.#handshake?.feed(area.received.subarray(0, bytes));
      return this.#advanceHandshake();
    }
    const transmission = this.#transmission;
    if (this.#phase !== 'transmission' || transmission === undefined) return false;
    const end = CARRY_BYTES + bytes;
    const start = this.#takeCarry();
    const nowMs = performance.now();
    const waited = nowMs - this.#lastReceiveMs > FRESH_MS;
    this.#lastReceiveMs = nowMs;
    const changes = this.#live?.changesByOthers(transmission.jobs) ?? 0;
    const doubtful = waited || changes !== this.#seenChanges;
    this.#seenChanges = changes;
    if (doubtful && this.#isGhost(area.buffer, start, end, transmission)) return false;
    const position = this.#feed(transmission, area.buffer, start, end);
    if (position < end && this.#phase === 'transmission') {
      if (transmission.stalled) this.#stash = Buffer.from(area.buffer.subarray(position, end));
      else this.#keepCarry(area.buffer, position, end);
    }
    this.#outlet.flush();
    turns.worked(transmission, nowMs);
    return this.#stash === undefined && this.#phase === 'transmission';
  }

  /** Goes on with what was left when the transmission stalled. */
  #resumeStash(): void {
    const { turns } = this.#context;
    const transmission = this.#transmission;
    const stash = this.#stash;
    if (this.#phase !== 'transmission' || transmission === undefined || stash === undefined) return;
    if (this.#isGhost(stash, 0, stash.length, transmission)) return;
    const position = this.#feed(transmission, stash, 0, stash.length);
    if (this.#phase === 'transmission') {
      const rest = stash.subarray(position);
      if (rest.length > 0 && transmission.stalled) this.#stash = rest;
      else {
        this.#stash = undefined;
        if (rest.length > 0) this.#keepCarry(stash, position, stash.length);
        this.#socket.resume();
      }
    }
    this.#outlet.flush();
    // A turn that nothing came of must not ask for the next one: what is waited for wakes the connection.
    if (position > 0) turns.worked(transmission, performance.now());
  }

  #feed(transmission: Transmission, buffer: Buffer, start: number, end: number): number {
    try {
      const position = transmission.feed(buffer, start, end);
      if (transmission.disconnecting) this.drain();
      return position;
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      this.destroy(error.message);
      return end;
    }
  }

  /** Drops input of a client that has closed its side without a DISC: it no longer waits for the answers. */
  #isGhost(buffer: Buffer, start: number, end: number, transmission: Transmission): boolean {
    if (!this.#peerHasClosed()) return false;
    if (endsWithDisconnect(buffer, start, end, transmission.jobs.style)) return false;
    this.#log.debug({ bytes: end - start }, 'dropped requests of a client that had closed its connection');
    transmission.jobs.orphanEffects();
    this.drain();
    return true;
  }

  /** As the kernel knows it now, read so far or not. */
  #peerHasClosed(): boolean {
    // A destroyed socket's descriptor is closed already, and its number may be another connection's.
    return this.#socket.destroyed || peerHasClosed(this.#fd);
  }

  #takeCarry(): number {
    const { buffer, length } = this.#carry;
    if (buffer === undefined || length === 0) return CARRY_BYTES;
    this.#carry.length = 0;
    return this.#context.area.prepend(buffer.subarray(0, length));
  }

  #keepCarry(buffer: Buffer, start: number, end: number): void {
    this.#carry.buffer ??= Buffer.allocUnsafeSlow(CARRY_BYTES);
    this.#carry.length = buffer.copy(this.#carry.buffer, 0, start, end);
  }

  // --- handshake -------------------------------------------------------------------------------------------

  /** Does what the handshake asks for, as far as it goes. True: go on reading. */
  #advanceHandshake(): boolean {
    const handshake = this.#handshake;
    while (handshake !== undefined && this.#phase === 'handshake') {
      const step = handshake.next();
      switch (step.kind) {
        case 'need-bytes':
          this.#release(); // what was found was only asked about
          return true;
        case 'send':
          // A client that asks and does not listen gets no further answers, and is not read from.
          if (!this.#socket.write(step.bytes)) {
            this.#socket.once('drain', () => {
              if (this.#advanceHandshake()) this.#socket.resume();
            });
            return false;
          }
          break;
        case 'list':
          handshake.provideList(this.#context.exports.list());
          break;
        case 'find': {
          const found = this.#find(handshake, step.name);
          if (!(found instanceof Promise)) break;
          this.#findLater(handshake, found);
          return false;
        }
        case 'close':
          this.#log.debug({ code: step.code, reason: step.reason }, 'handshake ended');
          this.#close();
          return true;
        default:
          if (this.#context.handOver !== undefined) return this.#handOver(step.session, step.rest);
          this.#begin(step.session);
          return this.#useRest(step.rest);
      }
    }
    return true;
  }

  /** Answers the handshake at once, unless a promise is returned. */
  #find(handshake: ServerHandshake, name: string): Promise<NbdExport | undefined> | undefined {
    try {
      const found = this.#context.exports.find(name);
      if (found instanceof Promise) return found;
      this.#provide(handshake, found);
    } catch (error) {
      if (!(error instanceof ExportRefused)) throw error;
      handshake.refuseExport({ code: error.code, text: error.message });
    }
    return undefined;
  }

  #provide(handshake: ServerHandshake, found: NbdExport | undefined): void {
    this.#release();
    if (found !== undefined) this.#enter(found);
    handshake.provideExport(found === undefined ? undefined : exportInfo(found));
  }

  #enter(found: NbdExport): void {
    this.#found = found;
    this.#live = this.#context.live(found);
    this.#live.enter(this);
  }

  #refuseLookUp(): void {
    this.#handshake?.refuse('shutdown');
    const step = this.#handshake?.next();
    if (step?.kind === 'send') this.#socket.write(step.bytes);
  }

  #findLater(handshake: ServerHandshake, looking: Promise<NbdExport | undefined>): void {
    this.#lookingUp = true;
    const answer = (give: () => void): void => {
      this.#lookingUp = false;
      if (this.#phase !== 'handshake') return;
      give();
      if (this.#advanceHandshake()) this.#socket.resume();
    };
    looking.then(
      (found) => answer(() => this.#provide(handshake, found)),
      (error: unknown) => {
        if (error instanceof ExportRefused) {
          answer(() => handshake.refuseExport({ code: error.code, text: error.message }));
          return;
        }
        this.#log.warn({ error: String(error) }, 'looking up an export failed');
        this.destroy('looking up the export failed');
      },
    );
  }

  #begin(session: NegotiatedSession): void {
    const found = this.#found;
    const live = this.#live;
    if (found === undefined || live === undefined) throw new Error('a session follows a found export');
    const { pool, turns } = this.#context;
    live.connected(found);
    turns.clients += 1;
    this.#handshake = undefined;
    clearTimeout(this.#handshakeTimer);
    this.#phase = 'transmission';
    const outlet = this.#outlet;
    outlet.followStream(); // answers to options may still be there
    this.#transmission = new Transmission({
      session,
      live,
      outlet,
      pool,
      outletBytesMax: () => turns.outletBytesMax,
      replied: () => turns.replied(outlet),
      resumable: () => this.#resumeStash(),
      idle: () => this.#idle(),
      destroy: (reason) => this.destroy(reason),
      peerHasClosed: () => this.#peerHasClosed(),
    });
    this.#log.debug({ export: session.exportName, style: session.headerStyle }, 'connected');
  }

  /** Gives the socket away when all that was said on it has left. */
  #handOver(session: NegotiatedSession, rest: Buffer): boolean {
    const socket = this.#socket;
    const agreed = { socket, session, rest: Buffer.from(rest) };
    this.#phase = 'closing';
    socket.pause();
    socket.write(nothing, (error) => {
      if (error) return;
      this.#closed();
      this.#context.handOver?.(agreed);
    });
    return false;
  }

  /** Requests may have come right behind the last option. */
  #useRest(rest: Buffer): boolean {
    if (rest.length === 0) return true;
    this.#stash = Buffer.from(rest);
    this.#resumeStash();
    return this.#stash === undefined && this.#phase === 'transmission';
  }

  // --- the end ---------------------------------------------------------------------------------------------

  #drained(): void {
    this.#transmission?.jobs.drained();
    this.#closeWhenIdle();
  }

  #peerEnded(): void {
    this.#transmission?.jobs.orphanEffects();
    if (this.#phase === 'handshake' || this.#phase === 'closing') this.#close();
    else this.drain();
  }

  #idle(): void {
    if (this.#phase === 'closed') this.#release();
    else this.#closeWhenIdle();
  }

  #closeWhenIdle(): void {
    if (this.#phase !== 'draining' || this.#transmission?.jobs.isIdle === false) return;
    this.#outlet.flush();
    if (this.#outlet.pendingBytes === 0) this.#close();
  }

  /** Ends our side and lets the client close its own: closing with input unread would throw away our replies. */
  #close(): void {
    if (this.#phase === 'closed') return;
    if (this.#socket.readableEnded || this.#socket.destroyed) {
      this.#socket.end(() => this.#socket.destroy());
      this.#phase = 'closing';
      return;
    }
    this.#phase = 'closing';
    this.#socket.end();
    this.#socket.resume();
    this.#lingerTimer ??= setTimeout(() => this.#socket.destroy(), LINGER_MS).unref();
  }

  #closed(): void {
    clearTimeout(this.#lingerTimer);
    clearTimeout(this.#handshakeTimer);
    this.#phase = 'closed';
    this.#transmission?.jobs.die();
    this.#outlet.close();
    if (this.#transmission !== undefined) {
      this.#live?.disconnected();
      this.#context.turns.clients -= 1;
    }
    if (this.#transmission?.jobs.isIdle !== false) this.#release();
    this.#context.closed(this);
  }

  /** Nothing of this connection touches the export any more. */
  #release(): void {
    this.#live?.leave(this);
    this.#live = undefined;
    this.#found = undefined;
  }
}
