/**
 * A gateway's management API.
 *
 *   GET /volumes/:name/hosts    VolumeHosts    also for a volume that it does not know: 0 connections
 */

import { z } from 'zod';
import { VolumeName } from './names.ts';

export const VolumeParams = z.object({ name: VolumeName });

export const VolumeHosts = z.object({ volume: VolumeName, connections: z.int().min(0) });
export type VolumeHosts = z.infer<typeof VolumeHosts>;
