/**
 * The receiving side of a link: a state machine over bytes, however they are cut.
 *
 *   state    input                     -> state
 *   header   its last byte, no payload -> header   sink.take
 *   header   its last byte             -> payload  sink.admit, and only then memory for the payload
 *   payload  its last byte             -> header   sink.take
 *   any      a breach of the protocol  -> (throws PeerError; the link must be closed)
 *
 * Invariants
 *  1. A message is taken only when both its checksums are right, and everything in it is possible.
 *  2. Memory is taken only for a payload that the header's row and the sink allow.
 *  3. A payload is memory of its own: it stays as it is when more is received, until it is given back.
 */

import { crc32c } from '@node-rs/crc32';
import { decodeMessage, type Message } from './codec.ts';
import { HANDSHAKE_VERSION, HEADER_BYTES } from './constants.ts';
import { PeerError } from './errors.ts';
import { Header, type Phase } from './header.ts';
import { payloadMemory } from './payload-memory.ts';

export interface MessageSink {
  /** A header has come. @throws PeerError when there is no room for what it announces. */
  admit(kind: number, payloadBytes: number): void;
  /** May set the decoder's phase and version, for what comes next. */
  take(message: Message): void;
}

const NOTHING = Buffer.alloc(0);

export class Decoder {
  version = HANDSHAKE_VERSION;
  phase: Phase;
  readonly #sink: MessageSink;
  readonly #header = new Header();
  #headerFilled = 0;
  /** Being filled while `#payloadFilled` is less than its length. */
  #payload: Buffer = NOTHING;
  #payloadFilled = 0;

  constructor(phase: Phase, sink: MessageSink) {
    this.phase = phase;
    this.#sink = sink;
  }

  /** True between two messages. */
  get atBoundary(): boolean {
    return this.#headerFilled === 0;
  }

  /** @throws PeerError; what was taken before stays taken. */
  feed(buffer: Buffer, start: number, end: number): void {
    let at = start;
    while (at < end) {
      if (this.#headerFilled < HEADER_BYTES) {
        const here = Math.min(HEADER_BYTES - this.#headerFilled, end - at);
        buffer.copy(this.#header.bytes, this.#headerFilled, at, at + here);
        this.#headerFilled += here;
        at += here;
        if (this.#headerFilled === HEADER_BYTES) this.#beginPayload();
      } else {
        const here = Math.min(this.#payload.length - this.#payloadFilled, end - at);
        buffer.copy(this.#payload, this.#payloadFilled, at, at + here);
        this.#payloadFilled += here;
        at += here;
        if (this.#payloadFilled === this.#payload.length) this.#endPayload();
      }
    }
  }

  #beginPayload(): void {
    const header = this.#header;
    header.decode(this.version, this.phase);
    this.#sink.admit(header.kind, header.payloadBytes);
    if (header.payloadBytes === 0) this.#endMessage(NOTHING);
    else {
      this.#payload = payloadMemory.take(header.payloadBytes);
      this.#payloadFilled = 0;
    }
  }

  #endPayload(): void {
    const payload = this.#payload;
    this.#payload = NOTHING;
    if (crc32c(payload) !== this.#header.payloadSum) {
      throw new PeerError('bad-checksum', 'the payload of a frame has a wrong checksum');
    }
    this.#endMessage(payload);
  }

  #endMessage(payload: Buffer): void {
    this.#headerFilled = 0;
    this.#sink.take(decodeMessage(this.#header, payload));
  }
}
