/**
 * Drives the decoders of the transmission phase in memory, as a socket's owner must: received bytes lie in one
 * region, what was not taken is presented again in front of what comes next.
 */

import { Command, type Errno, type HeaderStyle, Limit } from '../../../src/nbd-server-protocol/constants.ts';
import { ProtocolError } from '../../../src/nbd-server-protocol/errors.ts';
import {
  PendingRequest,
  type PendingRequestOptions,
} from '../../../src/nbd-server-protocol/pending-request.ts';
import { ReplyDecoder, type ReplySink } from '../../../src/nbd-server-protocol/reply-decoder.ts';
import type { StatusDescriptor } from '../../../src/nbd-server-protocol/reply-encoder.ts';
import {
  type Request,
  RequestDecoder,
  type RequestSink,
} from '../../../src/nbd-server-protocol/request-decoder.ts';

type Feed = (buffer: Buffer, start: number, end: number) => number;

/** Presents the chunks; every region is overwritten after use. Returns what nobody has taken in the end. */
export function present(chunks: Iterable<Buffer>, feed: Feed): Buffer {
  let left = Buffer.alloc(0);
  for (const chunk of chunks) {
    const before = 5;
    const region = Buffer.concat([Buffer.alloc(before, 0xdd), left, chunk, Buffer.alloc(5, 0xdd)]);
    const end = region.length - 5;
    const position = feed(region, before, end);
    left = Buffer.from(region.subarray(position, end));
    region.fill(0xee);
  }
  return left;
}

export interface DecodedRequest {
  readonly command: number;
  readonly flags: number;
  readonly cookie: number;
  readonly offset: number;
  readonly length: number;
  readonly payload: string;
}

/** Collects requests. `take` says how much of each piece of payload it takes, `accept` whether a request now. */
export class RequestCollector implements RequestSink {
  readonly requests: DecodedRequest[] = [];
  readonly #take: (length: number) => number;
  readonly #accept: () => boolean;
  #payload = '';
  #claimed = 0;

  constructor(take: (length: number) => number = (length) => length, accept: () => boolean = () => true) {
    this.#take = take;
    this.#accept = accept;
  }

  request(request: Request): boolean {
    if (!this.#accept()) return false;
    const { command, flags, offset, length, payloadLength } = request;
    // As any server must: the decoder has no opinion about how long a payload may be.
    if (payloadLength > Limit.payloadBytes) throw new ProtocolError('too-big', 'a payload that is too long');
    const cookie = request.cookieHigh * 2 ** 32 + request.cookieLow;
    this.requests.push({ command, flags, cookie, offset, length, payload: '' });
    this.#payload = '';
    this.#claimed = payloadLength;
    return true;
  }

  payload(buffer: Buffer, start: number, length: number, remaining: number): number {
    if (this.#payload.length / 2 + length + remaining !== this.#claimed)
      throw new Error('remaining is wrong');
    const taken = this.#take(length);
    this.#payload += buffer.toString('hex', start, start + taken);
    const last = this.requests.pop();
    if (!last) throw new Error('a payload without a request');
    this.requests.push({ ...last, payload: this.#payload });
    return taken;
  }
}

export function decodeRequests(style: HeaderStyle, chunks: Iterable<Buffer>, sink = new RequestCollector()) {
  const decoder = new RequestDecoder(style);
  const left = present(chunks, (buffer, start, end) => decoder.feed(buffer, start, end, sink));
  return { requests: sink.requests, left, atBoundary: decoder.atBoundary };
}

export type ReplyEvent =
  | { readonly kind: 'data'; readonly cookie: number; readonly offset: number; readonly bytes: string }
  | { readonly kind: 'hole'; readonly cookie: number; readonly offset: number; readonly length: number }
  | {
      readonly kind: 'status';
      readonly cookie: number;
      readonly contextId: number;
      readonly extents: readonly StatusDescriptor[];
    }
  | {
      readonly kind: 'error';
      readonly cookie: number;
      readonly errno: Errno;
      readonly text: string;
      readonly offset: number | undefined;
    }
  | { readonly kind: 'done'; readonly cookie: number; readonly failed: boolean };

/** Collects replies; pieces of one chunk are put together, so that every cut of the wire looks the same. */
export class ReplyCollector implements ReplySink<PendingRequest> {
  readonly events: ReplyEvent[] = [];
  readonly #pending = new Map<number, PendingRequest>();
  readonly #take: (length: number) => number;

  constructor(
    requests: readonly PendingRequestOptions[],
    take: (length: number) => number = (length) => length,
  ) {
    for (const request of requests) this.#pending.set(request.cookie, new PendingRequest(request));
    this.#take = take;
  }

  find(cookie: number): PendingRequest | undefined {
    return this.#pending.get(cookie);
  }

  data({ cookie }: PendingRequest, offset: number, buffer: Buffer, start: number, length: number): number {
    const taken = this.#take(length);
    const bytes = buffer.toString('hex', start, start + taken);
    const last = this.events.at(-1);
    if (last?.kind === 'data' && last.cookie === cookie && last.offset + last.bytes.length / 2 === offset) {
      this.events[this.events.length - 1] = { ...last, bytes: last.bytes + bytes };
    } else if (taken > 0) {
      this.events.push({ kind: 'data', cookie, offset, bytes });
    }
    return taken;
  }

  hole({ cookie }: PendingRequest, offset: number, length: number): void {
    this.events.push({ kind: 'hole', cookie, offset, length });
  }

  status({ cookie }: PendingRequest, contextId: number, extents: readonly StatusDescriptor[]): void {
    const last = this.events.at(-1);
    if (last?.kind === 'status' && last.cookie === cookie && last.contextId === contextId) {
      this.events[this.events.length - 1] = { ...last, extents: [...last.extents, ...extents] };
    } else {
      this.events.push({ kind: 'status', cookie, contextId, extents });
    }
  }

  error({ cookie }: PendingRequest, errno: Errno, text: string, offset: number | undefined): void {
    this.events.push({ kind: 'error', cookie, errno, text, offset });
  }

  done({ cookie, failed }: PendingRequest): void {
    this.#pending.delete(cookie);
    this.events.push({ kind: 'done', cookie, failed });
  }
}

export function decodeReplies(
  style: HeaderStyle,
  requests: readonly PendingRequestOptions[],
  chunks: Iterable<Buffer>,
  sink = new ReplyCollector(requests),
) {
  const decoder = new ReplyDecoder(style);
  const left = present(chunks, (buffer, start, end) => decoder.feed(buffer, start, end, sink));
  return { events: sink.events, left, atBoundary: decoder.atBoundary };
}

/** A read of 4,096 bytes at 1 MiB, unless told otherwise. */
export function pending(cookie: number, options: Partial<PendingRequestOptions> = {}): PendingRequestOptions {
  return { cookie, command: Command.read, flags: 0, offset: 0x10_0000, length: 4096, ...options };
}
