/**
 * The client's side of the handshake. Role: the counterpart of server-handshake.ts: fed with chunks, asked for
 * the next step, and strict about everything that a server says. No sockets, no timers.
 *
 *   stage             answer                         -> next stage
 *   greeting          fixed newstyle                 -> list | extended-headers | structured-reply | go …
 *                     newstyle only                  -> export-name
 *   list              SERVER x n, ACK                -> (listed, after ABORT)
 *   extended-headers  ACK, or any error but *        -> contexts, or structured-reply
 *   structured-reply  ACK, or any error but *        -> contexts, or go
 *   contexts          META_CONTEXT x n, ACK; error   -> go (over, when it is the export that cannot be had)
 *   go                INFO x n, ACK                  -> (ready)
 *                     ERR_UNSUP                      -> export-name (never with extended headers)
 *   export-name       size and flags                 -> (ready)
 *   any               * ERR_SHUTDOWN, ERR_TLS_REQD   -> (failed, after ABORT)
 *   any               a breach of the protocol       -> (failed)
 *
 * Invariants: one option is out at a time; at most one reply (Limit.optionBytes) and one chunk are held, plus the
 * entries of a list (Limit.optionRepliesBytes); after a refusal the session ends with ABORT, as it must.
 */

import { Buffer } from 'node:buffer';
import { ByteQueue } from './byte-queue.ts';
import {
  ClientFlag,
  HandshakeFlag,
  type HeaderStyle,
  IHAVEOPT,
  INIT_PASSWD,
  Info,
  isErrorReply,
  Limit,
  OLDSTYLE_MAGIC,
  OPTION_REPLY_MAGIC,
  Option,
  OptionReply,
  TransmissionFlag,
} from './constants.ts';
import { ProtocolError, type ProtocolErrorCode, requireThat } from './errors.ts';
import {
  decodeErrorText,
  decodeInfoReply,
  decodeMetaContext,
  decodeServerEntry,
  decodeSizeAndFlags,
  EXPORT_NAME_REPLY_BYTES,
  EXPORT_NAME_ZEROES,
  encodeInfoRequest,
  encodeMetaRequest,
  encodeOption,
  GREETING_BYTES,
  OPTION_REPLY_HEADER_BYTES,
} from './option-codec.ts';
import {
  type ClientGoal,
  type ClientSession,
  type ConnectGoal,
  DEFAULT_BLOCK_SIZES,
  type ExportBlockSizes,
  type ExportEntry,
  type SelectedContext,
} from './session.ts';
import { encodeString, quote } from './strings.ts';

export type ClientStep =
  /** Feed more, or end(). */
  | { readonly kind: 'need-bytes' }
  /** Send these bytes, then ask for the next step. */
  | { readonly kind: 'send'; readonly bytes: Buffer }
  /** The transmission phase begins; `rest` is what the server has already sent of it. */
  | { readonly kind: 'ready'; readonly session: ClientSession; readonly rest: Buffer }
  /** The goal 'list' is reached; close the connection. */
  | { readonly kind: 'listed'; readonly exports: readonly ExportEntry[] }
  /** Close the connection. */
  | { readonly kind: 'failed'; readonly error: ProtocolError };

type Stage = 'list' | 'extended-headers' | 'structured-reply' | 'contexts' | 'go';
type State =
  | { readonly kind: 'greeting' }
  | { readonly kind: 'reply-header'; readonly stage: Stage }
  | { readonly kind: 'reply-data'; readonly stage: Stage; readonly type: number; readonly length: number }
  | { readonly kind: 'export-name' }
  | { readonly kind: 'over'; readonly step: ClientStep };

const STAGE_OPTION: Record<Stage, number> = {
  list: Option.list,
  'extended-headers': Option.extendedHeaders,
  'structured-reply': Option.structuredReply,
  contexts: Option.setMetaContext,
  go: Option.go,
};
/** The replies that may come before the final one. */
const STAGE_REPLY: Record<Stage, number | undefined> = {
  list: OptionReply.server,
  'extended-headers': undefined,
  'structured-reply': undefined,
  contexts: OptionReply.metaContext,
  go: OptionReply.info,
};
const NEED_BYTES: ClientStep = { kind: 'need-bytes' };

/** Use: as ServerHandshake, without a greeting: the first step is 'need-bytes'. */
export class ClientHandshake {
  readonly #goal: ClientGoal;
  readonly #input = new ByteQueue(Limit.handshakeBytes);
  #state: State = { kind: 'greeting' };
  #output: Buffer[] = [];
  #noZeroes = false;
  /** Bytes of replies to the option that is out. */
  #replyBytes = 0;
  #headerStyle: HeaderStyle = 'simple';
  #contexts: SelectedContext[] = [];
  #entries: ExportEntry[] = [];
  #sizeAndFlags: { sizeBytes: number; transmissionFlags: number } | undefined;
  #blockSizes: ExportBlockSizes = DEFAULT_BLOCK_SIZES;
  #canonicalName: string | undefined;

  constructor(goal: ClientGoal) {
    this.#goal = goal;
  }

  /** Bytes held that are not understood yet: at most Limit.handshakeBytes. */
  get bufferedBytes(): number {
    return this.#input.length;
  }

  /** Takes a copy of what it must keep. Ignored when the handshake is over without success. */
  feed(chunk: Buffer): void {
    if (this.#state.kind === 'over') {
      requireThat(this.#state.step.kind !== 'ready', 'fed after the handshake was over');
    } else if (!this.#input.push(chunk)) {
      this.#fail('too-big', 'the server sends more than it was asked for');
    }
  }

  /** The server has closed the connection. */
  end(): void {
    if (this.#state.kind === 'over') return;
    if (this.#state.kind === 'export-name') {
      this.#fail('unknown-export', `the server closed the connection when asked for ${this.#exportText()}`);
    } else {
      this.#fail('closed', 'the server closed the connection during the handshake');
    }
  }

  /** The next thing to do. */
  next(): ClientStep {
    for (;;) {
      if (this.#output.length > 0) {
        const bytes = Buffer.concat(this.#output);
        this.#output = [];
        return { kind: 'send', bytes };
      }
      if (this.#state.kind === 'over') return this.#state.step;
      try {
        if (!this.#advance()) return NEED_BYTES;
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error;
        this.#over({ kind: 'failed', error });
      }
    }
  }

  /** One transition that input allows; false when it needs more. Throws ProtocolError on a breach. */
  #advance(): boolean {
    const input = this.#input;
    const state = this.#state;
    switch (state.kind) {
      case 'greeting':
        if (input.length < GREETING_BYTES) return false;
        this.#takeGreeting(input.take(GREETING_BYTES));
        return true;
      case 'reply-header':
        if (input.length < OPTION_REPLY_HEADER_BYTES) return false;
        this.#takeReplyHeader(state.stage, input.take(OPTION_REPLY_HEADER_BYTES));
        return true;
      case 'reply-data': {
        if (input.length < state.length) return false;
        const data = input.take(state.length);
        this.#state = { kind: 'reply-header', stage: state.stage };
        if (isErrorReply(state.type)) this.#refused(state.stage, state.type, decodeErrorText(data));
        else if (state.type === OptionReply.ack) this.#acknowledged(state.stage);
        else this.#takeReply(state.stage, data);
        return true;
      }
      case 'export-name': {
        const zeroes = this.#noZeroes ? 0 : EXPORT_NAME_ZEROES;
        if (input.length < EXPORT_NAME_REPLY_BYTES + zeroes) return false;
        this.#sizeAndFlags = decodeSizeAndFlags(input.take(EXPORT_NAME_REPLY_BYTES));
        input.skip(zeroes);
        this.#ready(false);
        return true;
      }
      default:
        return false;
    }
  }

  #takeGreeting(bytes: Buffer): void {
    if (bytes.readBigUInt64BE(0) !== INIT_PASSWD)
      throw new ProtocolError('bad-magic', 'this is no NBD server');
    const magic = bytes.readBigUInt64BE(8);
    if (magic === OLDSTYLE_MAGIC) {
      throw new ProtocolError('unsupported', 'this server speaks the oldstyle handshake only');
    }
    if (magic !== IHAVEOPT) throw new ProtocolError('bad-magic', 'the second magic of the greeting is wrong');
    const flags = bytes.readUInt16BE(16);
    const fixedNewstyle = (flags & HandshakeFlag.fixedNewstyle) !== 0;
    this.#noZeroes = (flags & HandshakeFlag.noZeroes) !== 0;
    const reply = Buffer.alloc(4);
    reply.writeUInt32BE(
      (fixedNewstyle ? ClientFlag.fixedNewstyle : 0) | (this.#noZeroes ? ClientFlag.noZeroes : 0),
    );
    this.#output.push(reply);
    if (this.#goal.kind === 'list') {
      if (!fixedNewstyle) throw new ProtocolError('unsupported', 'this server cannot list its exports');
      this.#ask('list');
    } else if (!fixedNewstyle) {
      this.#askExportName(this.#goal);
    } else {
      const { headerStyle, useGo } = this.#goal;
      if (headerStyle === 'simple') this.#askGo(this.#goal);
      else this.#ask(headerStyle === 'extended' && useGo ? 'extended-headers' : 'structured-reply');
    }
  }

  #takeReplyHeader(stage: Stage, header: Buffer): void {
    if (header.readBigUInt64BE(0) !== OPTION_REPLY_MAGIC) {
      throw new ProtocolError('bad-magic', 'the magic of an option reply is wrong');
    }
    const option = header.readUInt32BE(8);
    const type = header.readUInt32BE(12);
    const length = header.readUInt32BE(16);
    if (option !== STAGE_OPTION[stage]) {
      throw new ProtocolError('bad-message', `a reply to option ${option}, which was not sent`);
    }
    if (type !== OptionReply.ack && type !== STAGE_REPLY[stage] && !isErrorReply(type)) {
      throw new ProtocolError('bad-message', `reply type ${type} does not belong to option ${option}`);
    }
    if (type === OptionReply.ack && length > 0) {
      throw new ProtocolError('bad-message', `NBD_REP_ACK with ${length} bytes of data`);
    }
    this.#replyBytes += OPTION_REPLY_HEADER_BYTES + length;
    if (length > Limit.optionBytes || this.#replyBytes > Limit.optionRepliesBytes) {
      throw new ProtocolError('too-big', `too much in reply to option ${option}`);
    }
    this.#state = { kind: 'reply-data', stage, type, length };
  }

  #takeReply(stage: Stage, data: Buffer): void {
    if (stage === 'list') {
      this.#entries.push(decodeServerEntry(data));
    } else if (stage === 'contexts') {
      this.#takeContext(decodeMetaContext(data));
    } else {
      const info = decodeInfoReply(data);
      if (info.type === 'export') this.#sizeAndFlags = info;
      else if (info.type === 'name') this.#canonicalName = info.name;
      else if (info.type === 'block-size') this.#blockSizes = info.blockSizes;
    }
  }

  #takeContext(context: SelectedContext): void {
    if (this.#contexts.some(({ id, name }) => id === context.id || name === context.name)) {
      throw new ProtocolError('bad-message', `context ${quote(context.name)} or its id came twice`);
    }
    if (this.#goal.kind !== 'connect' || !this.#goal.metaContexts.includes(context.name)) {
      throw new ProtocolError('bad-message', `context ${quote(context.name)} was not asked for`);
    }
    this.#contexts.push(context);
  }

  #acknowledged(stage: Stage): void {
    if (this.#goal.kind === 'list') {
      this.#output.push(encodeOption(Option.abort));
      this.#over({ kind: 'listed', exports: this.#entries });
      return;
    }
    if (stage === 'go') {
      this.#ready(this.#goal.requestBlockSizes);
      return;
    }
    if (stage === 'extended-headers') this.#headerStyle = 'extended';
    if (stage === 'structured-reply') this.#headerStyle = 'structured';
    if (stage !== 'contexts' && this.#goal.metaContexts.length > 0) {
      this.#ask(
        'contexts',
        encodeMetaRequest({ name: this.#goal.exportName, queries: this.#goal.metaContexts }),
      );
    } else {
      this.#askGo(this.#goal);
    }
  }

  #refused(stage: Stage, type: number, text: string): void {
    const why = text === '' ? '' : `: ${text}`;
    if (type === OptionReply.errShutdown) {
      this.#leave('shutdown', `the server is being shut down${why}`);
    } else if (type === OptionReply.errTlsReqd) {
      this.#leave('tls-required', `the server wants TLS${why}`);
    } else if (this.#goal.kind === 'list') {
      this.#leave('refused', `the server refused to list its exports${why}`);
    } else if (stage === 'extended-headers') {
      this.#ask('structured-reply');
    } else if (stage === 'contexts' && !isOfExport(type)) {
      this.#contexts = [];
      this.#askGo(this.#goal);
    } else if (stage === 'structured-reply') {
      this.#askGo(this.#goal);
    } else if (type === OptionReply.errUnsup && this.#headerStyle !== 'extended') {
      this.#askExportName(this.#goal);
    } else if (type === OptionReply.errUnknown) {
      this.#leave('unknown-export', `the server does not have ${this.#exportText()}${why}`);
    } else {
      this.#leave('refused', `the server refused ${this.#exportText()} (0x${type.toString(16)})${why}`);
    }
  }

  #askGo(goal: ConnectGoal): void {
    if (!goal.useGo) {
      this.#askExportName(goal);
      return;
    }
    const infos: number[] = [Info.export, Info.name];
    if (goal.requestBlockSizes) infos.push(Info.blockSize);
    this.#ask('go', encodeInfoRequest({ name: goal.exportName, infos }));
  }

  #askExportName(goal: ConnectGoal): void {
    this.#output.push(encodeOption(Option.exportName, encodeString(goal.exportName)));
    this.#state = { kind: 'export-name' };
  }

  #ask(stage: Stage, data?: Buffer): void {
    this.#replyBytes = 0;
    this.#output.push(encodeOption(STAGE_OPTION[stage], data));
    this.#state = { kind: 'reply-header', stage };
  }

  #ready(blockSizesPromised: boolean): void {
    requireThat(this.#goal.kind === 'connect', 'nothing but a connect goal gets ready');
    if (!this.#sizeAndFlags)
      throw new ProtocolError('bad-message', 'GO was acknowledged without NBD_INFO_EXPORT');
    const { sizeBytes, transmissionFlags } = this.#sizeAndFlags;
    const session: ClientSession = {
      exportName: this.#canonicalName ?? this.#goal.exportName,
      requestedName: this.#goal.exportName,
      headerStyle: this.#headerStyle,
      contexts: this.#contexts,
      transmissionFlags: usableFlags(transmissionFlags, this.#headerStyle),
      blockSizes: this.#blockSizes,
      blockSizesPromised,
      sizeBytes,
    };
    this.#over({ kind: 'ready', session, rest: this.#input.drain() });
  }

  /** Without its name, which the caller knows, and which may be a secret (a capability in a URI). */
  #exportText(): string {
    return this.#goal.kind === 'connect' && this.#goal.exportName === '' ? 'a default export' : 'that export';
  }

  /** Ends the session as a client must when nothing was breached: with ABORT. */
  #leave(code: ProtocolErrorCode, message: string): void {
    this.#output.push(encodeOption(Option.abort));
    this.#fail(code, message);
  }

  #fail(code: ProtocolErrorCode, message: string): void {
    this.#over({ kind: 'failed', error: new ProtocolError(code, message) });
  }

  #over(step: ClientStep): void {
    this.#input.clear();
    this.#state = { kind: 'over', step };
  }
}

/** Flags that contradict what was negotiated mean nothing to a client that keeps to it. */
function usableFlags(flags: number, style: HeaderStyle): number {
  if ((flags & TransmissionFlag.hasFlags) === 0) {
    throw new ProtocolError(
      'bad-message',
      `transmission flags 0x${flags.toString(16)} lack NBD_FLAG_HAS_FLAGS`,
    );
  }
  let unusable = 0;
  if (style === 'simple') unusable |= TransmissionFlag.sendDf;
  if (style !== 'extended') unusable |= TransmissionFlag.blockStatusPayload;
  if ((flags & TransmissionFlag.sendWriteZeroes) === 0) unusable |= TransmissionFlag.sendFastZero;
  return flags & ~unusable;
}

/** The refusal is of the export itself: a moment later GO might be told otherwise, and the contexts would be missing. */
function isOfExport(type: number): boolean {
  return type === OptionReply.errUnknown || type === OptionReply.errPolicy;
}
