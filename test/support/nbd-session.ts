/**
 * The transmission phase as a raw client sees it: requests in, answers out, and every chunk of every answer
 * checked against the protocol document ("Structured reply types", "Request types") before a test sees it.
 *
 * Invariants:
 *  1. `send` puts on the wire exactly what it is told; only the cookie is chosen here unless the caller does.
 *  2. An answer is complete: error or not, content covers the request, one status chunk per context.
 *  3. Whatever breaks the document is thrown as a Violation that says how.
 */
import { Buffer } from 'node:buffer';
import {
  Command,
  CommandFlag,
  type HeaderStyle,
  Info,
  Option,
  OptionReply,
  ReplyFlag,
  TransmissionFlag,
} from '../../src/nbd-server-protocol/constants.ts';
import { Handshake, optionReplyName } from './nbd-handshake.ts';
import { AnswerBuilder } from './reply-check.ts';
import { type Address, type RequestFields, readChunk, requestMessage, Violation, type Wire } from './wire.ts';

export interface StatusExtent {
  readonly length: bigint;
  readonly flags: number;
}

export interface Answer {
  readonly cookie: bigint;
  /** 0, or the number of the first error chunk. */
  readonly error: number;
  readonly text: string;
  /** From NBD_REPLY_TYPE_ERROR_OFFSET. */
  readonly errorOffset: bigint | undefined;
  /** What a READ returned. */
  readonly data: Buffer;
  readonly dataChunks: number;
  readonly holeChunks: number;
  readonly statuses: ReadonlyMap<number, readonly StatusExtent[]>;
  /** Whether the answer was one simple reply. */
  readonly simple: boolean;
}

/** What a session was negotiated to be; the check of replies needs it. */
export interface Terms {
  readonly style: HeaderStyle;
  readonly sizeBytes: bigint;
  readonly flags: number;
  /** Selected contexts: id to name. */
  readonly contexts: ReadonlyMap<number, string>;
  /** The largest payload of a request: as advertised, or the default. */
  readonly maximumPayload: number;
  /** The most data that one chunk may have: only what is advertised binds the server. */
  readonly chunkBytesMax: number;
}

export interface SessionOptions {
  readonly style?: HeaderStyle;
  readonly exportName?: string;
  readonly contexts?: readonly string[];
}

/** The server does not know what the session needs; the message names it. */
export class Lacks extends Error {}

export class Session {
  readonly wire: Wire;
  readonly terms: Terms;
  readonly #open = new Map<bigint, AnswerBuilder>();
  #lastCookie = 0x1000_0000_0000_0000n;

  constructor(wire: Wire, terms: Terms) {
    this.wire = wire;
    this.terms = terms;
  }

  /** Connects and negotiates with NBD_OPT_GO. */
  static async open(address: Address, options: SessionOptions = {}): Promise<Session> {
    const handshake = await Handshake.open(address);
    return await Session.go(handshake, options);
  }

  static async go(handshake: Handshake, options: SessionOptions = {}): Promise<Session> {
    const style = options.style ?? 'structured';
    const exportName = options.exportName ?? '';
    if (!(await handshake.style(style))) throw new Lacks(`${style} headers`);
    const wanted = options.contexts ?? [];
    const contexts = wanted.length === 0 ? [] : await handshake.setContexts(exportName, wanted);
    const { final, text, info } = await handshake.choose(Option.go, exportName, [Info.blockSize]);
    if (final !== OptionReply.ack)
      throw new Violation(`GO "${exportName}": ${optionReplyName(final)} ${text}`);
    return new Session(handshake.wire, {
      style,
      sizeBytes: info.sizeBytes!,
      flags: info.flags!,
      contexts: new Map(contexts.map(({ id, name }) => [id, name])),
      maximumPayload: info.blockSize?.maximumPayload ?? 32 * 1024 * 1024,
      chunkBytesMax: info.blockSize?.maximumPayload ?? Number.POSITIVE_INFINITY,
    });
  }

  /** Whether a TransmissionFlag is advertised. */
  has(flag: number): boolean {
    return (this.terms.flags & flag) !== 0;
  }

  /** The id of a selected context. */
  contextId(name: string): number {
    for (const [id, known] of this.terms.contexts) if (known === name) return id;
    throw new Lacks(`context ${name}`);
  }

  nextCookie(): bigint {
    this.#lastCookie += 1n;
    return this.#lastCookie;
  }

  /** Notes that an answer to `fields` will come, and returns the bytes to send. */
  prepare(fields: RequestFields): Buffer {
    const cookie = fields.cookie ?? this.nextCookie();
    if (this.#open.has(cookie)) throw new Error(`cookie ${cookie} is in use`);
    const request = { ...fields, cookie };
    if (fields.type !== Command.disconnect)
      this.#open.set(cookie, new AnswerBuilder(this.terms, request, effectLength(request)));
    return requestMessage(this.terms.style, request);
  }

  send(...requests: readonly RequestFields[]): void {
    this.wire.send(Buffer.concat(requests.map((fields) => this.prepare(fields))));
  }

  get outstanding(): number {
    return this.#open.size;
  }

  /** The next answer that is complete, whichever request it belongs to. */
  async next(): Promise<Answer> {
    for (;;) {
      const chunk = await readChunk(this.wire, (cookie) => this.#open.get(cookie)?.simpleDataLength ?? 0);
      const builder = this.#open.get(chunk.cookie);
      if (builder === undefined)
        throw new Violation(`a reply with cookie 0x${chunk.cookie.toString(16)}, which is not outstanding`);
      builder.add(chunk);
      if (chunk.style !== 'simple' && (chunk.flags & ReplyFlag.done) === 0) continue;
      this.#open.delete(chunk.cookie);
      return builder.finish();
    }
  }

  /** One request and its answer; nothing else may be outstanding. */
  async ask(fields: RequestFields): Promise<Answer> {
    this.send(fields);
    return await this.next();
  }

  /** Answers to all that is outstanding, in the order of arrival. */
  async all(): Promise<Answer[]> {
    const answers: Answer[] = [];
    while (this.outstanding > 0) answers.push(await this.next());
    return answers;
  }

  read(offset: number | bigint, length: number | bigint, flags = 0): Promise<Answer> {
    return this.ask({ type: Command.read, offset, length, flags });
  }

  write(offset: number | bigint, payload: Uint8Array, flags = 0): Promise<Answer> {
    return this.ask({ type: Command.write, offset, payload, flags: flags | this.payloadFlag });
  }

  /** What a request with a payload needs in its flags. */
  get payloadFlag(): number {
    return this.terms.style === 'extended' ? CommandFlag.payloadLen : 0;
  }

  /** NBD_CMD_FLAG_FUA when it may be used. */
  get fuaFlag(): number {
    return this.has(TransmissionFlag.sendFua) ? CommandFlag.fua : 0;
  }
}

/** How many bytes of the export a request is about, also in the payload form of BLOCK_STATUS. */
function effectLength(fields: RequestFields): bigint {
  const inPayload =
    fields.type === Command.blockStatus && ((fields.flags ?? 0) & CommandFlag.payloadLen) !== 0;
  if (inPayload && fields.payload !== undefined && fields.payload.length >= 8)
    return Buffer.from(fields.payload).readBigUInt64BE(0);
  return BigInt(fields.length ?? fields.payload?.length ?? 0);
}
