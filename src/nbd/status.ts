/** base:allocation descriptors of a range: what BLOCK_STATUS answers. */

import type { Volume } from '../model/volume.ts';
import { Limit, State } from '../nbd-server-protocol/constants.ts';
import type { StatusDescriptor } from '../nbd-server-protocol/reply-encoder.ts';

/** At least one descriptor, from `offset` on; together at most `length` bytes. `one`: exactly one (REQ_ONE). */
export async function statusDescriptors(
  volume: Volume,
  offset: number,
  length: number,
  one: boolean,
): Promise<StatusDescriptor[]> {
  if (!volume.capabilities.blockStatus) return [{ length, state: 0 }];
  const extents = await volume.blockStatus(offset, length, one ? 1 : Limit.statusDescriptors);
  return extents.map((extent) => ({
    length: extent.length,
    state: (extent.hole ? State.hole : 0) | (extent.zero ? State.zero : 0),
  }));
}
