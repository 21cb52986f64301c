/**
 * A request whose payload is arriving: a write, a block status that names its contexts, or something refused whose
 * payload must be consumed so that the connection stays in step.
 */

import { CommandFlag } from '../nbd-server-protocol/constants.ts';
import type { Request } from '../nbd-server-protocol/request-decoder.ts';
import type { Refusal } from './errno.ts';
import type { JobRequest } from './jobs.ts';
import type { Slab } from './slab-pool.ts';

/** What has arrived of a piece: `filled` of `sizeBytes` bytes. */
export interface Gathering {
  readonly slab: Slab;
  readonly sizeBytes: number;
  filled: number;
}

export class PayloadJob implements JobRequest {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
  readonly command: number;
  readonly flags: number;
  readonly offset: number;
  /** Bytes of the payload. */
  readonly length: number;
  /** Set: the request is answered with this once its payload has gone by. */
  refusal: Refusal | undefined;
  /** Where in the export the next piece goes. */
  cursor: number;
  /** Pieces that are being written. */
  outstanding = 0;
  /** All of the payload has arrived. */
  received = false;
  /** The pieces were durable as they were written: no flush is needed. */
  durable = false;
  gathering: Gathering | undefined;
  /** The first failure of a piece. */
  failure: unknown;

  constructor(request: Request, refusal: Refusal | undefined) {
    this.cookieHigh = request.cookieHigh;
    this.cookieLow = request.cookieLow;
    this.offsetHigh = request.offsetHigh;
    this.offsetLow = request.offsetLow;
    this.command = request.command;
    this.flags = request.flags;
    this.offset = request.offset;
    this.cursor = request.offset;
    this.length = request.payloadLength;
    this.refusal = refusal;
  }

  get fua(): boolean {
    return (this.flags & CommandFlag.fua) !== 0;
  }
}
