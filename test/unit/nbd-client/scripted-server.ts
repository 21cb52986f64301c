/**
 * A server of which the test decides every reply: honest ones come from an image, others are made by the test. The
 * handshake is the real one; `raw` replaces everything.
 */

import { createServer, type Server, type Socket } from 'node:net';
import {
  Command,
  type ExportRefusal,
  type HeaderStyle,
  ReplyEncoder,
  type Request,
  RequestDecoder,
  ServerHandshake,
  TransmissionFlag,
} from '../../../src/nbd-server-protocol/index.ts';
import { pattern } from '../nbd/lab.ts';

const { hasFlags, sendFlush, sendFua, sendTrim, sendWriteZeroes, sendCache, canMultiConn } = TransmissionFlag;
export const ALL_FLAGS = hasFlags | sendFlush | sendFua | sendTrim | sendWriteZeroes | sendCache;
export const MULTI = ALL_FLAGS | canMultiConn;

export interface Asked {
  /** 0 for the first connection that was accepted. */
  readonly connection: number;
  readonly style: HeaderStyle;
  readonly encoder: ReplyEncoder;
  readonly request: Request;
  readonly payload: Buffer;
  readonly socket: Socket;
}

/** The bytes of a reply, 'nothing', or 'close'; undefined: the honest reply. */
export type Answer = Buffer | 'nothing' | 'close' | undefined;

export interface Script {
  sizeBytes?: number;
  transmissionFlags?: number;
  blockSizes?: { minimum: number; preferred: number; maximumPayload: number };
  metaContexts?: string[];
  /** Its name; the default is 'disk'. */
  exportName?: string;
  /** Why it is not given. */
  refusal?: ExportRefusal | undefined;
  answer?(asked: Asked): Answer;
  /** Sends a reply; the default is to send it whole. */
  send?(socket: Socket, reply: Buffer): void;
  /** Instead of everything: has the socket for itself. */
  raw?(socket: Socket): void;
}

export class ScriptedServer implements AsyncDisposable {
  readonly image: Buffer;
  readonly seen: Asked[] = [];
  script: Script;
  accepted = 0;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  #port = 0;

  constructor(script: Script = {}) {
    this.script = script;
    this.image = pattern(1024 * 1024);
  }

  get address(): { host: string; port: number } {
    return { host: '127.0.0.1', port: this.#port };
  }

  get sockets(): Socket[] {
    return [...this.#sockets];
  }

  get open(): number {
    return this.#sockets.size;
  }

  /** Listens; after `stop`, again on the same port. */
  start(): Promise<this> {
    const server = createServer({ noDelay: true }, (socket) => this.#accept(socket));
    this.#server = server;
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(this.#port, '127.0.0.1', () => {
        this.#port = (server.address() as { port: number }).port;
        resolve(this);
      });
    });
  }

  dropConnections(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server?.close(resolve));
    this.dropConnections();
    await closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  #accept(socket: Socket): void {
    const connection = this.accepted++;
    this.#sockets.add(socket);
    socket.on('error', () => undefined); // a client that drops us is what is tested
    socket.on('close', () => this.#sockets.delete(socket));
    if (this.script.raw !== undefined) {
      this.script.raw(socket);
      return;
    }
    const handshake = new ServerHandshake();
    socket.write(handshake.greeting());
    let decode: ((chunk: Buffer) => void) | undefined;
    socket.on('data', (chunk: Buffer) => {
      if (decode !== undefined) {
        decode(chunk);
        return;
      }
      handshake.feed(chunk);
      for (;;) {
        const step = handshake.next();
        if (step.kind === 'need-bytes') return;
        if (step.kind === 'send') socket.write(step.bytes);
        else if (step.kind === 'list') handshake.provideList([]);
        else if (step.kind === 'find' && this.script.refusal !== undefined)
          handshake.refuseExport(this.script.refusal);
        else if (step.kind === 'find') handshake.provideExport(this.#info(step.name));
        else if (step.kind === 'close') return void socket.end();
        else {
          decode = this.#decoderOf(connection, socket, step.session.headerStyle);
          decode(step.rest);
          return;
        }
      }
    });
  }

  #info(name: string) {
    if (name !== (this.script.exportName ?? 'disk')) return undefined;
    const { sizeBytes, transmissionFlags, blockSizes, metaContexts } = this.script;
    return {
      name,
      sizeBytes: sizeBytes ?? this.image.length,
      transmissionFlags: transmissionFlags ?? ALL_FLAGS,
      blockSizes: blockSizes ?? { minimum: 1, preferred: 4096, maximumPayload: 32 * 1024 * 1024 },
      metaContexts: metaContexts ?? ['base:allocation'],
    };
  }

  #decoderOf(connection: number, socket: Socket, style: HeaderStyle): (chunk: Buffer) => void {
    const decoder = new RequestDecoder(style);
    const encoder = new ReplyEncoder(style);
    let left = Buffer.alloc(0);
    let last: Request | undefined;
    let parts: Buffer[] = [];
    const finish = (): void => {
      if (last === undefined) return;
      const asked = { connection, style, encoder, request: last, payload: Buffer.concat(parts), socket };
      last = undefined;
      this.#answer(asked);
    };
    return (chunk) => {
      left = Buffer.concat([left, chunk]);
      const position = decoder.feed(left, 0, left.length, {
        request: (request) => {
          const { cookieHigh, cookieLow, offsetHigh, offsetLow, command, flags, offset, length } = request;
          const { payloadLength } = request;
          last = {
            cookieHigh,
            cookieLow,
            offsetHigh,
            offsetLow,
            command,
            flags,
            offset,
            length,
            payloadLength,
          };
          parts = [];
          if (request.payloadLength === 0) finish();
          return true;
        },
        payload: (buffer, start, length, remaining) => {
          parts.push(Buffer.from(buffer.subarray(start, start + length)));
          if (remaining === 0) finish();
          return length;
        },
      });
      left = left.subarray(position);
    };
  }

  #answer(asked: Asked): void {
    this.seen.push(asked);
    const answer = this.script.answer?.(asked);
    if (answer === 'nothing' || asked.socket.destroyed) return;
    if (answer === 'close') asked.socket.destroy();
    else if (asked.request.command === Command.disconnect) asked.socket.end();
    else {
      const reply = answer ?? this.honest(asked);
      if (this.script.send !== undefined) this.script.send(asked.socket, reply);
      else asked.socket.write(reply);
    }
  }

  /** Does what was asked for, and says so. */
  honest({ encoder, request, payload, style }: Asked): Buffer {
    const { command, offset, length } = request;
    if (command === Command.write) payload.copy(this.image, offset);
    if (command === Command.writeZeroes) this.image.fill(0, offset, offset + length);
    if (command === Command.read) {
      const data = this.image.subarray(offset, offset + length);
      return Buffer.concat([made((b) => encoder.dataHeader(b, 0, request, offset, length, true)), data]);
    }
    if (command === Command.blockStatus && style !== 'simple') {
      return made((b) => encoder.blockStatus(b, 0, request, 1, [{ length, state: 0 }], true));
    }
    return made((b) => encoder.ack(b, 0, request));
  }
}

/** What an encoder puts into a buffer. */
export function made(put: (buffer: Buffer) => number): Buffer {
  const buffer = Buffer.alloc(8192);
  return Buffer.from(buffer.subarray(0, put(buffer)));
}
