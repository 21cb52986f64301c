/**
 * Reads that are not answered on the hot path: large ones, ones that must wait for the disk, ones with holes.
 *
 * Data is read in batches into slabs, and a batch leaves when it is whole. A reply that may consist of chunks is
 * one chunk a batch, so a failure is told in its place. A reply that may not (simple replies, DF) is announced
 * whole before its last batch has been read; when a later batch fails, a simple reply can only end with the
 * connection, a chunk is padded with zeroes and followed by an error chunk ("Structured replies").
 */

import type { Extent } from '../model/volume.ts';
import { Errno } from '../nbd-server-protocol/constants.ts';
import { type Refusal, refusalOf } from './errno.ts';
import { mayChunk } from './hot-read.ts';
import type { JobRequest, Jobs } from './jobs.ts';
import { HEADROOM, PIECE_BYTES, type Slab } from './slab-pool.ts';

/** Read together before anything is sent. */
export const BATCH_BYTES = 4 * PIECE_BYTES;
/** Extents of a read that are looked up at once. */
const EXTENTS_MAX = 64;

interface Batch {
  readonly slabs: readonly Slab[];
  readonly lengths: readonly number[];
}

function batchBytes(jobs: Jobs): number {
  return Math.min(BATCH_BYTES, jobs.context.outletBytesMax());
}

/** Reads `length` (at most BATCH_BYTES) bytes; what is not there at once is read in parallel. */
async function readBatch(jobs: Jobs, offset: number, length: number): Promise<Batch> {
  const { pool, live } = jobs.context;
  const slabs: Slab[] = [];
  const lengths: number[] = [];
  const waiting: Promise<void>[] = [];
  let failure: unknown;
  for (let at = 0; at < length && failure === undefined; at += PIECE_BYTES) {
    const piece = Math.min(PIECE_BYTES, length - at);
    const slab = pool.take(piece);
    slabs.push(slab);
    lengths.push(piece);
    try {
      if (jobs.misses.isOn || !live.volume.readNow(offset + at, slab.buffer, HEADROOM, piece)) {
        waiting.push(live.volume.read(offset + at, slab.buffer, HEADROOM, piece));
      }
    } catch (error) {
      failure = error;
    }
  }
  // All must have ended before a slab may be used again, failed or not.
  for (const result of await Promise.allSettled(waiting)) {
    if (result.status === 'rejected') failure ??= result.reason;
  }
  if (failure !== undefined) {
    for (const slab of slabs) pool.give(slab);
    throw failure;
  }
  return { slabs, lengths };
}

/** Puts a batch into the outlet, its header (when it starts one) right before its first byte. */
function putBatch(
  jobs: Jobs,
  batch: Batch,
  header: ((buffer: Buffer, at: number) => void) | undefined,
): void {
  const { outlet } = jobs.context;
  batch.slabs.forEach((slab, index) => {
    const headerBytes = index === 0 && header !== undefined ? jobs.encoder.dataHeaderBytes : 0;
    const start = HEADROOM - headerBytes;
    if (headerBytes > 0) header?.(slab.buffer, start);
    outlet.append(slab, start, HEADROOM + (batch.lengths[index] as number));
  });
}

/** Answers a read that has passed its checks. */
export async function runRead(jobs: Jobs, request: JobRequest): Promise<void> {
  if (mayChunk(jobs, request)) await readChunked(jobs, request);
  else await readWhole(jobs, request);
}

async function readChunked(jobs: Jobs, request: JobRequest): Promise<void> {
  const { live } = jobs.context;
  const end = request.offset + request.length;
  let position = request.offset;
  while (position < end) {
    const extents: readonly Extent[] = live.mayHaveHoles(position, end - position)
      ? await live.volume.blockStatus(position, end - position, EXTENTS_MAX)
      : [{ length: end - position, hole: false, zero: false }];
    for (const extent of extents) {
      const extentEnd = Math.min(end, position + extent.length);
      if (extent.hole && extent.zero) {
        const at = position;
        jobs.reply(() => putHole(jobs, request, at, extentEnd - at, extentEnd === end));
        position = extentEnd;
      }
      while (position < extentEnd) {
        const at = position;
        const length = Math.min(batchBytes(jobs), extentEnd - at);
        await jobs.turnToSpeak();
        const batch = await readBatch(jobs, at, length);
        position += length;
        const last = position === end;
        const put = (buffer: Buffer, where: number) =>
          jobs.encoder.dataHeader(buffer, where, request, at, length, last);
        jobs.reply(() => putBatch(jobs, batch, put));
        if (!last) await jobs.outletRoom();
        if (jobs.isDead) return;
      }
      if (jobs.isDead) return;
    }
  }
}

function putHole(jobs: Jobs, request: JobRequest, at: number, length: number, last: boolean): void {
  const { outlet } = jobs.context;
  const segment = outlet.reserve(jobs.encoder.holeBytes);
  const end = jobs.encoder.hole(segment.slab.buffer, segment.end, request, at, length, last);
  outlet.commit(segment, end);
}

async function readWhole(jobs: Jobs, request: JobRequest): Promise<void> {
  const first = Math.min(batchBytes(jobs), request.length);
  const batch = await readBatch(jobs, request.offset, first);
  const header = (last: boolean) => (buffer: Buffer, where: number) =>
    jobs.encoder.dataHeader(buffer, where, request, request.offset, request.length, last);
  if (first === request.length) {
    jobs.reply(() => putBatch(jobs, batch, header(true)));
    return;
  }
  await jobs.exclusively(async () => {
    putBatch(jobs, batch, header(false));
    await finish(jobs, request, first);
  });
}

/** Goes on with a reply that was announced whole, and of which `done` bytes have been put. */
export async function finishRead(jobs: Jobs, request: JobRequest, done: number): Promise<void> {
  await jobs.exclusively(() => finish(jobs, request, done));
}

async function finish(jobs: Jobs, request: JobRequest, done: number): Promise<void> {
  const refusal = await readRest(jobs, request, done);
  if (jobs.style === 'simple') {
    if (refusal !== undefined) jobs.context.destroy(`read failed half-way: ${refusal.text}`);
  } else if (refusal !== undefined) jobs.putRefusal(request, refusal);
  else jobs.putAck(request);
}

/** Sends the rest of a reply that has been announced whole; zeroes from where reading fails, which is returned. */
async function readRest(jobs: Jobs, request: JobRequest, done: number): Promise<Refusal | undefined> {
  let refusal: Refusal | undefined;
  let position = done;
  while (position < request.length) {
    await jobs.outletRoom();
    if (jobs.isDead) return { errno: Errno.ESHUTDOWN, text: 'connection lost' };
    const length = Math.min(batchBytes(jobs), request.length - position);
    if (refusal === undefined) {
      try {
        putBatch(jobs, await readBatch(jobs, request.offset + position, length), undefined);
      } catch (error) {
        refusal = { offset: request.offset + position, ...refusalOf(error) };
        if (jobs.style === 'simple') return refusal;
      }
    }
    if (refusal !== undefined) putZeroes(jobs, length);
    position += length;
  }
  return refusal;
}

function putZeroes(jobs: Jobs, length: number): void {
  const { pool, outlet } = jobs.context;
  for (let left = length; left > 0; left -= PIECE_BYTES) {
    const piece = Math.min(PIECE_BYTES, left);
    const slab = pool.take(piece);
    slab.buffer.fill(0, HEADROOM, HEADROOM + piece);
    outlet.append(slab, HEADROOM, HEADROOM + piece);
  }
}
