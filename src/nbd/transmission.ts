/**
 * The transmission phase of one connection: requests in, replies out. Sits between the decoder and a Volume.
 *
 * The hot path (a read or write that need not wait) runs from the received bytes to the reply without a promise,
 * and without a copy that is not needed. All else becomes a job.
 *
 * Invariants
 *  T1 A request is answered exactly once, or the connection is closed.
 *  T2 Memory held for a connection stays below JOB_BYTES_MAX + OUTLET_BYTES_MAX and one batch more, however many
 *     requests a client sends and however slowly it reads: at the bound it is not read from any more.
 *  T3 A client gets at most TURN_BYTES of work in one turn of the event loop, then the others have theirs.
 *  T4 The pieces of one reply to a read that is not chunked follow each other without another reply in between.
 *  T5 A request that overlaps a write of a dead connection waits for it (LiveExport).
 */

import { assert, VolumeError } from '../model/errors.ts';
import { Command, CommandFlag, Errno, type HeaderStyle } from '../nbd-server-protocol/constants.ts';
import { ReplyEncoder } from '../nbd-server-protocol/reply-encoder.ts';
import {
  type Request,
  RequestDecoder,
  type RequestSink,
  type RequestTag,
} from '../nbd-server-protocol/request-decoder.ts';
import type { NegotiatedSession } from '../nbd-server-protocol/session.ts';
import { type Refusal, refusalOf } from './errno.ts';
import type { Effect, EffectOwner, LiveExport } from './live-export.ts';
import type { Outlet } from './outlet.ts';
import { PayloadJob } from './payload-job.ts';
import { BATCH_BYTES, finishRead, runRead } from './read-job.ts';
import { checkRange, checkRequest, mustDisconnect, type RequestRules } from './request-check.ts';
import type { SlabPool } from './slab-pool.ts';
import { statusDescriptors } from './status.ts';

/** Jobs of one connection at the same time. */
const JOBS_MAX = 256;
const JOB_BYTES_MAX = 4 * 1024 * 1024;
const OUTLET_BYTES_MAX = 2 * 1024 * 1024;
const TURN_BYTES = 2 * 1024 * 1024;
/** Read and sent together when a read is answered at once. */
const STRETCH_BYTES = 128 * 1024;
/** Payloads are cut at multiples of this in the export, so that no page is written in two parts. */
const PAGE_BYTES = 4096;

export interface TransmissionContext {
  readonly session: NegotiatedSession;
  readonly live: LiveExport;
  readonly outlet: Outlet;
  readonly pool: SlabPool;
  /** A reply was written outside of `feed`: send it when this turn of the event loop ends. */
  replied(): void;
  /** `feed` stopped before the end of its input, and would go on now. */
  resumable(): void;
  /** The last job has ended. */
  idle(): void;
  /** The connection cannot be kept in step any more. */
  destroy(reason: string): void;
  /** Asks the kernel whether the client has closed its side. */
  peerHasClosed(): boolean;
}

/** Commands that have nothing to do when their length is 0. */
const NEEDS_LENGTH = new Set<number>([
  Command.read,
  Command.write,
  Command.trim,
  Command.cache,
  Command.writeZeroes,
]);

/** A request whose header outlives `feed`. */
export interface JobRequest extends RequestTag {
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  readonly length: number;
}

function copyRequest(request: Request): JobRequest {
  const { cookieHigh, cookieLow, offsetHigh, offsetLow, command, flags, offset, length } = request;
  return { cookieHigh, cookieLow, offsetHigh, offsetLow, command, flags, offset, length };
}

export class Transmission implements RequestSink, EffectOwner {
  readonly context: TransmissionContext;
  readonly encoder: ReplyEncoder;
  readonly style: HeaderStyle;
  readonly #rules: RequestRules;
  readonly #decoder: RequestDecoder;
  /** What takes the payload that is arriving. */
  #payload: PayloadJob | undefined;
  #jobs = 0;
  #jobBytes = 0;
  #turnBytes = 0;
  #stalled = false;
  #disconnecting = false;
  #dead = false;
  readonly #effects = new Set<Effect>();
  /** While a reply must not be cut in two (T4): what the other jobs want to say. */
  #deferred: (() => void)[] | undefined;
  readonly #roomWaiters: (() => void)[] = [];

  constructor(context: TransmissionContext) {
    const { session } = context;
    this.context = context;
    this.style = session.headerStyle;
    this.encoder = new ReplyEncoder(session.headerStyle);
    this.#decoder = new RequestDecoder(session.headerStyle);
    this.#rules = {
      headerStyle: session.headerStyle,
      transmissionFlags: session.transmissionFlags,
      contextCount: session.contexts.length,
      minimumBlock: session.blockSizes.minimum,
      maximumPayload: session.blockSizes.maximumPayload,
    };
  }

  /** The client has said DISC: nothing that follows counts. */
  get disconnecting(): boolean {
    return this.#disconnecting;
  }

  get isIdle(): boolean {
    return this.#jobs === 0;
  }

  /** `feed` left input because it may take no more at the moment; `resumable` will be called. */
  get stalled(): boolean {
    return this.#stalled;
  }

  /** As RequestDecoder.feed. Replies that are ready at the end have not been sent yet. */
  feed(buffer: Buffer, start: number, end: number): number {
    this.#stalled = false;
    return this.#decoder.feed(buffer, start, end, this);
  }

  /** A new turn of the event loop: the connection may have its share again. */
  newTurn(): void {
    this.#turnBytes = 0;
    this.wake();
  }

  /** Something was given back that a stalled connection may wait for. */
  wake(): void {
    if (this.#stalled && !this.#dead) this.context.resumable();
  }

  readonly #orphanFinished = (): void => this.wake();

  hasGone(): boolean {
    return this.#dead || this.context.peerHasClosed();
  }

  /** The client has given up: its writes under way become orphans. Replies may still be wanted. */
  orphanEffects(): void {
    for (const effect of this.#effects) this.context.live.orphan(effect);
  }

  /** The connection is gone: nobody hears of what is under way any more. */
  die(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.orphanEffects();
    for (const resolve of this.#roomWaiters.splice(0)) resolve();
    if (this.#payload !== undefined) this.#payload.failure ??= new VolumeError('shutdown', 'connection lost');
  }

  // --- RequestSink -----------------------------------------------------------------------------------------

  request(request: Request): boolean {
    if (!this.#mayTake(request)) {
      this.#stalled = true;
      return false;
    }
    if (mustDisconnect(request, this.#rules)) {
      this.context.destroy(`payload of ${request.payloadLength} bytes is larger than agreed on`);
      return false;
    }
    if (request.command === Command.disconnect) {
      this.#disconnecting = true;
      return false;
    }
    const refusal = checkRequest(request, this.#rules, this.context.live.volume.sizeBytes);
    if (request.payloadLength > 0) {
      this.#payload = new PayloadJob(request, refusal);
      return true;
    }
    // `mayTake` refuses requests while a reply is exclusive: these may answer at once.
    if (refusal !== undefined) this.putRefusal(request, refusal);
    else if (request.length === 0 && NEEDS_LENGTH.has(request.command)) this.putAck(request);
    else if (request.command === Command.read) this.#read(request);
    else this.#command(copyRequest(request));
    return true;
  }

  payload(buffer: Buffer, start: number, length: number, remaining: number): number {
    const job = this.#payload;
    assert(job !== undefined, 'a payload follows its header');
    if (job.refusal !== undefined || job.failure !== undefined) {
      if (remaining === 0) this.#payloadEnds(job);
      return length;
    }
    if (job.command === Command.blockStatus)
      return this.#statusPayload(job, buffer, start, length, remaining);
    // Cut at a page of the export, but for the last piece.
    const taken = remaining === 0 ? length : length - ((job.cursor + length) % PAGE_BYTES);
    if (taken <= 0) return 0;
    const last = remaining === 0;
    if (this.#isFenced(job.cursor, taken) || !this.#writePiece(job, buffer, start, taken)) {
      this.#stalled = true;
      return 0;
    }
    job.cursor += taken;
    if (last) this.#payloadEnds(job);
    return taken;
  }

  // --- requests --------------------------------------------------------------------------------------------

  #mayTake(request: Request): boolean {
    if (this.#dead || this.#disconnecting) return false;
    if (this.#deferred !== undefined || this.#jobs >= JOBS_MAX || this.#jobBytes >= JOB_BYTES_MAX)
      return false;
    if (this.context.outlet.pendingBytes >= OUTLET_BYTES_MAX || this.#turnBytes >= TURN_BYTES) return false;
    return !this.#isFenced(request.offset, request.length);
  }

  #isFenced(offset: number, length: number): boolean {
    const { live } = this.context;
    if (!live.isFenced(offset, length, this)) return false;
    live.waitForOrphans(this.#orphanFinished);
    return true;
  }

  #read(request: Request): void {
    const { length } = request;
    this.#turnBytes += length;
    let done = 0;
    try {
      done = this.#readHot(request);
      if (done === length) return;
    } catch (error) {
      this.putRefusal(request, refusalOf(error));
      return;
    }
    const job = copyRequest(request);
    const chunked = this.style !== 'simple' && (job.flags & CommandFlag.df) === 0;
    const run = done > 0 ? () => finishRead(this, job, done) : () => runRead(this, job, chunked);
    this.job(Math.min(length, BATCH_BYTES), undefined, run, job);
  }

  /**
   * Reads what is there at once, a stretch at a time through memory that stays in the processor's cache. Returns
   * how many bytes have been put behind a header that announces them all; 0: nothing has been put.
   */
  #readHot(request: Request): number {
    const { offset, length } = request;
    const { outlet, live } = this.context;
    const { encoder } = this;
    const first = Math.min(length, STRETCH_BYTES);
    const segment = outlet.reserve(encoder.dataHeaderBytes + first);
    const { buffer } = segment.slab;
    const at = segment.end + encoder.dataHeaderBytes;
    if (!live.volume.readNow(offset, buffer, at, first) || this.#wantsHoles(request)) return 0;
    // A reply in several stretches may still fail: its end is then a chunk of its own.
    encoder.dataHeader(buffer, segment.end, request, offset, length, first === length);
    outlet.commit(segment, at + first);
    let done = first;
    while (done < length) {
      outlet.flush();
      const stretch = Math.min(length - done, STRETCH_BYTES);
      if (!this.#readStretch(offset + done, stretch)) return done;
      done += stretch;
    }
    if (length > first && this.style !== 'simple') this.putAck(request);
    return done;
  }

  /** False when it is not there at once, or fails: the job that goes on will find out why. */
  #readStretch(offset: number, length: number): boolean {
    const { outlet, live } = this.context;
    const segment = outlet.reserve(length);
    try {
      if (!live.volume.readNow(offset, segment.slab.buffer, segment.end, length)) return false;
    } catch {
      return false;
    }
    outlet.commit(segment, segment.end + length);
    return true;
  }

  /** The client can be told of holes, and there may be some. */
  #wantsHoles(request: Request): boolean {
    if (this.style === 'simple' || (request.flags & CommandFlag.df) !== 0) return false;
    return this.context.live.volume.mayHaveHoles(request.offset, request.length);
  }

  #command(request: JobRequest): void {
    const { volume } = this.context.live;
    const { offset, length, flags } = request;
    const fua = (flags & CommandFlag.fua) !== 0;
    const done = () => this.reply(() => this.putAck(request));
    const effect = { offset, end: offset + length, owner: this };
    switch (request.command) {
      case Command.flush:
        this.job(0, undefined, () => volume.flush().then(done), request);
        break;
      case Command.trim:
        this.job(0, effect, () => volume.trim(offset, length, fua).then(done), request);
        break;
      case Command.writeZeroes: {
        const noHole = (flags & CommandFlag.noHole) !== 0;
        const fast = (flags & CommandFlag.fastZero) !== 0;
        this.job(
          0,
          effect,
          () => volume.writeZeroes(offset, length, { fua, noHole, fast }).then(done),
          request,
        );
        break;
      }
      case Command.cache:
        this.job(0, undefined, () => volume.cache(offset, length).then(done), request);
        break;
      case Command.blockStatus:
        this.#blockStatus(
          request,
          length,
          this.context.session.contexts.map(({ id }) => id),
        );
        break;
      default:
        assert(request.command === Command.resize, `command ${request.command} has passed the checks`);
        this.#resize(request);
    }
  }

  #resize(request: JobRequest): void {
    const { live } = this.context;
    const sizeBytes = request.offset;
    if (sizeBytes < live.volume.sizeBytes && live.connections > 1) {
      const refusal = { errno: Errno.EPERM, text: 'others use this export: it cannot be made smaller' };
      this.reply(() => this.putRefusal(request, refusal));
      return;
    }
    if (!Number.isSafeInteger(sizeBytes)) {
      this.reply(() => this.putRefusal(request, { errno: Errno.EINVAL, text: 'a size above 2^53 - 1' }));
      return;
    }
    const done = () => this.reply(() => this.putAck(request));
    this.job(
      0,
      { offset: 0, end: Number.MAX_SAFE_INTEGER, owner: this },
      () => live.volume.resize(sizeBytes).then(done),
      request,
    );
  }

  #blockStatus(request: JobRequest, length: number, contextIds: readonly number[]): void {
    const one = (request.flags & CommandFlag.reqOne) !== 0;
    this.job(
      64 * 1024,
      undefined,
      async () => {
        const descriptors = await statusDescriptors(this.context.live.volume, request.offset, length, one);
        this.reply(() => {
          contextIds.forEach((id, index) => {
            const segment = this.context.outlet.reserve(this.encoder.blockStatusBytes(descriptors.length));
            const last = index === contextIds.length - 1;
            const { buffer } = segment.slab;
            const end = this.encoder.blockStatus(buffer, segment.end, request, id, descriptors, last);
            this.context.outlet.commit(segment, end);
          });
        });
      },
      request,
    );
  }

  // --- payloads --------------------------------------------------------------------------------------------

  /** Writes one piece, at once or as a job. False when there is no room for a job. */
  #writePiece(job: PayloadJob, buffer: Buffer, start: number, length: number): boolean {
    const { live, pool } = this.context;
    const wholeFua = job.fua && length === job.length;
    live.changedBy(this);
    try {
      if (!wholeFua && live.volume.writeNow(job.cursor, buffer, start, length)) {
        this.#turnBytes += length;
        return true;
      }
    } catch (error) {
      job.failure = error;
      return true;
    }
    if (this.#jobs >= JOBS_MAX || this.#jobBytes >= JOB_BYTES_MAX) return false;
    const slab = pool.take(length);
    buffer.copy(slab.buffer, 0, start, start + length);
    const { cursor } = job;
    job.outstanding += 1;
    if (wholeFua) job.durable = true;
    this.job(slab.sizeBytes, { offset: cursor, end: cursor + length, owner: this }, async () => {
      try {
        await live.volume.write(cursor, slab.buffer, 0, length, wholeFua);
      } catch (error) {
        job.failure ??= error;
      }
      pool.give(slab);
      job.outstanding -= 1;
      if (job.received) this.#writeEnds(job);
    });
    return true;
  }

  #statusPayload(job: PayloadJob, buffer: Buffer, start: number, length: number, remaining: number): number {
    const contexts = this.context.session.contexts.length;
    if (job.length > 8 + 4 * contexts || job.length < 8 || job.length % 4 !== 0) {
      job.refusal = { errno: Errno.EINVAL, text: 'the payload is no effect length with context ids' };
      if (remaining === 0) this.#payloadEnds(job);
      return length;
    }
    if (remaining > 0) return 0; // a few bytes: presented again when it is whole
    this.#payload = undefined;
    const effectLength = buffer.readUInt32BE(start) * 0x1_0000_0000 + buffer.readUInt32BE(start + 4);
    const ids = new Set<number>();
    for (let at = 8; at < length; at += 4) ids.add(buffer.readUInt32BE(start + at));
    const known = this.context.session.contexts.filter(({ id }) => ids.has(id)).map(({ id }) => id);
    let refusal: Refusal | undefined;
    if (known.length !== (length - 8) / 4 || known.length === 0) {
      refusal = { errno: Errno.EINVAL, text: 'unknown, repeated or no context ids' };
    } else if (effectLength === 0) {
      refusal = { errno: Errno.EINVAL, text: 'a block status of 0 bytes' };
    } else {
      const { sizeBytes } = this.context.live.volume;
      refusal = checkRange(Command.blockStatus, job.offset, effectLength, this.#rules, sizeBytes);
    }
    if (refusal !== undefined) this.putRefusal(job, refusal);
    else this.#blockStatus(job, effectLength, known);
    return length;
  }

  #payloadEnds(job: PayloadJob): void {
    this.#payload = undefined;
    job.received = true;
    this.#writeEnds(job);
  }

  /** All pieces are on their way; answers once none is. */
  #writeEnds(job: PayloadJob): void {
    if (job.outstanding > 0) return;
    if (job.refusal !== undefined) {
      const { refusal } = job;
      this.reply(() => this.putRefusal(job, refusal));
    } else if (job.failure !== undefined) {
      const refusal = refusalOf(job.failure);
      this.reply(() => this.putRefusal(job, refusal));
    } else if (job.fua && !job.durable) {
      const { volume } = this.context.live;
      this.job(0, undefined, () => volume.flush().then(() => this.reply(() => this.putAck(job))), job);
    } else this.reply(() => this.putAck(job));
  }

  // --- jobs and replies ------------------------------------------------------------------------------------

  /**
   * Counts something that must wait. `run` answers the request itself; when it fails and `request` is given, the
   * failure is the answer.
   */
  job(bytes: number, effect: Effect | undefined, run: () => Promise<void>, request?: RequestTag): void {
    this.#jobs += 1;
    this.#jobBytes += bytes;
    if (effect !== undefined) {
      this.#effects.add(effect);
      this.context.live.begun(effect);
    }
    run()
      .catch((error: unknown) => {
        const refusal = refusalOf(error);
        if (request !== undefined) this.reply(() => this.putRefusal(request, refusal));
      })
      .finally(() => {
        this.#jobs -= 1;
        this.#jobBytes -= bytes;
        if (effect !== undefined) {
          this.#effects.delete(effect);
          this.context.live.finished(effect);
        }
        this.context.replied();
        this.wake();
        if (this.#jobs === 0) this.context.idle();
      });
  }

  /** Says something on the connection: now, or when a reply that must not be cut has ended. */
  reply(put: () => void): void {
    if (this.#deferred === undefined) put();
    else this.#deferred.push(put);
  }

  /** Only `run` writes to the outlet until it has ended (T4). Another that wants the same waits. */
  async exclusively(run: () => Promise<void>): Promise<void> {
    while (this.#deferred !== undefined) await new Promise<void>((resolve) => this.#deferred?.push(resolve));
    const deferred: (() => void)[] = [];
    this.#deferred = deferred;
    try {
      await run();
    } finally {
      this.#deferred = undefined;
      for (const put of deferred) put();
      this.wake();
    }
  }

  /** Waits until the client has taken enough of what is queued for it, or is gone. */
  async outletRoom(): Promise<void> {
    while (this.context.outlet.pendingBytes >= OUTLET_BYTES_MAX && !this.#dead) {
      this.context.outlet.flush();
      if (this.context.outlet.pendingBytes < OUTLET_BYTES_MAX) return;
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
  }

  /** The socket has taken a rest that it had refused before. */
  drained(): void {
    for (const resolve of this.#roomWaiters.splice(0)) resolve();
    this.wake();
  }

  get isDead(): boolean {
    return this.#dead;
  }

  putAck(tag: RequestTag): void {
    const segment = this.context.outlet.reserve(this.encoder.ackBytes);
    this.context.outlet.commit(segment, this.encoder.ack(segment.slab.buffer, segment.end, tag));
  }

  putRefusal(tag: RequestTag, { errno, text, offset }: Refusal): void {
    const segment = this.context.outlet.reserve(this.encoder.errorBytes(text));
    const end = this.encoder.error(segment.slab.buffer, segment.end, tag, errno, text, offset);
    this.context.outlet.commit(segment, end);
  }
}
