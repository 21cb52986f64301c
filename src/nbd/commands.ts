/** The commands without data on the wire, as jobs: each calls the volume and answers when that has finished. */

import { assert, VolumeError } from '../model/errors.ts';
import { Command, CommandFlag, Errno, Limit, State } from '../nbd-server-protocol/constants.ts';
import type { StatusDescriptor } from '../nbd-server-protocol/reply-encoder.ts';
import type { JobRequest, Jobs } from './jobs.ts';

/** What the descriptors of one block status may take in memory, the extents they come from included. */
const STATUS_BYTES = 256 * 1024;

/** Carries out a request that has passed its checks, and answers it. */
export function runCommand(jobs: Jobs, request: JobRequest): void {
  const { live, session } = jobs.context;
  const { volume } = live;
  const { offset, length, flags } = request;
  const fua = (flags & CommandFlag.fua) !== 0;
  const effect = { offset, end: offset + length };
  const done = () => jobs.reply(() => jobs.putAck(request));
  switch (request.command) {
    case Command.flush:
      jobs.start(0, undefined, () => volume.flush().then(done), request);
      break;
    case Command.trim:
      jobs.start(0, effect, () => volume.trim(offset, length, fua).then(done), request);
      break;
    case Command.writeZeroes: {
      const noHole = (flags & CommandFlag.noHole) !== 0;
      const fast = (flags & CommandFlag.fastZero) !== 0;
      const options = { fua, noHole, fast };
      jobs.start(0, effect, () => volume.writeZeroes(offset, length, options).then(done), request);
      break;
    }
    case Command.cache:
      jobs.start(0, undefined, () => volume.cache(offset, length).then(done), request);
      break;
    case Command.blockStatus: {
      const ids = session.contexts.map(({ id }) => id);
      runBlockStatus(jobs, request, length, ids);
      break;
    }
    default:
      assert(request.command === Command.resize, `command ${request.command} has passed the checks`);
      runResize(jobs, request);
  }
}

/** RESIZE says the new size in its offset field. Others may see the new size too. */
function runResize(jobs: Jobs, request: JobRequest): void {
  const { live } = jobs.context;
  const sizeBytes = request.offset;
  if (!Number.isSafeInteger(sizeBytes)) {
    jobs.putRefusal(request, { errno: Errno.EINVAL, text: 'a size above 2^53 - 1' });
    return;
  }
  if (sizeBytes < live.volume.sizeBytes && live.connections > 1) {
    const text = 'others use this export: it cannot be made smaller';
    jobs.putRefusal(request, { errno: Errno.EPERM, text });
    return;
  }
  const effect = { offset: 0, end: Number.MAX_SAFE_INTEGER };
  const resize = async () => {
    try {
      await live.volume.resize(sizeBytes);
    } catch (error) {
      // The extension has no other word for a size that cannot be had.
      if (!(error instanceof VolumeError) || error.code !== 'too-big') throw error;
      jobs.reply(() => jobs.putRefusal(request, { errno: Errno.ENOSPC, text: error.message }));
      return;
    }
    jobs.reply(() => jobs.putAck(request));
  };
  jobs.start(0, effect, resize, request);
}

/** Describes `length` bytes from the request's offset on, once for each of the contexts. */
export function runBlockStatus(
  jobs: Jobs,
  request: JobRequest,
  length: number,
  contextIds: readonly number[],
): void {
  const { live, outlet } = jobs.context;
  const extentsMax = (request.flags & CommandFlag.reqOne) !== 0 ? 1 : Limit.statusDescriptors;
  const answer = async () => {
    const extents = await live.volume.blockStatus(request.offset, length, extentsMax);
    const descriptors: StatusDescriptor[] = extents.map((extent) => ({
      length: extent.length,
      state: (extent.hole ? State.hole : 0) | (extent.zero ? State.zero : 0),
    }));
    jobs.reply(() => {
      contextIds.forEach((id, index) => {
        const segment = outlet.reserve(jobs.encoder.blockStatusBytes(descriptors.length));
        const last = index === contextIds.length - 1;
        const { buffer } = segment.slab;
        outlet.commit(segment, jobs.encoder.blockStatus(buffer, segment.end, request, id, descriptors, last));
      });
    });
  };
  jobs.start(STATUS_BYTES, undefined, answer, request);
}
