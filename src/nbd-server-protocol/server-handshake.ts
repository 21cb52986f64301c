/**
 * The server's side of the handshake (fixed newstyle). Role: a state machine that is fed with chunks and asked
 * for the next step, so that whoever drives it may take its time over an answer. No sockets, no timers.
 *
 *   state           input                                    -> state
 *   client-flags    4 bytes                                  -> option-header | closed (unknown flag)
 *   option-header   16 bytes                                 -> option-data | skip | closed
 *   option-data     the data of EXPORT_NAME, INFO, GO, …     -> option-header (reply) | asked | closed
 *   skip            the data of any other option            -> option-header (reply) | asked (LIST) | closed (ABORT)
 *   asked           provideList, provideExport,            -> option-header (reply) | listing | agreed | closed
 *                   refuseExport, refuse
 *   listing         next()                                   -> listing | option-header
 *   agreed, closed  (final: the step 'ready' or 'close' stands)
 *
 * Invariants:
 *  1. Every option but EXPORT_NAME gets exactly one final reply, or the connection is closed.
 *  2. Only option data of known layout is kept, at most Limit.optionBytes of it; all other is thrown away as it
 *     comes. At most Limit.handshakeBytes are held altogether.
 *  3. Contexts belong to the last SET_META_CONTEXT alone: one that fails leaves none.
 */

import { Buffer } from 'node:buffer';
import { ByteQueue } from './byte-queue.ts';
import { ClientFlag, type HeaderStyle, IHAVEOPT, Info, Limit, Option, OptionReply } from './constants.ts';
import { ProtocolError, requireThat } from './errors.ts';
import {
  CLIENT_FLAGS_BYTES,
  EXPORT_NAME_ZEROES,
  encodeGreeting,
  encodeMetaContext,
  encodeOptionReply,
  encodeServerEntry,
  encodeSizeAndFlags,
  type InfoRequest,
  type MetaRequest,
  OPTION_HEADER_BYTES,
} from './option-codec.ts';
import {
  chooseContexts,
  encodeRefusal,
  infoReplies,
  needsData,
  optionName,
  type Question,
  refusalWithoutData,
  sessionFlags,
  styleAskedFor,
  understand,
} from './server-options.ts';
import type { ExportEntry, ExportInfo, NegotiatedSession, SelectedContext } from './session.ts';
import { quote } from './strings.ts';

export type CloseCode =
  | 'aborted' //     the client said NBD_OPT_ABORT: a clean end
  | 'violation' //   the client broke a rule and cannot be told so
  | 'refused' //     EXPORT_NAME for something that cannot be had; the protocol has no error reply for it
  | 'limit'; //      the client sends more than one client ever needs

/** Why an export cannot be had, when there is more to say than that it is not there. */
export interface ExportRefusal {
  readonly code: 'unknown' | 'policy' | 'shutdown';
  /** For people; cut to fit. */
  readonly text: string;
}

export type ServerStep =
  /** Feed more. */
  | { readonly kind: 'need-bytes' }
  /** Send these bytes, then ask for the next step. */
  | { readonly kind: 'send'; readonly bytes: Buffer }
  /** Answer with provideList or refuse. */
  | { readonly kind: 'list' }
  /** Answer with provideExport, refuseExport or refuse. '' is the default export. */
  | { readonly kind: 'find'; readonly name: string }
  /** Send nothing more; close the connection. */
  | { readonly kind: 'close'; readonly code: CloseCode; readonly reason: string }
  /** The transmission phase begins; `rest` is what the client has already sent of it. */
  | { readonly kind: 'ready'; readonly session: NegotiatedSession; readonly rest: Buffer };

type State =
  | { readonly kind: 'client-flags' }
  | { readonly kind: 'option-header' }
  | { readonly kind: 'option-data'; readonly option: number; readonly length: number }
  | { readonly kind: 'skip'; readonly option: number; readonly length: number; left: number }
  | { readonly kind: 'asked'; readonly question: Question }
  | { readonly kind: 'listing'; readonly entries: Iterator<ExportEntry> }
  | { readonly kind: 'closed'; readonly step: ServerStep }
  | { readonly kind: 'agreed'; readonly session: NegotiatedSession };

const REFUSAL_TYPE: Record<ExportRefusal['code'], number> = {
  unknown: OptionReply.errUnknown,
  policy: OptionReply.errPolicy,
  shutdown: OptionReply.errShutdown,
};

const OPTION_HEADER: State = { kind: 'option-header' };
const NEED_BYTES: ServerStep = { kind: 'need-bytes' };
/** Bytes of list replies that leave in one step: a long list is made as fast as it is sent. */
const LIST_STEP_BYTES = 32 * 1024;

/**
 * Use: send `greeting()`; then ask `next()` again and again and do what it says; on 'need-bytes' read from the
 * connection and `feed`. While an answer to 'list' or 'find' is being looked for, do not read: what a client
 * sends then is kept only up to Limit.handshakeBytes, beyond which it is cut off.
 */
export class ServerHandshake {
  readonly #input = new ByteQueue(Limit.handshakeBytes);
  #state: State = { kind: 'client-flags' };
  #output: Buffer[] = [];
  #options = 0;
  #fixedNewstyle = false;
  #noZeroes = false;
  #headerStyle: HeaderStyle = 'simple';
  #shuttingDown = false;
  /** What the last SET_META_CONTEXT selected, and for which export (canonical name). */
  #selection: { exportName: string; contexts: readonly SelectedContext[] } | undefined;
  #ready: ServerStep | undefined;

  /** Bytes held that are not understood yet: at most Limit.handshakeBytes. */
  get bufferedBytes(): number {
    return this.#input.length;
  }

  /** The first bytes on the wire. */
  greeting(): Buffer {
    return encodeGreeting();
  }

  /** Takes a copy of what it must keep. Ignored after a 'close'; a mistake after 'ready'. */
  feed(chunk: Buffer): void {
    requireThat(!this.#ready, 'fed after the handshake was over');
    if (this.#state.kind === 'closed') return;
    if (!this.#input.push(chunk)) this.#close('limit', 'too many bytes ahead of the answers');
  }

  /** The next thing to do. Asking again without having answered gives the same step, except 'send'. */
  next(): ServerStep {
    for (;;) {
      if (this.#state.kind === 'listing' && this.#output.length === 0)
        this.#continueList(this.#state.entries);
      if (this.#output.length > 0) return { kind: 'send', bytes: this.#takeOutput() };
      switch (this.#state.kind) {
        case 'asked': {
          const { question } = this.#state;
          return question.kind === 'list' ? { kind: 'list' } : { kind: 'find', name: question.name };
        }
        case 'closed':
          return this.#state.step;
        case 'agreed':
          this.#ready ??= { kind: 'ready', session: this.#state.session, rest: this.#input.drain() };
          return this.#ready;
        default:
          if (!this.#advance()) return NEED_BYTES;
      }
    }
  }

  /**
   * Answers 'list'. The entries are taken from the iterable as they are sent. Names must pass isProtocolString;
   * descriptions are cut to fit.
   */
  provideList(entries: Iterable<ExportEntry>): void {
    requireThat(this.#asked().kind === 'list', 'a list was not asked for');
    this.#state = { kind: 'listing', entries: entries[Symbol.iterator]() };
  }

  /** Answers 'find'; `undefined`: there is no such export. */
  provideExport(info: ExportInfo | undefined): void {
    const question = this.#exportAsked();
    if (!info) {
      this.refuseExport({ code: 'unknown', text: `there is no export ${quote(question.name)} here` });
      return;
    }
    this.#state = OPTION_HEADER;
    if (question.kind === 'export-name') {
      this.#answerExportName(question.name, info);
    } else if (question.kind === 'info') {
      this.#answerInfo(question.option, question.request, info);
    } else {
      this.#answerMeta(question.option, question.request, info);
    }
  }

  /** Answers 'find': this export cannot be had, and why. The client may ask for another. */
  refuseExport({ code, text }: ExportRefusal): void {
    const { kind, option } = this.#exportAsked();
    if (kind === 'export-name') {
      this.#close('refused', text);
    } else {
      this.#state = OPTION_HEADER;
      this.#output.push(encodeRefusal(option, { type: REFUSAL_TYPE[code], text }));
    }
  }

  /**
   * From now on every option but ABORT is refused, the one that is being answered included ("Termination of the
   * session during option haggling"). May be called at any time.
   */
  refuse(_why: 'shutdown'): void {
    this.#shuttingDown = true;
    if (this.#state.kind === 'listing') {
      this.#state.entries.return?.();
      this.#refuseOption(Option.list);
    } else if (this.#state.kind === 'asked') {
      this.#refuseOption(this.#state.question.option);
    }
  }

  /** One transition that input allows; false when it needs more. */
  #advance(): boolean {
    const input = this.#input;
    const state = this.#state;
    switch (state.kind) {
      case 'client-flags':
        if (input.length < CLIENT_FLAGS_BYTES) return false;
        this.#takeClientFlags(input.take(CLIENT_FLAGS_BYTES).readUInt32BE(0));
        return true;
      case 'option-header': {
        if (input.length < OPTION_HEADER_BYTES) return false;
        const header = input.take(OPTION_HEADER_BYTES);
        if (header.readBigUInt64BE(0) !== IHAVEOPT)
          this.#close('violation', 'the magic of an option is wrong');
        else this.#takeOptionHeader(header.readUInt32BE(8), header.readUInt32BE(12));
        return true;
      }
      case 'option-data':
        if (input.length < state.length) return false;
        this.#takeOptionData(state.option, input.take(state.length));
        return true;
      case 'skip': {
        const here = Math.min(state.left, input.length);
        input.skip(here);
        state.left -= here;
        if (state.left > 0) return false;
        this.#state = OPTION_HEADER;
        this.#answerWithoutData(state.option, state.length);
        return true;
      }
      default:
        return false;
    }
  }

  #takeClientFlags(flags: number): void {
    const unknown = flags & ~(ClientFlag.fixedNewstyle | ClientFlag.noZeroes);
    if (unknown !== 0) {
      this.#close('violation', `client flags 0x${(unknown >>> 0).toString(16)} are not known`);
      return;
    }
    this.#fixedNewstyle = (flags & ClientFlag.fixedNewstyle) !== 0;
    this.#noZeroes = (flags & ClientFlag.noZeroes) !== 0;
    this.#state = OPTION_HEADER;
  }

  #takeOptionHeader(option: number, length: number): void {
    this.#options++;
    if (this.#options > Limit.options) {
      this.#close('limit', `more than ${Limit.options} options`);
    } else if (option === Option.exportName) {
      this.#takeExportNameHeader(length);
    } else if (!this.#fixedNewstyle) {
      this.#close('violation', `${optionName(option)} from a client that does not know fixed newstyle`);
    } else {
      if (option === Option.setMetaContext) this.#selection = undefined;
      this.#state = needsData(option, length)
        ? { kind: 'option-data', option, length }
        : { kind: 'skip', option, length, left: length };
    }
  }

  /** EXPORT_NAME cannot be answered with an error: what cannot be had ends the session. */
  #takeExportNameHeader(length: number): void {
    if (this.#headerStyle === 'extended') {
      this.#close('violation', 'NBD_OPT_EXPORT_NAME after extended headers were agreed on');
    } else if (length > Limit.stringBytes) {
      this.#close('violation', `an export name of ${length} bytes`);
    } else {
      this.#state = { kind: 'option-data', option: Option.exportName, length };
    }
  }

  #takeOptionData(option: number, data: Buffer): void {
    if (this.#shuttingDown) {
      this.#refuseOption(option);
      return;
    }
    try {
      this.#state = { kind: 'asked', question: understand(option, data, this.#headerStyle) };
    } catch (error) {
      if (!(error instanceof ProtocolError)) throw error;
      if (option === Option.exportName) {
        this.#close('violation', error.message);
      } else {
        this.#state = OPTION_HEADER;
        this.#output.push(encodeRefusal(option, { type: OptionReply.errInvalid, text: error.message }));
      }
    }
  }

  /** Options whose data, if there is any, does not matter, or is too much. */
  #answerWithoutData(option: number, length: number): void {
    if (option === Option.abort) {
      this.#output.push(encodeOptionReply(option, OptionReply.ack));
      this.#close('aborted', 'the client ended the negotiation');
      return;
    }
    if (this.#shuttingDown) {
      this.#refuseOption(option);
      return;
    }
    const refusal = refusalWithoutData(option, length, this.#headerStyle);
    if (refusal) {
      this.#output.push(encodeRefusal(option, refusal));
    } else if (option === Option.list) {
      this.#state = { kind: 'asked', question: { kind: 'list', option } };
    } else {
      this.#headerStyle = styleAskedFor(option) ?? this.#headerStyle;
      this.#output.push(encodeOptionReply(option, OptionReply.ack));
    }
  }

  #refuseOption(option: number): void {
    const text = 'this server is being shut down';
    if (option === Option.exportName) {
      this.#close('refused', text);
    } else {
      this.#state = OPTION_HEADER;
      this.#output.push(encodeRefusal(option, { type: OptionReply.errShutdown, text }));
    }
  }

  #answerExportName(name: string, info: ExportInfo): void {
    const session = this.#session(name, info, false);
    const zeroes = this.#noZeroes ? 0 : EXPORT_NAME_ZEROES;
    this.#output.push(encodeSizeAndFlags(info.sizeBytes, session.transmissionFlags, zeroes));
    this.#state = { kind: 'agreed', session };
  }

  #answerInfo(option: number, request: InfoRequest, info: ExportInfo): void {
    const session = this.#session(request.name, info, request.infos.includes(Info.blockSize));
    this.#output.push(...infoReplies(option, request.infos, info, session.transmissionFlags));
    this.#output.push(encodeOptionReply(option, OptionReply.ack));
    if (option === Option.go) this.#state = { kind: 'agreed', session };
  }

  #answerMeta(option: number, request: MetaRequest, info: ExportInfo): void {
    const chosen = chooseContexts(option, request.queries, info.metaContexts);
    if ('type' in chosen) {
      this.#output.push(encodeRefusal(option, chosen));
      return;
    }
    for (const context of chosen) {
      this.#output.push(encodeOptionReply(option, OptionReply.metaContext, encodeMetaContext(context)));
    }
    this.#output.push(encodeOptionReply(option, OptionReply.ack));
    if (option === Option.setMetaContext) this.#selection = { exportName: info.name, contexts: chosen };
  }

  #session(requestedName: string, info: ExportInfo, blockSizesPromised: boolean): NegotiatedSession {
    const { exportName, contexts } = this.#selection ?? { exportName: info.name, contexts: [] };
    const selected = exportName === info.name ? contexts : [];
    return {
      exportName: info.name,
      requestedName,
      headerStyle: this.#headerStyle,
      contexts: selected,
      transmissionFlags: sessionFlags(info, this.#headerStyle, selected),
      blockSizes: info.blockSizes,
      blockSizesPromised,
    };
  }

  #continueList(entries: Iterator<ExportEntry>): void {
    let bytes = 0;
    while (bytes < LIST_STEP_BYTES) {
      const entry = entries.next();
      if (entry.done) {
        this.#output.push(encodeOptionReply(Option.list, OptionReply.ack));
        this.#state = OPTION_HEADER;
        return;
      }
      const reply = encodeOptionReply(Option.list, OptionReply.server, encodeServerEntry(entry.value));
      bytes += reply.length;
      this.#output.push(reply);
    }
  }

  #asked(): Question {
    requireThat(this.#state.kind === 'asked', 'answered without having been asked');
    return this.#state.question;
  }

  #exportAsked(): Exclude<Question, { kind: 'list' }> {
    const question = this.#asked();
    requireThat(question.kind !== 'list', 'an export was not asked for');
    return question;
  }

  #close(code: CloseCode, reason: string): void {
    if (this.#state.kind === 'listing') this.#state.entries.return?.();
    this.#input.clear();
    this.#state = { kind: 'closed', step: { kind: 'close', code, reason } };
  }

  #takeOutput(): Buffer {
    const bytes = Buffer.concat(this.#output);
    this.#output = [];
    return bytes;
  }
}
