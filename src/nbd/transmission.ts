/**
 * The transmission phase of one connection: takes requests from the decoder and has each answered, at once where
 * that is possible (the hot path: no promise, no copy that is not needed), else by a job.
 *
 * Invariants
 *  T1 A request is answered exactly once, or the connection is closed.
 *  T2 Memory held for a connection is bounded, however many requests a client sends and however slowly it takes
 *     the replies: at the bounds of Jobs it is not read from any more.
 *  T3 A client gets a share of work in one turn of the event loop (TurnLoop), then the others have theirs.
 *  T4 A request that overlaps an effect of a dead connection waits for it (LiveExport).
 */

import { Command } from '../nbd-server-protocol/constants.ts';
import { type Request, RequestDecoder, type RequestSink } from '../nbd-server-protocol/request-decoder.ts';
import { runCommand } from './commands.ts';
import { refusalOf } from './errno.ts';
import { readHot } from './hot-read.ts';
import { copyRequest, Jobs, type JobsContext } from './jobs.ts';
import { PayloadReceiver } from './payload-receiver.ts';
import { BATCH_BYTES, finishRead, runRead } from './read-job.ts';
import { checkRequest, mustDisconnect, type RequestRules } from './request-check.ts';
import { SHARE_BYTES } from './turn-loop.ts';

/** What answering any request costs, as bytes of a share. */
const REQUEST_BYTES = 4096;

/** Commands that have nothing to do when their length is 0. */
const NEEDS_LENGTH = new Set<number>([
  Command.read,
  Command.write,
  Command.trim,
  Command.cache,
  Command.writeZeroes,
]);

export interface TransmissionContext extends Omit<JobsContext, 'freed'> {
  /** `feed` stopped before the end of its input, and would go on now. */
  resumable(): void;
}

export class Transmission implements RequestSink {
  /** TurnLoop's: it gets a new share with the next turn. */
  isInTurn = false;
  readonly jobs: Jobs;
  readonly #context: TransmissionContext;
  readonly #rules: RequestRules;
  readonly #decoder: RequestDecoder;
  readonly #payloads: PayloadReceiver;
  /** Bytes of work that are left of this turn's share. */
  #shareBytes = SHARE_BYTES;
  #stalled = false;
  #disconnecting = false;

  constructor(context: TransmissionContext) {
    const { session } = context;
    this.#context = context;
    this.jobs = new Jobs({ ...context, freed: () => this.#goOn() });
    this.#decoder = new RequestDecoder(session.headerStyle);
    this.#rules = {
      headerStyle: session.headerStyle,
      transmissionFlags: session.transmissionFlags,
      contextCount: session.contexts.length,
      minimumBlock: session.blockSizes.minimum,
      maximumPayload: session.blockSizes.maximumPayload,
    };
    this.#payloads = new PayloadReceiver(this.jobs, this.#rules);
  }

  /** The client has said DISC: nothing that follows counts. */
  get disconnecting(): boolean {
    return this.#disconnecting;
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

  /** A new turn of the event loop: the client may have a share again. */
  newTurn(shareBytes: number): void {
    this.#shareBytes = shareBytes;
    this.#goOn();
  }

  request(request: Request): boolean {
    if (this.#disconnecting || this.jobs.isDead) return false;
    if (!this.#hasCapacity() || this.jobs.isFenced(request.offset, request.length)) {
      this.#stalled = true;
      return false;
    }
    if (request.command === Command.disconnect) {
      this.#disconnecting = true;
      return false;
    }
    if (mustDisconnect(request, this.#rules)) {
      this.#context.destroy(`a payload of ${request.payloadLength} bytes is larger than agreed on`);
      return false;
    }
    this.#shareBytes -= REQUEST_BYTES;
    const refusal = checkRequest(request, this.#rules, this.#context.live.volume.sizeBytes);
    if (request.payloadLength > 0) this.#payloads.begin(request, refusal);
    else if (refusal !== undefined) this.jobs.putRefusal(request, refusal);
    else if (request.length === 0 && NEEDS_LENGTH.has(request.command)) this.jobs.putAck(request);
    else if (request.command === Command.read) this.#read(request);
    else runCommand(this.jobs, copyRequest(request));
    return true;
  }

  payload(buffer: Buffer, start: number, length: number, remaining: number): number {
    if (this.jobs.isDead) return 0;
    if (this.#shareBytes <= 0) {
      this.#stalled = true;
      return 0;
    }
    const taken = this.#payloads.take(buffer, start, length, remaining);
    if (this.#payloads.isStalled) this.#stalled = true;
    this.#shareBytes -= taken;
    return taken;
  }

  #read(request: Request): void {
    const { length } = request;
    this.#shareBytes -= length;
    let done = 0;
    try {
      done = readHot(this.jobs, request);
    } catch (error) {
      this.jobs.putRefusal(request, refusalOf(error));
      return;
    }
    if (done === length) return;
    const job = copyRequest(request);
    const run = done > 0 ? () => finishRead(this.jobs, job, done) : () => runRead(this.jobs, job);
    this.jobs.start(Math.min(length, BATCH_BYTES), undefined, run, job);
  }

  #hasCapacity(): boolean {
    return this.jobs.hasRoom && this.jobs.mayReplyNow && this.#shareBytes > 0;
  }

  #goOn(): void {
    if (this.#stalled && !this.jobs.isDead) this.#context.resumable();
  }
}
