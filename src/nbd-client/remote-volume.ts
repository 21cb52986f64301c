/**
 * RemoteVolume: an export of an NBD server, used as a Volume. Checks and splits what is asked for; link-pool.ts sees
 * to connections, flush-ledger.ts to what a flush may claim.
 *
 * What is promised
 *  R1 A request is answered with success only when the server has answered it with success, on a connection that was in
 *     step. What breaks the protocol costs the connection, and nothing else.
 *  R2 When connections are lost, requests wait and are sent again, up to reconnectMs after the loss; then they fail with
 *     'io', and may have been carried out or not. All requests are such that doing them twice is doing them once.
 *  R3 A flush covers every write that was answered before it was called, on whatever connection, also one that is dead
 *     by now: several connections are used only with CAN_MULTI_CONN, and a server without it that loses its connection
 *     with answered, unflushed writes makes the next flush fail (flush-ledger.ts).
 *  R4 A flush that the server has refused fails the volume for writes and flushes. A flush that found no server ('io',
 *     R2) has lost nothing: a later one still covers the same writes.
 *  R5 A write that is sent again has no order with those that were under way beside it. One that its user starts after
 *     the answer comes later for certain; but the old copy may still be under way at the server then, and land behind it. That it does
 *     not is the server's promise: Volary's fences the writes of dead connections. Of our side no byte follows a dead TCP connection (it is reset).
 *
 *  R6 A retarget is a loss of all connections, with its consequences (R2, R3, R5). It is to the same content: what was
 *     answered at the older target, and with FUA or a flush was made durable there, is so at the newer one. That is the
 *     rule of whoever calls it, as is that the older target carries out nothing any more.
 *  R7 A retarget with `finishMs` is for an older target that carries out what it has been sent, at the newer one: that is not
 *     sent again while the older one may still answer it, so no copy of it lands behind what is started after its answer. What
 *     comes from now on is sent to the newer target, and waits for nothing. What is not answered in finishMs is sent again, as
 *     in R6: the caller's rule is that the older target has stopped by then, or that the newer one is alone when it is asked by
 *     its `aloneName` (dial.ts): nothing that was sent to another comes there any more.
 *
 * What is not promised
 *  N1 Writes that were answered and not flushed, by a server whose machine then lost power (a server process that was
 *     killed is fine: the page cache outlives it). NBD gives no way to see that: the server comes back, and the next flush
 *     succeeds without them. Who must know writes with FUA, or keeps a copy elsewhere. So with a retarget: a flush covers
 *     what was answered before when the newer target is the same process (its page cache holds it), or has it otherwise.
 *  N2 R5, with a server that goes on executing requests of dead connections beside those of new ones.
 *  N3 That it can be made smaller over several connections: Volary refuses that while an export has other users.
 *  N4 A range read while a write that overlaps it is sent again: as with any two requests at the same time.
 */

import { assert, VolumeError } from '../model/errors.ts';
import type { Log } from '../model/log.ts';
import type { BlockSizes, Capabilities, Extent, Volume, WriteZeroesOptions } from '../model/volume.ts';
import {
  Command,
  CommandFlag,
  type HeaderStyle,
  TransmissionFlag,
} from '../nbd-server-protocol/constants.ts';
import { ReceiveArea } from '../nbd-server-protocol/receive-area.ts';
import type { ClientSession } from '../nbd-server-protocol/session.ts';
import type { RemoteTarget } from './dial.ts';
import type { RemoteRefusal } from './errors.ts';
import { blockSizesOf, capabilitiesOf, PAYLOAD_BYTES_MAX, shortfallOf } from './export-promise.ts';
import { FlushLedger } from './flush-ledger.ts';
import { LinkPool } from './link-pool.ts';
import { appendExtent, Operation, type Wanted } from './operation.ts';
import type { RemoteState, Verdict } from './pool-options.ts';

export type { RemoteAddress, RemoteTarget } from './dial.ts';
export type { RemoteRefusal } from './errors.ts';
export type { RemoteState } from './pool-options.ts';

export interface RemoteVolumeOptions extends RemoteTarget {
  /** How many connections, when the server promises that they may be several (default 4). */
  readonly connections?: number;
  /** How long requests wait for a server that is away (default 30,000). */
  readonly reconnectMs?: number;
  /** The best header style to ask for (default extended); a server without it gets the next. */
  readonly headerStyle?: HeaderStyle;
  readonly log: Log;
  /** Called when `state` has changed. */
  readonly onState?: (state: RemoteState) => void;
  /**
   * Called when the server does not give the export (as often as it is asked: each connection backs off for itself),
   * or says that it is leaving. Attempts go on whatever it does; `retarget` may be called in it.
   */
  readonly onRefused?: (refusal: RemoteRefusal) => void;
  /** How long to try when the server is away or refuses the export (default 0: once). */
  readonly openMs?: number;
  /** Gives the opening up. Of no meaning once there is a volume. */
  readonly signal?: AbortSignal;
}

/** A remote volume from before there is a connection. */
export interface RemoteOpening {
  /** Rejects as `openRemoteVolume` does. */
  readonly volume: Promise<RemoteVolume>;
  /** As RemoteVolume's, and also before there is one. */
  retarget(target: RemoteTarget, finishMs?: number): void;
  /** As RemoteVolume's, and also before there is one: an export with fewer bytes is none yet. */
  needs(sizeBytes: number): void;
}

const CONNECTIONS = 4;
const RECONNECT_MS = 30_000;
const HANDSHAKE_MS_MAX = 10_000;
const RECEIVE_BYTES = 256 * 1024;
/** What has no payload is asked for in pieces of this many bytes: compact headers have no room for 4 GiB. */
const RANGE_BYTES_MAX = 1024 * 1024 * 1024;

/**
 * Connects to an export.
 * @throws VolumeError: 'invalid' (no such export, or refused), 'not-supported' (TLS, oldstyle: at once), 'shutdown' (also
 *   by `signal`), 'io'
 */
export function openRemoteVolume(options: RemoteVolumeOptions): Promise<RemoteVolume> {
  return startRemoteVolume(options).volume;
}

/** The same, for one whose target may change while it is still being looked for. */
export function startRemoteVolume(options: RemoteVolumeOptions): RemoteOpening {
  const { address, exportName, aloneName, description, log } = options;
  const reconnectMs = options.reconnectMs ?? RECONNECT_MS;
  const ledger = new FlushLedger();
  let volume: RemoteVolume | undefined;
  let neededBytes: number | undefined;
  const pool = new LinkPool({
    target: {
      ...{ address, exportName },
      ...(aloneName === undefined ? {} : { aloneName }),
      ...(description === undefined ? {} : { description }),
    },
    dialOptions: {
      headerStyle: options.headerStyle ?? 'extended',
      timeoutMs: Math.min(reconnectMs, HANDSHAKE_MS_MAX),
      area: new ReceiveArea(RECEIVE_BYTES),
    },
    reconnectMs,
    ledger,
    log,
    judge: (session, dialledMs) => volume?.judge(session, dialledMs) ?? judgeSize(session, neededBytes),
    onState: options.onState ?? (() => undefined),
    onRefused: options.onRefused ?? (() => undefined),
  });
  const open = async (): Promise<RemoteVolume> => {
    const session = await pool.open(options.openMs ?? 0, options.signal);
    volume = new RemoteVolume(pool, ledger, session);
    if (neededBytes !== undefined) volume.needs(neededBytes);
    if (volume.canMultiConn) pool.widen(options.connections ?? CONNECTIONS);
    return volume;
  };
  return {
    volume: open(),
    retarget: (target, finishMs = 0) => pool.retarget(target, finishMs),
    needs: (sizeBytes) => {
      neededBytes = sizeBytes;
      volume?.needs(sizeBytes);
    },
  };
}

export class RemoteVolume implements Volume {
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;
  readonly canMultiConn: boolean;
  readonly #pool: LinkPool;
  readonly #ledger: FlushLedger;
  readonly #session: ClientSession;
  /** Most bytes in one request to the server. */
  readonly #payloadBytesMax: number;
  readonly #sendsFua: boolean;
  #sizeBytes: number;
  #neededBytes: number | undefined;
  /** The smallest size that a resize under way may have made; Infinity: none is. */
  #resizingTo = Number.POSITIVE_INFINITY;
  #resizedAtMs = Number.NEGATIVE_INFINITY;
  #closing: Promise<void> | undefined;

  constructor(pool: LinkPool, ledger: FlushLedger, session: ClientSession) {
    const { transmissionFlags, blockSizes } = session;
    this.#pool = pool;
    this.#ledger = ledger;
    this.#session = session;
    this.#sizeBytes = session.sizeBytes;
    this.blockSizes = blockSizesOf(session);
    this.capabilities = capabilitiesOf(session);
    this.canMultiConn = (transmissionFlags & TransmissionFlag.canMultiConn) !== 0;
    this.#sendsFua = (transmissionFlags & TransmissionFlag.sendFua) !== 0;
    const payloadBytes = Math.min(blockSizes.maximumPayload, PAYLOAD_BYTES_MAX);
    this.#payloadBytesMax = payloadBytes - (payloadBytes % blockSizes.minimum);
  }

  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get state(): RemoteState {
    return this.#pool.state;
  }

  /** Connections that are there now. */
  get liveConnections(): number {
    return this.#pool.liveLinks;
  }

  /** Header style and flags as they were agreed on when the volume was opened. */
  get session(): ClientSession {
    return this.#session;
  }

  /**
   * The export is at another server, or has another name. What is unanswered is sent again there (R2), what is being
   * tried elsewhere is given up. Nothing when it is the target already, or the volume is closed or has failed for good.
   * With `finishMs` the older target goes on with what it has been sent (R7), and is given so long to answer it.
   */
  retarget(target: RemoteTarget, finishMs = 0): void {
    this.#pool.retarget(target, finishMs);
  }

  /**
   * How many bytes are needed from now on: it is known from elsewhere that the export has them, or will. Connections to fewer are
   * tried again; what lies behind may come and go. Without it no byte of the export may ever go.
   */
  needs(sizeBytes: number): void {
    this.#neededBytes = sizeBytes;
    this.#sizeBytes = Math.max(this.#sizeBytes, sizeBytes);
  }

  /**
   * It has failed for good, since the export has come back with less than was promised: another RemoteVolume of it would do.
   * False when the next flush has to fail, of which another one would not know.
   */
  get isReplaceable(): boolean {
    return this.#pool.hasFailedForGood && !this.#ledger.owesFailure;
  }

  /** Whether a further connection, asked for at `dialledMs`, may be used. Takes its size over. */
  judge(session: ClientSession, dialledMs: number): Verdict {
    const { sizeBytes } = session;
    if (dialledMs <= this.#resizedAtMs) return { kind: 'stale' };
    const verdict = judgeSize(session, this.#neededBytes);
    if (verdict.kind !== 'use') return verdict;
    if (this.#neededBytes === undefined && sizeBytes < Math.min(this.#sizeBytes, this.#resizingTo)) {
      const reason = `the export has come back with ${sizeBytes} bytes, it had ${this.#sizeBytes}`;
      return { kind: 'less', reason };
    }
    const reason = shortfallOf(this.#session, session);
    if (reason !== undefined) return { kind: 'less', reason };
    if (this.#resizingTo === Number.POSITIVE_INFINITY) this.#sizeBytes = sizeBytes;
    return { kind: 'use' };
  }

  readNow(offset: number, _target: Buffer, _start: number, length: number): boolean {
    this.#check(offset, length);
    return false;
  }

  writeNow(offset: number, _source: Buffer, _start: number, length: number): boolean {
    this.#check(offset, length);
    const refusal = this.#ledger.refusalOfChanges();
    if (refusal !== undefined) throw refusal;
    return false;
  }

  read(offset: number, target: Buffer, start: number, length: number): Promise<void> {
    return this.#transfer(Command.read, 0, offset, target, start, length);
  }

  write(offset: number, source: Buffer, start: number, length: number, fua: boolean): Promise<void> {
    if (!fua || this.#sendsFua) {
      return this.#transfer(Command.write, fua ? CommandFlag.fua : 0, offset, source, start, length);
    }
    return this.#thenFlush(() => this.#transfer(Command.write, 0, offset, source, start, length));
  }

  async flush(): Promise<void> {
    this.#refuseWhenClosing();
    assert(this.capabilities.flush, 'this volume cannot flush');
    await this.#submit({ command: Command.flush, flags: 0, offset: 0, length: 0 });
  }

  async trim(offset: number, length: number, fua: boolean): Promise<void> {
    this.#check(offset, length);
    assert(this.capabilities.trim, 'this volume cannot trim');
    await this.#change(Command.trim, 0, offset, length, fua);
  }

  async writeZeroes(offset: number, length: number, options: WriteZeroesOptions): Promise<void> {
    this.#check(offset, length);
    const { writeZeroes, fastZero } = this.capabilities;
    assert(writeZeroes && (fastZero || !options.fast), 'this volume cannot write zeroes so');
    const noHole = options.noHole ? CommandFlag.noHole : 0;
    const fast = options.fast ? CommandFlag.fastZero : 0;
    await this.#change(Command.writeZeroes, noHole | fast, offset, length, options.fua);
  }

  async cache(offset: number, length: number): Promise<void> {
    this.#check(offset, length);
    assert(this.capabilities.cache, 'this volume cannot cache');
    await this.#inPieces(Command.cache, 0, offset, length);
  }

  async blockStatus(offset: number, length: number, extentsMax: number): Promise<Extent[]> {
    this.#check(offset, length);
    assert(this.capabilities.blockStatus && length > 0 && extentsMax > 0, 'block status of nothing');
    return this.#asOne(() => this.#extents(offset, offset + length, extentsMax));
  }

  /** A server may tell of less than it was asked for. */
  async #extents(offset: number, end: number, extentsMax: number): Promise<Extent[]> {
    const extents: Extent[] = [];
    for (let at = offset; at < end; ) {
      const operation = await this.#submit({
        command: Command.blockStatus,
        flags: 0,
        offset: at,
        length: Math.min(end - at, RANGE_BYTES_MAX),
        extentsMax,
      });
      for (const extent of operation.extents) {
        if (!appendExtent(extents, extent, extentsMax)) return extents;
        at += extent.length;
      }
      if (extents.length === extentsMax) return extents;
    }
    return extents;
  }

  mayHaveHoles(_offset: number, _length: number): boolean {
    return this.capabilities.blockStatus;
  }

  async resize(sizeBytes: number): Promise<void> {
    this.#refuseWhenClosing();
    assert(this.capabilities.resize, 'this volume cannot be resized');
    assert(Number.isSafeInteger(sizeBytes) && sizeBytes >= 0, 'a size is a number of bytes');
    assert(this.#resizingTo === Number.POSITIVE_INFINITY, 'one resize at a time');
    this.#resizingTo = sizeBytes;
    try {
      await this.#submit({ command: Command.resize, flags: 0, offset: sizeBytes, length: 0 });
      this.#sizeBytes = sizeBytes;
      this.#resizedAtMs = performance.now();
    } finally {
      this.#resizingTo = Number.POSITIVE_INFINITY;
    }
  }

  /** Waits for nothing any more: all requests fail with 'io', those that come, too. Still to be closed. */
  giveUp(reason: string): void {
    this.#pool.giveUp(new VolumeError('io', reason));
  }

  close(): Promise<void> {
    this.#closing ??= this.#pool.close();
    return this.#closing;
  }

  // --- checks ----------------------------------------------------------------------------------------------

  #refuseWhenClosing(): void {
    if (this.#closing !== undefined) throw new VolumeError('shutdown', 'the volume is being closed');
  }

  #check(offset: number, length: number): void {
    this.#refuseWhenClosing();
    assert(Number.isSafeInteger(offset) && offset >= 0 && length >= 0, 'a range is of whole bytes');
    if (offset + length > this.#sizeBytes) {
      throw new VolumeError('invalid', `the volume ends at ${this.#sizeBytes}`, { offset: this.#sizeBytes });
    }
    const { minimum } = this.blockSizes;
    if (minimum > 1 && (offset % minimum !== 0 || length % minimum !== 0)) {
      throw new VolumeError('invalid', `offset and length must be multiples of ${minimum}`, { offset });
    }
  }

  // --- requests --------------------------------------------------------------------------------------------

  #submit(wanted: Wanted): Promise<Operation> {
    return new Promise((resolve, reject) => {
      const operation: Operation = new Operation(wanted, () => resolve(operation), reject);
      this.#pool.submit(operation);
    });
  }

  #transfer(
    command: number,
    flags: number,
    offset: number,
    memory: Buffer,
    start: number,
    length: number,
  ): Promise<void> {
    const max = this.#payloadBytesMax;
    // What is thrown in here is the promise's rejection.
    return new Promise((resolve, reject) => {
      this.#check(offset, length);
      assert(start >= 0 && start + length <= memory.length, 'the memory holds the range');
      assert(command === Command.read || this.capabilities.write, 'this volume takes no writes');
      if (length === 0) resolve();
      else if (length <= max) {
        const wanted = { command, flags, offset, length, memory, start };
        this.#pool.submit(new Operation(wanted, resolve, reject));
      } else {
        const pieces: Promise<unknown>[] = [];
        for (let done = 0; done < length; done += max) {
          const piece = { offset: offset + done, length: Math.min(max, length - done), start: start + done };
          pieces.push(this.#submit({ command, flags, memory, ...piece }));
        }
        resolve(allOf(pieces));
      }
    });
  }

  #change(command: number, flags: number, offset: number, length: number, fua: boolean): Promise<void> {
    if (!fua || this.#sendsFua) {
      return this.#inPieces(command, flags | (fua ? CommandFlag.fua : 0), offset, length);
    }
    return this.#thenFlush(() => this.#inPieces(command, flags, offset, length));
  }

  /** FUA, where the server has none. */
  #thenFlush(change: () => Promise<void>): Promise<void> {
    return this.#asOne(async () => {
      assert(this.capabilities.flush, 'FUA needs a flush');
      await change();
      await this.#submit({ command: Command.flush, flags: 0, offset: 0, length: 0 });
    });
  }

  /** One after the other: such requests may take long. */
  #inPieces(command: number, flags: number, offset: number, length: number): Promise<void> {
    return this.#asOne(async () => {
      for (let done = 0; done < length; done += RANGE_BYTES_MAX) {
        const pieceLength = Math.min(RANGE_BYTES_MAX, length - done);
        await this.#submit({ command, flags, offset: offset + done, length: pieceLength });
      }
    });
  }

  /** What takes several requests is one thing for close. */
  async #asOne<T>(run: () => Promise<T>): Promise<T> {
    this.#pool.hold();
    try {
      return await run();
    } finally {
      this.#pool.release();
    }
  }
}

function judgeSize({ sizeBytes }: ClientSession, neededBytes = 0): Verdict {
  if (sizeBytes >= neededBytes) return { kind: 'use' };
  return { kind: 'too-small', reason: `the export has ${sizeBytes} bytes, and ${neededBytes} are needed` };
}

/** Waits for all, also when one fails: the memory is not the caller's before. */
async function allOf(pieces: Promise<unknown>[]): Promise<void> {
  const outcomes = await Promise.allSettled(pieces);
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}
