/**
 * An NBD client that trusts nobody: a raw socket with encoders for what a client may (and may not) send and
 * decoders for what a server sends. It shares with the code under test nothing but the protocol's numbers, so a
 * mistake made in src/ cannot hide itself here.
 *
 * Invariants:
 *  1. Encoders put on the wire what they are told, also when it is a lie (lengths, counts, magics).
 *  2. Decoders check every magic; what breaks the layout is a Violation, an end of stream is ClosedByPeer, and
 *     silence is NoAnswer. A reset counts as an end of stream.
 */
import { Buffer } from 'node:buffer';
import net from 'node:net';
import { setImmediate as nextTurn } from 'node:timers/promises';
import {
  EXTENDED_REPLY_MAGIC,
  EXTENDED_REQUEST_MAGIC,
  type HeaderStyle,
  IHAVEOPT,
  INIT_PASSWD,
  OPTION_REPLY_MAGIC,
  REQUEST_MAGIC,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from '../../src/nbd-server-protocol/constants.ts';

export type Address = { readonly host: string; readonly port: number } | { readonly path: string };
export type Count = number | bigint;

/** How long a server may be silent when it owes an answer: generous, for machines that do other work. */
const ANSWER_TIMEOUT_MS = 30_000;

export class ClosedByPeer extends Error {}
export class NoAnswer extends Error {}
/** The server broke the protocol document; the message says how. */
export class Violation extends Error {}

export class Wire {
  readonly #socket: net.Socket;
  readonly #isTcp: boolean;
  #chunks: Buffer[] = [];
  #buffered = 0;
  #ended = false;
  #wake: (() => void) | undefined;

  private constructor(socket: net.Socket, isTcp: boolean) {
    this.#socket = socket;
    this.#isTcp = isTcp;
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#buffered += chunk.length;
      this.#wake?.();
    });
    const end = (): void => {
      this.#ended = true;
      this.#wake?.();
    };
    socket.on('end', end);
    socket.on('close', end);
    socket.on('error', end); // a reset is one way of closing
  }

  static connect(address: Address): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ ...address, allowHalfOpen: true });
      socket.setNoDelay(true);
      socket.once('error', reject);
      socket.once('connect', () => {
        socket.off('error', reject);
        resolve(new Wire(socket, 'port' in address));
      });
    });
  }

  send(...parts: Uint8Array[]): void {
    if (!this.#socket.destroyed) this.#socket.write(Buffer.concat(parts));
  }

  /** Sends and waits until the kernel has taken everything, or the server has closed. */
  async sendAll(bytes: Uint8Array): Promise<void> {
    if (this.#socket.destroyed) return;
    await new Promise<void>((resolve) => {
      const done = (): void => {
        this.#socket.off('close', done);
        resolve();
      };
      this.#socket.once('close', done);
      this.#socket.write(bytes, done);
    });
  }

  /** Sends in pieces that the kernel sees one by one. */
  async sendInPieces(bytes: Uint8Array, pieceBytes: number): Promise<void> {
    for (let at = 0; at < bytes.length; at += pieceBytes) {
      this.send(bytes.subarray(at, at + pieceBytes));
      await nextTurn();
    }
  }

  /** Exactly `length` bytes. */
  async read(length: number, timeoutMs = ANSWER_TIMEOUT_MS): Promise<Buffer> {
    while (this.#buffered < length) {
      if (this.#ended) throw new ClosedByPeer(`closed with ${this.#buffered} of ${length} bytes sent`);
      await this.#more(timeoutMs);
    }
    return this.#take(length);
  }

  /** All that the server still says until it closes. */
  async readToEnd(timeoutMs = ANSWER_TIMEOUT_MS): Promise<Buffer> {
    while (!this.#ended) await this.#more(timeoutMs);
    return this.#take(this.#buffered);
  }

  /** Throws away all that the server still says until it closes; returns how much that was. */
  async drain(timeoutMs = ANSWER_TIMEOUT_MS): Promise<number> {
    let bytes = 0;
    for (;;) {
      bytes += this.#take(this.#buffered).length;
      if (this.#ended) return bytes;
      await this.#more(timeoutMs);
    }
  }

  get bufferedBytes(): number {
    return this.#buffered;
  }

  /** Stops and goes on reading from the kernel: what a client that does not read looks like. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Says that nothing more will be sent; the server can still answer. */
  halfClose(): void {
    this.#socket.end();
  }

  /** Drops the connection; `reset` does it without a goodbye (RST), which unix sockets do not know. */
  destroy(how: 'close' | 'reset' = 'close'): void {
    if (how === 'reset' && this.#isTcp) this.#socket.resetAndDestroy();
    else this.#socket.destroy();
  }

  #more(timeoutMs: number): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#wake = undefined;
        reject(new NoAnswer(`nothing for ${timeoutMs} ms`));
      }, timeoutMs);
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  #take(length: number): Buffer {
    const taken: Buffer[] = [];
    let missing = length;
    while (missing > 0) {
      const chunk = this.#chunks[0]!;
      if (chunk.length <= missing) {
        taken.push(chunk);
        this.#chunks.shift();
        missing -= chunk.length;
      } else {
        taken.push(chunk.subarray(0, missing));
        this.#chunks[0] = chunk.subarray(missing);
        missing = 0;
      }
    }
    this.#buffered -= length;
    return taken.length === 1 ? taken[0]! : Buffer.concat(taken);
  }
}

// ── numbers ────────────────────────────────────────────────────────────────────────────────────────────────

export function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

export function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

export function u64(value: Count): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt.asUintN(64, BigInt(value)));
  return bytes;
}

const bytesOf = (text: string | Uint8Array): Uint8Array =>
  typeof text === 'string' ? Buffer.from(text) : text;

// ── handshake: what a client sends ─────────────────────────────────────────────────────────────────────────

export interface OptionLies {
  readonly magic?: bigint;
  readonly length?: number;
}

export function optionRequest(
  code: number,
  data: Uint8Array = Buffer.alloc(0),
  lies: OptionLies = {},
): Buffer {
  return Buffer.concat([u64(lies.magic ?? IHAVEOPT), u32(code), u32(lies.length ?? data.length), data]);
}

/** Data of NBD_OPT_INFO and NBD_OPT_GO. */
export function infoData(
  name: string | Uint8Array,
  infos: readonly number[] = [],
  lies: { readonly nameLength?: number; readonly infoCount?: number } = {},
): Buffer {
  const bytes = bytesOf(name);
  return Buffer.concat([
    u32(lies.nameLength ?? bytes.length),
    bytes,
    u16(lies.infoCount ?? infos.length),
    ...infos.map((info) => u16(info)),
  ]);
}

/** Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export function metaData(
  name: string | Uint8Array,
  queries: readonly (string | Uint8Array)[],
  lies: { readonly nameLength?: number; readonly queryCount?: number; readonly queryLength?: number } = {},
): Buffer {
  const bytes = bytesOf(name);
  const parts: Uint8Array[] = [u32(lies.nameLength ?? bytes.length), bytes];
  parts.push(u32(lies.queryCount ?? queries.length));
  for (const query of queries.map(bytesOf)) parts.push(u32(lies.queryLength ?? query.length), query);
  return Buffer.concat(parts);
}

// ── handshake: what a server sends ─────────────────────────────────────────────────────────────────────────

/** Reads the greeting and returns the handshake flags. */
export async function readGreeting(wire: Wire): Promise<number> {
  const bytes = await wire.read(18);
  if (bytes.readBigUInt64BE(0) !== INIT_PASSWD) throw new Violation('greeting does not start with NBDMAGIC');
  if (bytes.readBigUInt64BE(8) !== IHAVEOPT) throw new Violation('greeting lacks IHAVEOPT');
  return bytes.readUInt16BE(16);
}

export interface OptionReplyMessage {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export async function readOptionReply(wire: Wire): Promise<OptionReplyMessage> {
  const head = await wire.read(20);
  if (head.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) throw new Violation('wrong magic of an option reply');
  const length = head.readUInt32BE(16);
  if (length > 1 << 20) throw new Violation(`option reply of ${length} bytes`);
  const data = length === 0 ? Buffer.alloc(0) : await wire.read(length);
  return { option: head.readUInt32BE(8), type: head.readUInt32BE(12), data };
}

// ── transmission: what a client sends ──────────────────────────────────────────────────────────────────────

export interface RequestFields {
  readonly type: number;
  readonly cookie?: bigint;
  readonly flags?: number;
  readonly offset?: Count;
  readonly length?: Count;
  readonly payload?: Uint8Array;
  readonly magic?: number;
}

/** A request as the style of the connection wants it; the flags are the caller's business. */
export function requestMessage(style: HeaderStyle, fields: RequestFields): Buffer {
  const extended = style === 'extended';
  const magic = fields.magic ?? (extended ? EXTENDED_REQUEST_MAGIC : REQUEST_MAGIC);
  const length = fields.length ?? fields.payload?.length ?? 0;
  return Buffer.concat([
    u32(magic),
    u16(fields.flags ?? 0),
    u16(fields.type),
    u64(fields.cookie ?? 0n),
    u64(fields.offset ?? 0),
    extended ? u64(length) : u32(Number(length)),
    fields.payload ?? Buffer.alloc(0),
  ]);
}

// ── transmission: what a server sends ──────────────────────────────────────────────────────────────────────

export interface Chunk {
  readonly style: HeaderStyle;
  readonly flags: number;
  readonly type: number;
  readonly cookie: bigint;
  /** Only extended replies carry it. */
  readonly offset: bigint | undefined;
  /** Only simple replies have it here; elsewhere it is in the payload. */
  readonly error: number;
  readonly payload: Buffer;
}

const PAYLOAD_SANE_BYTES = 1 << 28;

/**
 * Reads one simple reply or one chunk. `dataLength` tells how many bytes follow a simple reply without error to the
 * given cookie: a stream of simple replies cannot be read without knowing the requests.
 */
export async function readChunk(wire: Wire, dataLength: (cookie: bigint) => number): Promise<Chunk> {
  const magic = (await wire.read(4)).readUInt32BE(0);
  if (magic === SIMPLE_REPLY_MAGIC) {
    const head = await wire.read(12);
    const error = head.readUInt32BE(0);
    const cookie = head.readBigUInt64BE(4);
    const length = error === 0 ? dataLength(cookie) : 0;
    const payload = length === 0 ? Buffer.alloc(0) : await wire.read(length);
    return { style: 'simple', flags: 0, type: 0, cookie, offset: undefined, error, payload };
  }
  if (magic !== STRUCTURED_REPLY_MAGIC && magic !== EXTENDED_REPLY_MAGIC)
    throw new Violation(`wrong magic of a reply: 0x${magic.toString(16)}`);
  const extended = magic === EXTENDED_REPLY_MAGIC;
  const head = await wire.read(extended ? 28 : 16);
  const length = extended ? Number(head.readBigUInt64BE(20)) : head.readUInt32BE(12);
  if (length > PAYLOAD_SANE_BYTES) throw new Violation(`a chunk of ${length} bytes`);
  return {
    style: extended ? 'extended' : 'structured',
    flags: head.readUInt16BE(0),
    type: head.readUInt16BE(2),
    cookie: head.readBigUInt64BE(4),
    offset: extended ? head.readBigUInt64BE(12) : undefined,
    error: 0,
    payload: length === 0 ? Buffer.alloc(0) : await wire.read(length),
  };
}
