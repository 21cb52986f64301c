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
import { HEADROOM, PIECE_BYTES, type Slab } from './slab-pool.ts';
import type { JobRequest, Transmission } from './transmission.ts';

/** Read together before anything is sent. */
export const BATCH_BYTES = 4 * PIECE_BYTES;
/** Extents of a read that are looked up at once. */
const EXTENTS_MAX = 64;

interface Batch {
  readonly slabs: readonly Slab[];
  readonly lengths: readonly number[];
}

/** Reads `length` (at most BATCH_BYTES) bytes; what is not there at once is read in parallel. */
async function readBatch(transmission: Transmission, offset: number, length: number): Promise<Batch> {
  const { pool, live } = transmission.context;
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
      if (!live.volume.readNow(offset + at, slab.buffer, HEADROOM, piece)) {
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
  transmission: Transmission,
  batch: Batch,
  header: ((buffer: Buffer, at: number) => void) | undefined,
): void {
  const { outlet } = transmission.context;
  batch.slabs.forEach((slab, index) => {
    const headerBytes = index === 0 && header !== undefined ? transmission.encoder.dataHeaderBytes : 0;
    const start = HEADROOM - headerBytes;
    if (headerBytes > 0) header?.(slab.buffer, start);
    outlet.append(slab, start, HEADROOM + (batch.lengths[index] as number));
  });
}

/** Answers a read that has passed its checks. `chunked`: the reply may be cut into chunks and tell of holes. */
export async function runRead(
  transmission: Transmission,
  request: JobRequest,
  chunked: boolean,
): Promise<void> {
  if (chunked) await readChunked(transmission, request);
  else await readWhole(transmission, request);
}

async function readChunked(transmission: Transmission, request: JobRequest): Promise<void> {
  const { volume } = transmission.context.live;
  const end = request.offset + request.length;
  let position = request.offset;
  while (position < end) {
    const extents: readonly Extent[] = volume.mayHaveHoles(position, end - position)
      ? await volume.blockStatus(position, end - position, EXTENTS_MAX)
      : [{ length: end - position, hole: false, zero: false }];
    for (const extent of extents) {
      const extentEnd = Math.min(end, position + extent.length);
      if (extent.hole && extent.zero) {
        const at = position;
        transmission.reply(() => putHole(transmission, request, at, extentEnd - at, extentEnd === end));
        position = extentEnd;
      }
      while (position < extentEnd) {
        const at = position;
        const length = Math.min(BATCH_BYTES, extentEnd - at);
        const batch = await readBatch(transmission, at, length);
        position += length;
        const last = position === end;
        const put = (buffer: Buffer, where: number) =>
          transmission.encoder.dataHeader(buffer, where, request, at, length, last);
        transmission.reply(() => putBatch(transmission, batch, put));
        if (!last) await transmission.outletRoom();
      }
      if (transmission.isDead) return;
    }
  }
}

function putHole(
  transmission: Transmission,
  request: JobRequest,
  at: number,
  length: number,
  last: boolean,
): void {
  const { outlet } = transmission.context;
  const segment = outlet.reserve(transmission.encoder.holeBytes);
  const end = transmission.encoder.hole(segment.slab.buffer, segment.end, request, at, length, last);
  outlet.commit(segment, end);
}

async function readWhole(transmission: Transmission, request: JobRequest): Promise<void> {
  const first = Math.min(BATCH_BYTES, request.length);
  const batch = await readBatch(transmission, request.offset, first);
  const header = (last: boolean) => (buffer: Buffer, where: number) =>
    transmission.encoder.dataHeader(buffer, where, request, request.offset, request.length, last);
  if (first === request.length) {
    transmission.reply(() => putBatch(transmission, batch, header(true)));
    return;
  }
  await transmission.exclusively(async () => {
    putBatch(transmission, batch, header(false));
    await finish(transmission, request, first);
  });
}

/** Goes on with a reply that was announced whole, and of which `done` bytes have been put. */
export async function finishRead(
  transmission: Transmission,
  request: JobRequest,
  done: number,
): Promise<void> {
  await transmission.exclusively(() => finish(transmission, request, done));
}

async function finish(transmission: Transmission, request: JobRequest, done: number): Promise<void> {
  const refusal = await readRest(transmission, request, done);
  if (transmission.style === 'simple') {
    if (refusal !== undefined) transmission.context.destroy(`read failed half-way: ${refusal.text}`);
  } else if (refusal !== undefined) transmission.putRefusal(request, refusal);
  else transmission.putAck(request);
}

/** Sends the rest of a reply that has been announced whole; zeroes from where reading fails, which is returned. */
async function readRest(
  transmission: Transmission,
  request: JobRequest,
  done: number,
): Promise<Refusal | undefined> {
  let refusal: Refusal | undefined;
  let position = done;
  while (position < request.length) {
    await transmission.outletRoom();
    if (transmission.isDead) return { errno: Errno.ESHUTDOWN, text: 'connection lost' };
    const length = Math.min(BATCH_BYTES, request.length - position);
    if (refusal === undefined) {
      try {
        putBatch(transmission, await readBatch(transmission, request.offset + position, length), undefined);
      } catch (error) {
        refusal = { offset: request.offset + position, ...refusalOf(error) };
        if (transmission.style === 'simple') return refusal;
      }
    }
    if (refusal !== undefined) putZeroes(transmission, length);
    position += length;
  }
  return refusal;
}

function putZeroes(transmission: Transmission, length: number): void {
  const { pool, outlet } = transmission.context;
  for (let left = length; left > 0; left -= PIECE_BYTES) {
    const piece = Math.min(PIECE_BYTES, left);
    const slab = pool.take(piece);
    slab.buffer.fill(0, HEADROOM, HEADROOM + piece);
    outlet.append(slab, HEADROOM, HEADROOM + piece);
  }
}
