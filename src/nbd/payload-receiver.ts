/**
 * Requests with a payload. What arrives of a write goes to the volume piece by piece, straight from the memory it
 * was received into when the volume takes it at once; nothing is collected first.
 */

import { assert } from '../model/errors.ts';
import { Command, Errno } from '../nbd-server-protocol/constants.ts';
import type { Request } from '../nbd-server-protocol/request-decoder.ts';
import { runBlockStatus } from './commands.ts';
import { type Refusal, refusalOf } from './errno.ts';
import type { Jobs } from './jobs.ts';
import { type Gathering, PayloadJob } from './payload-job.ts';
import { checkRange, type RequestRules } from './request-check.ts';
import type { Slab } from './slab-pool.ts';

/** Payloads are cut at multiples of this in the export, so that no page is written in two parts. */
const PAGE_BYTES = 4096;

export class PayloadReceiver {
  readonly #jobs: Jobs;
  readonly #rules: RequestRules;
  /** The last `take` may have left something, which waits for room, or for an orphan. */
  isStalled = false;
  #current: PayloadJob | undefined;

  constructor(jobs: Jobs, rules: RequestRules) {
    this.#jobs = jobs;
    this.#rules = rules;
  }

  /** A payload follows. With a refusal it is consumed, and then answered with it. */
  begin(request: Request, refusal: Refusal | undefined): void {
    this.#current = new PayloadJob(request, refusal);
  }

  /**
   * Takes a part of the payload: buffer[start, start + length), with `remaining` bytes still to come behind it.
   * Returns how many bytes it took; `isStalled` says that it may take no more at the moment.
   */
  take(buffer: Buffer, start: number, length: number, remaining: number): number {
    const job = this.#current;
    this.isStalled = false;
    assert(job !== undefined, 'a payload follows its header');
    if (job.command === Command.blockStatus && job.refusal === undefined) {
      return this.#takeContexts(job, buffer, start, length, remaining);
    }
    if (job.refusal !== undefined || job.failure !== undefined) {
      if (remaining === 0) this.#ends(job);
      return length;
    }
    const { gatherBytes } = this.#jobs.context.live;
    if (gatherBytes > 0 && (job.gathering !== undefined || remaining > 0)) {
      return this.#gather(job, buffer, start, length, remaining);
    }
    const taken = remaining === 0 ? length : length - ((job.cursor + length) % PAGE_BYTES);
    if (taken <= 0) return 0;
    if (this.#jobs.isFenced(job.cursor, taken) || !this.#writePiece(job, buffer, start, taken)) {
      this.isStalled = true;
      return 0;
    }
    job.cursor += taken;
    if (remaining === 0) this.#ends(job);
    return taken;
  }

  /** Writes one piece, at once or as a job. False when there is no room for a job. */
  #writePiece(job: PayloadJob, buffer: Buffer, start: number, length: number): boolean {
    const { live, pool } = this.#jobs.context;
    const wholeFua = job.fua && length === job.length;
    const { cursor } = job;
    live.changedBy(this.#jobs);
    try {
      if (!wholeFua && live.volume.writeNow(cursor, buffer, start, length)) return true;
    } catch (error) {
      job.failure = error;
      return true;
    }
    if (!this.#jobs.hasRoom) return false;
    // What was received is overwritten by the next receive: a write that takes its time needs its own copy.
    const slab = pool.take(length);
    buffer.copy(slab.buffer, 0, start, start + length);
    job.durable = wholeFua;
    this.#startWrite(job, slab, length);
    return true;
  }

  /** slab.buffer[0, length) is the next piece. */
  #startWrite(job: PayloadJob, slab: Slab, length: number): void {
    const { live, pool } = this.#jobs.context;
    const { cursor } = job;
    job.outstanding += 1;
    const write = () => live.volume.write(cursor, slab.buffer, 0, length, job.durable);
    this.#jobs.startThen(slab.sizeBytes, { offset: cursor, end: cursor + length }, write, (isDone, error) => {
      if (!isDone) job.failure ??= error;
      pool.give(slab);
      job.outstanding -= 1;
      if (job.received) this.#answer(job);
    });
  }

  /** Takes what arrives into slabs, each written when it is a whole piece. */
  #gather(job: PayloadJob, buffer: Buffer, start: number, length: number, remaining: number): number {
    let taken = 0;
    while (taken < length) {
      const piece = this.#nextPiece(job, length - taken + remaining);
      const here = piece === undefined ? 0 : this.#fill(job, piece, buffer, start + taken, length - taken);
      this.isStalled = here === 0;
      if (this.isStalled) return taken;
      taken += here;
    }
    if (remaining === 0) this.#ends(job);
    return taken;
  }

  /** The piece that is being gathered, of `left` bytes that are still to be taken. Pieces end where pages do. */
  #nextPiece(job: PayloadJob, left: number): Gathering | undefined {
    const { live, pool } = this.#jobs.context;
    if (job.gathering === undefined && this.#jobs.hasRoom) {
      const most = live.gatherBytes - ((job.cursor + live.gatherBytes) % PAGE_BYTES);
      const sizeBytes = Math.min(left, most);
      job.gathering = { slab: pool.take(sizeBytes), sizeBytes, filled: 0 };
    }
    return job.gathering;
  }

  /** How much of buffer[start, start + length) it took: nothing when the piece would be whole and may not be written. */
  #fill(job: PayloadJob, piece: Gathering, buffer: Buffer, start: number, length: number): number {
    const { slab, sizeBytes, filled } = piece;
    const here = Math.min(length, sizeBytes - filled);
    const isWhole = filled + here === sizeBytes;
    if (isWhole && (!this.#jobs.hasRoom || this.#jobs.isFenced(job.cursor, sizeBytes))) return 0;
    buffer.copy(slab.buffer, filled, start, start + here);
    piece.filled += here;
    if (!isWhole) return here;
    job.gathering = undefined;
    job.durable = job.fua && sizeBytes === job.length;
    this.#jobs.context.live.changedBy(this.#jobs);
    this.#startWrite(job, slab, sizeBytes);
    job.cursor += sizeBytes;
    return here;
  }

  #ends(job: PayloadJob): void {
    this.#current = undefined;
    job.received = true;
    this.#answer(job);
  }

  /** Answers once no piece is under way. */
  #answer(job: PayloadJob): void {
    if (job.outstanding > 0) return;
    const jobs = this.#jobs;
    const refusal = job.refusal ?? (job.failure === undefined ? undefined : refusalOf(job.failure));
    if (refusal !== undefined) jobs.reply(() => jobs.putRefusal(job, refusal));
    else if (job.fua && !job.durable) {
      const { volume } = jobs.context.live;
      jobs.start(0, undefined, () => volume.flush().then(() => jobs.reply(() => jobs.putAck(job))), job);
    } else jobs.reply(() => jobs.putAck(job));
  }

  /** BLOCK_STATUS with PAYLOAD_LEN: a 64-bit effect length, then the 32-bit ids of the contexts to describe. */
  #takeContexts(job: PayloadJob, buffer: Buffer, start: number, length: number, remaining: number): number {
    const { contexts } = this.#jobs.context.session;
    if (job.length < 12 || job.length > 8 + 4 * contexts.length || job.length % 4 !== 0) {
      job.refusal = { errno: Errno.EINVAL, text: 'the payload must be an effect length and context ids' };
      if (remaining === 0) this.#ends(job);
      return length;
    }
    if (remaining > 0) return 0; // a few bytes: they are presented again when they are all there
    const effectLength = buffer.readUInt32BE(start) * 0x1_0000_0000 + buffer.readUInt32BE(start + 4);
    const asked = new Set<number>();
    for (let at = 8; at < length; at += 4) asked.add(buffer.readUInt32BE(start + at));
    const ids = contexts.map(({ id }) => id).filter((id) => asked.has(id));
    job.refusal = this.#refuseContexts(job, effectLength, ids.length === (length - 8) / 4);
    if (job.refusal !== undefined) this.#ends(job);
    else {
      this.#current = undefined;
      this.#jobs.reply(() => runBlockStatus(this.#jobs, job, effectLength, ids));
    }
    return length;
  }

  #refuseContexts(job: PayloadJob, effectLength: number, allKnown: boolean): Refusal | undefined {
    if (!allKnown) return { errno: Errno.EINVAL, text: 'a context id that is unknown or repeated' };
    if (effectLength === 0) return { errno: Errno.EINVAL, text: 'a block status of 0 bytes' };
    const { sizeBytes } = this.#jobs.context.live.volume;
    return checkRange(Command.blockStatus, job.offset, effectLength, this.#rules, sizeBytes);
  }
}
