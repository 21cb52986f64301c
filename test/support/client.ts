/**
 * A pipelining NBD client on top of the raw wire, for tests that keep many requests in flight, keep books about
 * what was acknowledged, and drop connections in every way. Simple replies only: one reply, one cookie.
 *
 * Invariants:
 *  1. A request's promise resolves when, and only when, its reply has arrived whole; the error is a value.
 *  2. When the connection ends, every request without a reply is rejected with ClosedByPeer: nobody knows whether
 *     it was carried out.
 */

import { Command, CommandFlag, Option, OptionReply } from '../../src/nbd-server-protocol/constants.ts';
import {
  type Address,
  ClosedByPeer,
  infoData,
  optionRequest,
  readChunk,
  readGreeting,
  readOptionReply,
  requestMessage,
  u32,
  Wire,
} from './wire.ts';

export interface Reply {
  /** 0 or an NBD error value. */
  readonly error: number;
  readonly data: Buffer;
}

interface Waiting {
  readonly dataLength: number;
  resolve(reply: Reply): void;
  reject(error: unknown): void;
}

export const Fua = CommandFlag.fua;

/** Where an NBD URI points. */
export function addressOf(uri: string): Address {
  const url = new URL(uri);
  const path = url.searchParams.get('socket');
  if (path !== null) return { path };
  return { host: url.hostname.replace(/^\[|\]$/g, ''), port: Number(url.port === '' ? 10809 : url.port) };
}

export class NbdClient {
  readonly wire: Wire;
  readonly sizeBytes: number;
  readonly transmissionFlags: number;
  readonly #waiting = new Map<bigint, Waiting>();
  #cookie = 0n;
  #ended: unknown;
  #reading = false;

  private constructor(wire: Wire, sizeBytes: number, transmissionFlags: number) {
    this.wire = wire;
    this.sizeBytes = sizeBytes;
    this.transmissionFlags = transmissionFlags;
  }

  /** Connects and goes into transmission (NBD_OPT_GO). */
  static async open(uri: string, exportName = ''): Promise<NbdClient> {
    const wire = await Wire.connect(addressOf(uri));
    await readGreeting(wire);
    wire.send(u32(3), optionRequest(Option.go, infoData(exportName)));
    let sizeBytes = -1;
    let transmissionFlags = 0;
    for (;;) {
      const reply = await readOptionReply(wire);
      if (reply.type === OptionReply.ack) break;
      if (reply.type !== OptionReply.info) {
        wire.destroy();
        throw new Error(
          `export '${exportName}' refused: 0x${reply.type.toString(16)} ${reply.data.subarray()}`,
        );
      }
      if (reply.data.readUInt16BE(0) !== 0) continue;
      sizeBytes = Number(reply.data.readBigUInt64BE(2));
      transmissionFlags = reply.data.readUInt16BE(10);
    }
    return new NbdClient(wire, sizeBytes, transmissionFlags);
  }

  get inFlight(): number {
    return this.#waiting.size;
  }

  request(type: number, offset: number, length: number, payload?: Uint8Array, flags = 0): Promise<Reply> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const cookie = ++this.#cookie;
    const answer = new Promise<Reply>((resolve, reject) => {
      this.#waiting.set(cookie, { dataLength: type === Command.read ? length : 0, resolve, reject });
    });
    this.wire.send(
      requestMessage('simple', { type, cookie, flags, offset, length, ...(payload ? { payload } : {}) }),
    );
    if (!this.#reading) void this.#readReplies();
    return answer;
  }

  /** Resolves with the error value of the reply. */
  async write(offset: number, payload: Uint8Array, flags = 0): Promise<number> {
    return (await this.request(Command.write, offset, payload.length, payload, flags)).error;
  }

  async writeZeroes(offset: number, length: number, flags = 0): Promise<number> {
    return (await this.request(Command.writeZeroes, offset, length, undefined, flags)).error;
  }

  async trim(offset: number, length: number): Promise<number> {
    return (await this.request(Command.trim, offset, length)).error;
  }

  async flush(): Promise<number> {
    return (await this.request(Command.flush, 0, 0)).error;
  }

  read(offset: number, length: number): Promise<Reply> {
    return this.request(Command.read, offset, length);
  }

  /** NBD_CMD_DISC, then the server's close. */
  async disconnect(): Promise<void> {
    this.wire.send(requestMessage('simple', { type: Command.disconnect }));
    await this.wire.readToEnd();
    this.wire.destroy();
  }

  async #readReplies(): Promise<void> {
    this.#reading = true;
    try {
      while (this.#waiting.size > 0) {
        const chunk = await readChunk(this.wire, (cookie) => this.#waitingFor(cookie).dataLength);
        const waiting = this.#waitingFor(chunk.cookie);
        this.#waiting.delete(chunk.cookie);
        waiting.resolve({ error: chunk.error, data: chunk.payload });
      }
    } catch (error) {
      this.#ended = error;
      this.wire.destroy(); // the server need not wait for our goodbye
      for (const waiting of this.#waiting.values()) waiting.reject(error);
      this.#waiting.clear();
    } finally {
      this.#reading = false;
    }
  }

  #waitingFor(cookie: bigint): Waiting {
    const waiting = this.#waiting.get(cookie);
    if (waiting === undefined) throw new Error(`a reply to cookie ${cookie}, which nothing waits for`);
    return waiting;
  }
}

/** The error value of a reply, or 'closed' when the connection ended without one. */
export async function outcome(answer: Promise<number>): Promise<number | 'closed'> {
  try {
    return await answer;
  } catch (error) {
    if (error instanceof ClosedByPeer) return 'closed';
    throw error;
  }
}
