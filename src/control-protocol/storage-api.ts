/**
 * A storage system's management API, which the directory calls. Everything is idempotent: an operation that was
 * interrupted does its step again.
 *
 *   GET    /real-volumes, /real-volumes/:id    RealVolumeView
 *   PUT    /real-volumes/:id   MakeRealVolume  RealVolumeView   makes it; the same again is nothing, something else 409 `conflict`
 *   PATCH  /real-volumes/:id   ChangeRealVolume RealVolumeView  an older epoch is 409 `stale-epoch`
 *   DELETE /real-volumes/:id?force             204              `in-use` while connections use it, unless forced; gone already: 204
 *   PUT, GET /real-volumes/:id/group, POST /real-volumes/:id/hand-over: copy-groups.ts
 *
 * A raised epoch is answered when every connection with an older one has been cut off and its writes have finished.
 */

import { z } from 'zod';
import { AccessKey, Bytes, Epoch, RealVolumeId, VolumeName, VolumeSize } from './names.ts';

export const RealVolumeState = z.enum([
  'unused', //            made, and no virtual volume's
  'in-use', //            part of a virtual volume
  'access-prohibited', // exists, and nobody may read or write it
  'failed', //            its file is missing or too short, or failed a flush: then it is taken back by `failure: accepted` alone
]);
export type RealVolumeState = z.infer<typeof RealVolumeState>;

export const MakeRealVolume = z.object({
  sizeBytes: VolumeSize,
  /** null makes an unused one. */
  volume: VolumeName.nullable(),
  epoch: Epoch,
  accessKey: AccessKey,
});
export type MakeRealVolume = z.infer<typeof MakeRealVolume>;

export const ChangeRealVolume = z.object({
  sizeBytes: VolumeSize.optional(),
  epoch: Epoch.optional(),
  volume: VolumeName.nullable().optional(),
  access: z.enum(['allowed', 'prohibited']).optional(),
  /**
   * Takes back what has failed, if its file is whole: who asks for it knows that writes which had been answered, and not flushed,
   * may be lost. `conflict` when its file cannot be used.
   */
  failure: z.literal('accepted').optional(),
});
export type ChangeRealVolume = z.infer<typeof ChangeRealVolume>;

export const RealVolumeView = z.object({
  id: RealVolumeId,
  state: RealVolumeState,
  /** Why it has failed. */
  reason: z.string().nullable(),
  sizeBytes: Bytes,
  volume: VolumeName.nullable(),
  epoch: Epoch,
  file: z.string(),
  connections: z.int(),
});
export type RealVolumeView = z.infer<typeof RealVolumeView>;
