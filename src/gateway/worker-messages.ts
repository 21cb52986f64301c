/**
 * What the primary process of a gateway and its workers say to one another.
 *
 *   primary -> worker   tell  start     WorkerStart           first of all
 *                       tell  watched   WatchMessage          what the directory's watch brings, from a snapshot on
 *                       ask   find      name                  Found: for the handshake, which the primary has
 *                       tell  adopt     Adoption + socket     a connection that has agreed on an export of the worker's
 *                       ask   beat      -                     it is alive
 *                       ask   hosts     name                  number of connections
 *                       ask   stop      -                     drained, flushed, closed
 *   worker -> primary   tell  ready     -                     may be asked
 *                       tell  adopted   id of the Adoption    the socket is here
 *                       tell  figures   Figures               when they have changed
 *                       ask   look      name                  a fresh look at the directory has ended
 *                       ask   grow      Growth                the directory has made the volume larger
 *                       ask   log-in    name                  the directory has made the nearest copy primary, or not
 */

import type { VolumeName } from '../control-protocol/names.ts';
import type { BlockSizes, Capabilities } from '../model/volume.ts';
import type { ExportRefusedCode } from '../nbd/server.ts';
import type { NegotiatedSession } from '../nbd-server-protocol/session.ts';

export interface WorkerStart {
  readonly connections: number;
  readonly reconnectMs: number;
}

/** What a handshake says of an export. */
export interface ExportShape {
  readonly sizeBytes: number;
  readonly blockSizes: BlockSizes;
  readonly capabilities: Capabilities;
}

export type Found =
  | { readonly kind: 'shape'; readonly name: string; readonly shape: ExportShape }
  | { readonly kind: 'refused'; readonly code: ExportRefusedCode; readonly text: string }
  | { readonly kind: 'none' };

export interface Adoption {
  readonly id: number;
  readonly session: NegotiatedSession;
  readonly rest: Uint8Array;
}

export interface Growth {
  readonly name: VolumeName;
  readonly sizeBytes: number;
}

/** How long a worker is given to stop: more than it gives itself (data-plane.ts). */
export const WORKER_STOP_MS = 13_000;
