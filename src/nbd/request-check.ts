/**
 * What a request must be before it reaches a Volume, and which error it gets when it is not ("Request types",
 * "Command flags" and "Error values" of the protocol document). Pure; says nothing and allocates nothing when
 * all is well.
 *
 * Where the document leaves a choice:
 *  - a length of 0 succeeds without effect, but for BLOCK_STATUS, which cannot describe nothing (EINVAL);
 *  - READ of more than the maximum payload is refused (EOVERFLOW where replies are chunks, else EINVAL);
 *  - WRITE of more than that: its payload is consumed and the request refused (EINVAL); with extended headers
 *    the connection is closed, as that document asks.
 */

import {
  Command,
  CommandFlag,
  Errno,
  type HeaderStyle,
  TransmissionFlag,
} from '../nbd-server-protocol/constants.ts';
import type { Request } from '../nbd-server-protocol/request-decoder.ts';
import type { Refusal } from './errno.ts';

/** What the checks need to know of the connection and its export. */
export interface RequestRules {
  readonly headerStyle: HeaderStyle;
  readonly transmissionFlags: number;
  readonly contextCount: number;
  readonly minimumBlock: number;
  readonly maximumPayload: number;
}

/** Flags that a command may carry beside FUA, whatever was agreed on. */
const FLAGS: Readonly<Record<number, number>> = {
  [Command.read]: CommandFlag.df,
  [Command.write]: CommandFlag.payloadLen,
  [Command.disconnect]: 0,
  [Command.flush]: 0,
  [Command.trim]: 0,
  [Command.cache]: 0,
  [Command.writeZeroes]: CommandFlag.noHole | CommandFlag.fastZero,
  [Command.blockStatus]: CommandFlag.reqOne | CommandFlag.payloadLen,
  [Command.resize]: 0,
};

/** The transmission flag without which a command does not exist. */
const ADVERTISED_BY: Readonly<Record<number, number>> = {
  [Command.flush]: TransmissionFlag.sendFlush,
  [Command.trim]: TransmissionFlag.sendTrim,
  [Command.cache]: TransmissionFlag.sendCache,
  [Command.writeZeroes]: TransmissionFlag.sendWriteZeroes,
  [Command.resize]: TransmissionFlag.sendResize,
};

/** A command flag that exists only when a transmission flag says so. */
const FLAG_NEEDS: readonly (readonly [flag: number, needs: number, name: string])[] = [
  [CommandFlag.fua, TransmissionFlag.sendFua, 'FUA'],
  [CommandFlag.df, TransmissionFlag.sendDf, 'DF'],
  [CommandFlag.fastZero, TransmissionFlag.sendFastZero, 'FAST_ZERO'],
];

const WRITES = new Set<number>([Command.write, Command.trim, Command.writeZeroes, Command.resize]);
const OUT_OF_SPACE = new Set<number>([Command.write, Command.writeZeroes]);

function invalid(text: string): Refusal {
  return { errno: Errno.EINVAL, text };
}

/**
 * True when the connection must be closed rather than answered: a payload larger than was ever agreed on, with
 * extended headers. (Compact ones consume it and answer.)
 */
export function mustDisconnect(request: Request, rules: RequestRules): boolean {
  return rules.headerStyle === 'extended' && request.payloadLength > rules.maximumPayload;
}

/** Undefined when the request may go on. `sizeBytes` is the size of the export now. */
export function checkRequest(request: Request, rules: RequestRules, sizeBytes: number): Refusal | undefined {
  const { command, flags, length } = request;
  const known = FLAGS[command];
  if (known === undefined) return invalid(`command ${command} is not known`);
  if (flags !== 0) {
    const wrong = checkFlags(request, rules, known);
    if (wrong !== undefined) return wrong;
  }
  if (
    command === Command.write &&
    rules.headerStyle === 'extended' &&
    (flags & CommandFlag.payloadLen) === 0
  ) {
    return invalid('a write with extended headers must carry PAYLOAD_LEN');
  }
  if (WRITES.has(command) && (rules.transmissionFlags & TransmissionFlag.readOnly) !== 0) {
    return { errno: Errno.EPERM, text: 'the export is read-only' };
  }
  const advertised = ADVERTISED_BY[command];
  if (advertised !== undefined && (rules.transmissionFlags & advertised) === 0) {
    return invalid(`command ${command} is not offered by this export`);
  }
  if (command === Command.flush) {
    if (request.offset !== 0 || length !== 0) return invalid('offset and length of a flush must be 0');
    return undefined;
  }
  if (command === Command.resize) return undefined;
  if (command === Command.blockStatus) {
    if (rules.contextCount === 0) return invalid('no metadata context was selected in the handshake');
    // The payload form tells its effect length later; the whole request is checked then.
    if ((flags & CommandFlag.payloadLen) !== 0) return undefined;
    if (length === 0) return invalid('a block status of 0 bytes');
  }
  return checkRange(command, request.offset, length, rules, sizeBytes);
}

function checkFlags(request: Request, rules: RequestRules, known: number): Refusal | undefined {
  const { flags } = request;
  const unknown = flags & ~(known | CommandFlag.fua);
  if (unknown !== 0)
    return invalid(`flags 0x${unknown.toString(16)} do not belong to command ${request.command}`);
  for (const [flag, needs, name] of FLAG_NEEDS) {
    if ((flags & flag) !== 0 && (rules.transmissionFlags & needs) === 0)
      return invalid(`${name} was not offered`);
  }
  if ((flags & CommandFlag.payloadLen) === 0) return undefined;
  if (rules.headerStyle !== 'extended') return invalid('PAYLOAD_LEN without extended headers');
  if (request.payloadLength === 0) return invalid('PAYLOAD_LEN with a payload of 0 bytes');
  const offered = (rules.transmissionFlags & TransmissionFlag.blockStatusPayload) !== 0;
  if (request.command === Command.blockStatus && !offered)
    return invalid('a block status payload was not offered');
  return undefined;
}

/** Bounds, alignment and size of a request on a range. */
export function checkRange(
  command: number,
  offset: number,
  length: number,
  rules: RequestRules,
  sizeBytes: number,
): Refusal | undefined {
  if (offset + length > sizeBytes) {
    const errno = OUT_OF_SPACE.has(command) ? Errno.ENOSPC : Errno.EINVAL;
    return { errno, text: `the request ends behind the export's last byte (size ${sizeBytes})` };
  }
  if (rules.minimumBlock > 1 && (offset % rules.minimumBlock !== 0 || length % rules.minimumBlock !== 0)) {
    return invalid(`offset and length must be multiples of ${rules.minimumBlock}`);
  }
  if (length > rules.maximumPayload && (command === Command.read || command === Command.write)) {
    const errno = command === Command.read && rules.headerStyle !== 'simple' ? Errno.EOVERFLOW : Errno.EINVAL;
    return { errno, text: `more than ${rules.maximumPayload} bytes in one request` };
  }
  return undefined;
}
