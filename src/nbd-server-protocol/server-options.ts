/**
 * What the server says to an option. Role: the decisions of the handshake that need no state but their
 * arguments; server-handshake.ts keeps the state and the order.
 */

import type { Buffer } from 'node:buffer';
import { type HeaderStyle, Info, Limit, Option, OptionReply, TransmissionFlag } from './constants.ts';
import { ProtocolError } from './errors.ts';
import {
  decodeInfoRequest,
  decodeMetaRequest,
  encodeInfoBlockSize,
  encodeInfoDescription,
  encodeInfoExport,
  encodeInfoName,
  encodeOptionReply,
  type InfoRequest,
  type MetaRequest,
} from './option-codec.ts';
import type { ExportInfo, SelectedContext } from './session.ts';
import { decodeString, encodeText } from './strings.ts';

/** What an option asks of the driver before it can be answered. */
export type Question =
  | { readonly kind: 'list'; readonly option: number }
  | { readonly kind: 'export-name'; readonly option: number; readonly name: string }
  | { readonly kind: 'info'; readonly option: number; readonly name: string; readonly request: InfoRequest }
  | { readonly kind: 'meta'; readonly option: number; readonly name: string; readonly request: MetaRequest };

/** An error reply. */
export interface Refusal {
  readonly type: number;
  readonly text: string;
}

const WITH_DATA: readonly number[] = [
  Option.exportName,
  Option.info,
  Option.go,
  Option.listMetaContext,
  Option.setMetaContext,
];
const WITHOUT_DATA: readonly number[] = [
  Option.list,
  Option.starttls,
  Option.structuredReply,
  Option.extendedHeaders,
];
const KNOWN_INFOS: readonly number[] = Object.values(Info);

/** Whether the data of this option must be kept to answer it. */
export function needsData(option: number, length: number): boolean {
  return WITH_DATA.includes(option) && length <= Limit.optionBytes;
}

/** 'NBD_OPT_SET_META_CONTEXT'; 'option 99' for one that is not known. */
export function optionName(option: number): string {
  for (const [name, value] of Object.entries(Option)) {
    if (value === option) return `NBD_OPT_${name.replace(/[A-Z]/g, '_$&').toUpperCase()}`;
  }
  return `option ${option}`;
}

export function encodeRefusal(option: number, { type, text }: Refusal): Buffer {
  return encodeOptionReply(option, type, encodeText(text));
}

/** What option data asks. Throws ProtocolError: the data is wrong, or comes too early. */
export function understand(option: number, data: Buffer, style: HeaderStyle): Question {
  switch (option) {
    case Option.exportName:
      return { kind: 'export-name', option, name: decodeString(data, 'the export name') };
    case Option.info:
    case Option.go: {
      const request = decodeInfoRequest(data);
      const repeated = request.infos.find(
        (info, i) => KNOWN_INFOS.includes(info) && request.infos.includes(info, i + 1),
      );
      if (repeated === undefined) return { kind: 'info', option, name: request.name, request };
      throw new ProtocolError('bad-message', `information type ${repeated} is requested more than once`);
    }
    default: {
      if (style === 'simple') {
        const text = `${optionName(option)} needs NBD_OPT_STRUCTURED_REPLY or NBD_OPT_EXTENDED_HEADERS before it`;
        throw new ProtocolError('bad-message', text);
      }
      const request = decodeMetaRequest(data);
      return { kind: 'meta', option, name: request.name, request };
    }
  }
}

/** Why an option is refused whose data was thrown away, if it is; the headers agreed on so far are `style`. */
export function refusalWithoutData(option: number, length: number, style: HeaderStyle): Refusal | undefined {
  if (WITH_DATA.includes(option)) {
    const text = `${length} bytes of option data; ${Limit.optionBytes} is the most this server takes`;
    return { type: OptionReply.errTooBig, text };
  }
  if (!WITHOUT_DATA.includes(option)) {
    return { type: OptionReply.errUnsup, text: `${optionName(option)} is not served here` };
  }
  if (length > 0) {
    return {
      type: OptionReply.errInvalid,
      text: `${optionName(option)} takes no data, ${length} bytes came`,
    };
  }
  if (option === Option.starttls) {
    // The place for TLS: acknowledge, forget what was negotiated, and have the driver upgrade the connection.
    return { type: OptionReply.errPolicy, text: 'this server does not offer TLS' };
  }
  if (option === Option.structuredReply && style === 'extended') {
    const text = 'extended headers are agreed on already, and take the place of structured replies';
    return { type: OptionReply.errExtHeaderReqd, text };
  }
  if (style === styleAskedFor(option)) {
    return { type: OptionReply.errInvalid, text: `${optionName(option)} was agreed on before` };
  }
  return undefined;
}

/** The header style that an option stands for. */
export function styleAskedFor(option: number): HeaderStyle | undefined {
  if (option === Option.structuredReply) return 'structured';
  return option === Option.extendedHeaders ? 'extended' : undefined;
}

/** The flags that the client is told: with those that depend on what was negotiated. */
export function sessionFlags(
  info: ExportInfo,
  style: HeaderStyle,
  contexts: readonly SelectedContext[],
): number {
  let flags = info.transmissionFlags | TransmissionFlag.hasFlags;
  if (style !== 'simple') flags |= TransmissionFlag.sendDf;
  if (style === 'extended' && contexts.length > 0) flags |= TransmissionFlag.blockStatusPayload;
  return flags;
}

/** The NBD_REP_INFO replies to INFO or GO: NBD_INFO_EXPORT always, the others when they were asked for. */
export function infoReplies(
  option: number,
  infos: readonly number[],
  info: ExportInfo,
  flags: number,
): Buffer[] {
  const replies = [encodeInfoExport(info.sizeBytes, flags)];
  if (infos.includes(Info.name)) replies.push(encodeInfoName(info.name));
  if (infos.includes(Info.description) && info.description !== undefined) {
    replies.push(encodeInfoDescription(info.description));
  }
  if (infos.includes(Info.blockSize)) replies.push(encodeInfoBlockSize(info.blockSizes));
  return replies.map((data) => encodeOptionReply(option, OptionReply.info, data));
}

/**
 * The contexts that LIST_META_CONTEXT shows (ids are 0) or SET_META_CONTEXT selects (ids from 1). 'base:', or any
 * other namespace alone, stands for all of its contexts in a list, and for none in a selection; names that are
 * not there are passed over ("The base: metadata namespace").
 */
export function chooseContexts(
  option: number,
  queries: readonly string[],
  available: readonly string[],
): readonly SelectedContext[] | Refusal {
  const listing = option === Option.listMetaContext;
  const names = new Set<string>(listing && queries.length === 0 ? available : []);
  for (const query of queries) {
    if (query.indexOf(':') < 1) {
      const text = 'a query is a namespace, a colon and a name, such as base:allocation';
      return { type: OptionReply.errInvalid, text };
    }
    const wildcard = listing && query.endsWith(':') && query.indexOf(':') === query.length - 1;
    for (const name of available) {
      if (name === query || (wildcard && name.startsWith(query))) names.add(name);
    }
  }
  if (!listing && names.size > Limit.metaContexts) {
    const text = `${names.size} contexts; ${Limit.metaContexts} is the most this server takes`;
    return { type: OptionReply.errTooBig, text };
  }
  return Array.from(names, (name, i) => ({ id: listing ? 0 : i + 1, name }));
}
